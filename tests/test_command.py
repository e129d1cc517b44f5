"""A user's mistakes: one clear sentence that names the file or value and what is allowed, exit code 2, no traceback."""

import errno
import shutil
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from tiny import flags as tiny_flags
from tiny import tiny_config

from fsr.run import Run
from fsr.train import main, train


@pytest.fixture
def data_folder(synthetic_folder, tmp_path):
    """A copy of the synthetic set that a test may damage."""
    return shutil.copytree(synthetic_folder, tmp_path / "data")


@pytest.fixture
def complaint(capsys, tmp_path):
    """Runs `python -m fsr.train` with some arguments and gives what it complains about."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), "--run_folder", str(tmp_path / "run")])
        assert end.value.code == 2
        assert not (tmp_path / "run" / "metrics.jsonl").exists(), "training had started"
        out, errors = capsys.readouterr()
        assert "Traceback" not in out + errors
        return errors

    return run


def root(data_folder):
    return data_folder / "VOCdevkit" / "VOC2012"


def test_a_truncated_jpeg(data_folder, complaint):
    image = sorted((root(data_folder) / "JPEGImages").iterdir())[3]
    image.write_bytes(image.read_bytes()[:-200])
    assert image.name in complaint("synthetic", "--data_folder", data_folder)


def test_a_mask_of_another_size(data_folder, complaint):
    name = (root(data_folder) / "ImageSets" / "fsr" / "val.txt").read_text().split()[0]
    mask = root(data_folder) / "SegmentationClass" / f"{name}.png"
    Image.fromarray(np.zeros((50, 60), np.uint8), "L").save(mask)
    errors = complaint("synthetic", "--data_folder", data_folder)
    assert mask.name in errors
    assert "60" in errors and "128" in errors


def test_a_missing_list(data_folder, complaint):
    file = root(data_folder) / "ImageSets" / "fsr" / "train.txt"
    file.unlink()
    errors = complaint("synthetic", "--data_folder", data_folder)
    assert str(file) in errors
    assert "fsr prepare" in errors or "fsr synthetic" in errors


def test_a_missing_data_folder(tmp_path, complaint):
    assert str(tmp_path / "nothing") in complaint("synthetic", "--data_folder", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--block_size", "20"), ("block_size", "20", "8, 16, 24, 32, 48, 96")),
        (("--mask_ratio", "0"), ("mask_ratio", "(0, 1]", "0.0")),
        (("--mask_ratio", "1.2"), ("mask_ratio", "(0, 1]", "1.2")),
        (("--mask_ration", "0.5"), ("--mask_ration", "--mask_ratio")),
        (("--backbone", "resnet50"), ("backbone", "plain ViT", "resnet50")),
        (("--pretrained", "nowhere.pth"), ("pretrained", "nowhere.pth")),
        (("--augment", "device", "--use_gauss", "true"), ("workers where use_aa or use_gauss is on", "got device")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_value_that_is_not_allowed(synthetic_folder, complaint, flags, words):
    errors = complaint("synthetic", "--data_folder", synthetic_folder, *flags)
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    for word in words:
        assert word in errors


@pytest.mark.parametrize(
    "flags",
    [
        ("--backbone", "vit_tyni"),
        ("--pretrained", "nowhere.pth"),
        ("--data_folder", "nowhere"),
        ("--train_set", "none"),
    ],
    ids=lambda flags: flags[0],
)
def test_a_run_folder_is_free_for_the_mended_command(synthetic_folder, complaint, tmp_path, flags):
    name, value = flags
    complaint(*tiny_flags(tiny_config(synthetic_folder), **{name.removeprefix("--"): value}))
    mended = tiny_config(synthetic_folder, iterations=2, eval_every=2)
    main([*tiny_flags(mended), "--run_folder", str(tmp_path / "run")])
    assert Run(tmp_path / "run").config() == mended


def test_a_run_folder_is_free_after_a_full_disk_or_a_first_step_that_fails(synthetic_folder, tmp_path, monkeypatch):
    run = Run(tmp_path)
    for config, name, error in (
        (tiny_config(synthetic_folder), "fsr.checkpoint.torch.save", OSError(errno.ENOSPC, "No space left on device")),
        (tiny_config(synthetic_folder), "fsr.run_log.EventFile", OSError(errno.ENOSPC, "No space left on device")),
        (tiny_config(synthetic_folder, batch_size=4), "fsr.train.step_losses", RuntimeError("CUDA out of memory")),
    ):
        with monkeypatch.context() as patch, pytest.raises(type(error), match=str(error.args[-1])):
            patch.setattr(name, Mock(side_effect=error))
            train(config, run)
        assert not run.config_file.exists()
        assert not run.has_checkpoint()
    mended = tiny_config(synthetic_folder, batch_size=1, iterations=2, eval_every=2)
    assert train(mended, run) == "finished"


def test_a_run_that_was_there_before_is_not_given_up_for_a_failed_start(synthetic_folder, tmp_path, monkeypatch):
    run, config = Run(tmp_path), tiny_config(synthetic_folder)
    assert train(config, run, stop_requested=lambda: True) == "stopped"
    monkeypatch.setattr("fsr.train.step_losses", Mock(side_effect=RuntimeError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, run)
    assert run.config() == config
    assert run.has_checkpoint()


def test_an_unknown_data_set(complaint):
    assert "imagenet; allowed: voc, coco, synthetic" in complaint("imagenet")


def test_the_command_itself_ends_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "fsr.train", "voc", "--data_folder", tmp_path, "--run_folder", tmp_path / "run"]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert str(tmp_path) in process.stderr
