"""Checkpoints in the released implementation's format: read, written, and refused when they do not fit."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fsr.checkpoint import load_network
from fsr.config import voc
from fsr.errors import UserError
from fsr.export import main
from fsr.models.network import Network

TOLD = {"heads": 2, "decoder_dilation": 5}
KEYS = Path(__file__).parent / "golden" / "checkpoint_keys.txt"


def small_config(**changes):
    """A network of VOC's preset, but for its size."""
    sizes = {"embed_dim": 32, "depth": 3, "heads": 2, "crop_size": 64, "block_size": 16, "decoder_width": 8}
    projector = {"projector_hidden": 12, "projector_bottleneck": 6, "out_dim": 10}
    return dataclasses.replace(voc(), pretrained="none", cls_depth=1, **sizes, **projector, **changes)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(small_config()).eval()


def released_shapes() -> dict[str, tuple[int, ...]]:
    """The released checkpoint's tensors, by name."""
    lines = (line.split(" ", 1) for line in KEYS.read_text().splitlines())
    return {name: tuple(int(side) for side in shape.strip("()").split(",") if side) for name, shape in lines}


def test_a_checkpoint_with_the_released_names_and_shapes_loads(tmp_path):
    state = {name: torch.full(shape, 0.01) for name, shape in released_shapes().items()}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "student.pth")
    network, config = load_network(tmp_path / "student.pth", dataset="voc", told={"heads": 12, "decoder_dilation": 5})
    assert (config.embed_dim, config.depth, config.heads, config.cls_depth) == (768, 12, 12, 2)
    assert (config.num_classes, config.crop_size, config.patch_size, config.out_dim) == (21, 448, 16, 4096)
    assert set(network.state_dict()) == set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_is_exported_loads_as_the_same_network(network, prefix, tmp_path):
    teacher = Network(small_config()).eval()
    weights = {"student": network.state_dict(), "teacher": teacher.state_dict()}
    torch.save(weights | {"config": small_config().to_json(), "scores": {}, "step": 1}, tmp_path / "best.pt")
    main([str(tmp_path / "best.pt"), str(tmp_path / "released")])
    image = torch.rand(1, 3, 64, 48)
    for name, original in (("student", network), ("teacher", teacher)):
        file = tmp_path / "released" / f"{name}.pth"
        state = torch.load(file, weights_only=True)
        assert set(state) == set(original.state_dict())
        torch.save({prefix + key: tensor for key, tensor in state.items()}, file)
        loaded, _ = load_network(file, dataset="voc", told=TOLD)
        assert torch.equal(loaded.decoder(loaded.encoder(image).top), original.decoder(original.encoder(image).top))


def refusal(state: dict, tmp_path: Path, **options) -> str:
    torch.save(state, tmp_path / "student.pth")
    with pytest.raises(UserError) as error:
        load_network(tmp_path / "student.pth", dataset="voc", told=TOLD, **options)
    assert str(tmp_path / "student.pth") in str(error.value)
    return str(error.value)


def test_missing_unknown_and_misshapen_tensors_are_listed_in_one_error(network, tmp_path):
    state = network.state_dict()
    del state["encoder.blocks.1.norm1.weight"], state["decoder.conv7.weight"]
    state |= {"encoder.head.weight": torch.zeros(3), "encoder.norm.bias": torch.zeros(31)}
    told = refusal(state, tmp_path)
    assert "lacks encoder.blocks.1.norm1.weight, decoder.conv7.weight" in told
    assert "unknown encoder.head.weight" in told
    assert "encoder.norm.bias (31,) instead of (32,)" in told


def test_what_is_no_checkpoint_of_this_method_is_refused(network, tmp_path):
    assert "lacks encoder.cls_token" in refusal({"fc.weight": torch.zeros(2, 2)}, tmp_path)
    assert "is neither" in refusal({"epoch": 3, "state": [1, 2]}, tmp_path)
    assert "nothing tells whether it is the teacher" in refusal(network.state_dict(), tmp_path, weights="teacher")


def test_nothing_but_tensors_is_unpickled(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"student": _Touch(marker)}, tmp_path / "student.pth")
    with pytest.raises(UserError, match="cannot be read"):
        load_network(tmp_path / "student.pth", dataset="voc", told=TOLD)
    assert not marker.exists()


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["student.pth", "teacher.pth"])
def test_weights_that_are_there_are_never_written_over(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "best.pt"), str(tmp_path)])
    assert end.value.code == 2
    assert f"{tmp_path / name} is there already, and nothing is written over it" in capsys.readouterr().err
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"somebody's"]
