"""The report as a browser shows it: what stands in it, in which order, what the filters leave; and its harmlessness."""

import json
import re
import time
from io import BytesIO

import pytest
from browser import errors, requests, screenshot
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from fsr.data.palette import voc_palette
from fsr.data.voc import CLASS_NAMES
from fsr.inference.report import GalleryImage, write_report

COLUMNS = ("image", "CAM", "segmentation", "ground truth")
NAMES = ("background", "aeroplane", "bicycle", "bird")


def strip(*colours, side=8):
    """A JPEG of square tiles, each of one colour."""
    picture = Image.new("RGB", (side * len(colours), side))
    for i, colour in enumerate(colours):
        picture.paste(colour, (side * i, 0, side * (i + 1), side))
    stream = BytesIO()
    picture.save(stream, "JPEG")
    return stream.getvalue()


STRIP = strip("gray", "red", "black", "blue")


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
    gallery = [
        GalleryImage("2007_b", (1, 3), 0.5, STRIP),
        GalleryImage("2007_unknown", (2,), None, STRIP),
        GalleryImage("2007_a", (1,), 0.5, STRIP),
        GalleryImage("2008_worst", (3,), 0.0, STRIP),
    ]
    small = {"title": "FSR on four images", "facts": {"checkpoint": "runs/try/best.pt"}, "class_names": NAMES}
    small |= {"scores": scores, "cam_quality": {"CAM": quality(0.45), "aux CAM": quality(0.3)}, "columns": COLUMNS}
    return small | {"gallery": gallery, "images": 1449} | changes


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
    words = texts(browser, "#cam-quality svg text")
    assert {"mIoU, %", "background threshold", "CAM", "aux CAM", "best", "0.0", "1.0", "0", "60"} <= set(words)
    lines = drawing.find_elements(By.TAG_NAME, "polyline")
    assert [len(line.get_attribute("points").split()) for line in lines] == [19, 19]
    rings = [float(ring.get_attribute("cx")) for ring in drawing.find_elements(By.CSS_SELECTOR, "g .best")]
    at = {label.text: float(label.get_attribute("x")) for label in drawing.find_elements(By.TAG_NAME, "text")}
    assert rings == pytest.approx([at["0.4"] + (at["0.6"] - at["0.4"]) / 4, (at["0.2"] + at["0.4"]) / 2])
    assert texts(browser, "figure tbody tr > *") == [
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
    assert texts(browser, ".columns span") == list(COLUMNS)
    captions = texts(browser, "article > div > *")
    assert captions[:3] == ["2008_worst", "IoU 0.0 %", "bird"]
    assert captions[6:] == ["2007_b", "IoU 50.0 %", "aeroplane", "bird", "2007_unknown", "no ground truth", "bicycle"]
    widths = browser.execute_script(
        "return Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)))"
    )
    assert widths == [32] * 4
    strips, columns = (browser.find_element(By.CSS_SELECTOR, part).rect for part in ("article img", ".columns div"))
    assert (strips["x"], strips["width"]) == pytest.approx((columns["x"], columns["width"]))


def test_filters_by_class_and_by_name_narrow_the_gallery_together(page):
    browser = page()
    select, name = Select(browser.find_element(By.TAG_NAME, "select")), browser.find_element(By.TAG_NAME, "input")
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
    unknown = [GalleryImage(name, (1,), None, STRIP) for name in "ba"]
    browser = page(scores={}, cam_quality={}, gallery=unknown, images=2)
    assert "no ground truth" in browser.find_element(By.ID, "scores").text
    assert browser.find_elements(By.CSS_SELECTOR, "table:not(.facts), svg") == []
    assert texts(browser, "nav a") == ["Scores", "Gallery"]
    assert shown(browser) == (["a", "b"], "showing 2 of 2 (of 2 images)")


def test_names_are_text_whatever_stands_in_them(page):
    evil = "</script><script>window.hurt = 1</script><img src=http://127.0.0.1:9/x onerror='window.hurt=1'>"
    evil += '"&amp;<!--'
    browser = page(
        title=evil,
        facts={evil: evil, "__proto__": "a fact"},
        class_names=("background", evil),
        scores={evil: {"miou": 0.5, "pixel_accuracy": 0.5, "iou": [0.5, 0.5]}},
        cam_quality={evil: quality(0.4, classes=2)},
        columns=(evil,),
        gallery=[GalleryImage(evil, (1,), 0.5, STRIP), GalleryImage("\udcff", (), 0.6, STRIP)],
    )
    assert browser.execute_script("return window.hurt") is None
    places = ("h1", ".facts td", ".facts th", "#scores th:last-child button", "#scores tbody + tbody tr:last-child th")
    places += ("#cam-quality svg g .name", "figure tbody th", "article h3", "article span", ".columns span")
    for place in places:
        text = browser.execute_script("return document.querySelector(arguments[0]).textContent", place)
        assert text.strip() == evil, place
    assert browser.title.startswith("</script>")
    assert "a fact" in texts(browser, ".facts td")
    assert len(browser.find_elements(By.TAG_NAME, "img")) == 2


@pytest.mark.parametrize("classes", [9, 21, 81])
def test_tables_fit_a_window_of_a_thousand_pixels(page, classes):
    names = (CLASS_NAMES * 4)[:classes]
    columns = ("segmentation", "segmentation + CRF", "pseudo labels", "CAM", "aux CAM")
    score = {"miou": 0.5, "pixel_accuracy": 1.0, "iou": [1.0] * classes}
    curves = {name: quality(0.4, classes) for name in ("CAM", "aux CAM")}
    browser = page(width=1000, class_names=names, scores=dict.fromkeys(columns, score), cam_quality=curves)
    for place in ("html", "#scores .scroll", "#cam-quality .scroll"):
        wider = "const node = document.querySelector(arguments[0]); return node.scrollWidth - node.clientWidth"
        assert browser.execute_script(wider, place) <= 0, place
    assert len(rows(browser, "scores")) == 1 + 2 + classes


def test_fifteen_hundred_strips_load_within_seconds(page):
    noise = Image.effect_noise((700, 70), 60)
    stream = BytesIO()
    noise.convert("RGB").save(stream, "JPEG", quality=60)
    gallery = [GalleryImage(f"{i:04}", (1 + i % 3,), i / 1500, stream.getvalue()) for i in range(1500)]
    started = time.monotonic()
    browser = page(gallery=gallery, images=2000)
    browser.execute_script("document.querySelector('article:last-child').scrollIntoView()")
    drawn = "return [...document.querySelectorAll('article img')].at(-1).decode().then(() => true)"
    assert browser.execute_script(drawn)
    assert time.monotonic() - started < 20  # 2 s where the machine is free
    assert len(stream.getvalue()) > 15_000
    browser.find_element(By.TAG_NAME, "input").send_keys("0007")
    assert shown(browser) == (["0007"], "showing 1 of 1500 (of 2000 images)")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, **content())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(path, **content(gallery=[GalleryImage("nan", (1,), float("nan"), STRIP)]))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    data = re.search(rb'class="report">(.*)</script>', before)[1]
    assert json.loads(data)["columns"] == list(COLUMNS)  # other programs may read it, too
