"""The state of a training run and its file. A checkpoint is written atomically; a resumed run is bit-identical."""

import copy
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from fsr import distributed
from fsr.background_writer import host_copy
from fsr.config import TrainConfig
from fsr.errors import UnreadableError, UserError
from fsr.files import atomic_file
from fsr.finite import FiniteGuard
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.models.network import Network
from fsr.optim import build_optimizer
from fsr.released import architecture, check_heads, check_names, plain_state
from fsr.run import Run, missing_checkpoint

Weights: TypeAlias = Literal["student", "teacher"]

# Nothing reads the checksums of a checkpoint, not even torch.load, and computing them takes longer than writing.
torch.serialization.set_crc32_options(False)

LOSSES = ("loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg")
PARTS = ("student", "teacher", "optimizer", "reinforcement")
VALUES = ("step", "evaluated", "scores", "best", "seconds", "loss_sums", "summed_steps")


class TrainState:
    """Everything that a run carries from one step to the next.

    It holds no random states: every draw is a function of (seed, micro-batch, step). Nothing in it depends on the
    number of processes, so any number may resume it.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        if config.graphs and device.type == "cpu":
            raise UserError("graphs must be false where there is no GPU: a CPU records none")
        torch.manual_seed(config.seed)  # all ranks start from the same weights
        self.student = Network(config).to(device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        if config.compile:
            torch.compiler.reset()  # a process may train many runs, and keeps few versions of compiled code
            for network in (self.student, self.teacher):
                network.encoder.compile_blocks()
        self.optimizer = build_optimizer(self.student, config)
        self.reinforcement = SelfReinforcement(config.out_dim, config.student_temp)
        self.reinforcement.to(device)
        self.guard = FiniteGuard(self.optimizer, LOSSES, device)
        self.step = 0  # steps done
        self.evaluated = 0  # step of the last evaluation
        self.scores: dict[str, float] = {}  # of that evaluation
        self.best = -1.0  # best SEG_MIOU (fsr.score_names)
        self.seconds = 0.0  # time spent in this run, all attempts together
        self.loss_sums = torch.zeros(len(LOSSES), dtype=torch.float64, device=device)  # since the last record
        self.summed_steps = 0

    def snapshot(self) -> Callable[[Run], None]:
        """Copy the whole state to host memory and return a function that writes the copy as a run's checkpoint."""
        state = host_copy(self._content())
        copied = torch.cuda.Event() if self.loss_sums.is_cuda else None  # type: ignore[no-untyped-call]  # torch
        if copied:
            copied.record()

        def write(run: Run) -> None:
            if copied:
                copied.synchronize()
            _write(state, run)

        return write

    def save(self, run: Run) -> None:
        """Write the whole state as the run's checkpoint, and return when it is on the disk.

        On a CPU the state is written without a copy: filling new memory can take longer than writing the file.
        """
        if self.loss_sums.is_cuda:
            self.snapshot()(run)
        else:
            _write(self._content(), run)

    def _content(self) -> dict[str, Any]:
        """What a checkpoint holds, not copied."""
        parts = {name: dict(getattr(self, name).state_dict()) for name in PARTS}
        return parts | {name: getattr(self, name) for name in VALUES}

    def resume(self, run: Run, device: torch.device) -> bool:
        """Load the run's checkpoint, if there is one, and say whether there was.

        Where it is damaged or missing, loads the previous checkpoint. Rank 0 chooses, and the other ranks load what it
        chose: none looks at a file that rank 0 may still remove. Raises UserError, on every rank, if no checkpoint can
        be read, or if it belongs to another network.
        """
        path = state = None
        with distributed.shared_errors():
            if distributed.rank() == 0:
                path, state = readable_checkpoint(run, device)
        chosen = distributed.from_first(None if path is None else str(path))
        if chosen is None:
            return False
        path = Path(str(chosen))
        with distributed.shared_errors():
            self._take(load_file(path, device) if state is None else state, path)
        return True

    def _take(self, state: dict[str, Any], path: Path) -> None:
        try:
            for name in PARTS:
                getattr(self, name).load_state_dict(state[name])
            for name in VALUES:
                setattr(self, name, state[name])
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"checkpoint {path} does not fit this configuration: {reason}") from error


def _write(content: dict[str, Any], run: Run) -> None:
    """Write a checkpoint. The one before becomes the previous checkpoint, in case this one gets damaged."""
    with atomic_file(run.checkpoint_file) as file:
        torch.save(content, file)
        if run.checkpoint_file.exists():
            os.replace(run.checkpoint_file, run.previous_checkpoint_file)


def readable_checkpoint(run: Run, device: torch.device) -> tuple[Path | None, dict[str, Any] | None]:
    """The newest checkpoint of a run that can be read, and what it holds; None and None where there is none.

    Removes a damaged checkpoint, if there is one before it. Raises UserError if there are checkpoints, but none can be
    read.
    """
    present = [path for path in (run.checkpoint_file, run.previous_checkpoint_file) if path.exists()]
    for path in present:
        try:
            return path, load_file(path, device)
        except UserError as error:
            if path == present[-1]:
                raise
            print(f"{error}; resuming from {present[-1].name}", file=sys.stderr)
            path.unlink()  # or the next save would replace the good previous checkpoint with it
    return None, None


def load_file(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Tensors and values of a checkpoint. Raises UserError if the file is missing or cannot be read."""
    if not path.is_file():
        raise UnreadableError(missing_checkpoint(path))
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return content
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def save_best(path: Path, state: TrainState, config: TrainConfig, scores: dict[str, float]) -> None:
    """Save the weights of student and teacher with their configuration and scores."""
    weights: dict[str, dict[str, Tensor]] = {
        "student": state.student.state_dict(),
        "teacher": state.teacher.state_dict(),
    }
    with atomic_file(path) as file:
        torch.save(weights | {"step": state.step, "config": config.to_json(), "scores": scores}, file)


def load_network(
    path: Path, weights: Weights | None = None, dataset: str | None = None, heads: int | None = None
) -> tuple[Network, TrainConfig]:
    """A trained network, in evaluation mode, and its configuration.

    Args:
        path: A run's best.pt or checkpoint.pt, or one network's weights in the released implementation's format.
        weights: Which of a run's two networks; by default the student.
        dataset: Preset that a released checkpoint belongs to.
        heads: Attention heads of a released checkpoint, if they are not 64 channels wide.

    Raises UserError if the file cannot be read or does not fit its network.
    """
    content = load_file(path)
    if isinstance(content, dict) and "student" in content:
        if "config" not in content and not Run(path.parent).config_file.exists():
            raise UserError(
                f"checkpoint {path} does not hold its configuration, and its run's config.json is not beside it; "
                "take it from the run's folder, or give best.pt, which holds both"
            )
        config = TrainConfig.from_json(content["config"]) if "config" in content else Run(path.parent).config()
        state = plain_state(content.get(weights or "student"), path)
        config = dataclasses.replace(config, pretrained="none")
    else:
        state = plain_state(content, path)
        if weights is not None:
            raise UserError(
                f"checkpoint {path} holds one network, as fsr.export writes it, not a run's student and teacher "
                f"(--weights {weights} must be left out)"
            )
        if dataset is None:
            raise UserError(f"checkpoint {path} must be a run's best.pt or checkpoint.pt, with its configuration")
        config = architecture(state, path, dataset, heads)
    with torch.device("meta"):  # allocates no memory and draws no weights: the checkpoint replaces them
        network = Network(config)
    own = network.state_dict()
    check_names(state, own, path)
    if "student" not in content:
        check_heads(config, path, heads)
    network.load_state_dict({name: state[name].to(own[name].dtype) for name in own}, assign=True)
    return network.eval(), config
