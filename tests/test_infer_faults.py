"""Inference that is killed, meets bad files or a full disk, or is asked for what cannot be."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from inference import complaint, infer
from PIL import Image
from tiny import source_of, tiny_config

from fsr.data.palette import palette_png


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of all files but those that name the run, and the journal, whose order is free."""
    own = ("settings.json", "report.html")
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in own]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.parent.name != "images"}


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_and_leaves_the_same_files(voc, checkpoint, tmp_path):
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


def test_a_start_that_fails_leaves_the_folder_free_for_other_settings(voc, checkpoint, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="device-side assert"):
        patch.setattr("fsr.infer.Predictor", Mock(side_effect=RuntimeError("CUDA error: device-side assert")))
        infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9)
    assert not (tmp_path / "settings.json").exists()
    infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9, "--scales", "1.0")


def test_a_stop_is_an_end_between_two_images(voc, checkpoint, tmp_path):
    arguments = ["voc", "--checkpoint", checkpoint, "--data_folder", voc, "--output_folder", tmp_path]
    flags = ["--num_classes", 9, "--infer_set", "train", "--batch_size", 1]
    command = [sys.executable, "-m", "fsr.infer", *map(str, [*arguments, *flags])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("crf/*")):
        time.sleep(0.01)
    process.terminate()
    told = process.communicate()[1]
    assert process.returncode == 143 and "the same command resumes" in told and "Traceback" not in told
    assert 0 < len((tmp_path / "images/0000_of_0001.jsonl").read_text().splitlines()) < 24


def damaged(folder: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of the data with a truncated image and a mask of another size, and these two."""
    copy = shutil.copytree(folder, tmp_path / "damaged")
    source = source_of(tiny_config(copy))
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

    source = source_of(tiny_config(voc))
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
    assert "9 classes" in told and "voc has 21" in told
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


def test_a_full_disk_is_one_clear_error_and_the_same_command_resumes(voc, checkpoint, tmp_path, capsys):
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", small], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    flags = ("--num_classes", 9, "--infer_set", "train", "--save_cam", "true")
    try:
        told = complaint(capsys, "voc", checkpoint, voc, small / "out", *flags)
        assert "No space left on device" in told and "resumes" in told
        journal = (small / "out/images/0000_of_0001.jsonl").read_bytes()
        done = [json.loads(line)["name"] for line in journal.splitlines() if line.endswith(b"}")]
        assert 0 < len(done) < 24
        for name in done:  # what the journal says is there
            Image.open(small / f"out/crf/{name}.png").load()
            Image.open(small / f"out/cam_maps/{name}.png").load()
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        scores = infer("voc", checkpoint, voc, small / "out", *flags)
        assert scores["images"] == 24
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_two_processes_do_not_work_on_one_shard(voc, checkpoint, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
    )
    journal = tmp_path / "images/0000_of_0001.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", f"{hold}; time.sleep(60)", journal], stdout=subprocess.PIPE)
    holder.stdout.readline()
    told = complaint(capsys, "voc", checkpoint, voc, tmp_path, "--num_classes", 9)
    assert "another process is working on shard 0 of 1" in told
    holder.kill()
    holder.wait()
    assert infer("voc", checkpoint, voc, tmp_path, "--num_classes", 9)["images"] == 2
