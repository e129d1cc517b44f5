"""What a checkpoint must hold to be the state of a run: the right tensors, all finite, and values of the right kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from fsr.errors import UserError
from fsr.released import check_tensors


class OptimizerState(TypedDict):
    """AdamW's state, of each parameter that had a gradient, by its number."""

    state: dict[int, dict[str, Tensor]]
    param_groups: list[dict[str, Any]]


class _Newer(TypedDict, total=False):
    """What checkpoints of earlier versions lack."""

    checksum: bool
    """Says that the file was written with one."""
    config: dict[str, Any]
    class_names: list[str]
    mixture: dict[str, Tensor]
    """Of the thresholds, where they follow one."""
    seco: dict[str, Tensor]
    """Prototypes and queue of separate and conquer, where it is on."""


class Content(_Newer):
    """All that a checkpoint holds."""

    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    optimizer: OptimizerState
    reinforcement: dict[str, Tensor]
    step: int
    evaluated: int
    scores: dict[str, float | None]
    best: float
    seconds: float
    loss_sums: Tensor
    summed_steps: int


def check_content(content: object, own: Mapping[str, Any], optimizer: torch.optim.Optimizer, path: Path) -> Content:
    """A checkpoint's content, if it fits a run's `own`, which names the same things, and its optimizer.

    Raises UserError that names what is missing, of another kind or shape, or not finite.
    """
    try:
        check_type(content, Content, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise UserError(f"checkpoint {path} cannot be read: it is not that of a run, for {error}") from None
    known = cast(Content, content)
    for name in ("student", "teacher", "reinforcement"):
        check_tensors(known[name], own[name], path, same_dtype=True)
    check_tensors(known.get("mixture", {}), own.get("mixture", {}), path, same_dtype=True)
    check_tensors(known.get("seco", {}), own.get("seco", {}), path, same_dtype=True)
    check_tensors({"loss_sums": known["loss_sums"]}, {"loss_sums": own["loss_sums"]}, path, same_dtype=True)
    _check_optimizer(known["optimizer"], optimizer, path)
    return known


def _check_optimizer(state: OptimizerState, optimizer: torch.optim.Optimizer, path: Path) -> None:
    groups = optimizer.state_dict()["param_groups"]
    weights = dict(enumerate(weight.detach() for group in optimizer.param_groups for weight in group["params"]))
    same = [group.get("params") for group in state["param_groups"]] == [group["params"] for group in groups]
    rated = all(isinstance(group.get("lr"), float | int) for group in state["param_groups"])
    if not (same and rated and state["state"].keys() <= weights.keys()):
        raise UserError(f"checkpoint {path} does not fit its network: its optimizer has other parameters")
    own = {
        number: {"step": torch.zeros(()), "exp_avg": weights[number], "exp_avg_sq": weights[number]}
        for number in state["state"]
    }
    check_tensors(_by_name(state["state"]), _by_name(own), path, same_dtype=True)


def _by_name(states: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"optimizer.{number}.{name}": tensor for number, of_one in states.items() for name, tensor in of_one.items()
    }
