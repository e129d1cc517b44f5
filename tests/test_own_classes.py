"""A data set of one's own: its classes.txt is enough for prepare, train, infer and every page."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_sets import as_real
from tiny import TINY

from fsr.command import parse_command
from fsr.data.own_classes import FILE, read_class_names
from fsr.data.palette import palette_png
from fsr.data.prepare import main as prepare
from fsr.data.source import open_source
from fsr.data.synthetic import synthesise
from fsr.data.synthetic_names import SEGMENTATION_NAMES
from fsr.errors import UserError
from fsr.infer import main as infer
from fsr.train import main as train
from launch.study import load

OWN = ("crack", "rust stain", "hole")
STEPS = {"iterations": 2, "eval_every": 2, "log_every": 1}


def renamed(data_folder: Path, place: str) -> Path:
    """A synthetic set of which three classes are left, called otherwise: a data set of one's own. No classes.txt but
    the one in `place`."""
    (file,) = data_folder.rglob(FILE)
    file.unlink()
    (data_folder / place / FILE).write_text("".join(f"{name}\n" for name in OWN))
    for xml in file.parent.glob("Annotations/*.xml"):
        text = xml.read_text()
        for number, name in enumerate(SEGMENTATION_NAMES):
            text = text.replace(f"<name>{name}</name>", f"<name>{OWN[number % 3]}</name>")
        xml.write_text(text)
    for annotations in file.parent.glob("annotations/*.json"):
        content = json.loads(annotations.read_text())
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(OWN, 1)]
        for thing in content["annotations"]:
            thing["category_id"] = (thing["category_id"] - 1) % 3 + 1
        annotations.write_text(json.dumps(content))
    for mask in file.parent.glob("SegmentationClass*/*.png"):
        classes = np.array(Image.open(mask))
        mask.write_bytes(palette_png(np.where((classes > 0) & (classes < 255), (classes - 1) % 3 + 1, classes)))
    shutil.rmtree(file.parent / "SegmentationClass/train2014", ignore_errors=True)  # COCO's, which are to be drawn
    shutil.rmtree(file.parent / "SegmentationClass/val2014", ignore_errors=True)
    shutil.rmtree(file.parent / "ImageSets/fsr")
    (file.parent / "synthetic.json").unlink()
    return data_folder


def words(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", pytest.param("", marks=pytest.mark.slow)])
def test_three_classes_of_ones_own_go_from_prepare_to_every_page_without_a_flag(
    place, synthetic_folder, tmp_path, capsys
):
    data = renamed(shutil.copytree(synthetic_folder, tmp_path / "data"), place)
    prepare(["voc", str(data)])
    assert "is its list whole" not in capsys.readouterr().out
    run = tmp_path / "run"
    flags = words(**TINY, patch_size=8, pretrained="none", cls_depth=1, cam_scales=1.0, train_set="train", ranks=1)
    train(["voc", *words(data_folder=data, run_folder=run, **STEPS), *flags])
    assert json.loads((run / "config.json").read_text())["num_classes"] == 4
    names = ["background", *OWN]
    assert json.loads((run / "quality.json").read_text())["class_names"] == names

    (data / "VOCdevkit/VOC2012/ImageSets/fsr/test.txt").write_text("2012_000001\n")
    for split, out in (("val", tmp_path / "val"), ("test", tmp_path / "test")):
        where = words(checkpoint=run / "best.pt", data_folder=data, infer_set=split, output_folder=out, workers=0)
        infer(["voc", *where, "--no-crf", "--report", "--save_cam"])
        assert json.loads((out / "scores.json").read_text())["class_names"] == names
        page = (out / "report.html").read_text()
        assert all(name in page for name in OWN) and "aeroplane" not in page
    assert {name.stem.partition("_")[2].partition("_")[2] for name in (tmp_path / "val/cam").iterdir()} <= {
        name.replace(" ", "_") for name in OWN
    }
    assert not list(tmp_path.rglob("*.tar.gz")), "VOC's server knows VOC's classes alone"


def test_coco_with_classes_of_ones_own_draws_its_masks_and_infers(coco_of_six, tmp_path, capsys):
    synthesise(tmp_path / "data", "coco", images=6, seed=1)
    data = renamed(tmp_path / "data", "COCO")
    prepare(["coco", str(data), "--write_masks"])
    source = open_source("coco", data, None, None)
    assert source.class_names == ("background", *OWN)
    for item in source.items("train"):
        drawn = source.ground_truth(item.name, "train", None)
        assert {int(value) for value in set(drawn.ravel())} <= {0, 255, *item.classes} and max(item.classes) <= 3

    file = source.annotation_file("train")
    content = json.loads(file.read_text())
    content["categories"][1]["name"] = "bicycle"
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        prepare(["coco", str(data)])
    assert "train2014.json is 'bicycle', which is 'rust stain' in classes.txt" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_the_synthetic_set_names_its_classes_and_an_old_one_still_works(layout, tmp_path):
    synthesise(tmp_path, layout, images=4, seed=1)
    assert open_source(layout, tmp_path, None, None).class_names == ("background", *SEGMENTATION_NAMES)
    old = open_source(layout, as_real(tmp_path), None, 9)
    assert old.class_names[0] == "background" and old.class_names[1] in ("aeroplane", "person")
    before = (old.list_folder / "train.txt").read_text()
    prepare([layout, str(tmp_path)])
    assert (old.list_folder / "train.txt").read_text() == before
    if layout == "voc":
        assert open_source("synthetic", tmp_path, None, None).class_names == old.class_names


def test_two_lists_that_differ_are_refused(own_voc):
    (own_voc / FILE).write_text("crack\n")
    assert open_source("voc", own_voc, None, None).class_names == ("background", "crack")
    root = own_voc / "VOCdevkit/VOC2012"
    (root / FILE).write_text("background\ncrack\n")
    assert open_source("voc", own_voc, None, None).class_names == ("background", "crack")
    (root / FILE).write_text("rust\n")
    with pytest.raises(UserError, match=r"VOC2012/classes.txt and .*/voc/classes.txt name different classes; remove"):
        open_source("voc", own_voc, None, None)


def test_who_names_a_number_of_classes_gets_it_and_studies_go_by_the_list_too(own_voc):
    (own_voc / FILE).write_text("\n".join(OWN))
    command = ["voc", "--data_folder", str(own_voc), "--run_folder", "run"]
    assert parse_command(command)[0].num_classes == 4
    assert parse_command([*command, "--num_classes=3"])[0].num_classes == 3
    assert parse_command(["voc", "--data_folder", "nowhere", "--run_folder", "run"])[0].num_classes == 21
    assert load("mask_ratio").base("voc", own_voc, None, None).num_classes == 4


@pytest.mark.parametrize(
    "content",
    [
        b"crack\nrust\n",
        b"\xef\xbb\xbfcrack\r\n\r\n rust \r\n",
        b"background\ncrack\nrust",
        b"Background\ncrack\nrust\n",
    ],
)
def test_the_background_may_be_the_first_line_and_editors_may_have_their_ways(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    assert read_class_names(tmp_path / FILE) == ("background", "crack", "rust")


@pytest.mark.parametrize(
    "content, told",
    [
        (b"crack\nbackground\nrust\n", "must have each class once, printable, no `/`, got 'background'"),
        (b"background\nbackground\nrust\n", "must have each class once, printable, no `/`, got 'background'"),
        (b"background\n", "must have 1 to 254 classes, got 0"),
        (b"\n".join(b"c%d" % number for number in range(255)), "must have 1 to 254 classes, got 255"),
        (b"\xff\xfec\x00", "cannot be read: it is no UTF-8, invalid start byte"),
        (None, "cannot be read: it is a folder, not a regular file"),
    ],
)
def test_what_is_no_list_of_classes_is_one_sentence(content, told, tmp_path):
    file = tmp_path / FILE
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_class_names(file)
    assert str(caught.value) == f"list of classes {file} {told}"
