"""Numbers that make no sense: refused in one sentence, exit code 2, before anything is made on disk."""

import dataclasses
import importlib
import math
import typing
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from fsr import pretrain
from fsr.bounds import Bounds, bounds_of, check_bounds
from fsr.cam import multi_scale_cams
from fsr.config import PRESETS, TrainConfig, voc
from fsr.data import synthetic
from fsr.errors import UserError
from fsr.inference.config import InferConfig, parse
from fsr.models.encoder import plain_vit
from fsr.models.network import Network
from launch.slurm.resources import Resources
from launch.study import Study
from launch.sweep_options import Options

ROOT = Path(__file__).parent.parent
COMMANDS = (
    *(
        "launch.infer_options",
        "launch.infer_study_options",
        "launch.status",
        "launch.doctor",
        "analysis.report",
        "analysis.compare",
        "analysis.board",
    ),
    *(
        "analysis.dashboard",
        "analysis.evaluation",
        "analysis.figures",
        "analysis.gallery_options",
        "analysis.lab",
        "analysis.load",
    ),
)


def kinds():
    """Everything whose fields are flags, or that a study's file fills in."""
    options = [importlib.import_module(name).Options for name in (*COMMANDS, "fsr.cost_options")]
    return [TrainConfig, InferConfig, Resources, Options, Study, synthetic.synthesise, pretrain.Options, *options]


def numeric_fields(kind):
    """Names of the fields or parameters with numbers."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else hints
    return [name for name in names if is_numeric(hints[name])]


def is_numeric(hint):
    """Whether a field's values are numbers, or hold some."""
    return hint in (int, float) or any(is_numeric(part) for part in typing.get_args(hint) if part != hint)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_numeric_field_declares_its_range(kind):
    assert set(numeric_fields(kind)) <= set(bounds_of(kind))


def test_all_commands_are_looked_at():
    mains = [file for room in ("launch", "analysis") for file in (ROOT / room).glob("*.py")]
    with_options = {f"{file.parent.name}.{file.stem}" for file in mains if "\nclass Options" in file.read_text()}
    assert with_options == {*COMMANDS, "launch.sweep_options"}


def nonsense(bounds: Bounds, value: object) -> list[object]:
    """Values that a field with such a value must not take."""
    outside = [math.nan, math.inf, -math.inf, 1e30, -1e30, -1, 10**400]
    if isinstance(value, tuple):
        return [(*value[:-1], wrong) for wrong in outside]
    return outside


@pytest.mark.parametrize("preset", PRESETS)
def test_a_training_refuses_nonsense_in_every_field_and_every_element(preset):
    config = PRESETS[preset]()
    for name, bounds in bounds_of(TrainConfig).items():
        for wrong in nonsense(bounds, getattr(config, name)):
            with pytest.raises(UserError, match=rf"^{name} must be .*, got .*") as raised:
                dataclasses.replace(config, **{name: wrong})
            assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_an_inference_refuses_nonsense_in_every_field_and_every_element():
    config = InferConfig(dataset="voc", checkpoint=Path("best.pt"), data_folder=Path("data"))
    for name, bounds in bounds_of(InferConfig).items():
        for wrong in nonsense(bounds, getattr(config, name)):
            if (name, wrong) == ("gate_threshold", -1):
                continue  # a logit may be negative
            with pytest.raises(UserError, match=rf"^{name} must be .*, got .*"):
                dataclasses.replace(config, **{name: wrong})


@pytest.mark.parametrize("kind", [Resources, Options], ids=lambda kind: kind.__name__)
def test_the_options_of_a_launch_refuse_nonsense(kind):
    needed = {"study": "smoke"} if kind is Options else {}
    for name, bounds in bounds_of(kind).items():
        for wrong in nonsense(bounds, None):
            with pytest.raises(UserError, match=rf"^--{name} must be from"):
                kind(**needed, **{name: wrong})


def test_a_study_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match=r"^study odd: trials must be from 1 to 1000000, got 0"):
        Study(name="odd", suggest=lambda trial, base: {}, known=lambda base: [{}], trials=0)


def test_the_largest_seed_is_a_seed():
    assert dataclasses.replace(voc(), seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(UserError, match="seed must be from 0 to 9223372036854775807, got 9223372036854775808"):
        dataclasses.replace(voc(), seed=2**63)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (("--crop_area", "0.3", "nan"), "crop_area must be in (0, 1], got (0.3, nan)"),
        (("--crop_area", "0.9", "0.3"), "crop_area must be two rising numbers, got (0.9, 0.3)"),
        (("--teacher_temp", "0.04", "inf"), "teacher_temp must be in (0, 1e+06], got (0.04, inf)"),
        (("--lr", "nan"), "lr must be in (0, 1e+06], got nan"),
        (("--iterations", "0"), "iterations must be from 1 to 1000000000, got 0"),
        (("--heads", "7"), "heads must be a divisor of embed_dim 96, got 7"),
        (("--cam_scales", "1e-9"), "cam_scales must be in [0.1, 8], got (1e-09,)"),
        (("--seed", "9223372036854775808"), "seed must be from 0 to 9223372036854775807, got 9223372036854775808"),
        (("--iterations", "nan"), "Error parsing --iterations: invalid literal for int() with base 10: 'nan'"),
    ],
)
def test_a_flag_of_a_training(flags, sentence, capsys, tmp_path):
    from fsr.train import main

    with pytest.raises(SystemExit) as end:
        main(["synthetic", "--data_folder", str(tmp_path), "--run_folder", str(tmp_path / "run"), *flags])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("error: ") and told.count("\n") == 1 and sentence in told
    assert not list(tmp_path.iterdir())


def test_what_a_command_line_cannot_be_is_one_sentence():
    with pytest.raises(UserError, match=r"^unknown option --imagess; nearest allowed: .*\(all: --help\)$"):
        parse(["voc", "--checkpoint", "x", "--data_folder", "y", "--imagess", "3"])
    with pytest.raises(UserError, match="--checkpoint"):
        parse(["voc"])


def test_a_range_says_which_ends_belong_to_it():
    assert str(Bounds(0.0, 1.0, above=True)) == "in (0, 1]"
    assert str(Bounds(0.0, 1.0, below=True)) == "in [0, 1)"
    assert str(Bounds(1, 9)) == "from 1 to 9"
    check_bounds(TrainConfig, {"lr": 1e-4, "fsr_iters": None})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"iterations": "many"}, 'iterations is "many", not int'),
        ({"iterations": True}, "iterations is True, not a number"),
        ({"lr": None}, "lr is null, not float"),
        ({"crop_area": [0.5]}, "crop_area has 1 values, not 2"),
        ({"crop_area": 0.5}, "crop_area is 0.5, not a list"),
        ({"crop_area": [0.5, "a"]}, 'crop_area[1] is "a", not float'),
        ({"dataset": "imagenet"}, 'dataset is "imagenet"'),
        ({"data_folder": 7}, "data_folder is 7, not Path"),
        ({"use_mim": "yes"}, 'use_mim is "yes", not bool'),
        ({"lr": math.nan}, "lr is NaN, not a finite number"),
    ],
)
def test_a_configuration_file_of_wrong_kinds_is_one_sentence(tmp_path, change, words):
    fields = tiny_config(tmp_path).to_json() | change
    with pytest.raises(UserError) as raised:
        TrainConfig.from_json(fields)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_what_a_configuration_writes_it_reads(tmp_path):
    for make in PRESETS.values():
        assert TrainConfig.from_json(make(tmp_path).to_json()) == make(tmp_path)
    config = InferConfig(dataset="voc", checkpoint=Path("best.pt"), data_folder=Path("data"), threads=3)
    assert InferConfig.from_json(config.to_json()) == config


def test_heads_divide_the_width_of_a_backbone():
    with pytest.raises(UserError, match="heads must divide the width 192 of backbone vit_tiny_patch16_224, got 7"):
        plain_vit("vit_tiny_patch16_224", num_heads=7)
    assert plain_vit("vit_tiny_patch16_224", num_heads=6, depth=3).blocks[0].attn.num_heads == 6


def test_pictures_smaller_than_a_patch_are_seen_as_one(tmp_path):
    network = Network(tiny_config(tmp_path)).eval()
    for side in (3, 30):
        cams = multi_scale_cams(network, torch.rand(1, 3, side, 40), (1.0, 0.1))
        assert all(cam.shape[-2:] == (side, 40) and cam.isfinite().all() for cam in cams)
