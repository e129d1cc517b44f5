"""The study page as a browser shows it: wide, narrow, dark, without JavaScript; what it holds, and its harmlessness."""

import json
import re
import time

import optuna
import pytest
from browser import errors, requests
from many_trials import write_study
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from studies import add_trial, new_study, write_run

from analysis.load import load
from analysis.report import main

MOST_BYTES = 6_000_000
WIDER = "const node = document.documentElement; return node.scrollWidth - node.clientWidth"


def report(runs, *studies):
    """Write the page of these studies; its path."""
    main(["--study", *studies, "--runs", str(runs)])
    return runs / studies[0] / "report.html" if len(studies) == 1 else runs / f"report_{'+'.join(studies)}.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study of twelve trials, three of whose settings were repeated."""
    runs = tmp_path_factory.mktemp("page")
    write_study(runs, trials=12, seeds=4)
    return report(runs, "loss_weights")


@pytest.fixture
def opened(browser):
    """Opens a page from disk in a window of some width; it must not ask the network for anything."""

    def open_page(page, width=1280, dark=False, script=True):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        browser.get(page.as_uri())
        return browser

    yield open_page
    assert errors(browser) == []
    assert requests(browser) == []
    for reset in ("clearDeviceMetricsOverride", "setEmulatedMedia"):
        browser.execute_cdp_cmd(f"Emulation.{reset}", {"features": []} if "Media" in reset else {})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def enliven(browser):
    """Scroll through the page, until each plot is live."""
    figures = browser.find_elements(By.CSS_SELECTOR, "figure.chart")
    live = "return arguments[0].querySelector('.vega-embed svg.marks') !== null"
    for figure in figures:
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", figure)
        deadline = time.monotonic() + 20
        while not browser.execute_script(live, figure):
            assert time.monotonic() < deadline, figure.text
            time.sleep(0.02)
    return figures


def plot_called(browser, title):
    """The first plot with these words in its title."""
    return next(f for f in browser.find_elements(By.CSS_SELECTOR, "figure.chart") if title in f.text)


def overprinted(browser):
    """Texts of plots that lie on one another, and those that reach out of their drawing."""
    script = """
        const found = [];
        for (const svg of document.querySelectorAll('.plot svg')) {
            const frame = svg.getBoundingClientRect();
            const seen = (text) => text.textContent && getComputedStyle(text).opacity > 0.9;
            const texts = [...svg.querySelectorAll('text')].filter(seen);
            const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
            boxes.forEach(([text, a], n) => {
                if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push(`${text} is cut`);
                for (const [other, b] of boxes.slice(n + 1)) {
                    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                    const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                    if (text !== other && x > 2 && y > 4) found.push(`${text} on ${other}`);
                }
            });
        }
        return found"""
    return browser.execute_script(script)


def hover(browser, figure, mark):
    """Put the pointer in the middle of one of a plot's marks; what it then says, by title."""
    place = (
        "const r = arguments[0].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2].map(Math.round)"
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", figure)
    nodes = figure.find_elements(By.CSS_SELECTOR, f".plot {mark}")
    move = ActionChains(browser, duration=0)
    move.w3c_actions.pointer_action.move_to_location(*browser.execute_script(place, nodes[-1]))
    move.perform()
    rows = browser.execute_script(
        """return [...document.querySelectorAll('#vg-tooltip-element.visible tr')]
           .map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"""
    )
    return dict(rows)


def test_it_begins_with_the_verdict_and_what_it_rests_on_follows(page, opened):
    browser = opened(page)
    finding = browser.find_element(By.CSS_SELECTOR, ".verdict .finding")
    assert re.match(
        r"Trial \d+ \(w_aff .* the preset by 0\.\d{3} ± 0\.\d{3} segmentation mIoU over 4 seeds\.", finding.text
    )
    assert finding.rect["y"] < 200
    assert "Next" in browser.find_element(By.CSS_SELECTOR, ".verdict").text
    links = browser.find_elements(By.CSS_SELECTOR, "nav a")
    assert [link.text for link in links] == [
        *("Settings, ranked", "Parameters", "Learning curves", "CAMs", "The same images", "Trials and cost"),
    ]
    for link in links:
        assert browser.find_elements(By.ID, link.get_attribute("href").split("#")[1])
    section = browser.find_element(By.ID, "s0-curves")
    height = section.size["height"]
    section.find_element(By.TAG_NAME, "summary").click()
    assert section.size["height"] < height / 3


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_it_fits_the_window_and_nothing_is_printed_over(page, opened, width, dark):
    browser = opened(page, width, dark)
    figures = enliven(browser)
    assert browser.execute_script(WIDER) <= 0
    assert overprinted(browser) == []
    assert len(figures) == 14  # 2 of the ranking, 5 effects, importance, parallel, curves, two CAMs, scatter, classes
    colours = browser.execute_script(
        """const of = (node, name) => getComputedStyle(node)[name].match(/\\d+/g).map(Number).slice(0, 3);
           const text = document.querySelector('.plot svg text'), card = document.querySelector('details.card');
           return [of(text, 'fill'), of(card, 'backgroundColor')]"""
    )
    ink, paper = (0.299 * r + 0.587 * g + 0.114 * b for r, g, b in colours)
    assert (ink - paper > 120) if dark else (paper - ink > 120)


@pytest.mark.parametrize("width", [1280, 390])
def test_without_javascript_it_has_the_verdict_tables_plots_and_a_choice_of_pictures(page, opened, width):
    browser = opened(page, width, script=False)
    assert browser.execute_script("return document.querySelector('.vega-embed')") is None
    assert browser.execute_script(WIDER) <= 0
    assert overprinted(browser) == []
    drawings = browser.find_elements(By.CSS_SELECTOR, "figure.chart .plot svg")
    assert len(drawings) == 14 and all(drawing.rect["width"] > 200 for drawing in drawings)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#s0-settings tbody tr")) > 5
    assert_the_choice_is_what_is_shown(browser)
    browser.find_elements(By.CSS_SELECTOR, "input.choose:not(:checked)")[0].click()  # CSS alone
    assert_the_choice_is_what_is_shown(browser)


def assert_the_choice_is_what_is_shown(browser, images=3):
    """Exactly the pictures of the ticked trials are there, of each image."""
    ticked = {box.get_attribute("value") for box in browser.find_elements(By.CSS_SELECTOR, "input.choose:checked")}
    strips = [strip for strip in browser.find_elements(By.CSS_SELECTOR, ".strip") if strip.is_displayed()]
    assert {re.search(r"of(\d+)", strip.get_attribute("class"))[1] for strip in strips} == ticked
    assert len(strips) == images * len(ticked)


def test_the_pointer_finds_trial_and_setting_in_each_plot(page, opened):
    browser = opened(page)
    points, lines = ".role-mark.mark-symbol path", '.mark-rule line[stroke-width="9"]'
    for figure in enliven(browser):
        title = figure.find_element(By.TAG_NAME, "h4").text
        if title == "Importance":
            assert hover(browser, figure, ".mark-rect.role-mark path").keys() == {"parameter", "importance"}
            continue
        told = hover(browser, figure, lines if "line a trial" in title or "by step" in title else points)
        assert re.fullmatch(r"trial \d+", told["trial"]), title
        assert "w_aff 0." in told["setting"], title
        assert len(told) > 2, title


def test_ticked_trials_are_in_the_cam_plots_and_in_the_pictures(page, opened):
    browser = opened(page)
    enliven(browser)
    curves = plot_called(browser, "CAM over")
    count = "return arguments[0].querySelectorAll('.plot .mark-line.role-mark path').length"
    before = browser.execute_script(count, curves)
    box = browser.find_elements(By.CSS_SELECTOR, "input.choose:not(:checked)")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", box)
    box.click()
    deadline = time.monotonic() + 10
    while browser.execute_script(count, curves) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert browser.execute_script(count, curves) == before + 1
    assert_the_choice_is_what_is_shown(browser)
    widths = """return Promise.all([...document.images].map((image) => {
        image.loading = 'eager';
        return image.decode().then(() => image.naturalWidth) }))"""
    assert set(browser.execute_script(widths)) == {7 * 96}


def test_the_slider_colours_more_of_the_best_trials(page, opened):
    browser = opened(page)
    enliven(browser)
    figure = plot_called(browser, "line a trial")
    coloured = "return arguments[0].querySelectorAll('.mark-line.role-mark path[stroke-width=\"2\"]').length"
    before = browser.execute_script(coloured, figure)
    slider = figure.find_element(By.CSS_SELECTOR, ".controls input")
    browser.execute_script("arguments[0].value = 5; arguments[0].dispatchEvent(new Event('input'))", slider)
    deadline = time.monotonic() + 10
    while browser.execute_script(coloured, figure) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (before, browser.execute_script(coloured, figure)) == (2, 5)


def test_the_alternative_text_of_each_plot_says_its_numbers(page, opened):
    browser = opened(page)
    says = [plot.get_attribute("aria-label") for plot in browser.find_elements(By.CSS_SELECTOR, ".plot")]
    assert len(says) == 14
    for text in says:
        assert len(re.findall(r"\d*\.\d+", text)) >= 2, text
        assert "nan" not in text.lower() and len(text) > 40, text
    pictures = browser.find_elements(By.TAG_NAME, "img")
    assert all("under trial" in picture.get_attribute("alt") for picture in pictures)


def test_texts_of_a_study_are_text_whatever_stands_in_them(tmp_path, opened):
    evil = "</script><script>window.hurt = 1</script><img src=http://127.0.0.1:9/x onerror='window.hurt=1'>\"&amp;"
    evil += "{{ 7 * 7 }}"
    folder, study = new_study(tmp_path)
    definition = json.loads(folder.study_file.read_text())
    definition["base"]["train_set"] = evil
    definition["space"] = {evil: {}, "w": {}}
    folder.study_file.write_text(json.dumps(definition))
    for number, choice in enumerate((evil, "b", evil, "b")):
        trial = study.ask({evil: optuna.distributions.CategoricalDistribution([evil, "b"])})
        trial.suggest_float("w", 0, 1)
        trial.set_user_attr("error", evil)
        write_run(folder.run(number), **{"val/seg_miou": 0.2 + 0.1 * (choice == "b") + 0.01 * number})
        quality = json.loads(folder.run(number).quality_file.read_text())
        quality["class_names"][1] = evil
        folder.run(number).quality_file.write_text(json.dumps(quality))
        study.tell(trial, 0.2 + 0.1 * (choice == "b") + 0.01 * number)
    add_trial(study, 0.4, "fail")
    browser = opened(report(tmp_path, "smoke"))
    figures = enliven(browser)
    assert browser.execute_script("return window.hurt") is None
    assert browser.find_elements(By.CSS_SELECTOR, "img, body script:not([type]) ~ script[src]") == []
    assert evil in browser.find_element(By.CSS_SELECTOR, ".facts").text
    assert evil in browser.execute_script("return document.querySelector('#s0-trials').textContent")
    assert any(evil[:20] in figure.text for figure in figures)
    told = hover(browser, figures[0], ".role-mark.mark-symbol path")
    assert "<script>window.hurt = 1</script>" in told["setting"]
    assert browser.execute_script("return window.hurt") is None


def test_nothing_but_the_pages_own_scripts_may_run_and_nothing_is_loaded(page):
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert re.fullmatch(r"('sha256-[\w+/=]+' ?){2}", rules["script-src"])
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']?(https?:)?//", text)


def test_a_study_of_every_state_is_shown_and_one_of_none_says_so(all_states, opened):
    new_study(all_states, "empty")
    browser = opened(report(all_states, "smoke", "empty"))
    enliven(browser)
    smoke, empty = (node.text for node in browser.find_elements(By.CSS_SELECTOR, ".verdict"))
    assert "smoke: unproven" in smoke and "scored best of 2 settings" not in smoke
    assert "empty: nothing finished" in empty and "No trial has begun." in empty and " sweep --study empty" in empty
    rows = browser.find_elements(By.CSS_SELECTOR, "#s0-trials tbody tr")
    states = [row.find_element(By.CSS_SELECTOR, "td:nth-child(2)").get_attribute("textContent") for row in rows]
    assert states == ["complete", "pruned", "fail", "running", "complete", "complete", "waiting"]
    ends = [row.find_element(By.CSS_SELECTOR, "td:nth-child(6)").get_attribute("textContent") for row in rows]
    assert ends[0] == "preempted, finished" and ends[3] == ""  # the running one's attempt has not ended
    assert "not finite: loss nan at step 7" in browser.execute_script(
        "return document.querySelector('#s0-trials').textContent"
    )


def test_a_study_without_trials_leaves_the_kinds_of_another_ones_columns(all_states):
    new_study(all_states, "empty")
    alone, beside = load("smoke", runs=all_states).trials, load("empty", "smoke", runs=all_states).trials
    assert beside.dtypes.equals(alone.dtypes)


def test_a_page_of_several_studies_leaves_that_of_each_alone(tmp_path, page):
    runs = page.parent.parent
    before = page.read_bytes()
    new_study(runs, "other")
    together = report(runs, "loss_weights", "other")
    assert together.name == "report_loss_weights+other.html" and together.exists()
    assert page.read_bytes() == before


def test_pictures_that_cannot_be_read_are_named_and_the_page_is_made(tmp_path):
    folder = write_study(tmp_path, trials=3, seeds=0, pictures=1)
    (events,) = folder.run(1).folder.glob("events.out.*")
    content = bytearray(events.read_bytes())
    content[-200:-100] = bytes(100)
    events.write_bytes(content)
    text = report(tmp_path, "loss_weights").read_text()
    assert "The pictures of trial 1 cannot be read:" in text
    assert text.count("data:image/webp") == 2


def test_a_study_that_is_not_there_is_reported_in_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--study", "smoke", "--runs", str(tmp_path)])
    assert end.value.code == 2
    assert "there is no study in" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_trials_fit_into_six_megabytes_and_are_there_within_fifteen_seconds(tmp_path, opened):
    write_study(tmp_path, trials=100, seeds=5, classes=21)
    started = time.process_time()
    page = report(tmp_path, "loss_weights")
    seconds, size = time.process_time() - started, page.stat().st_size
    print(f"\npage of 112 trials: {seconds:.1f} s of the processor, {size / 1e6:.2f} MB")
    assert seconds < 15 and size < MOST_BYTES
    browser = opened(page, 390)
    enliven(browser)
    assert browser.execute_script(WIDER) <= 0


@pytest.mark.slow
def test_the_page_of_a_study_that_was_really_swept_has_its_pictures(swept, opened, tmp_path):
    main(["--study", "smoke", "--runs", str(swept), "--out", str(tmp_path / "page.html")])
    browser = opened(tmp_path / "page.html")
    enliven(browser)
    assert_the_choice_is_what_is_shown(browser, images=1)
    assert "fresh seeds" in browser.find_element(By.ID, "s0-settings").text
