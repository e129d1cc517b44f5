"""From a checkpoint to scores and files, through `python -m fsr.infer`."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import reference_inference as reference
import torch
from inference import SCALES, infer, read_labels
from PIL import Image
from tiny import source_of, tiny_config

from fsr.checkpoint import load_network
from fsr.data.palette import voc_palette
from fsr.data.synthetic import synthesise
from fsr.infer import main
from fsr.inference.cam_maps import read_cam_maps


@pytest.mark.parametrize("dataset", ["voc", pytest.param("coco", marks=pytest.mark.slow)])
def test_label_maps_and_scores_are_those_of_the_reference(dataset, checkpoint, request, tmp_path):
    folder = request.getfixturevalue(dataset)
    flags = ("--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "crf", "--save_logits", "true")
    scores = infer(dataset, checkpoint, folder, tmp_path, *flags, "--high_thre", 0.5, "--low_thre", 0.25)["scores"]

    config = dataclasses.replace(tiny_config(folder), dataset=dataset)
    source, (network, _) = source_of(config), load_network(checkpoint)
    items = source.items("train")
    names = [item.name for item in items]
    answers = [reference.reference_answer(network, source.image_file(name, "train"), SCALES) for name in names]
    expected_maps = {
        "segmentation": [answer.logits.argmax(0) for answer in answers],
        "crf": reference.crf_labels(answers, jobs=1),
        "pseudo_labels": [
            reference.crf_pseudo_label(answer, item.classes, 0.5, 0.25)
            for answer, item in zip(answers, items, strict=True)
        ],
    }
    for kind, expected in expected_maps.items():
        for name, ours, theirs in zip(names, read_labels(tmp_path / kind, names), expected, strict=True):
            assert np.array_equal(ours, theirs), (kind, name, int((ours != theirs).sum()))

    ground_truths = [source.ground_truth(name, "train", None) for name in names]
    for kind in ("cam", "aux_cam"):
        expected_maps[kind] = [
            reference.cam_label(getattr(answer, kind), item.classes, config.bkg_threshold)
            for answer, item in zip(answers, items, strict=True)
        ]
    for kind, predictions in expected_maps.items():
        iou = reference.reference_iou(predictions, ground_truths, 9)
        ours = [float("nan") if value is None else value for value in scores[kind]["iou"]]
        assert ours == pytest.approx(iou, abs=2e-4 if "cam" in kind else 1e-12, nan_ok=True)
        assert scores[kind]["miou"] == pytest.approx(np.nanmean(iou), abs=2e-4)

    quality = json.loads((tmp_path / "cam_quality.json").read_text())
    for threshold, miou in quality["cam"]["curve"][::6]:
        labels = [reference.cam_label(a.cam, item.classes, threshold) for a, item in zip(answers, items, strict=True)]
        assert miou == pytest.approx(np.nanmean(reference.reference_iou(labels, ground_truths, 9)), abs=2e-4)
    assert quality["cam"]["best_miou"] == max(miou for _, miou in quality["cam"]["curve"])
    kept = {}
    for file in (tmp_path / "logits").iterdir():
        kept |= dict(np.load(file))
    assert {name.split("/")[0] for name in kept} == set(names) and len(kept) == 3 * len(names)
    assert all(grid.dtype == np.float16 and grid.shape[0] == 9 for grid in kept.values())


def test_par_pseudo_labels_are_those_of_training(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "par", "--crf", "false")
    infer("voc", checkpoint, voc, tmp_path, *flags)
    from fsr.refine import refined_pseudo_label

    network, config = load_network(checkpoint)
    source = source_of(config)
    for item in source.items("train")[:6]:
        answer = reference.reference_answer(network, source.image_file(item.name, "train"), SCALES)
        labels = torch.zeros(1, 8)
        labels[0, [class_id - 1 for class_id in item.classes]] = 1
        image = torch.tensor(answer.image).permute(2, 0, 1)[None] / 255
        cam = torch.from_numpy(answer.cam)[None]
        expected = refined_pseudo_label(image, cam, labels, config.high_threshold, config.low_threshold)[0]
        (ours,) = read_labels(tmp_path / "pseudo_labels", [item.name])
        assert (ours == expected.numpy()).mean() > 0.999


def test_errors_of_a_region_add_up_and_are_those_counted_by_hand(voc, checkpoint, tmp_path):
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "crf")
    quality = json.loads((tmp_path / "cam_quality.json").read_text())
    source = source_of(tiny_config(voc))
    names = [item.name for item in source.items("train")]
    ground_truths = [source.ground_truth(name, "train", None) for name in names]
    labels = read_labels(tmp_path / "pseudo_labels", names)
    ground_truth, label = (np.concatenate([part.ravel() for part in parts]) for parts in (ground_truths, labels))
    counted = (ground_truth < 9) & (label < 9)
    pseudo = quality["pseudo_labels"]
    assert pseudo["ignored"] == pytest.approx(1 - counted.sum() / (ground_truth < 9).sum())
    for class_id in range(9):
        is_true, is_label = (ground_truth == class_id) & counted, (label == class_id) & counted
        if not is_label.any():
            assert pseudo["precision"][class_id] is None
            continue
        assert pseudo["precision"][class_id] == pytest.approx((is_true & is_label).sum() / is_label.sum())
        assert pseudo["recall"][class_id] == pytest.approx((is_true & is_label).sum() / is_true.sum())
        parts = (quality["pseudo_labels"][name][class_id] for name in ("iou", "false_positive", "false_negative"))
        assert sum(parts) == pytest.approx(1)
    foreground = (ground_truth > 0) & counted, (label > 0) & counted
    assert pseudo["foreground_recall"] == pytest.approx((foreground[0] & foreground[1]).sum() / foreground[0].sum())


def test_label_maps_are_palette_pngs_and_pictures_are_kept_on_demand(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--save_cam", "True", "--save_overlays", "true", "--report", "true")
    scores = infer("voc", checkpoint, voc, tmp_path, *flags)
    names = [item.name for item in source_of(tiny_config(voc)).items("val")]
    for name in names:
        image = Image.open(tmp_path / "crf" / f"{name}.png")
        assert image.mode == "P" and image.getpalette()[: 3 * 9] == voc_palette()[:9].ravel().tolist()
        assert Image.open(tmp_path / "overlays" / f"{name}.jpg").size == image.size
        classes, maps = read_cam_maps(tmp_path / "cam_maps" / f"{name}.png")
        assert maps.shape[:2] == (2, len(classes)) and max(maps.shape[2:]) == 64 and maps.max() > 200
    classes = [class_id for item in source_of(tiny_config(voc)).items("val") for class_id in item.classes]
    assert len(list((tmp_path / "cam").iterdir())) == len(classes)
    with open(tmp_path / "scores.csv") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert float(rows["miou"]["crf"]) == scores["scores"]["crf"]["miou"]
    assert len(rows) == 9 + 2
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_shards_and_ranks_take_each_image_once_and_come_to_the_same_totals(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")
    whole = infer("voc", checkpoint, voc, tmp_path / "whole", *flags)
    arguments = ["voc", "--checkpoint", checkpoint, "--data_folder", voc, "--output_folder", tmp_path / "parts"]
    for shard in (2, 0):
        main([*map(str, (*arguments, "--workers", 0, *flags, "--shards", 3, "--shard", shard))])
        assert not (tmp_path / "parts" / "scores.json").exists()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command = [*torchrun, "-m", "fsr.infer", *arguments, "--workers", 0, *flags, "--shards", 3, "--shard", 1]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert json.loads((tmp_path / "parts" / "scores.json").read_text()) == whole
    lines = [line for file in (tmp_path / "parts/images").iterdir() for line in file.read_text().splitlines()]
    assert len(lines) == 24 and len({json.loads(line)["name"] for line in lines}) == 24


def test_a_report_can_be_had_later_without_the_network(voc, checkpoint, tmp_path, browser):
    flags = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")
    infer("voc", checkpoint, voc, tmp_path, *flags)
    assert not (tmp_path / "report.html").exists()
    started = time.monotonic()
    infer("voc", checkpoint, voc, tmp_path, *flags, "--report", "true", "--report_images", 20)
    assert time.monotonic() - started < 20
    browser.get(f"file://{tmp_path}/report.html")
    text = browser.find_element("tag name", "body").text
    assert "showing 20 of 20 (of 24 images)" in text and "aux CAM" in text


def test_the_test_set_has_no_scores_but_an_archive_for_the_server(voc, checkpoint, tmp_path):
    folder = shutil.copytree(voc, tmp_path / "data")
    lists = folder / "VOCdevkit/VOC2012/ImageSets/fsr"
    names = [line.split()[0] for line in (lists / "train.txt").read_text().splitlines()[:7]]
    (lists / "test.txt").write_text("".join(f"{name}\n" for name in names))
    shutil.rmtree(folder / "VOCdevkit/VOC2012/SegmentationClass")
    flags = ("--num_classes", 9, "--infer_set", "test", "--save_cam", "true", "--report", "true")
    scores = infer("voc", checkpoint, folder / "VOCdevkit/VOC2012", tmp_path / "out", *flags)
    assert scores["scores"] == {} and scores["images"] == 7
    with tarfile.open(tmp_path / "out" / "VOC2012_comp6_test_cls.tar.gz") as archive:
        inside = {member.name for member in archive}
        assert inside == {f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in names}
        for member in archive:
            label = np.array(Image.open(archive.extractfile(member)))
            (expected,) = read_labels(tmp_path / "out/crf", [Path(member.name).stem])
            assert np.array_equal(label, expected)
    assert list((tmp_path / "out/cam").iterdir()), "without labels the predicted classes have CAMs"


@pytest.mark.slow
def test_peak_memory_is_flat_from_100_to_1000_images(checkpoint, tmp_path):
    synthesise(tmp_path / "data", images=1000, seed=3)
    lists = tmp_path / "lists"
    lists.mkdir()
    lines = (tmp_path / "data/VOCdevkit/VOC2012/ImageSets/fsr/train.txt").read_text().splitlines(keepends=True)
    peaks = {}
    for images in (100, 1000):
        (lists / "train.txt").write_text("".join(lines[:images]))
        code = (
            "import resource, sys; from fsr.infer import main; main(sys.argv[1:]);"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        arguments = ["synthetic", "--checkpoint", checkpoint, "--data_folder", tmp_path / "data"]
        flags = ["--infer_set", "train", "--list_folder", lists, "--output_folder", tmp_path / str(images)]
        command = [sys.executable, "-c", code, *map(str, [*arguments, *flags])]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[images] = int(answer.stdout.split()[-1]) / 1024
    print(peaks)
    assert peaks[1000] < peaks[100] + 30, peaks  # MB


@pytest.mark.parametrize("precision, rounded", [("fp32", False), ("tf32", True), ("bf16", False)])
def test_products_of_float32_are_rounded_only_where_that_was_asked_for(precision, rounded, voc, checkpoint, tmp_path):
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--crf", "false", "--precision", precision)
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == rounded


def test_bf16_says_nearly_the_same(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")
    labels = []
    for precision in ("fp32", "bf16"):
        infer("voc", checkpoint, voc, tmp_path / precision, *flags, "--precision", precision)
        files = sorted((tmp_path / precision / "segmentation").iterdir())
        labels.append(np.concatenate([np.array(Image.open(file)).ravel() for file in files]))
    assert 0.97 < (labels[0] == labels[1]).mean() < 1


def files_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "settings.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


EVERYTHING = ("--pseudo_labels", "par", "--save_cam", "true", "--save_overlays", "true", "--save_logits", "true")


def test_postprocessing_elsewhere_than_on_the_networks_device_leaves_the_same_files(
    voc, checkpoint, tmp_path, monkeypatch
):
    flags = ("--num_classes", 9, *EVERYTHING)
    infer("voc", checkpoint, voc, tmp_path / "together", *flags)
    network_on = torch.device("cpu", 0)  # another name of the CPU, so the answers change their place in between
    monkeypatch.setattr("fsr.distributed.own_device", lambda: network_on)
    infer("voc", checkpoint, voc, tmp_path / "apart", *flags, "--postprocess", "cpu")
    assert files_of(tmp_path / "apart") == files_of(tmp_path / "together")
    infer("voc", checkpoint, voc, tmp_path / "together", *flags, "--postprocess", "cpu")  # the same results


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "cpu"])
def test_a_gpu_says_nearly_the_same_as_the_cpu(place, voc, checkpoint, tmp_path, monkeypatch):
    flags = ("--num_classes", 9, "--infer_set", "train", *EVERYTHING)
    infer("voc", checkpoint, voc, tmp_path / "gpu", *flags, "--postprocess", place)
    monkeypatch.setattr("fsr.distributed.own_device", lambda: torch.device("cpu"))
    infer("voc", checkpoint, voc, tmp_path / "cpu", *flags)
    assert files_of(tmp_path / "gpu").keys() == files_of(tmp_path / "cpu").keys()
    for kind in ("segmentation", "crf", "pseudo_labels"):
        for file in (tmp_path / "cpu" / kind).iterdir():
            ours = np.array(Image.open(tmp_path / "gpu" / kind / file.name))
            assert (ours == np.array(Image.open(file))).mean() > 0.995
    scores = [json.loads((tmp_path / where / "scores.json").read_text())["scores"] for where in ("gpu", "cpu")]
    for kind, score in scores[1].items():
        assert scores[0][kind]["miou"] == pytest.approx(score["miou"], abs=5e-3)
