"""A real, headless browser for pages that people look at; `conftest.py` has one as the fixture `browser`."""

import os
import shutil

from selenium import webdriver

MISSING = "Chromium or its driver is not installed (Debian: apt-get install chromium chromium-driver)"
OPTIONS = (
    # As root, in a container, and silent: nothing but the pages under test may go to the network.
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def available():
    """Whether the browser is here. Where FSR_REQUIRE_DAEMONS is set, as in CI, its lack is an error."""
    return bool(os.environ.get("FSR_REQUIRE_DAEMONS")) or None not in _programs()


def _programs():
    return shutil.which("chromium"), shutil.which("chromedriver")


def start(profile):
    """A browser of 1280 × 900 pixels with an empty profile in that folder."""
    chromium, driver = _programs()
    assert chromium and driver, MISSING  # selenium would look for them on the network
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, "--window-size=1280,900", f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def errors(browser):
    """What went to the console at level SEVERE since this was last asked: exceptions, failed or refused loads."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def requests(browser):
    """What the page has loaded or tried to load beside itself and what it holds as data."""
    names = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    return [name for name in names if not name.startswith("data:")]


def screenshot(browser, path, width=1280, height=900):
    """What a window of that size in pixels shows once it is drawn, as a PNG; the window keeps the size."""
    browser.set_window_size(width, height)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    browser.save_screenshot(path)
