"""What can be done with the page of an inference, as a browser shows it: over the pictures, by keys, without
JavaScript, on a small and a dark screen; and of two inferences beside each other."""

import dataclasses
import re
from io import BytesIO

import numpy as np
import pytest
from browser import errors, requests
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from test_report import PICTURE, content, image, shown, texts

from fsr.data.palette import voc_palette
from fsr.inference.cam_maps import CamMaps
from fsr.inference.report import GalleryImage, write_report
from fsr.inference.tiles import tiles

SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@pytest.fixture
def page(browser, tmp_path):
    """Writes a report and opens it in a window of a size; afterwards there must have been no error and no request."""

    def opened(size="wide", **changes):
        browser.set_window_size(1280, 900)
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        write_report(tmp_path / "report.html", **content(**changes))
        browser.get((tmp_path / "report.html").as_uri())
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert errors(browser) == []
    assert requests(browser) == []


def two_sides():
    """The sides, images and columns of a comparison."""
    (one,) = content()["sides"]
    worse = {kind: score | {"miou": 0.6, "iou": [0.8, 0.35, None, 0.6921]} for kind, score in one.scores.items()}
    sides = [dataclasses.replace(one, letter="A"), dataclasses.replace(one, letter="B", scores=worse)]
    gallery = [image("far", (1, 3), 0.9, 0.2), image("near", (1,), 0.2, 0.6), image("same", (2,), 0.5, 0.5)]
    return {"sides": sides, "gallery": gallery, "images": 3}


def style(page, selector, name):
    """A computed property of the first element, as drawn."""
    script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    return page.execute_script(script, selector, name)


def pixel(page, selector, x, y):
    """The colour at a place of an element, whose sides are 1, as the browser draws it."""
    element = page.find_element(By.CSS_SELECTOR, selector)
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    drawn = Image.open(BytesIO(element.screenshot_as_png)).convert("RGB")
    return np.array(drawn.getpixel((int(x * drawn.width), int(y * drawn.height))), float)


def press(page, *keys):
    for key in keys:
        ActionChains(page).send_keys(key).perform()


def set_slider(page, value):
    script = """const slider = document.querySelector(".opacity"); slider.value = arguments[0];
                slider.dispatchEvent(new Event("input"))"""
    page.execute_script(script, value)


def test_layers_lie_over_the_photograph_each_class_at_its_place_and_the_slider_fades_them(page):
    maps = np.zeros((2, 12, 16), np.uint8)
    maps[0, :6, :8], maps[1, 6:, 8:] = 255, 128
    labels = np.zeros((48, 64), np.uint8)
    labels[:24, :32], labels[24:, 32:] = 1, 3
    made = tiles(Image.new("RGB", (64, 48), (90, 90, 90)), {"CAM": CamMaps((1, 3), maps), "segmentation": labels})
    answer = dataclasses.replace(image("one", (1, 3), 0.5).answers[0], strips=made.strips)
    one = GalleryImage("one", (1, 3), made.size, made.photograph, made.strips["segmentation"], (answer,))
    browser = page(gallery=[one])
    set_slider(browser, 100)
    colours = voc_palette().astype(float)
    for column in (1, 3):
        assert pixel(browser, f"article .k{column} .stack", 0.2, 0.2) == pytest.approx(colours[1], abs=3)
        assert pixel(browser, f"article .k{column} .stack", 0.8, 0.8) == pytest.approx(colours[3], abs=3)
        assert pixel(browser, f"article .k{column} .stack", 0.8, 0.2) == pytest.approx([90] * 3, abs=6)
    heat = {(0.2, 0.2): (128, 0, 0), (0.8, 0.8): (128, 255, 128), (0.8, 0.2): (0, 0, 128)}  # strongest, half, nothing
    for place, colour in heat.items():
        assert pixel(browser, "article .k2 .stack", *place) == pytest.approx(colour, abs=20), place
    set_slider(browser, 50)
    assert pixel(browser, "article .k3 .stack", 0.2, 0.2) == pytest.approx((colours[1] + 90) / 2, abs=4)
    browser.find_element(By.ID, "layers").click()
    assert pixel(browser, "article .k3 .stack", 0.2, 0.2) == pytest.approx([90] * 3, abs=6)


def test_a_class_is_hidden_in_all_layers_and_shown_again(page):
    browser = page()
    browser.find_element(By.XPATH, "//summary[contains(., 'Classes')]").click()
    parts = """return [...document.querySelectorAll("article .layer i")].filter((part) => part.checkVisibility())
               .map((part) => part.className)"""
    assert set(browser.execute_script(parts)) == {"c1", "c2", "c3"}
    browser.find_element(By.CSS_SELECTOR, "#shown-classes [data-class='3']").click()
    assert set(browser.execute_script(parts)) == {"c1", "c2"}
    browser.find_element(By.ID, "no-classes").click()
    assert browser.execute_script(parts) == []
    browser.find_element(By.ID, "all-classes").click()
    assert set(browser.execute_script(parts)) == {"c1", "c2", "c3"}
    browser.find_element(By.CSS_SELECTOR, "[data-column='0']").click()
    assert texts(browser, ".columns span") == ["ground truth", "CAM", "segmentation"]
    assert texts(browser, "article:first-of-type figcaption") == ["ground truth", "CAM", "segmentation"]


def transforms(page):
    script = "return [...document.querySelectorAll('dialog .view')].map((view) => getComputedStyle(view).transform)"
    found = {tuple(map(float, re.findall(r"-?[\d.]+", one))) for one in page.execute_script(script)}
    assert len(found) == 1, "all tiles look at the same place"
    scale, _, _, _, x, y = found.pop()
    return scale, x, y


def test_wheel_buttons_and_fingers_zoom_all_tiles_at_once_about_the_pointer(page):
    browser = page(gallery=[image("one", (1, 3), 0.5)])
    browser.find_element(By.CSS_SELECTOR, "article .stack").click()
    tile = browser.find_element(By.CSS_SELECTOR, "dialog .k1 .stack")
    box = browser.execute_script("return arguments[0].getBoundingClientRect()", tile)
    assert transforms(browser) == (1, 0, 0)
    dx, dy = int(box["width"] / 4), int(box["height"] / 4)
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(tile, dx, dy), 0, -300).perform()
    scale, x, y = transforms(browser)
    assert scale == pytest.approx(np.exp(300 / 400), rel=0.01)
    at = (box["width"] / 2 + dx, box["height"] / 2 + dy)
    assert (x + scale * at[0], y + scale * at[1]) == pytest.approx(at, abs=1.5), "what was there stayed there"
    for name, factor in {"zoom in": 1.5, "zoom out": 1 / 1.5}.items():
        before = transforms(browser)[0]
        browser.find_element(By.CSS_SELECTOR, f"[aria-label='{name}']").click()
        assert transforms(browser)[0] == pytest.approx(before * factor, rel=0.01)
    ActionChains(browser).drag_and_drop_by_offset(tile, 20, 10).perform()
    assert transforms(browser)[1:] == pytest.approx((x + 20, y + 10), abs=25)
    press(browser, "0")
    assert transforms(browser) == (1, 0, 0)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 60), ("touchEnd", None)):
        points = (
            []
            if apart is None
            else [{"x": middle[0] + side * apart, "y": middle[1], "id": side + 1} for side in (-1, 1)]
        )
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert transforms(browser)[0] == pytest.approx(3, rel=0.1)
    press(browser, "0", "+", "+", "-")
    assert transforms(browser)[0] == pytest.approx(1.5)


def test_a_cell_of_the_confusion_matrix_shows_its_images_the_worst_first(page):
    browser = page()
    assert texts(browser, ".confusions li > :first-child")[:2] == ["aeroplane → background", "aeroplane → bicycle"]
    assert texts(browser, ".confusions li > :last-child")[:2] == ["30.0 %", "10.0 %"]
    cell = ".matrix [aria-label='aeroplane → background: 30.0 %']"
    labels = Select(browser.find_element(By.ID, "matrix-of"))
    labels.select_by_visible_text("segmentation + CRF")  # of which no image has counts here
    browser.find_element(By.CSS_SELECTOR, cell).click()
    assert shown(browser) == ([], "showing 0 of 4 (of 1449 images)")
    labels.select_by_visible_text("segmentation")
    assert len(shown(browser)[0]) == 4
    browser.find_element(By.CSS_SELECTOR, cell).click()
    assert shown(browser) == (["2007_b", "2007_a"], "showing 2 of 4 (of 1449 images)")
    chip = browser.find_element(By.ID, "cell")
    assert chip.text == "segmentation: aeroplane → background ✕" and browser.switch_to.active_element == chip
    Select(browser.find_element(By.ID, "class")).select_by_visible_text("bird (2)")
    assert shown(browser)[0] == ["2007_b"]
    chip.click()
    assert shown(browser)[0] == ["2008_worst", "2007_b"] and not chip.is_displayed()


def test_the_matrix_is_walked_by_arrow_keys(page):
    browser = page()
    Select(browser.find_element(By.ID, "matrix-of")).select_by_visible_text("segmentation")
    first = browser.find_element(By.CSS_SELECTOR, ".matrix button[tabindex='0']")
    browser.execute_script("arguments[0].focus()", first)
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("aria-label") == "bird → aeroplane: 5.0 %"
    press(browser, Keys.ENTER)
    assert shown(browser)[0] == ["2008_worst"]
    press(browser, Keys.ESCAPE)
    assert len(shown(browser)[0]) == 4


def test_all_of_the_gallery_is_reached_by_keys(page):
    browser = page()
    focused = lambda: browser.switch_to.active_element.get_attribute("aria-label")  # noqa: E731
    browser.execute_script(
        "document.querySelector('#shown-classes').closest('details').nextElementSibling.firstElementChild.focus()"
    )
    press(browser, Keys.TAB)
    assert focused() == "2008_worst"
    assert style(browser, ":focus-visible", "outline-style") == "solid"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert focused() == "2007_b"
    press(browser, Keys.ENTER)
    title = browser.find_element(By.CSS_SELECTOR, "dialog h3")
    assert title.text == "2007_b" and texts(browser, "dialog .iou") == ["IoU 50.0 %"]
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert title.text == "2007_unknown"
    press(browser, Keys.ARROW_LEFT, "o")
    assert title.text == "2007_b" and style(browser, "dialog .layer", "display") == "none"
    press(browser, "o", "3")
    assert style(browser, "dialog .layer", "display") == "block"
    assert texts(browser, "dialog figcaption") == ["image", "ground truth", "segmentation"]
    press(browser, "3", Keys.ESCAPE)
    assert not browser.find_element(By.TAG_NAME, "dialog").is_displayed() and focused() == "2007_b"
    search = browser.find_element(By.ID, "name")
    search.send_keys("o1")  # a sign that is typed is no key of the page
    assert style(browser, "article .layer", "display") == "block" and search.get_attribute("value") == "o1"


def test_every_control_has_a_name(page):
    browser = page(**two_sides())
    script = """const labelled = (node) => [...(node.labels ?? [])].some((label) => label.textContent.trim());
        return [...document.querySelectorAll("button, input, select, article, dialog, [role]")]
            .filter((node) => !node.hidden && !node.getAttribute("aria-label"))
            .filter((node) => !node.textContent.trim() && !labelled(node))
            .map((node) => node.outerHTML)"""
    assert browser.execute_script(script) == []


OVERPRINTED = """
const kinds = "h1, h2, h3, p, th, td, a, li, label, summary, figcaption, output, .caption > *, svg text";
const words = [...document.querySelectorAll(kinds)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && node.textContent.trim())
    .map((node) => {
        const range = document.createRange();
        range.selectNodeContents(node);
        let { left, right, top, bottom } = range.getBoundingClientRect();
        for (let box = node.parentElement; box; box = box.parentElement) {  // what is scrolled away is not printed
            if (getComputedStyle(box).overflowX === "visible") continue;
            const edge = box.getBoundingClientRect();
            [left, right] = [Math.max(left, edge.left), Math.min(right, edge.right)];
            [top, bottom] = [Math.max(top, edge.top), Math.min(bottom, edge.bottom)];
        }
        return { node, left, right, top, bottom };
    }).filter((box) => box.right - box.left > 1 && box.bottom - box.top > 1);
return words.flatMap((one, place) => words.slice(place + 1)
    .filter((other) => !one.node.contains(other.node) && !other.node.contains(one.node))
    .filter((other) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1.5
        && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1.5)
    .map((other) => [one.node.textContent, other.node.textContent]));
"""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", [1, 2])
def test_nothing_is_wider_than_the_window_and_no_words_lie_on_others(page, size, sides):
    browser = page(size, **(two_sides() if sides == 2 else {}))
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wider) <= 0
    still = "for (const node of document.querySelectorAll('.columns, nav')) node.style.position = 'static';"
    drawn = "for (const node of document.querySelectorAll('article')) node.style.contentVisibility = 'visible'"
    browser.execute_script(still + drawn)
    assert browser.execute_script(OVERPRINTED) == []
    browser.execute_script("document.querySelector('article .stack').click()")
    beside = "const box = document.querySelector('dialog'); return box.scrollWidth - box.clientWidth"
    assert browser.execute_script(beside) <= 0


def luminance(colour):
    levels = [int(level) / 255 for level in re.findall(r"\d+", colour)[:3]]
    linear = [level / 12.92 if level <= 0.03928 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground_in_the_light_and_in_the_dark(page, scheme):
    browser = page()
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    ground = luminance(style(browser, "body", "background-color"))
    assert (ground < 0.05) == (scheme == "dark")
    for place in ("h1", "p", "nav a", ".facts th", "article h3", ".caption > span", "output", "#class", "#cell"):
        words = luminance(style(browser, place, "color"))
        assert (max(words, ground) + 0.05) / (min(words, ground) + 0.05) >= 4.5, place


def test_without_javascript_tables_confusions_and_overlays_are_there_and_no_control_that_does_nothing(page):
    browser = page()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    words = browser.find_element(By.TAG_NAME, "body").text
    assert all(word in words for word in ("61.4", "aeroplane → background", "30.0 %", "2008_worst", "IoU 0.0 %"))
    assert not any(word in words for word in ("Opacity", "Order", "A click", "showing"))
    controls = browser.find_elements(By.CSS_SELECTOR, "button, input, select, summary")
    assert [one for one in controls if one.is_displayed()] == []
    assert style(browser, "article .k3 .layer", "opacity") == "0.6"
    colour = pixel(browser, "article .k3 .stack", 0.5, 0.7)
    assert colour == pytest.approx(0.6 * voc_palette()[3] + 0.4 * np.array([128] * 3), abs=6)


def test_two_inferences_stand_above_each_other_where_they_differ_most_first(page):
    browser = page(**two_sides())
    assert shown(browser)[0] == ["far", "near", "same"]
    assert texts(browser, "article:first-of-type .iou") == ["A IoU 90.0 %", "B IoU 20.0 %", "B − A -70.0"]
    captions = ["image", "CAM A", "segmentation A", "ground truth", "CAM B", "segmentation B"]
    assert texts(browser, "article:first-of-type figcaption") == captions
    rows = texts(browser, "#scores tr")
    assert rows[1].startswith("classABB − A") and "61.460.0-1.4" in rows[2] and "25.035.0+10.0" in rows[5]
    order = Select(browser.find_element(By.ID, "order"))
    order.select_by_visible_text("B better")
    assert shown(browser)[0] == ["near", "same", "far"]
    Select(browser.find_element(By.ID, "matrix-of")).select_by_visible_text("B segmentation")
    browser.execute_script("document.querySelectorAll('#scores thead button')[3].click()")
    assert texts(browser, "#scores tbody:last-child th")[:2] == ["aeroplane", "bird"]
    browser.find_element(By.CSS_SELECTOR, "article .stack").click()
    tops = [tile.rect["y"] for tile in browser.find_elements(By.CSS_SELECTOR, "dialog .stack")]
    assert len(tops) == 6 and len(set(tops[:3])) == len(set(tops[3:])) == 1 and tops[3] > tops[0]


def photograph(seed, width, height):
    """As rich in detail as a photograph."""
    draw = np.random.default_rng(seed)
    layers = [
        draw.integers(0, 255, (max(2, height // side), max(2, width // side), 3), np.uint8) for side in (96, 24, 6, 2)
    ]
    grown = [
        np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC), float) for layer in layers
    ]
    mixed = np.average(grown, axis=0, weights=[8, 4, 2, 1])
    return Image.fromarray(mixed.astype(np.uint8))


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("kind", ["photographs", pytest.param("noise", marks=pytest.mark.slow)])
def test_an_image_takes_at_most_20_000_bytes_of_the_page(kind, sides, tmp_path):
    columns = ("CAM", "aux CAM", "segmentation", "segmentation + CRF", "pseudo labels")
    draw = np.random.default_rng(0)
    gallery = []
    number_of = 3 if kind == "photographs" else 4
    for number in range(number_of):
        if kind == "noise":
            picture = Image.effect_noise((500, 375), 80).convert("RGB")
            labels = draw.integers(0, 21, (375, 500)).astype(np.uint8)
        else:
            picture = photograph(number, *((500, 375), (375, 500), (640, 480))[number % 3])
            fields = [Image.fromarray(draw.random((5, 7), np.float32)) for _ in range(4)]
            grown = [np.asarray(field.resize(picture.size, Image.Resampling.BICUBIC)) for field in fields]
            labels = np.array([0, 1, 3, 15], np.uint8)[np.argmax(grown, axis=0)]
        maps = [photograph(100 + i, 64, 48).convert("L") for i in range(4)]
        cams = CamMaps((1, 3, 15, 20), np.stack([np.asarray(one) for one in maps]))
        layers = {f"{side} {name}": cams if "CAM" in name else labels for side in range(sides) for name in columns}
        made = tiles(picture, {"ground truth": labels} | layers)
        if kind == "photographs":
            assert made.size[0] * made.size[1] >= (50_000 if sides == 1 else 15_000)
        confusion = {title: tuple(range(1000, 1024)) for title in columns}  # of 12 cells
        answers = tuple(
            dataclasses.replace(
                image("x", (1,), 0.5).answers[0],
                strips={name: made.strips[f"{side} {name}"] for name in columns},
                confusion=confusion,
            )
            for side in range(sides)
        )
        gallery.append(
            GalleryImage(f"2007_{number:06}", (1, 3), made.size, made.photograph, made.strips["ground truth"], answers)
        )
    more = two_sides() if sides == 2 else {}
    write_report(tmp_path / "page.html", **content(**more | {"columns": columns, "gallery": gallery, "images": 24}))
    (tmp_path / "page.html").replace(tmp_path / "whole.html")
    write_report(tmp_path / "page.html", **content(**more | {"columns": columns, "gallery": [], "images": 24}))
    whole, own = (tmp_path / f"{name}.html" for name in ("whole", "page"))
    bytes_each = (whole.stat().st_size - own.stat().st_size) / number_of + own.stat().st_size / 24
    print(f"{kind}, {sides} sides: {bytes_each:.0f} bytes an image")
    assert bytes_each <= 20_000


def test_parts_of_a_strip_do_not_shine_into_each_other():
    """Each part has its outermost rows once more, which a browser mixes into it where it scales."""
    made = tiles(
        PICTURE, {"CAM": CamMaps((1, 2), np.stack([np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)]))}
    )
    strip = made.strips["CAM"]
    assert strip.rows == 4
    rows = np.asarray(Image.open(BytesIO(strip.content)).convert("L")).mean(1)
    assert rows.shape == (12,) and (rows[:5] < 40).all() and (rows[7:] > 215).all()
