"""Checking a data set and deriving its lists."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from real_sets import as_real

from fsr.data.coco import CocoSource
from fsr.data.prepare import main
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource


@pytest.fixture
def voc_folder(synthetic_folder, tmp_path):
    """A set in VOC's layout that a test may change."""
    return as_real(shutil.copytree(synthetic_folder, tmp_path / "voc"))


@pytest.fixture
def coco_folder(tmp_path):
    """A set in COCO's layout that a test may change: 6 training images, 2 for validation."""
    synthesise(tmp_path / "coco", "coco", images=6, seed=1)
    return as_real(tmp_path / "coco")


def failure(arguments, capsys):
    """The problems told and the last sentence of a call that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.out.splitlines(), told.err


def lists_below(folder):
    return {file.stem: file.read_text() for file in folder.glob("*.txt")}


def test_the_synthetic_set_is_clean_in_both_layouts(voc_folder, coco_folder, tmp_path, capsys):
    main(["voc", str(voc_folder), "--list_folder", str(tmp_path / "lists")])
    made = lists_below(tmp_path / "lists")
    assert made == lists_below(voc_folder / "VOCdevkit/VOC2012/ImageSets/fsr")
    assert {name: len(text.splitlines()) for name, text in made.items()} == {"train": 24, "train_aug": 24, "val": 2}
    main(["coco", str(coco_folder)])
    assert "val: 2 images" in capsys.readouterr().out


def test_every_bad_file_is_named_and_no_list_written(voc_folder, tmp_path, capsys):
    source = VocSource(voc_folder)
    names = [item.name for item in source.items("train_aug")]
    image = [source.image_file(name, "train") for name in names]
    mask = [source.mask_file(name, "train") for name in names]
    annotation = source.root / "Annotations" / f"{names[7]}.xml"

    image[1].write_bytes(image[1].read_bytes()[:2000])
    image[2].unlink()
    Image.new("P", (64, 128)).save(mask[3])
    Image.fromarray(np.full((128, 128), 21, np.uint8)).save(mask[4])
    Image.new("RGB", (128, 128), "red").save(mask[5])
    mask[6].write_bytes(mask[6].read_bytes()[:200])
    annotation.write_text(annotation.read_text().replace("<name>", "<name>flying "))
    (source.root / "Annotations" / f"{names[8]}.xml").write_text("<annotation>")

    told, sentence = failure(["voc", voc_folder, "--list_folder", tmp_path / "lists"], capsys)
    assert [line.split(": ")[0] for line in told] == [
        f"image {image[1]} cannot be read",
        f"image {image[2]} cannot be read",
        f"mask {mask[3]} is 64 x 128 pixels, its image 128 x 128",
        f"mask {mask[4]} has class 21; allowed are 0 to 20 and 255",
        f"mask {mask[5]} must hold class ids (PNG of mode P or L) or VOC's colours, got mode RGB",
        f"mask {mask[6]} cannot be read",
        told[6],
        f"annotation {source.root / 'Annotations' / names[8]}.xml cannot be read",
    ]
    assert told[6].startswith(f"annotation {annotation} has an object of class 'flying ")
    assert sentence.endswith(f"error: 8 bad files in {source.root}, named above; no list was written\n")
    assert not (tmp_path / "lists").exists()


def test_the_command_ends_with_exit_code_2_without_traceback(voc_folder):
    (voc_folder / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    command = [sys.executable, "-m", "fsr.data.prepare", "voc", str(voc_folder)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    missing = voc_folder / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    assert answer.stderr == f"error: list {missing} cannot be read: No such file or directory\n"


def test_train_aug_is_every_augmented_mask_that_is_not_in_val(voc_folder):
    source = VocSource(voc_folder)
    lists = source.root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("2012_000000\n2012_000001\n")
    (lists / "trainval.txt").unlink()
    for index in range(2, 24):
        (source.root / f"SegmentationClass/2012_{index:06d}.png").unlink()  # which VOC has of train and val alone
    main(["voc", str(voc_folder)])
    assert [item.name for item in source.items("train")] == ["2012_000000", "2012_000001"]
    assert [item.name for item in source.items("train_aug")] == [f"2012_{index:06d}" for index in range(24)]
    assert [item.name for item in source.items("val")] == ["2012_000024", "2012_000025"]


def test_without_augmented_masks_there_is_no_train_aug(voc_folder, tmp_path, capsys):
    shutil.rmtree(voc_folder / "VOCdevkit/VOC2012/SegmentationClassAug")
    main(["voc", str(voc_folder), "--list_folder", str(tmp_path / "lists")])
    assert set(lists_below(tmp_path / "lists")) == {"train", "val"}
    assert "no list train_aug: " in capsys.readouterr().out


def test_an_image_without_xml_gets_the_classes_of_its_mask(voc_folder):
    source = VocSource(voc_folder)
    before = source.items("train_aug")
    shutil.rmtree(source.root / "Annotations")
    main(["voc", str(voc_folder)])
    assert source.items("train_aug") == before


def test_the_test_set_has_no_labels(voc_folder):
    source = VocSource(voc_folder)
    (source.root / "ImageSets/Segmentation/test.txt").write_text("2012_000003\n")
    main(["voc", str(voc_folder)])
    (item,) = source.items("test")
    assert item.classes == ()
    assert source.mask_file(item.name, "test") is None


def test_coco_masks_are_written_from_the_annotations(coco_folder):
    source = CocoSource(coco_folder)
    masks = {source.mask_file(item.name, split): split for split in ("train", "val") for item in source.items(split)}
    before = {file: np.array(Image.open(file)) for file in masks}
    shutil.rmtree(source.root / "SegmentationClass")
    main(["coco", str(coco_folder), "--write_masks"])
    for file, ground_truth in before.items():
        assert (np.array(Image.open(file)) != ground_truth)[ground_truth != 255].mean() < 0.003


def test_coco_crowds_are_ignored_and_smaller_objects_lie_in_front(coco_folder):
    source = CocoSource(coco_folder)
    item = source.items("val")[0]
    file = source.annotation_file("val")
    content = json.loads(file.read_text())
    image_id = int(item.name[-12:])

    def square(category, side, is_crowd, **more):
        polygon = [[0, 0, side, 0, side, side, 0, side]]
        return {"id": category, "image_id": image_id, "category_id": category, "iscrowd": is_crowd, "area": side**2} | (
            {"segmentation": polygon} | more
        )

    rows = {"size": [128, 128], "counts": [0, 128 * 64, 128 * 64]}  # the left half, column by column
    content["annotations"] = [
        square(90, 20, 0),
        square(13, 40, 0),
        square(1, 10, 1, segmentation=rows),
        *(annotation for annotation in content["annotations"] if annotation["image_id"] != image_id),
    ]
    file.write_text(json.dumps(content))
    source.mask_file(item.name, "val").unlink()
    main(["coco", str(coco_folder), "--write_masks"])
    assert source.items("val")[0].classes == (1, 12, 80)
    mask = np.array(Image.open(source.mask_file(item.name, "val")))
    assert (mask[10, 10], mask[30, 30], mask[100, 10], mask[100, 100]) == (80, 12, 255, 0)


def test_coco_images_without_annotation_are_left_out(coco_folder):
    source = CocoSource(coco_folder)
    file = source.annotation_file("train")
    content = json.loads(file.read_text())
    content["annotations"] = [annotation for annotation in content["annotations"] if annotation["image_id"] != 2]
    file.write_text(json.dumps(content))
    main(["coco", str(coco_folder)])
    assert len(source.items("train")) == 5


def test_coco_masks_of_the_training_set_may_be_missing_but_not_those_of_val(coco_folder, capsys):
    source = CocoSource(coco_folder)
    shutil.rmtree(source.root / "SegmentationClass/train2014")
    main(["coco", str(coco_folder)])
    assert "train: no masks (needed only for an evaluation" in capsys.readouterr().out
    shutil.rmtree(source.root / "SegmentationClass/val2014")
    told, _ = failure(["coco", coco_folder], capsys)
    assert [line.split(" ")[0] for line in told[1:]] == ["mask", "mask"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "annotations FILE are damaged: "),
        ("{}", "annotations FILE are not COCO's instances: KeyError('annotations')"),
        ("[]", "annotations FILE are not COCO's instances: TypeError("),
        (
            '{"annotations": [{"id": 7, "image_id": 1, "category_id": 12}]}',
            "annotation 7 in FILE has category 12, which is none of COCO's 80",
        ),
    ],
)
def test_damaged_coco_annotations_are_one_sentence(coco_folder, capsys, content, sentence):
    file = CocoSource(coco_folder).annotation_file("train")
    file.write_text(content)
    _, told = failure(["coco", coco_folder], capsys)
    assert told.startswith("error: " + sentence.replace("FILE", str(file)))
    assert told.count("\n") == 1


def test_a_missing_data_set_and_a_misplaced_flag_are_one_sentence(tmp_path, capsys):
    assert failure(["voc", tmp_path], capsys)[1] == (
        f"error: data folder {tmp_path} must hold VOCdevkit/VOC2012, which is missing\n"
    )
    assert failure(["voc", tmp_path, "--write_masks"], capsys)[1] == (
        "error: --write_masks is for coco: VOC comes with masks\n"
    )
