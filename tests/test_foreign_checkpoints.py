"""Checkpoints away from home: given to inference, to --pretrained and to fsr.export, each loads or is refused in one
sentence."""

import argparse
import copy
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from fsr import export
from fsr.checkpoint import TrainState, load_network, save_best
from fsr.config import voc
from fsr.errors import UserError
from fsr.models.encoder import Encoder
from fsr.models.pretrained import load_pretrained
from fsr.run import Run

SIZES = {"embed_dim": 64, "depth": 3, "heads": 1, "crop_size": 64, "block_size": 16, "cls_depth": 1, "decoder_width": 8}
PROJECTOR = {"projector_hidden": 12, "projector_bottleneck": 6, "out_dim": 10}
CONFIG = dataclasses.replace(voc(), pretrained="none", **SIZES, **PROJECTOR)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with its two kinds of files, and the run's state."""
    state = TrainState(CONFIG, torch.device("cpu"))
    with torch.no_grad():
        for parameter in state.teacher.parameters():
            parameter += 0.01
    run = Run(tmp_path_factory.mktemp("run"))
    run.start(CONFIG)
    state.save(run)
    save_best(run.best_file, state, CONFIG, {})
    return run, state


def equal(network, other):
    """Whether two networks have the same weights."""
    one, two = network.state_dict(), other.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def prefixed(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def with_new_weight_norm(tensors):
    """The last layer as torch's parametrisation spells it, with the names from torch itself."""
    layer = weight_norm(torch.nn.Linear(6, 10, bias=False))
    old = {"original0": "weight_g", "original1": "weight_v"}
    spelt = {name: tensors[f"projector.last_layer.{old[name.split('.')[-1]]}"] for name in layer.state_dict()}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("projector.last_layer.")}
    return kept | {f"projector.last_layer.{name}": tensor for name, tensor in spelt.items()}


WRAPPED = {
    "plain": lambda tensors: tensors,
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "torch.compile around DDP": prefixed("_orig_mod.module."),
    "compiled blocks": lambda tensors: {
        name.replace("encoder.blocks.0.", "encoder.blocks.0._orig_mod."): tensor for name, tensor in tensors.items()
    },
    "{state_dict}": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "{state_dict} of DDP": lambda tensors: {"state_dict": prefixed("module.")(tensors)},
    "{model, optimizer}": lambda tensors: {"model": tensors, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "a network in another program": prefixed("net."),
    "weight norm as a parametrisation": with_new_weight_norm,
    "weight norm as a parametrisation, wrapped": lambda tensors: {
        "state_dict": prefixed("module.")(with_new_weight_norm(tensors))
    },
    "half precision": lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_wrapped_network_loads_for_inference_and_as_pretrained_weights(wrapped, run, tmp_path):
    student, file = run[1].student, tmp_path / "student.pth"
    torch.save(WRAPPED[wrapped](student.state_dict()), file)
    network, _ = load_network(file, dataset="voc", told={"heads": 1, "decoder_dilation": 5})
    wanted = copy.deepcopy(student)
    if wrapped == "half precision":
        wanted.half().float()
    assert equal(network, wanted)
    config = dataclasses.replace(CONFIG, pretrained=str(file))
    encoder = Encoder(config)
    load_pretrained(encoder, config)
    assert equal(encoder, wanted.encoder)


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_bare_network_cannot_be_exported_and_that_is_said(wrapped, run, tmp_path, capsys):
    torch.save(WRAPPED[wrapped](run[1].student.state_dict()), tmp_path / "student.pth")
    with pytest.raises(SystemExit) as end:
        export.main([str(tmp_path / "student.pth"), str(tmp_path / "released")])
    told = capsys.readouterr().err
    assert end.value.code == 2 and "student.pth" in told and told.count("\n") == 1
    assert not (tmp_path / "released").exists()


def test_what_was_exported_loads_for_inference(run, tmp_path):
    for file in (run[0].best_file, run[0].checkpoint_file):
        folder = tmp_path / file.stem
        export.main([str(file), str(folder)])
        for name in ("student", "teacher"):
            network, _ = load_network(folder / f"{name}.pth", dataset="voc")
            assert equal(network, getattr(run[1], name))


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_a_runs_files_are_pretrained_weights(name, run, tmp_path):
    file = shutil.copy(run[0].folder / name, tmp_path)
    config = dataclasses.replace(CONFIG, pretrained=str(file))
    encoder = Encoder(config)
    load_pretrained(encoder, config)
    assert equal(encoder, run[1].student.encoder)


def test_a_runs_files_load_anywhere(run, tmp_path):
    best, alone = (Path(shutil.copy(file, tmp_path)) for file in (run[0].best_file, run[0].checkpoint_file))
    assert equal(load_network(best)[0], run[1].student)
    assert equal(load_network(alone, "teacher")[0], run[1].teacher)


def test_a_checkpoint_of_an_earlier_version_away_from_its_run_is_refused_by_the_commands(run, tmp_path, capsys):
    content = torch.load(run[0].checkpoint_file, weights_only=True)
    del content["config"], content["checksum"]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit) as end:
        export.main([str(tmp_path / "checkpoint.pt"), str(tmp_path / "released")])
    told = capsys.readouterr().err
    assert end.value.code == 2 and "config.json" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"a": {"encoder.patch_embed.proj.weight": torch.ones(1)}, "b": {"encoder.patch_embed.proj.weight": 1}},
            "lacks",
        ),
        ({"teacher": {"backbone.cls_token": torch.ones(1)}}, "is not of an FSR network"),
        ({"model": {}, "args": argparse.Namespace()}, "cannot be read|no tensors"),
        ({"model": torch.nn.Linear(1, 1)}, "cannot be read"),
        ({"epoch": 3}, "is neither"),
    ],
)
def test_what_is_no_network_of_this_method_is_refused(content, words, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=words) as error:
        load_network(tmp_path / "other.pth", dataset="voc")
    assert "other.pth" in str(error.value) and "\n" not in str(error.value)


def test_two_networks_in_one_file_are_named(run, tmp_path):
    tensors = run[1].student.state_dict()
    torch.save({"first": tensors, "second": tensors}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"two\.pth there are several networks \(first, second\)"):
        load_network(tmp_path / "two.pth", dataset="voc")
