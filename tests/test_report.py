"""The report as a browser shows it: what stands in it, in which order, what the filters leave; and its harmlessness."""

import dataclasses
import json
import re
import time

import numpy as np
import pytest
from browser import errors, requests, screenshot
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from fsr.data.palette import voc_palette
from fsr.data.voc import CLASS_NAMES
from fsr.inference.cam_maps import CamMaps
from fsr.inference.report import GalleryImage, ImageAnswer, Side, write_report
from fsr.inference.tiles import tiles

COLUMNS = ("CAM", "segmentation")
NAMES = ("background", "aeroplane", "bicycle", "bird")


PICTURE = Image.new("RGB", (32, 24), "gray")


def image(name, classes, *ious, confusion=(), kind="segmentation", picture=PICTURE, columns=COLUMNS):
    """An image of the gallery, which has its classes side by side, with one answer for each IoU."""
    width, height = picture.size
    labels = np.zeros((height, width), np.uint8)
    for place, class_id in enumerate(classes):
        labels[height // 4 :, place * width // len(classes) : (place + 1) * width // len(classes)] = class_id
    maps = np.full((len(classes), 6, 8), 255, np.uint8)
    drawn = {title: CamMaps(tuple(classes), maps) if "CAM" in title else labels for title in columns}
    made = tiles(picture, {"ground truth": labels} | drawn)
    strips = {title: made.strips[title] for title in columns}
    truth = made.strips["ground truth"] if ious[0] is not None else None
    answers = tuple(ImageAnswer(iou, strips, {kind: confusion}) for iou in ious)
    return GalleryImage(name, tuple(classes), made.size, made.photograph, truth, answers)


def quality(best, classes=4):
    curve = [[round(0.05 * i, 2), 0.6 - abs(0.05 * i - best)] for i in range(1, 20)]
    values = {kind: [0.5] * classes for kind in ("precision", "recall", "false_positive", "false_negative")}
    return {"threshold": 0.35, "miou": 0.5, "best_miou": 0.6, "best_threshold": best, "curve": curve} | values


def content(**changes):
    """The arguments of a small report."""
    scores = {
        "segmentation": {"miou": 0.614, "pixel_accuracy": 0.9, "iou": [0.9, 0.25, None, 0.6921]},
        "segmentation + CRF": {"miou": 0.65, "pixel_accuracy": 0.92, "iou": [0.91, 0.3, None, 0.74]},
    }
    matrix = [[90, 2, 0, 8], [30, 60, 10, 0], [0, 0, 0, 0], [0, 5, 0, 95]]
    gallery = [
        image("2008_worst", (3,), 0.0, confusion=(0, 9, 13, 5)),
        image("2007_a", (1,), 0.5, confusion=(4, 7, 5, 9)),
        image("2007_b", (1, 3), 0.5, confusion=(4, 20)),
        image("2007_unknown", (2,), None),
    ]
    facts = {"checkpoint": "runs/try/best.pt"}
    cams = {"CAM": quality(0.45), "aux CAM": quality(0.3)}
    sides = [Side("", facts, scores, cams, {"segmentation": matrix, "segmentation + CRF": matrix})]
    small = {"title": "FSR on four images", "class_names": NAMES, "sides": sides, "columns": COLUMNS}
    return small | {"gallery": gallery, "images": 1449} | changes


def side(**changes):
    """The one side of `content`, changed."""
    return [dataclasses.replace(content()["sides"][0], **changes)]


@pytest.fixture
def page(browser, tmp_path):
    """Writes a report and opens it from disk; after the test it must not have had an error, nor asked the network."""

    def opened(width=1280, **changes):
        browser.set_window_size(width, 900)
        write_report(tmp_path / "report.html", **content(**changes))
        browser.get((tmp_path / "report.html").as_uri())
        return browser

    yield opened
    assert errors(browser) == []
    assert requests(browser) == []


def texts(page, selector):
    """Of each that is not hidden; one call to the browser, as the gallery has many."""
    script = """return [...document.querySelectorAll(arguments[0])].filter((node) => node.checkVisibility())
                .map((node) => node.textContent.trim())"""
    return page.execute_script(script, selector)


def shown(page):
    """Names of the images that are shown, and the line that counts them."""
    return texts(page, "article h3"), page.find_element(By.TAG_NAME, "output").text


def rows(page, section):
    """The text of each cell of a section's table by class."""
    script = """return [...document.querySelectorAll(arguments[0])]
                .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return page.execute_script(script, f"#{section} .scroll tr")


def test_scores_stand_in_a_table_in_percent_with_their_colours_and_sort(page, tmp_path):
    browser = page()
    assert browser.title == texts(browser, "h1")[0] == "FSR on four images"
    assert texts(browser, ".facts tr > *") == ["checkpoint", "runs/try/best.pt", "images", "1,449"]
    head, *summary, first, second, third, fourth = rows(browser, "scores")
    assert head == ["class", "segmentation", "segmentation + CRF"]
    assert summary == [["mIoU", "61.4", "65.0"], ["pixel accuracy", "90.0", "92.0"]]
    assert [first, second] == [["background", "90.0", "91.0"], ["aeroplane", "25.0", "30.0"]]
    assert [third, fourth] == [["bicycle", "–", "–"], ["bird", "69.2", "74.0"]]
    swatches = browser.find_elements(By.CSS_SELECTOR, "#scores .swatch")
    colours = [swatch.value_of_css_property("background-color") for swatch in swatches]
    assert [re.findall(r"\d+", colour)[:3] for colour in colours] == voc_palette()[:4].astype(str).tolist()
    bars = browser.find_elements(By.CSS_SELECTOR, "#scores td:nth-child(2) i")
    widths = [bar.find_element(By.TAG_NAME, "b").size["width"] / bar.size["width"] for bar in bars]
    assert widths == pytest.approx([0.614, 0.9, 0.9, 0.25, 0, 0.6921], abs=0.01)

    by_segmentation = browser.find_elements(By.CSS_SELECTOR, "#scores thead button")[1]
    by_segmentation.click()
    assert [row[0] for row in rows(browser, "scores")[3:]] == ["background", "bird", "aeroplane", "bicycle"]
    by_segmentation.click()
    assert [row[0] for row in rows(browser, "scores")] == [
        *("class", "mIoU", "pixel accuracy"),
        *("aeroplane", "bird", "background", "bicycle"),
    ]
    screenshot(browser, tmp_path / "report.png", height=1800)
    assert Image.open(tmp_path / "report.png").width == 1280


def test_the_curve_has_axes_a_legend_and_a_ring_at_each_best_threshold(page):
    browser = page()
    drawing = browser.find_element(By.CSS_SELECTOR, "#cam-quality svg")
    words = texts(browser, "#cam-quality svg text") + texts(browser, ".legend li")
    assert {"mIoU, %", "background threshold", "CAM", "aux CAM", "○ best", "0.0", "1.0", "0", "60"} <= set(words)
    assert "CAM is best at 0.45 with 60.0 %" in drawing.get_attribute("aria-label")
    lines = drawing.find_elements(By.TAG_NAME, "polyline")
    assert [len(line.get_attribute("points").split()) for line in lines] == [19, 19]
    rings = [float(ring.get_attribute("cx")) for ring in drawing.find_elements(By.CSS_SELECTOR, "g .best")]
    at = {label.text: float(label.get_attribute("x")) for label in drawing.find_elements(By.TAG_NAME, "text")}
    assert rings == pytest.approx([at["0.4"] + (at["0.6"] - at["0.4"]) / 4, (at["0.2"] + at["0.4"]) / 2], abs=0.1)
    assert texts(browser, ".curves tbody tr > *") == [
        *("CAM", "0.35", "50.0", "0.45", "60.0"),
        *("aux CAM", "0.35", "50.0", "0.3", "60.0"),
    ]
    groups, head, *classes = rows(browser, "cam-quality")
    assert groups == ["", "CAM at 0.35, %", "aux CAM at 0.35, %"]
    assert head == ["class", *["precision", "recall", "false positive", "false negative"] * 2]
    assert classes[1] == ["aeroplane", *["50.0"] * 8]


def test_the_gallery_shows_the_worst_first_and_its_pictures_load(page):
    browser = page()
    assert shown(browser) == (["2008_worst", "2007_a", "2007_b", "2007_unknown"], "showing 4 of 4 (of 1449 images)")
    assert texts(browser, ".columns span") == ["image", "ground truth", *COLUMNS]
    captions = texts(browser, ".caption > *")
    assert captions[:3] == ["2008_worst", "IoU 0.0 %", "bird"]
    assert captions[6:] == ["2007_b", "IoU 50.0 %", "aeroplane", "bird", "2007_unknown", "no ground truth", "bicycle"]
    assert loaded(browser) == [32] * 4
    for number, place in enumerate(browser.find_elements(By.CSS_SELECTOR, "article:first-of-type .stack")):
        column = browser.find_element(By.CSS_SELECTOR, f".columns .k{number}").rect
        assert (place.rect["x"], place.rect["width"]) == pytest.approx((column["x"], column["width"]))


def loaded(page):
    """Widths of the photographs, each decoded."""
    script = """return Promise.all([...document.querySelectorAll("article")].map((row) => {
        const photograph = new Image();
        photograph.src = row.style.getPropertyValue("--photograph").slice(4, -1);
        return photograph.decode().then(() => photograph.naturalWidth);
    }))"""
    return page.execute_script(script)


def test_filters_by_class_and_by_name_narrow_the_gallery_together(page):
    browser = page()
    select, name = Select(browser.find_element(By.ID, "class")), browser.find_element(By.ID, "name")
    assert [option.text for option in select.options] == ["all", "aeroplane (2)", "bicycle (1)", "bird (2)"]
    select.select_by_visible_text("aeroplane (2)")
    assert shown(browser) == (["2007_a", "2007_b"], "showing 2 of 4 (of 1449 images)")
    name.send_keys("7_B")
    assert shown(browser) == (["2007_b"], "showing 1 of 4 (of 1449 images)")
    select.select_by_visible_text("bicycle (1)")
    assert shown(browser) == ([], "showing 0 of 4 (of 1449 images)")
    select.select_by_visible_text("all")
    name.clear()
    assert len(shown(browser)[0]) == 4


def test_a_set_without_ground_truth_says_so_and_shows_its_images(page):
    unknown = [image(name, (1,), None) for name in "ab"]
    browser = page(sides=side(scores={}, cam_quality={}, confusion={}), gallery=unknown, images=2)
    assert "no ground truth" in browser.find_element(By.ID, "scores").text
    assert browser.find_elements(By.CSS_SELECTOR, "table:not(.facts), svg:not([aria-hidden])") == []
    assert texts(browser, "nav a") == ["Scores", "Gallery"]
    assert shown(browser) == (["a", "b"], "showing 2 of 2 (of 2 images)")
    assert [option.text for option in Select(browser.find_element(By.ID, "order")).options] == ["by name"]


def test_names_are_text_whatever_stands_in_them(page):
    evil = "</script><script>window.hurt = 1</script><img src=http://127.0.0.1:9/x onerror='window.hurt=1'>"
    evil += '"&amp;<!--'
    browser = page(
        title=evil,
        class_names=("background", evil),
        sides=[
            Side(
                "",
                facts={evil: evil, "__proto__": "a fact"},
                scores={evil: {"miou": 0.5, "pixel_accuracy": 0.5, "iou": [0.5, 0.5]}},
                cam_quality={evil: quality(0.4, classes=2)},
                confusion={evil: [[3, 1], [1, 3]]},
            )
        ],
        columns=(evil,),
        gallery=[image(evil, (1,), 0.5, confusion=(1, 3), kind=evil, columns=(evil,)), image("\udcff", (), 0.6)],
    )
    assert browser.execute_script("return window.hurt") is None
    places = ("h1", ".facts td", ".facts th", "#scores th:last-child button", "#scores tbody + tbody tr:last-child th")
    places += (".legend span", ".curves tbody th", "article h3", ".caption span", ".columns .k2", "#matrix-of option")
    for place in places:
        text = browser.execute_script("return document.querySelector(arguments[0]).textContent", place)
        assert text.strip() == evil, place
    assert browser.title.startswith("</script>")
    assert "a fact" in texts(browser, ".facts td")
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert browser.find_element(By.CSS_SELECTOR, ".k2 .stack").get_attribute("aria-label") == f"{evil}: {evil}"
    browser.find_element(By.CSS_SELECTOR, ".confusions li button").click()
    assert evil in browser.find_element(By.ID, "cell").text
    browser.find_element(By.CSS_SELECTOR, "article:not([hidden]) .stack").click()
    assert browser.find_element(By.CSS_SELECTOR, "dialog h3").text == evil


@pytest.mark.parametrize("classes", [9, 21, 81])
def test_tables_fit_a_window_of_a_thousand_pixels(page, classes):
    names = (CLASS_NAMES * 4)[:classes]
    columns = ("segmentation", "segmentation + CRF", "pseudo labels", "CAM", "aux CAM")
    score = {"miou": 0.5, "pixel_accuracy": 1.0, "iou": [1.0] * classes}
    curves = {name: quality(0.4, classes) for name in ("CAM", "aux CAM")}
    confusion = {"segmentation": np.eye(classes, dtype=int).tolist()}
    sides = side(scores=dict.fromkeys(columns, score), cam_quality=curves, confusion=confusion)
    browser = page(width=1000, class_names=names, sides=sides, gallery=[image("one", (1,), 0.5)])
    for place in ("html", "#scores .scroll", "#cam-quality .scroll"):
        wider = "const node = document.querySelector(arguments[0]); return node.scrollWidth - node.clientWidth"
        assert browser.execute_script(wider, place) <= 0, place
    assert len(rows(browser, "scores")) == 1 + 2 + classes


def test_fifteen_hundred_images_load_within_seconds(page):
    noise = Image.effect_noise((120, 90), 60).convert("RGB")
    one = image("noise", (1, 2, 3), 0.5, picture=noise)
    gallery = [dataclasses.replace(one, name=f"{i:04}") for i in range(1500)]
    assert len(one.photograph) > 3000
    started = time.monotonic()
    browser = page(gallery=gallery, images=2000)
    browser.execute_script("document.querySelector('article:last-of-type').scrollIntoView()")
    assert time.monotonic() - started < 20  # 4 s where the machine is free
    browser.find_element(By.ID, "name").send_keys("0007")
    assert shown(browser) == (["0007"], "showing 1 of 1500 (of 2000 images)")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, **content())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(path, **content(gallery=[image("nan", (1,), float("nan"))]))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    data = re.search(rb'class="report">(.*)</script>', before)[1]
    assert json.loads(data)["shown"][0]["name"] == "2008_worst"  # other programs may read it, too
