"""Pretrained encoder weights: each tensor of a file is used, known to be of no use, or a reason to refuse the file."""

import re
import sys
from collections.abc import Iterable
from functools import cache
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr import distributed
from fsr.config import STARTS, TrainConfig
from fsr.errors import UnreadableError, UserError
from fsr.finite import not_finite
from fsr.foreign_tensors import State, flat_tensors, network_in
from fsr.pretrained import fetch_command, how_to_fetch, weights_file
from fsr.tensor_file import read_tensors, told_in

if TYPE_CHECKING:
    from fsr.models.encoder import Encoder

WHAT = "pretrained weights"
_LISTED = 20  # kinds of names in a sentence
# The first part of names that the encoder has no use for: what comes after the last block, what pretraining alone
# needs, and the tokens that are not in this method's blocks. Any other tensor would change what the network computes.
_USELESS = re.compile(
    r"(heads?|head_dist|fc|fc_norm|pre_logits|classifier|last_layer|attn_pool"
    r"|mask_token|masked_embed|decoder\w*|predictor|projector|dist_token)(\..*)?"
)
OWN = ("mask_token", "cls_blocks.")  # only a run of this program has trained them


def load_pretrained(encoder: "Encoder", config: TrainConfig) -> None:
    """Give the encoder its pretrained weights, as `config.pretrained` says.

    The class token joins after the blocks, so its position is not used. The mask token and the cross-attention blocks
    have pretrained weights only in a run of this program. Rank 0 says on stderr which tensors have no use. Raises
    UserError if the file is missing, unreadable or of another architecture.
    """
    if config.pretrained == "none":
        return
    path = weights_file(config)
    if path is None:
        raise UnreadableError(how_to_fetch(config, "they are not there"))
    if not path.exists():
        raise UnreadableError(f"pretrained must be {', '.join(STARTS)} or a file, and {path} does not exist")
    try:
        content, _ = read_tensors(path, WHAT)
    except UserError as error:
        if config.pretrained != "timm":
            raise
        raise UserError(f"{error}; {fetch_command(config)} fetches it again") from error
    weights, notes = encoder_weights(content, encoder, path, config.backbone)
    heads = told_in(path).get("heads", str(encoder.heads))  # which no tensor's shape tells
    if heads != str(encoder.heads):
        raise UserError(f"{WHAT} {path} have {heads} heads, but backbone {config.backbone} wants {encoder.heads}")
    encoder.load_state_dict(weights, strict=False)
    if notes and distributed.rank() == 0:
        _tell(f"note: of {WHAT} {path} these have no use here: {notes}")


def encoder_weights(content: object, encoder: "Encoder", path: Path, backbone: str) -> tuple[State, str]:
    """The tensors of an encoder in what a file holds, by its names; and which others have no use, in words.

    Raises UserError if tensors are missing or of another shape, or if there are some that change what a ViT computes.
    """
    own = encoder.state_dict()
    tensors = flat_tensors(content, path, WHAT)
    prefix = network_in(tensors, "patch_embed.proj.weight", path, WHAT)
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if "patch_embed.proj.weight" not in state:
        raise UserError(
            f"{WHAT} {path} must be those of a plain ViT in timm's names (patch_embed.proj.weight, blocks.0.…), "
            f"and are {_kinds(tensors)}"
        )
    is_own = "cls_blocks.0.norm1.weight" in state
    wanted = [name for name in own if is_own or not name.startswith(OWN)]
    unused = [name for name in state if name not in wanted]
    problems = {
        "lack {}": [name for name in wanted if name not in state],
        "hold {}, which would change what the network computes": [n for n in unused if not _USELESS.fullmatch(n)],
    }
    if any(problems.values()):
        texts = " and ".join(problem.format(_kinds(names)) for problem, names in problems.items() if names)
        raise UserError(f"{WHAT} {path} {texts}; expected those of backbone {backbone}, a plain ViT")
    weights = {name: state[name] for name in wanted}
    wrong = [name for name, tensor in weights.items() if not tensor.is_floating_point()] or not_finite(weights)
    if wrong:
        raise UserError(f"{WHAT} {path} have NaN, infinity or no numbers in {_kinds(wrong)}")
    others = 2 if "dist_token" in state else int(is_own or encoder.class_has_position)
    weights["pos_embed"] = _position(state["pos_embed"].float(), others, own["pos_embed"].shape[1], path)
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{WHAT} {path} have {name} {tuple(tensor.shape)}, "
                f"but backbone {backbone} wants {tuple(own[name].shape)}"
            )
    beside = _parts([name for name in tensors if not name.startswith(prefix)], prefix)
    return weights, ", ".join(filter(None, (_kinds(unused), beside)))


def resize_position(position: Tensor, tokens: int) -> Tensor:
    """Position embedding [1, 1 + m * m, D] resized to `tokens` = 1 + n * n, bicubic."""
    if position.shape[1] == tokens:
        return position
    before, after = (isqrt(count - 1) for count in (position.shape[1], tokens))
    grid = torch.unflatten(position[:, 1:], 1, (before, before)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _position(table: Tensor, others: int, tokens: int, path: Path) -> Tensor:
    """A file's position table of so many `others` and then the patches, as [1, tokens, D]: the class token's, patches'.

    Raises UserError if the patches make no square grid. How many others there are must be known: a table of 196 may be
    that of 14 × 14 patches, or of the class token and 13 × 15. A grid such as 4 × 9 goes unseen.
    """
    patches = table.shape[1] - others if table.ndim == 3 and len(table) == 1 else 0
    if patches < 1 or isqrt(patches) ** 2 != patches:
        raise UserError(
            f"{WHAT} {path} have pos_embed {tuple(table.shape)}; "
            f"expected [1, {others} + n * n, width]: {others} before the patches of a square grid"
        )
    first = table[:, :1] if others else torch.zeros_like(table[:, :1])
    return resize_position(torch.cat([first, table[:, others:]], dim=1), tokens)


def _kinds(names: Iterable[str]) -> str:
    """All names, but of those that differ in numbers alone the first one and how many there are."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "0", name), []).append(name)
    texts = [f"{of[0]} (and {len(of) - 1} like it)" if len(of) > 1 else of[0] for of in alike.values()]
    more = [f"and {len(texts) - _LISTED} more"] if len(texts) > _LISTED else []
    return ", ".join(texts[:_LISTED] + more)


def _parts(names: Iterable[str], prefix: str) -> str:
    """The parts of a file beside the network with this prefix, and how many tensors each has."""
    counts: dict[str, int] = {}
    inner = prefix.split(".")
    for name in names:
        place = name.split(".")
        shared = next((i for i, (one, other) in enumerate(zip(place, inner, strict=False)) if one != other), 0)
        part = ".".join(place[: shared + 1])
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in counts.items())


@cache
def _tell(note: str) -> None:
    """Say something once in this process, however many networks it makes."""
    print(note, file=sys.stderr)
