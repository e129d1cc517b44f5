"""A user's mistakes: one clear sentence that names the file or value and what is allowed, exit code 2, no traceback."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fsr.train import main


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
    assert "fsr.data.prepare" in errors or "fsr.data.synthetic" in errors


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


def test_an_unknown_data_set(complaint):
    assert "imagenet; allowed: voc, coco, synthetic" in complaint("imagenet")


def test_the_command_itself_ends_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "fsr.train", "voc", "--data_folder", tmp_path, "--run_folder", tmp_path / "run"]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert str(tmp_path) in process.stderr
