"""The paper's table of a study in its page, as a browser shows it, wide and narrow, with and without JavaScript."""

import pytest
from browser import errors, requests
from evaluations import write_evaluation
from many_trials import write_study
from selenium.webdriver.common.by import By

from analysis.report import main

WIDER = "const node = document.documentElement; return node.scrollWidth - node.clientWidth"
CUT = """return [...document.querySelectorAll('#s0-checkpoints .scroll')].map((frame) => {
    const cell = frame.querySelector('tbody tr:last-child td:last-child').getBoundingClientRect();
    frame.scrollLeft = frame.scrollWidth;
    const now = frame.querySelector('tbody tr:last-child td:last-child').getBoundingClientRect();
    return now.right - frame.getBoundingClientRect().right })"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study of six settings, two of which were repeated; all of its checkpoints are evaluated."""
    runs = tmp_path_factory.mktemp("page")
    folder = write_study(runs, trials=6, seeds=3, pictures=0)
    trials = [int(path.name.removeprefix("trial_")) for path in folder.trial_folders()]
    write_evaluation(folder, {trial: trial % 4 / 100 for trial in trials})
    main(["--study", folder.name, "--runs", str(runs)])
    return folder.folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_is_read_at_any_width(page, browser, width, script):
    metrics = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    try:
        browser.get(page.as_uri())
        section = browser.find_element(By.ID, "s0-checkpoints")
        assert "Checkpoints, inferred" in browser.find_element(By.TAG_NAME, "nav").text
        heads = [head.get_attribute("textContent") for head in section.find_elements(By.CSS_SELECTOR, "th")][:9]
        assert heads == [
            *("trial", "network", "seeds", "CAM seed, train", "pseudo label, train", "single scale, val"),
            *("multi-scale, val", "class-gated, val", "multi-scale + CRF, val"),
        ]
        rows = section.find_elements(By.CSS_SELECTOR, "tbody tr")
        assert rows[0].text.startswith("trial 0 student 3 ")
        tables = section.find_elements(By.TAG_NAME, "table")
        assert len(tables) == 4  # means, differences, two groups of published numbers
        assert tables[1].find_elements(By.CSS_SELECTOR, ".badge") and "FSR" in tables[2].text
        assert "WeCLIP+" not in tables[2].text and "WeCLIP+" in tables[3].text
        assert "of other data than" in section.text
        assert browser.execute_script(WIDER) <= 0
        assert all(over <= 1 for over in browser.execute_script(CUT))  # each table scrolls to its last column
        assert errors(browser) == [] and requests(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
