"""What the tests of inference share: small sets with images of several sizes, drawn networks, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsr.config import TrainConfig
from fsr.data.palette import palette_png
from fsr.infer import main
from fsr.inference.config import InferConfig
from fsr.models.network import Network

SCALES = InferConfig.scales
SIZES = ((128, 128), (100, 77), (61, 90), (128, 128), (100, 77))  # width, height; some are no multiple of the patch


def save_checkpoint(file: Path, config: TrainConfig, seed: int = 7) -> Path:
    """A best.pt of a network whose weights were drawn."""
    torch.manual_seed(seed)
    networks = {"student": Network(config), "teacher": Network(config)}
    for network in networks.values():
        for parameter in (network.decoder.conv8.weight, network.top_classifier.weight):
            parameter.data *= 20  # as sure of itself as a trained one
    states = {name: network.state_dict() for name, network in networks.items()}
    torch.save(states | {"step": 0, "config": config.to_json(), "scores": {}}, file)
    return file


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
    lines = [line for line in told.splitlines() if not line.startswith(("images of", "note: "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), told
    return lines[0]


def read_labels(folder: Path, names: list[str]) -> list[np.ndarray]:
    return [np.array(Image.open(folder / f"{name}.png")) for name in names]
