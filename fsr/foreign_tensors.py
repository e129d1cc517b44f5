"""Tensors in files that other programs wrote: state dicts, training checkpoints of DINO, MAE and DeiT, wrapped copies.

A network lies somewhere inside: under `model`, `teacher` or `state_dict`, behind what DDP and torch.compile put before
its names. So each tensor is known by its whole path, and the network is found by a tensor that each network has.
"""

from pathlib import Path

from torch import Tensor

from fsr.errors import UserError

State = dict[str, Tensor]
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
