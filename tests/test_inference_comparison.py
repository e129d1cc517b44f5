"""What a report is made of: maps of CAMs, confusions of single images, which images are shown; and `--compare`."""

import json
import shutil
from io import BytesIO

import numpy as np
import pytest
import torch
from inference import complaint, infer
from PIL import Image

from fsr.errors import UserError
from fsr.inference.answered import Brief, brief_of
from fsr.inference.cam_maps import CamMaps, read_cam_maps, small_cams, write_cam_maps
from fsr.inference.gallery import worst_of_each_class
from fsr.inference.journal import Results
from fsr.inference.tiles import label_strip
from fsr.inference.totals import TITLES, Totals

FLAGS = ("--num_classes", 9, "--crf", "false")


@pytest.mark.parametrize("classes", [(), (3,), (2, 7, 8)])
def test_maps_of_cams_are_read_as_they_were_written(tmp_path, classes):
    cams, aux = torch.rand(2, len(classes), 200, 100, generator=torch.Generator().manual_seed(0))
    maps = small_cams(cams, aux)
    assert maps.shape == (2, len(classes), 64, 32)
    write_cam_maps(tmp_path / "one.png", CamMaps(classes, maps.numpy()))
    found = read_cam_maps(tmp_path / "one.png")
    assert found.classes == classes
    if classes:
        assert np.array_equal(found.maps, maps.numpy())
    (tmp_path / "one.png").write_bytes((tmp_path / "one.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"image .*one\.png cannot be read"):
        read_cam_maps(tmp_path / "one.png")


def test_another_picture_is_no_map_of_cams(tmp_path):
    Image.new("L", (8, 7)).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"grey\.png cannot be read"):
        read_cam_maps(tmp_path / "grey.png")


def test_label_maps_of_more_classes_than_a_picture_has_rows_for_are_shown(tmp_path):
    labels = np.arange(255, dtype=np.uint8).repeat(400).reshape(255, 400)
    strip = label_strip(labels, (320, 240))
    assert len(strip.classes) > 50 and Image.open(BytesIO(strip.content)).height == len(strip.classes) * (
        strip.rows + 2
    )


def test_confusions_of_images_add_up_to_those_of_the_set(voc, checkpoint, tmp_path):
    """CAMs' too, whose records count every threshold."""
    infer("voc", checkpoint, voc, tmp_path, *FLAGS, "--pseudo_labels", "par", "--infer_set", "train")
    totals, sums = Totals(9, 0.35), {}
    for record in Results(tmp_path).records():
        totals.add([record])
        for title, pairs in brief_of(record, totals).confusion.items():
            sums.setdefault(title, np.zeros(81, int))
            np.add.at(sums[title], list(pairs[::2]), pairs[1::2])
    kinds = ("segmentation", "cam", "aux_cam", "pseudo_labels")
    assert set(sums) == {TITLES[kind] for kind in kinds}
    for kind in kinds:
        assert np.array_equal(sums[TITLES[kind]], totals.matrix(kind).counts.flatten().numpy()), kind


def test_the_worst_of_each_class_are_shown_the_worst_first():
    briefs = [Brief(f"n{i}", i / 10, (1,), {}) for i in range(5)] + [Brief("rare", 0.9, (2,), {})]
    assert [brief.name for brief in worst_of_each_class(briefs, 3)] == ["n0", "n1", "rare"]
    assert [brief.name for brief in worst_of_each_class(briefs, 1)] == ["n0"]
    unknown = [Brief("b", None, (), {}), Brief("a", None, (), {})]
    assert [brief.name for brief in worst_of_each_class(unknown, 9)] == ["a", "b"]


def test_two_inferences_are_compared_where_they_differ_most(voc, checkpoint, tmp_path, capsys, browser):
    student, teacher = tmp_path / "a/infer", tmp_path / "b/infer"
    infer("voc", checkpoint, voc, student, *FLAGS, "--infer_set", "train")
    more = ("--weights", "teacher", "--infer_set", "train", "--compare", student, "--report_images", 5)
    infer("voc", checkpoint, voc, teacher, *FLAGS, *more)
    page = teacher / "compare_a_infer.html"
    assert f"comparison: {page}" in capsys.readouterr().out and not (teacher / "report.html").exists()

    iou = {of: {record["name"]: record["iou"] for record in Results(of).records()} for of in (student, teacher)}
    change = {name: iou[teacher][name] - iou[student][name] for name in iou[student]}
    expected = sorted(change, key=lambda name: (-abs(change[name]), name))[:5]
    browser.get(page.as_uri())
    assert [title.text for title in browser.find_elements("css selector", "article h3")] == expected
    lines = [line.text for line in browser.find_elements("css selector", "article:first-of-type .iou")]
    assert lines[0] == f"A IoU {100 * iou[student][expected[0]]:.1f} %"
    assert lines[2] == f"B − A {100 * change[expected[0]]:+.1f}"
    assert "showing 5 of 5 (of 24 images)" in browser.find_element("tag name", "body").text


def test_what_cannot_be_compared_is_said_before_anything_is_answered(voc, checkpoint, tmp_path, capsys):
    infer("voc", checkpoint, voc, tmp_path / "a", *FLAGS)
    own = ("voc", checkpoint, voc, tmp_path / "b", *FLAGS)
    cases = {
        tmp_path / "nowhere": "has no settings.json",
        tmp_path / "b": "another results folder than this inference's own",
    }
    shutil.copytree(tmp_path / "a", tmp_path / "half")
    (tmp_path / "half/scores.json").unlink()
    cases[tmp_path / "half"] = "expects a finished inference"
    shutil.copytree(tmp_path / "a", tmp_path / "fewer")
    journal = tmp_path / "fewer/images/0000_of_0001.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    cases[tmp_path / "fewer"] = "lacks 1 of these 2, among them "
    shutil.copytree(tmp_path / "a", tmp_path / "torn")
    (tmp_path / "torn/scores.json").write_text("{")
    cases[tmp_path / "torn"] = "scores.json is damaged"
    shutil.copytree(tmp_path / "a", tmp_path / "other")
    scores = json.loads((tmp_path / "other/scores.json").read_text())
    scores["settings"]["infer_set"] = "test"
    (tmp_path / "other/scores.json").write_text(json.dumps(scores))
    cases[tmp_path / "other"] = "has infer_set test, not val"
    for folder, words in cases.items():
        assert words in complaint(capsys, *own, "--compare", folder), folder
        assert not (tmp_path / "b").exists() or not any((tmp_path / "b").iterdir()), folder
