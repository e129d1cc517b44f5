"""Checkpoints in the released implementation's format: the weights of one network, by name.

Our networks use the same names (tests/golden/checkpoint_keys.txt). `fsr.checkpoint.load_network` reads such files,
`fsr export` writes them.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from fsr.config import PRESETS, TrainConfig
from fsr.errors import UserError
from fsr.finite import not_finite
from fsr.foreign_tensors import State, flat_tensors, network_in

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
# Heads of ViTs by their width; timm's and the released ones have 64 channels a head, except the largest.
_HEAD_WIDTH = 64
_WIDE_HEADS = {1280: 16, 1408: 16, 1664: 16}
_LISTED = 20  # names in an error


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


def architecture(state: State, path: Path, dataset: str, heads: int | None = None) -> TrainConfig:
    """The configuration of the network that these weights belong to, as shapes tell it, on `dataset`'s preset.

    Shapes do not tell the heads: without `heads` there are as many as in the preset, if that has this width, or else
    64 channels each (`check_heads`). Raises UserError where they tell no FSR network.
    """
    missing = [
        name
        for name, ndim in _TELLING.items()
        if name not in state or state[name].ndim != ndim or not state[name].numel()
    ]
    if missing:
        raise UserError(f"checkpoint {path} is not of an FSR network: it lacks {', '.join(missing)}")
    width, preset = state["encoder.cls_token"].shape[2], PRESETS[dataset]()
    if heads is None and preset.embed_dim == width:
        heads = preset.heads
    heads = heads or _WIDE_HEADS.get(width, max(1, width // _HEAD_WIDTH))
    if heads < 1 or width % heads:
        raise UserError(f"checkpoint {path} is {width} wide, which {heads} heads cannot share (--heads)")
    patch = state["encoder.patch_embed.proj.weight"].shape[2]
    crop = patch * round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5)
    return dataclasses.replace(
        preset,
        pretrained="none",
        embed_dim=width,
        depth=_blocks(state, "encoder.blocks."),
        heads=heads,
        patch_size=patch,
        crop_size=crop,
        block_size=patch,
        cls_depth=_blocks(state, "encoder.cls_blocks."),
        num_classes=state["decoder.conv8.weight"].shape[0],
        decoder_width=state["decoder.conv6.weight"].shape[0],
        projector_hidden=state["projector.mlp.0.weight"].shape[0],
        projector_bottleneck=state["projector.mlp.4.weight"].shape[0],
        out_dim=state["projector.last_layer.weight_v"].shape[0],
    )


def check_heads(config: TrainConfig, path: Path, heads: int | None) -> None:
    """Raises UserError where `heads` were not given, and nothing tells how many `architecture` had to take."""
    width, preset = config.embed_dim or 0, PRESETS[config.dataset]()
    if heads is None and preset.embed_dim != width and width not in _WIDE_HEADS and width % _HEAD_WIDTH:
        raise UserError(
            f"checkpoint {path} is {width} wide, which heads of {_HEAD_WIDTH} channels cannot share; "
            "say how many there are with --heads"
        )


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
