"""Tensors in files that other programs wrote: state dicts, training checkpoints of DINO, MAE and DeiT, wrapped copies.

A network lies somewhere inside: under `model`, `teacher` or `state_dict`, behind what DDP and torch.compile put before
its names. So each tensor is known by its whole path, and the network is found by a tensor that each network has.
"""

import argparse
import pathlib
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fsr.errors import UnreadableError, UserError, unreadable
from fsr.regular_file import open_regular

State = dict[str, Tensor]
# What the programs of this field save beside tensors. To make one runs nothing, whatever it is made of.
_numpy = np._core.multiarray  # type: ignore[attr-defined]  # where pickles of NumPy 2 find these functions
HARMLESS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    *((pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((_numpy.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_numpy._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)),
]
# Parts of a name that DDP, torch.compile, FSDP and activation checkpointing add.
_SHELLS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Weight norm as torch spells it now, and as it did.
_WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
# Which of several copies of a network is meant, by its place: of a run of this program as in inference, else the one
# that its authors evaluate.
_MEANT = (
    "student.encoder.",
    "teacher.",  # DINO, iBOT, DINOv2
    "target_encoder.",  # I-JEPA
    "state_dict_ema.",  # timm
    "model_ema.",  # DeiT
    "base_encoder.",  # MoCo v3
)
_DEEPEST = 8  # a pickle may hold itself


def read_foreign(path: Path, what: str) -> object:
    """What a file of torch's or safetensors' format holds, on the CPU; its name does not matter.

    Nothing but tensors, plain values and HARMLESS types is unpickled. Raises UserError, which calls the file `what`, if
    it is missing, damaged, or holds anything else.
    """
    if path.is_dir():
        raise UnreadableError(f"{what} must be one file, and {path} is a folder")
    try:
        with open_regular(path) as file:
            start = file.read(9)
            if start[8:] == b"{":
                return load_file(path)
            file.seek(0)
            with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused in the next moment
                return torch.load(file, "cpu", weights_only=True)
    except Exception as error:
        raise unreadable(error)(f"{what} {path} cannot be read: {_reason(error)}") from error


def flat_tensors(content: object, path: Path, what: str) -> State:
    """All tensors of a file's content by their place in it (`teacher.backbone.cls_token`), without the shells' names.

    Raises UserError if two have one name, or if there are none.
    """
    found: State = {}
    for name, tensor in _walk(content, ()):
        parts = [part for part in name.split(".") if part not in _SHELLS]
        plain = ".".join(parts)
        for new, old in _WEIGHT_NORM.items():
            plain = plain.removesuffix(new) + old if plain.endswith(f".{new}") else plain
        if plain in found:
            raise UserError(f"in {what} {path} there is {plain} twice; save one network's state_dict()")
        found[plain] = tensor
    if not found:
        raise UserError(f"{what} {path} cannot be read: it holds no tensors by name")
    return found


def network_in(tensors: State, telling: str, path: Path, what: str) -> str:
    """The prefix of a network's names, found by its tensor `telling`; empty where there is no such network.

    Raises UserError if there are several, and it is not known which is meant.
    """
    ends = [name.removesuffix(telling) for name in tensors if f".{name}".endswith(f".{telling}")]
    for place in _MEANT:
        meant = [prefix for prefix in ends if f".{place}" in f".{prefix}"]
        if len(ends) > 1 and len(meant) == 1:
            return meant[0]
    if len(ends) > 1:
        names = ", ".join(prefix.removesuffix(".") or "the outermost" for prefix in ends)
        raise UserError(f"in {what} {path} there are several networks ({names}); save the state_dict() of one")
    return ends[0] if ends else ""


def _walk(content: object, place: tuple[str, ...]) -> list[tuple[str, Tensor]]:
    if isinstance(content, Tensor) and place:
        return [(".".join(place), content)]
    if not isinstance(content, dict) or len(place) > _DEEPEST:
        return []
    return [found for name, value in content.items() for found in _walk(value, (*place, str(name)))]


def _reason(error: Exception) -> str:
    """What is wrong with a file, in a few words: torch goes on to say how to load it nevertheless."""
    text = str(error)
    if "Unsupported global" in text or "weights_only" in text or "Weights only" in text:
        kind = text.partition("GLOBAL ")[2].split(" ")[0]
        held = f"an object of {kind}" if kind else "something else than tensors and plain values"
        return f"it holds {held}, or is damaged; save the network's state_dict() alone"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = next(iter(text.splitlines()), "").partition(". ")[0] or type(error).__name__
    return f"it is damaged, or no file of tensors ({said})"
