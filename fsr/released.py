"""Checkpoints in the released implementation's format: the weights of one network, by name.

Our networks use the same names (tests/golden/checkpoint_keys.txt). `fsr.checkpoint.load_network` reads such files,
`fsr export` writes them. What we write carries its configuration where torch keeps the versions of modules, so every
program that reads the released files reads ours: `torch.load(file, weights_only=True)._metadata["fsr"]`.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from typeguard import TypeCheckError
from typing_extensions import TypedDict

from fsr.config import PRESETS, TrainConfig
from fsr.errors import UserError
from fsr.finite import not_finite
from fsr.foreign_tensors import State, flat_tensors, network_in
from fsr.json_file import typed

# Tensors that tell the architecture.
_TELLING = {
    "encoder.cls_token": 3,
    "encoder.pos_embed": 3,
    "encoder.patch_embed.proj.weight": 4,
    "decoder.conv6.weight": 4,
    "decoder.conv8.weight": 4,
    "projector.mlp.0.weight": 2,
    "projector.mlp.4.weight": 2,
    "projector.last_layer.weight_v": 2,
}
# Fields of the network that inference computes with, and that no shape tells. Of two plain ViTs of timm whose tensors
# have the same names and shapes, the blocks compute the same (tests/test_exported.py), so the backbone is told. The
# block of the aux features is the released one, unless a user says another.
UNTOLD = ("heads", "decoder_dilation")
_VIT_BASE_HEADS = 12  # which the presets of the paper leave to their backbone
ANY = "any"  # in the place of a preset
_METADATA = "fsr"  # its place in torch's metadata of a state dict, beside the names of modules
_LISTED = 20  # names in an error


class Carried(TypedDict):
    """What an exported file says of its network."""

    weights: Literal["student", "teacher"]
    config: dict[str, Any]
    class_names: list[str]


def plain_state(content: object, path: Path) -> State:
    """The tensors of a network in a checkpoint, whatever it is wrapped in.

    Raises UserError if there are no tensors, or those of several networks.
    """
    if not isinstance(content, dict) or not any(isinstance(value, (Tensor, dict)) for value in content.values()):
        raise UserError(
            f"checkpoint {path} must be a run's best.pt or checkpoint.pt, or a plain state dict "
            "such as the released student.pth, and is neither"
        )
    tensors = flat_tensors(content, path, "checkpoint")
    prefix = network_in(tensors, "encoder.patch_embed.proj.weight", path, "checkpoint")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def carrying(state: Mapping[str, Any], carried: Carried) -> "OrderedDict[str, Tensor]":
    """A network's state dict that carries what is said of it; without it, it is the released implementation's."""
    content = OrderedDict(state)
    metadata = OrderedDict(getattr(state, "_metadata", {}))
    content._metadata = metadata | {_METADATA: dict(carried)}  # type: ignore[attr-defined]  # as torch's modules do
    return content


def carried_by(content: dict[str, Any], path: Path) -> Carried | None:
    """What a file's state dict carries, also where it was wrapped in a dictionary; None for one that carries nothing.

    Raises UserError where it is damaged.
    """
    for state in (content, *content.values()):
        metadata = getattr(state, "_metadata", None)
        if isinstance(metadata, dict) and _METADATA in metadata:
            try:
                return typed(metadata[_METADATA], Carried)
            except TypeCheckError as error:
                raise UserError(f"checkpoint {path} carries no configuration of a run: {error}") from None
    return None


def preset_of(state: State, path: Path) -> str:
    """The preset, one named as its data set, with as many classes as a bare state dict.

    Raises UserError if there is none.
    """
    last = state.get("decoder.conv8.weight")
    presets = {preset().num_classes: preset().dataset for preset in PRESETS.values()}
    if last is None or not last.ndim or len(last) not in presets:
        known = ", ".join(f"{classes} ({name})" for classes, name in presets.items())
        raise UserError(
            f"checkpoint {path} is a bare state dict that names no classes; it must have as many as a preset, "
            f"background included: {known}"
        )
    return presets[len(last)]


def architecture(state: State, path: Path, dataset: str, told: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the network that these weights belong to: `dataset`'s preset with what shapes tell, and with
    the fields in `told`, which nothing else tells.

    Raises UserError where shapes tell no FSR network, and that asks for the fields in `told` that are None.
    """
    missing = [
        name
        for name, ndim in _TELLING.items()
        if name not in state or state[name].ndim != ndim or not state[name].numel()
    ]
    if missing:
        raise UserError(f"checkpoint {path} is not of an FSR network: it lacks {', '.join(missing)}")
    unsaid = [name for name in told if told[name] is None]
    if unsaid:
        raise UserError(
            f"checkpoint {path} is a bare state dict, whose shapes do not tell {', '.join(unsaid)}; each must be given "
            f"(a network of the {dataset} preset has {_as_in_preset(unsaid, dataset)})"
        )
    width = state["encoder.cls_token"].shape[2]
    if width % told["heads"]:
        raise UserError(f"checkpoint {path} is {width} wide, which {told['heads']} heads cannot share (--heads)")
    patch = state["encoder.patch_embed.proj.weight"].shape[2]
    crop = patch * round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5)
    return dataclasses.replace(
        PRESETS[dataset](),
        pretrained="none",
        embed_dim=width,
        depth=_blocks(state, "encoder.blocks."),
        patch_size=patch,
        crop_size=crop,
        block_size=patch,
        cls_depth=_blocks(state, "encoder.cls_blocks."),
        num_classes=state["decoder.conv8.weight"].shape[0],
        decoder_width=state["decoder.conv6.weight"].shape[0],
        projector_hidden=state["projector.mlp.0.weight"].shape[0],
        projector_bottleneck=state["projector.mlp.4.weight"].shape[0],
        out_dim=state["projector.last_layer.weight_v"].shape[0],
        **told,
    )


def _as_in_preset(names: list[str], dataset: str) -> str:
    """These fields of a preset, as flags."""
    fields = dataclasses.asdict(PRESETS[dataset]())
    fields["heads"] = fields["heads"] or _VIT_BASE_HEADS
    return " ".join(f"--{name} {fields[name]}" for name in names)


def check_tensors(state: State, own: State, path: Path, *, same_dtype: bool) -> None:
    """Raises UserError that lists the tensors that are missing, unknown, of another shape or kind than the network's
    own, or that hold NaN or infinity.

    Other floating-point types are fine unless it must be the `same_dtype`.
    """
    shared = {name: (state[name], tensor) for name, tensor in own.items() if name in state}
    problems = {
        "lacks": [name for name in own if name not in state],
        "has unknown": [name for name in state if name not in own],
        "has of another shape": [
            f"{name} {tuple(found.shape)} instead of {tuple(tensor.shape)}"
            for name, (found, tensor) in shared.items()
            if found.shape != tensor.shape
        ],
        "has of another kind": [
            f"{name} {_kind(found)} instead of {_kind(tensor)}"
            for name, (found, tensor) in shared.items()
            if not _is_alike(found, tensor, same_dtype)
        ],
    }
    if not any(problems.values()):
        problems["has NaN or infinity in"] = not_finite(state)
    texts = []
    for problem, names in problems.items():
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        if names:
            texts.append(f"{problem} {', '.join(names[:_LISTED])}{more}")
    if texts:
        raise UserError(f"checkpoint {path} does not fit its network: it {'; it '.join(texts)}")


def _is_alike(found: Tensor, own: Tensor, same_dtype: bool) -> bool:
    dtypes = found.dtype == own.dtype or (not same_dtype and found.is_floating_point() and own.is_floating_point())
    return dtypes and found.layout == torch.strided and not found.is_meta and not found.is_quantized


def _kind(tensor: Tensor) -> str:
    return " ".join(str(part).removeprefix("torch.") for part in (tensor.layout, tensor.dtype, tensor.device.type))


def _blocks(state: State, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
