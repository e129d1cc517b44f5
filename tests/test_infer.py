"""From a checkpoint to scores and files, through `python -m fsr.infer`."""

import csv
import dataclasses
import json
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import plain_inference as plain
import pytest
import torch
from PIL import Image
from tiny import tiny_config

from fsr.checkpoint import load_network
from fsr.config import TrainConfig
from fsr.data.palette import palette_png, voc_palette
from fsr.data.source import open_source
from fsr.data.synthetic import synthesise
from fsr.infer import main
from fsr.models.network import Network

SCALES = (1.0, 1.25, 1.5)
SIZES = ((128, 128), (100, 77), (61, 90), (128, 128), (100, 77))  # width, height; some are no multiple of the patch


def save_checkpoint(file: Path, config: TrainConfig) -> Path:
    """A best.pt of a network whose weights were drawn."""
    torch.manual_seed(7)
    networks = {"student": Network(config), "teacher": Network(config)}
    for network in networks.values():
        for parameter in (network.decoder.conv8.weight, network.top_classifier.weight):
            parameter.data *= 20  # as sure of itself as a trained one
    states = {name: network.state_dict() for name, network in networks.items()}
    torch.save(states | {"step": 0, "config": config.to_json(), "scores": {}}, file)
    return file


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """A data folder in VOC's layout with 24 training images of three sizes. Do not change it."""
    folder = tmp_path_factory.mktemp("voc")
    synthesise(folder, images=24, seed=1)
    resize_some(folder / "VOCdevkit/VOC2012", "JPEGImages", "SegmentationClass", "SegmentationClassAug")
    return folder


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """The same in COCO's layout. Do not change it."""
    folder = tmp_path_factory.mktemp("coco")
    synthesise(folder, "coco", images=24, seed=2)
    for split in ("train2014", "val2014"):
        resize_some(folder / "COCO", f"JPEGImages/{split}", f"SegmentationClass/{split}")
    return folder


def resize_some(root: Path, pictures: str, *masks: str) -> None:
    """Cut pictures and masks down to different sizes."""
    for i, file in enumerate(sorted((root / pictures).iterdir())):
        box = (0, 0, *SIZES[i % len(SIZES)])
        Image.open(file).crop(box).save(file, quality=95)
        for folder in masks:
            mask = root / folder / f"{file.stem}.png"
            if mask.exists():
                classes = np.array(Image.open(mask).crop(box))
                mask.write_bytes(palette_png(classes))


@pytest.fixture(scope="module")
def checkpoint(voc, tmp_path_factory) -> Path:
    """A tiny network for 8 classes and background."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pt", tiny_config(voc))


def infer(dataset: str, checkpoint: Path, data_folder: Path, out: Path, *flags: object) -> dict:
    """Runs the command and gives its scores."""
    arguments = [dataset, "--checkpoint", checkpoint, "--data_folder", data_folder, "--output_folder", out]
    main([*map(str, (*arguments, "--workers", 0, *flags))])
    return json.loads((out / "scores.json").read_text())


def complaint(capsys, *arguments: object) -> str:
    """The one line with which the command ends for these arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        infer(*arguments)
    assert end.value.code == 2
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if not line.startswith("images of")]
    assert len(lines) == 1 and lines[0].startswith("error: "), told
    return lines[0]


def read_labels(folder: Path, names: list[str]) -> list[np.ndarray]:
    return [np.array(Image.open(folder / f"{name}.png")) for name in names]


@pytest.mark.parametrize("dataset", ["voc", "coco"])
def test_label_maps_and_scores_are_those_of_the_plain_twin(dataset, checkpoint, request, tmp_path):
    folder = request.getfixturevalue(dataset)
    flags = ("--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "crf", "--save_logits", "true")
    scores = infer(dataset, checkpoint, folder, tmp_path, *flags, "--high_thre", 0.5, "--low_thre", 0.25)["scores"]

    config = dataclasses.replace(tiny_config(folder), dataset=dataset)
    source, (network, _) = open_source(config), load_network(checkpoint)
    items = source.items("train")
    names = [item.name for item in items]
    answers = [plain.plain_answer(network, source.image_file(name, "train"), SCALES) for name in names]
    twin = {
        "segmentation": [answer.logits.argmax(0) for answer in answers],
        "crf": plain.crf_labels(answers, jobs=1),
        "pseudo_labels": [
            plain.crf_pseudo_label(answer, item.classes, 0.5, 0.25) for answer, item in zip(answers, items, strict=True)
        ],
    }
    for kind, expected in twin.items():
        for name, ours, theirs in zip(names, read_labels(tmp_path / kind, names), expected, strict=True):
            assert np.array_equal(ours, theirs), (kind, name, int((ours != theirs).sum()))

    truths = [source.truth(name, "train", None) for name in names]
    for kind in ("cam", "aux_cam"):
        twin[kind] = [
            plain.cam_label(getattr(answer, kind), item.classes, config.bkg_threshold)
            for answer, item in zip(answers, items, strict=True)
        ]
    for kind, predictions in twin.items():
        iou = plain.plain_iou(predictions, truths, 9)
        ours = [float("nan") if value is None else value for value in scores[kind]["iou"]]
        assert ours == pytest.approx(iou, abs=2e-4 if "cam" in kind else 1e-12, nan_ok=True)
        assert scores[kind]["miou"] == pytest.approx(np.nanmean(iou), abs=2e-4)

    quality = json.loads((tmp_path / "cam_quality.json").read_text())
    for threshold, miou in quality["cam"]["curve"][::6]:
        labels = [plain.cam_label(a.cam, item.classes, threshold) for a, item in zip(answers, items, strict=True)]
        assert miou == pytest.approx(np.nanmean(plain.plain_iou(labels, truths, 9)), abs=2e-4)
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
    source = open_source(config)
    for item in source.items("train")[:6]:
        answer = plain.plain_answer(network, source.image_file(item.name, "train"), SCALES)
        labels = torch.zeros(1, 8)
        labels[0, [class_id - 1 for class_id in item.classes]] = 1
        image = torch.from_numpy(answer.image).permute(2, 0, 1)[None] / 255
        cam = torch.from_numpy(answer.cam)[None]
        expected = refined_pseudo_label(image, cam, labels, config.high_threshold, config.low_threshold)[0]
        (ours,) = read_labels(tmp_path / "pseudo_labels", [item.name])
        assert (ours == expected.numpy()).mean() > 0.999


def test_errors_of_a_region_add_up_and_are_those_counted_by_hand(voc, checkpoint, tmp_path):
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "crf")
    quality = json.loads((tmp_path / "cam_quality.json").read_text())
    source = open_source(tiny_config(voc))
    names = [item.name for item in source.items("train")]
    truths = [source.truth(name, "train", None) for name in names]
    labels = read_labels(tmp_path / "pseudo_labels", names)
    truth, label = (np.concatenate([part.ravel() for part in parts]) for parts in (truths, labels))
    counted = (truth < 9) & (label < 9)
    pseudo = quality["pseudo_labels"]
    assert pseudo["ignored"] == pytest.approx(1 - counted.sum() / (truth < 9).sum())
    for class_id in range(9):
        is_true, is_label = (truth == class_id) & counted, (label == class_id) & counted
        if not is_label.any():
            assert pseudo["precision"][class_id] is None
            continue
        assert pseudo["precision"][class_id] == pytest.approx((is_true & is_label).sum() / is_label.sum())
        assert pseudo["recall"][class_id] == pytest.approx((is_true & is_label).sum() / is_true.sum())
        parts = (quality["pseudo_labels"][name][class_id] for name in ("iou", "false_positive", "false_negative"))
        assert sum(parts) == pytest.approx(1)
    foreground = (truth > 0) & counted, (label > 0) & counted
    assert pseudo["foreground_recall"] == pytest.approx((foreground[0] & foreground[1]).sum() / foreground[0].sum())


def test_label_maps_are_palette_pngs_and_pictures_are_kept_on_demand(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--save_cam", "True", "--save_overlays", "true", "--report", "true")
    scores = infer("voc", checkpoint, voc, tmp_path, *flags)
    names = [item.name for item in open_source(tiny_config(voc)).items("val")]
    for name in names:
        image = Image.open(tmp_path / "crf" / f"{name}.png")
        assert image.mode == "P" and image.getpalette()[: 3 * 9] == voc_palette()[:9].ravel().tolist()
        assert Image.open(tmp_path / "overlays" / f"{name}.jpg").size == image.size
        width, height = Image.open(tmp_path / "previews" / f"{name}.jpg").size
        assert width == 5 * 200 and abs(height - 200 * image.height / image.width) <= 1
    classes = [class_id for item in open_source(tiny_config(voc)).items("val") for class_id in item.classes]
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


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of all files but those that name the run, and the journal, whose order is free."""
    own = ("settings.json", "report.html")
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in own]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.parent.name != "images"}


def test_killed_at_random_moments_it_goes_on_and_leaves_the_same_files(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "crf", "--save_cam", "true")
    infer("voc", checkpoint, voc, tmp_path / "whole", *flags)
    out = tmp_path / "killed"
    arguments = ["voc", "--checkpoint", checkpoint, "--data_folder", voc, "--output_folder", out, *flags]
    command = [sys.executable, "-m", "fsr.infer", *map(str, arguments), "--batch_size", "1", "--threads", "1"]
    random.seed(0)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = len(list(out.glob("crf/*")))
        wanted = min(23, done + random.randint(1, 6))
        while process.poll() is None and len(list(out.glob("crf/*"))) < wanted:
            time.sleep(0.001)
        time.sleep(random.random() * 0.02)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 3 and not (out / "scores.json").exists()
    with open(out / "images/0000_of_0001.jsonl", "a") as journal:
        journal.write('{"name":"half a re')  # as a full disk leaves it
    infer("voc", checkpoint, voc, out, *flags)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_stop_is_an_end_between_two_images(voc, checkpoint, tmp_path):
    arguments = ["voc", "--checkpoint", checkpoint, "--data_folder", voc, "--output_folder", tmp_path]
    flags = ["--num_classes", 9, "--infer_set", "train", "--batch_size", 1]
    command = [sys.executable, "-m", "fsr.infer", *map(str, [*arguments, *flags])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("crf/*")):
        time.sleep(0.01)
    process.terminate()
    told = process.communicate()[1]
    assert process.returncode == 143 and "the same command goes on" in told and "Traceback" not in told
    assert 0 < len((tmp_path / "images/0000_of_0001.jsonl").read_text().splitlines()) < 24


def damaged(folder: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of the data with a truncated image and a mask of another size, and these two."""
    copy = shutil.copytree(folder, tmp_path / "damaged")
    source = open_source(tiny_config(copy))
    first, second = source.items("train")[3].name, source.items("train")[8].name
    image, mask = source.image_file(first, "train"), source.mask_file(second, "train")
    image.write_bytes(image.read_bytes()[:-400])
    mask.write_bytes(palette_png(np.zeros((50, 60), np.uint8)))
    return copy, image, mask


def test_an_unreadable_image_is_named_before_anything_is_done(voc, checkpoint, tmp_path, capsys):
    folder, image, _ = damaged(voc, tmp_path)
    flags = ("--num_classes", 9, "--infer_set", "train")
    told = complaint(capsys, "voc", checkpoint, folder, tmp_path / "out", *flags)
    assert image.name in told and "1 more" in told
    assert not (tmp_path / "out" / "images").exists()


def test_bad_files_are_skipped_on_demand_named_counted_and_in_no_score(voc, checkpoint, tmp_path, capsys):
    folder, image, mask = damaged(voc, tmp_path)
    flags = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")
    scores = infer("voc", checkpoint, folder, tmp_path / "out", *flags, "--skip_bad", "true")
    assert set(scores["skipped"]) == {image.stem, mask.stem} and scores["images"] == 24
    assert "60 x 50" in scores["skipped"][mask.stem]
    said = capsys.readouterr().out
    assert "2 of 24 images could not be read" in said and image.name in said and mask.name in said

    source = open_source(tiny_config(voc))
    image.write_bytes(source.image_file(image.stem, "train").read_bytes())
    mended = infer("voc", checkpoint, folder, tmp_path / "out", *flags, "--skip_bad", "true")
    assert set(mended["skipped"]) == {mask.stem} and mended["images"] == 24

    lists = tmp_path / "lists"
    lists.mkdir()
    lines = (source.list_folder / "train.txt").read_text().splitlines(keepends=True)
    (lists / "train.txt").write_text("".join(line for line in lines if line.split()[0] not in scores["skipped"]))
    without = infer("voc", checkpoint, voc, tmp_path / "without", *flags, "--list_folder", lists)
    assert scores["scores"] == without["scores"]


def test_a_checkpoint_of_another_class_count_architecture_or_no_checkpoint(voc, coco, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    told = complaint(capsys, "voc", checkpoint, voc, out)
    assert "9 classes" in told and "voc wants 21" in told
    assert "does not exist" in complaint(capsys, "voc", tmp_path / "none.pt", voc, out)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "cannot be read" in complaint(capsys, "voc", tmp_path / "junk.pt", voc, out)
    torch.save({"layer1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}, tmp_path / "resnet.pth")
    told = complaint(capsys, "voc", tmp_path / "resnet.pth", voc, out)
    assert "not of an FSR network" in told and "encoder.cls_token" in told
    content = torch.load(checkpoint, weights_only=True)
    content["config"] |= {"depth": 4}
    torch.save(content, tmp_path / "deeper.pt")
    told = complaint(capsys, "voc", tmp_path / "deeper.pt", voc, out, "--num_classes", 9)
    assert "lacks encoder.blocks.3.norm1.weight" in told
    assert not out.exists()


def test_values_that_are_not_allowed_are_one_sentence(voc, checkpoint, tmp_path, capsys):
    def told(*flags: object) -> str:
        return complaint(capsys, "voc", checkpoint, voc, tmp_path, "--num_classes", 9, *flags)

    assert "shard must be from 0 to 1, got 2" in told("--shards", 2, "--shard", 2)
    assert "infer_set" in told("--infer_set", "../val")
    assert "bkg_threshold must be in [0, 1]" in told("--bkg_thre", 1.5)
    assert "low_threshold must be at most" in told("--high_thre", 0.2, "--low_thre", 0.3)
    assert "list" in told("--infer_set", "test") and "missing" in told("--infer_set", "test")


def test_results_of_other_settings_are_not_continued(voc, checkpoint, tmp_path, capsys):
    flags = ("--num_classes", 9, "--crf", "false")
    infer("voc", checkpoint, voc, tmp_path, *flags)
    told = complaint(capsys, "voc", checkpoint, voc, tmp_path, *flags, "--scales", 1.0)
    assert "scales [1.0, 1.25, 1.5], not [1.0]" in told and "--output_folder" in told


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


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(voc, checkpoint, tmp_path, capsys):
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", small], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    flags = ("--num_classes", 9, "--infer_set", "train", "--save_cam", "true")
    try:
        told = complaint(capsys, "voc", checkpoint, voc, small / "out", *flags)
        assert "No space left on device" in told and "goes on" in told
        journal = (small / "out/images/0000_of_0001.jsonl").read_bytes()
        done = [json.loads(line)["name"] for line in journal.splitlines() if line.endswith(b"}")]
        assert 0 < len(done) < 24
        for name in done:  # what the journal says is there
            Image.open(small / f"out/crf/{name}.png").load()
            Image.open(small / f"out/previews/{name}.jpg").load()
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        scores = infer("voc", checkpoint, voc, small / "out", *flags)
        assert scores["images"] == 24
    finally:
        subprocess.run(["umount", "-l", small], check=True)


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


def test_bf16_says_nearly_the_same(voc, checkpoint, tmp_path):
    flags = ("--num_classes", 9, "--infer_set", "train", "--crf", "false")
    labels = []
    for precision in ("fp32", "bf16"):
        infer("voc", checkpoint, voc, tmp_path / precision, *flags, "--precision", precision)
        files = sorted((tmp_path / precision / "segmentation").iterdir())
        labels.append(np.concatenate([np.array(Image.open(file)).ravel() for file in files]))
    assert 0.97 < (labels[0] == labels[1]).mean() < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_says_nearly_the_same_as_the_cpu(voc, checkpoint, tmp_path, monkeypatch):
    flags = ("--num_classes", 9, "--infer_set", "train", "--pseudo_labels", "par")
    infer("voc", checkpoint, voc, tmp_path / "gpu", *flags)
    monkeypatch.setattr("fsr.distributed.own_device", lambda: torch.device("cpu"))
    infer("voc", checkpoint, voc, tmp_path / "cpu", *flags)
    for kind in ("segmentation", "crf", "pseudo_labels"):
        for file in (tmp_path / "cpu" / kind).iterdir():
            ours = np.array(Image.open(tmp_path / "gpu" / kind / file.name))
            assert (ours == np.array(Image.open(file))).mean() > 0.995


def test_two_processes_do_not_work_on_one_shard(voc, checkpoint, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
    )
    journal = tmp_path / "images/0000_of_0001.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", f"{hold}; time.sleep(60)", journal], stdout=subprocess.PIPE)
    holder.stdout.readline()
    told = complaint(capsys, "voc", checkpoint, voc, tmp_path, "--num_classes", 9)
    assert "another process is at work on shard 0 of 1" in told
    holder.kill()
    holder.wait()
    assert infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9)["images"] == 2
