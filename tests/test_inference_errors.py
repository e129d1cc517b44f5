"""What an inference tells of its errors: the same by shards and after a stop, in its files and on its page."""

import contextlib
import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from browser import errors as page_errors
from browser import requests
from inference import infer, read_labels
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from test_inference_page import OVERPRINTED, SIZES, luminance, style
from test_report import NAMES, content, image, shown, texts
from tiny import source_of, tiny_config

from fsr.data.loaders import labelled_images
from fsr.data.palette import palette_png
from fsr.data.transforms import levels
from fsr.data.voc import VocSource
from fsr.inference.error_counts import ErrorCounter
from fsr.inference.finisher import sparse
from fsr.inference.image_record import line_of, record_of
from fsr.inference.journal import Results
from fsr.inference.report import write_report
from fsr.inference.totals import Totals
from fsr.json_file import DamagedError
from fsr.metrics import ConfusionMatrix, counted_by_image

FLAGS = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")


def table(file):
    with open(file) as lines:
        return list(csv.DictReader(lines))


def test_shards_a_stop_and_another_batch_size_come_to_the_same_errors(voc, checkpoint, tmp_path):
    lists, whole, parts = tmp_path / "lists", tmp_path / "whole", tmp_path / "parts"
    lists.mkdir()
    prepared = VocSource(voc).list_folder / "train.txt"
    (lists / "train.txt").write_text("".join(prepared.read_text().splitlines(keepends=True)[:8]))
    flags = (*FLAGS, "--list_folder", lists)
    infer("voc", checkpoint, voc, whole, *flags)
    told = json.loads((whole / "errors.json").read_text(), parse_constant=pytest.fail)
    assert [*told["errors"]] == ["segmentation", "cam", "aux_cam"]
    shutil.copytree(whole, parts)
    for file in ("scores.json", "errors.json", "confusion.csv"):
        (parts / file).unlink()
    journal = parts / "images/0000_of_0001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # as a kill leaves it
    for shard in (1, 0, 2):
        one = (*flags, "--shards", 3, "--shard", shard, "--batch_size", 1)
        with pytest.raises(FileNotFoundError) if shard < 2 else contextlib.nullcontext():
            infer("voc", checkpoint, voc, parts, *one)
    for file in ("errors.json", "confusion.csv"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes()


def test_the_confusion_matrices_count_every_pixel_by_the_names_of_its_classes(voc, checkpoint, tmp_path):
    scores = infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--pseudo_labels", "par")["scores"]
    names = json.loads((tmp_path / "errors.json").read_text())["class_names"]
    source = source_of(tiny_config(voc))
    images = [item.name for item in source.items("val")]
    truth = np.concatenate([source.ground_truth(name, "val", None).ravel() for name in images])
    for kind in ("segmentation", "crf", "pseudo_labels"):
        label = np.concatenate([one.ravel() for one in read_labels(tmp_path / kind, images)])
        rows = [row for row in table(tmp_path / "confusion.csv") if row["labels"] == kind]
        assert [row["ground truth"] for row in rows] == names
        for true, row in enumerate(rows):
            for said, column in [*enumerate(names), (255, "no label")]:
                assert int(row[column]) == ((truth == true) & (label == said)).sum()
    assert scores["pseudo_labels"]["miou_unlabelled_missed"] < scores["pseudo_labels"]["miou"]
    assert scores["segmentation"]["miou_unlabelled_missed"] == scores["segmentation"]["miou"]


def test_pixels_that_count_nowhere_are_null_everywhere(voc, checkpoint, tmp_path):
    """All ignored; and images of one pixel, of which one is ignored."""
    folder = shutil.copytree(voc, tmp_path / "data")
    source = source_of(tiny_config(folder))
    first, second = (item.name for item in source.items("val"))
    for name, class_id in ((first, 255), (second, 1)):
        Image.new("RGB", (1, 1), "red").save(source.image_file(name, "val"))
        source.mask_file(name, "val").write_bytes(palette_png(np.full((1, 1), class_id, np.uint8)))
    infer("voc", checkpoint, folder, tmp_path / "one", "--num_classes", 9, "--report")
    told = json.loads((tmp_path / "one/errors.json").read_text(), parse_constant=pytest.fail)["errors"]["segmentation"]
    assert sum(row["images"] for row in told["by_number_of_classes"]) == 1
    assert sum(bin_["pixels"] for bin_ in told["calibration"]["bins"]) == 1 and told["calibration"]["ece"] is not None
    source.mask_file(second, "val").write_bytes(palette_png(np.full((1, 1), 255, np.uint8)))
    infer("voc", checkpoint, folder, tmp_path / "none", "--num_classes", 9, "--report")
    told = json.loads((tmp_path / "none/errors.json").read_text(), parse_constant=pytest.fail)["errors"]["segmentation"]
    assert told["calibration"]["ece"] is told["boundary"]["miou"] is told["by_size"]["small"]["miou"] is None
    assert {miou for _, miou in told["trimap"]} == {None} and told["most_confused"] == []


def test_images_of_a_version_without_these_counts_are_named_and_their_measures_left_out(
    voc, checkpoint, tmp_path, capsys
):
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9)
    journal = tmp_path / "images/0000_of_0001.jsonl"
    records = [*Results(tmp_path).records()]
    del records[0]["errors"]
    journal.write_bytes(b"".join(map(line_of, records)))
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--report")
    assert "1 images were answered by an earlier version" in capsys.readouterr().out
    told = json.loads((tmp_path / "errors.json").read_text())["errors"]["crf"]
    assert told.keys() & {"boundary", "trimap", "calibration"} == set() and told["foreground_recall"] is not None


RECORD = {
    "name": "a",
    "counts": {"segmentation": [0, 90, 3, 10]},
    "errors": {"segmentation": {"boundary": [8, 100], "trimap": [0, 90, 7, 10], "calibration": [0, 100, 2, 9000]}},
}
IMPOSSIBLE = {
    "boundary": [8, 99],
    "trimap": [0, 101],
    "calibration": [0, 100, 1, 1, 2, 9000],
}


def test_errors_of_other_pixels_than_were_counted_are_damage():
    assert record_of(line_of(RECORD), "") == RECORD
    for name, pairs in IMPOSSIBLE.items():
        errors = {"segmentation": RECORD["errors"]["segmentation"] | {name: pairs}}
        with pytest.raises(DamagedError, match="its errors of segmentation are not those of the pixels of its counts"):
            record_of(line_of(RECORD | {"errors": errors}), "line 1 of J")
    with pytest.raises(DamagedError, match="its errors of segmentation"):
        record_of(line_of(RECORD | {"errors": {"segmentation": {"boundary": [8, 100]}}}), "line 1 of J")


def test_train_is_scored_on_vocs_own_masks_whatever_the_augmented_ones_hold(voc, tmp_path):
    folder = shutil.copytree(voc, tmp_path / "data")
    source = VocSource(folder, num_classes=9)
    items = source.items("train")
    own, augmented = (source.root / name for name in ("SegmentationClass", "SegmentationClassAug"))
    expected = {item.name: np.array(Image.open(own / f"{item.name}.png")) for item in items}
    for file in augmented.iterdir():
        file.write_bytes(palette_png(np.full_like(np.array(Image.open(file)), 8)))
    lacking = items[3].name
    (own / f"{lacking}.png").unlink()  # image by image: SBD's is better than none
    expected[lacking][:] = 8
    for name, _, truth, _ in labelled_images(source, "train", items, 0, levels):
        assert np.array_equal(truth.numpy(), expected[name]), name


def errors_of_four_classes(seed=0):
    """Errors of three images, by the title of their kind."""
    draw = np.random.default_rng(seed)
    truth = torch.from_numpy(draw.integers(0, 4, (3, 6, 8)).repeat(20, 1).repeat(20, 2).astype(np.uint8))
    said = torch.where(torch.from_numpy(draw.random(truth.shape)) < 0.7, truth, truth.roll(9, 2))
    sure = torch.from_numpy(draw.random(truth.shape).astype(np.float32))
    matrix = ConfusionMatrix(4)
    labels = {"segmentation": said, "crf": truth}
    pairs = {kind: matrix.entries(label, truth) for kind, label in labels.items()}
    counts = {kind: counted_by_image(entries, matrix.counts) for kind, entries in pairs.items()}
    found = ErrorCounter(4)(labels, pairs, {"segmentation": sure, "crf": sure}, truth)
    totals = Totals(4, 0.5)
    for i in range(3):
        errors = {kind: {name: sparse(of[i]) for name, of in measures.items()} for kind, measures in found.items()}
        kinds = {kind: sparse(of[i]) for kind, of in counts.items()}
        totals.add([{"name": str(i), "counts": kinds, "errors": errors}])
    measured = totals.error_scores()
    return {"segmentation": measured["segmentation"], "segmentation + CRF": measured["crf"]}


def with_errors(letters=("",)):
    (one,) = content()["sides"]
    examples = {"segmentation": {9: 0, 1: 1}}  # bird said to be bicycle; background said to be aeroplane
    gallery = [
        image("far", (1, 3), *[0.9] * len(letters), confusion=(13, 7)),
        image("near", (1,), *[0.2] * len(letters)),
    ]
    errors = errors_of_four_classes()
    found = [dataclasses.replace(one, letter=letter, errors=errors, examples=examples) for letter in letters]
    return {"sides": found, "gallery": gallery, "images": 2}


@pytest.fixture
def page(browser, tmp_path):
    """Writes a report and opens it in a window of a size; afterwards there must have been no error and no request."""

    def opened(size="wide", **changes):
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        write_report(tmp_path / "report.html", **content(**changes))
        browser.get((tmp_path / "report.html").as_uri())
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert page_errors(browser) == []
    assert requests(browser) == []


def test_the_page_shows_errors_with_plots_tables_and_the_pictures_behind_them(page):
    browser = page(**with_errors())
    assert texts(browser, "nav a") == ["Scores", "CAM quality", "Confusion", "Errors", "Gallery"]
    assert texts(browser, "#errors h3") == [
        *("By class", "Near boundaries", "How sure it is", "By what an image shows", "In whose company"),
    ]
    plots = browser.find_elements(By.CSS_SELECTOR, "#errors svg")
    assert [len(plot.find_elements(By.TAG_NAME, "polyline")) for plot in plots] == [2, 2]
    measured = errors_of_four_classes()["segmentation"]
    ece, width_5 = measured["calibration"]["ece"], dict(measured["trimap"])[5]
    assert f"segmentation has an expected calibration error of {100 * ece:.1f} %" in plots[1].get_attribute(
        "aria-label"
    )
    assert f"{100 * width_5:.1f} % within 5, " in plots[0].get_attribute("aria-label")
    words = browser.find_element(By.ID, "errors").text
    assert all(f"{100 * measured['boundary']['iou'][class_id]:.1f}" in words for class_id in range(4))
    assert "4 or more classes" not in words and "3 classes (3 images)" in words
    row = next(row for row in measured["co_occurrence"] if row["class"] == 1)
    cells = texts(browser, "#errors .company tbody tr:first-child > *")
    on = ", ".join(f"{NAMES[one['class']]} {100 * one['share']:.0f} %" for one in row["on"])
    assert cells[:3] == ["aeroplane", f"{100 * row['share']:.1f}", on]
    assert cells[3].startswith(f"{NAMES[row['with'][0]['class']]} ") and " of 3 images)" in cells[3]


def test_what_a_class_was_taken_from_shows_its_images(page):
    browser = page(**with_errors())
    labels = Select(browser.find_element(By.ID, "matrix-of"))
    labels.select_by_visible_text("segmentation + CRF")
    assert {*texts(browser, "#errors .company td button")} == {"background", "bicycle"}
    button = browser.find_elements(By.XPATH, "//*[@id='errors']//tr[th[contains(., 'aeroplane')]]//button")[-1]
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' }); arguments[0].click()", button)
    assert browser.find_element(By.ID, "cell").text.startswith("segmentation: ")
    assert browser.find_element(By.ID, "cell").text.endswith(" → aeroplane ✕")
    assert labels.first_selected_option.text == "segmentation"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".matrix [aria-pressed='true']")) == 1
    assert shown(browser)[0] == []  # no image of this gallery has counts of it


def test_without_javascript_it_leads_to_the_image_that_has_most_of_it(page):
    browser = page(**with_errors())
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    links = browser.find_elements(By.CSS_SELECTOR, "#errors .company a")
    assert {link.get_attribute("href").partition("#")[2] for link in links} == {"image-0", "image-1"}
    assert browser.find_element(By.ID, "image-1").get_attribute("aria-label") == "near"


def test_no_two_lines_of_a_plot_look_the_same(tmp_path):
    small = with_errors(("A", "B"))
    (one,) = {id(side.errors): side.errors for side in small["sides"]}.values()
    kinds = {f"{title} {number}": errors for title, errors in one.items() for number in range(2)}
    scores = {title: {"miou": 0.5, "pixel_accuracy": 0.5, "iou": [0.5] * 4} for title in kinds}
    sides = [dataclasses.replace(side, errors=kinds, scores=scores) for side in small["sides"]]
    write_report(tmp_path / "report.html", **content(**small | {"sides": sides}))
    section = (tmp_path / "report.html").read_text().partition('<section id="errors">')[2]
    for plot in section.split("<svg")[1:]:
        lines = re.findall(r"<g [^>]*>", plot)
        assert len(set(lines)) == len(lines) == 8


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("letters", [("",), ("A", "B")])
def test_errors_fit_every_window_and_are_legible_in_the_dark(page, size, letters):
    browser = page(size, **with_errors(letters))
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wider) <= 0
    browser.execute_script("for (const node of document.querySelectorAll('details')) node.open = true")
    browser.execute_script(
        "for (const node of document.querySelectorAll('.columns, nav')) node.style.position = 'static'"
    )
    browser.execute_script(
        "for (const node of document.querySelectorAll('article')) node.style.contentVisibility = 'visible'"
    )
    assert browser.execute_script(OVERPRINTED) == []
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    ground = luminance(style(browser, "body", "background-color"))
    for place in ("#errors h3", "#errors p", "#errors .company td", "#errors .company button", "#errors summary"):
        words = luminance(style(browser, place, "color"))
        assert (words + 0.05) / (ground + 0.05) >= 4.5, place
