"""Pretrained encoder weights: from timm, or from a local file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.config import TrainConfig
from fsr.errors import UnreadableError, UserError
from fsr.finite import not_finite
from fsr.tensor_file import read_safetensors, read_tensors

if TYPE_CHECKING:
    from fsr.models.encoder import Encoder

WHAT = "pretrained weights"


def load_pretrained(encoder: "Encoder", config: TrainConfig) -> None:
    """Give the encoder its pretrained weights, as `config.pretrained` says.

    The class token joins after the blocks, so its position is not used; the mask token and the cross-attention blocks
    have no pretrained weights. Raises UserError if the file is missing, unreadable or of another architecture.
    """
    if config.pretrained == "none":
        return
    if config.pretrained == "timm":
        state = timm.create_model(config.backbone, pretrained=True, num_classes=0).state_dict()
    else:
        state = read_weights(Path(config.pretrained))
    own = encoder.state_dict()
    new_here = ("mask_token", "cls_blocks.")
    missing = [name for name in own if name not in state and not name.startswith(new_here)]
    if missing:
        names = ", ".join(missing[:5])
        raise UserError(f"pretrained weights {config.pretrained} lack {names}; expected those of a plain ViT")
    weights = {name: state[name] for name in own if name in state}
    wrong = [name for name, tensor in weights.items() if not tensor.is_floating_point()] or not_finite(weights)
    if wrong:
        raise UserError(f"pretrained weights {config.pretrained} have NaN, infinity or no numbers in {wrong[0]}")
    if weights["pos_embed"].ndim == 3 and weights["pos_embed"].shape[1] > 1:
        weights["pos_embed"] = resize_position(weights["pos_embed"], own["pos_embed"].shape[1])
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"pretrained weights {config.pretrained} have {name} {tuple(tensor.shape)}, "
                f"but backbone {config.backbone} wants {tuple(own[name].shape)}"
            )
    encoder.load_state_dict(weights, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors in a .pth or .safetensors file; training wrappers and prefixes are taken off.

    Raises UserError if the file is missing or unreadable, or holds no tensors by name.
    """
    if not os.path.lexists(path):
        raise UnreadableError(f"pretrained must be timm, none or a file, and {path} does not exist")
    state: Any = read_safetensors(path, WHAT) if path.suffix == ".safetensors" else read_tensors(path, WHAT)[0]
    for wrapper in ("state_dict", "model", "teacher"):  # timm's, DeiT's and DINO's training checkpoints
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = state.items() if isinstance(state, dict) else ()
    named = {name: tensor for name, tensor in tensors if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not named:
        raise UserError(f"{WHAT} {path} cannot be read: it holds no tensors by name")
    return {name.removeprefix("module.").removeprefix("backbone."): tensor for name, tensor in named.items()}


def resize_position(position: Tensor, tokens: int) -> Tensor:
    """Position embedding [1, 1 + m * m, D] resized to `tokens` = 1 + n * n, bicubic."""
    if position.shape[1] == tokens:
        return position
    before, after = (round((count - 1) ** 0.5) for count in (position.shape[1], tokens))
    grid = torch.unflatten(position[:, 1:], 1, (before, before)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
