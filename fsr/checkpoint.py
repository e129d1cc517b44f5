"""The state of a training run and its file. A checkpoint is written atomically; a resumed run is bit-identical."""

import copy
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fsr import distributed
from fsr.background_writer import host_copy
from fsr.checkpoint_content import Content, check_content
from fsr.config import TrainConfig
from fsr.errors import UnreadableError, UserError
from fsr.files import atomic_file
from fsr.finite import FiniteGuard
from fsr.json_file import DamagedError
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.losses.separate_and_conquer import separate_and_conquer_of
from fsr.models.network import Network
from fsr.optim import build_optimizer
from fsr.released import ANY, UNTOLD, architecture, carried_by, check_tensors, plain_state, preset_of
from fsr.run import Run, missing_checkpoint
from fsr.tensor_file import read_tensors, write_tensors
from fsr.thresholds import ThresholdMixture, thresholds_of

Weights: TypeAlias = Literal["student", "teacher"]

PARTS = ("student", "teacher", "optimizer", "reinforcement")
NOT_MEASURED = -1.0  # as a best score
VALUES = ("step", "evaluated", "scores", "best", "seconds", "loss_sums", "summed_steps")
CHECKSUM = "checksum"  # in what a run saves: a file that says so, and has no checksum, has lost it


class TrainState:
    """Everything that a run carries from one step to the next.

    It holds no random states: every draw is a function of (seed, micro-batch, step). Nothing in it depends on the
    number of processes, so any number may resume it. Its checkpoints carry the configuration and the names of the
    classes, background first, for whoever reads them elsewhere.
    """

    def __init__(self, config: TrainConfig, device: torch.device, class_names: Sequence[str] = ()) -> None:
        if config.graphs and device.type == "cpu":
            raise UserError("graphs must be false where there is no GPU: a CPU records none")
        self.config, self.class_names = config, list(class_names)
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
        self.mixture: ThresholdMixture | None = None
        if config.threshold_rule == "mixture":
            self.mixture = ThresholdMixture(config.low_threshold, config.high_threshold).to(device)
        self.seco = separate_and_conquer_of(config)
        if self.seco:
            self.seco.to(device)
        self.guard = FiniteGuard(self.optimizer, config.losses, device)
        self.step = 0  # steps done
        self.evaluated = 0  # step of the last evaluation
        self.scores: dict[str, float | None] = {}  # of that evaluation
        self.best = NOT_MEASURED  # best SEG_MIOU (fsr.score_names)
        self.seconds = 0.0  # time spent in this run, all attempts together
        self.loss_sums = torch.zeros(len(config.losses), dtype=torch.float64, device=device)  # since the last record
        self.summed_steps = 0

    def thresholds(self) -> Tensor:
        """Low and high threshold of the labels of the next step, [2], without waiting for a GPU."""
        if self.mixture:
            return self.mixture.thresholds
        own = thresholds_of(self.step, self.config)
        return torch.stack([torch.full((), threshold, device=self.loss_sums.device) for threshold in own])

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
        options = [name for name in ("mixture", "seco") if getattr(self, name)]
        names = [*PARTS, *options]
        parts = {name: dict(getattr(self, name).state_dict()) for name in names}
        told = {"config": self.config.to_json(), "class_names": self.class_names}
        return parts | {name: getattr(self, name) for name in VALUES} | told

    def resume(self, run: Run, device: torch.device) -> bool:
        """Load the run's checkpoint, if there is one, and say whether there was.

        Where it is damaged or missing, loads the previous checkpoint. Rank 0 chooses, and the other ranks load what it
        chose: none looks at a file that rank 0 may still move. Raises UserError, on every rank, if there are
        checkpoints, but none that is whole and of this network.
        """
        path = content = None
        with distributed.shared_errors():
            if distributed.rank() == 0:
                path, content = self._newest(run, device)
        chosen = distributed.from_first(None if path is None else str(path))
        if chosen is None:
            return False
        with distributed.shared_errors():
            content = self._read(Path(str(chosen)), device) if content is None else content
        self._take(content)
        return True

    def _newest(self, run: Run, device: torch.device) -> tuple[Path | None, Content | None]:
        """The newest checkpoint that is whole, and what it holds; None and None where there is none at all.

        A damaged one is set aside, or the next save would replace the previous one with it.
        """
        problems: dict[Path, UserError] = {}
        for path in filter(os.path.lexists, (run.checkpoint_file, run.previous_checkpoint_file)):
            try:
                content = self._read(path, device)
            except UserError as error:
                # No run makes a checkpoint a link, and its next save would replace it: one to nothing is damage.
                leads_nowhere = path.is_symlink() and not path.exists()
                if isinstance(error, UnreadableError) and not leads_nowhere:
                    raise  # this machine's fault, or of a right that is missing: nothing tells of damage
                problems[path] = error
                continue
            for damaged, problem in problems.items():
                aside = run.set_aside(damaged)
                print(f"{problem}; resuming from {path.name}, and it is called {aside.name} now", file=sys.stderr)
            return path, content
        if problems:
            raise UserError("; ".join(map(str, problems.values())))
        return None, None

    def _read(self, path: Path, device: torch.device) -> Content:
        """What a checkpoint of this network holds. Raises UserError if it is damaged, or of another one."""
        content = check_content(load_file(path, device), self._content(), self.optimizer, path)
        if CHECKSUM not in content:
            tell_unchecked(path)
        return content

    def _take(self, content: Content) -> None:
        for name in ("student", "teacher", "reinforcement"):
            getattr(self, name).load_state_dict(content[name])
        if self.mixture:
            self.mixture.load_state_dict(content["mixture"])
        if self.seco:
            self.seco.load_state_dict(content["seco"])
        pairs = zip(self.optimizer.state_dict()["param_groups"], content["optimizer"]["param_groups"], strict=True)
        settings = [own | {"lr": saved["lr"]} for own, saved in pairs]  # all others are the configuration's
        self.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": settings})
        for name in VALUES:
            setattr(self, name, content[name])  # type: ignore[literal-required]


def _write(content: dict[str, Any], run: Run) -> None:
    """Write a checkpoint. The one before becomes the previous checkpoint, in case this one gets damaged."""
    with atomic_file(run.checkpoint_file) as file:
        write_tensors(content | {CHECKSUM: True}, file)
        if run.checkpoint_file.exists():
            os.replace(run.checkpoint_file, run.previous_checkpoint_file)


def load_file(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Tensors and values of a checkpoint. Raises UserError if the file is missing, damaged or no checkpoint."""
    if not os.path.lexists(path):
        raise UnreadableError(missing_checkpoint(path))
    content, has_checksum = read_tensors(path, "checkpoint", device)
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} cannot be read: it holds a {type(content).__name__}, not tensors by name")
    if CHECKSUM in content and not has_checksum:
        raise UserError(f"checkpoint {path} cannot be read: it is damaged, for its checksum is missing")
    return content


@cache
def tell_unchecked(path: Path) -> None:
    """Say, once a file, that a run's checkpoint is of an earlier version."""
    print(f"note: checkpoint {path} was written without a checksum, so damage in it may stay unseen", file=sys.stderr)


def save_best(path: Path, state: TrainState, config: TrainConfig, scores: dict[str, float | None]) -> None:
    """Save the weights of student and teacher with their configuration and scores."""
    weights: dict[str, dict[str, Tensor]] = {
        "student": state.student.state_dict(),
        "teacher": state.teacher.state_dict(),
    }
    with atomic_file(path) as file:
        told = {"config": config.to_json(), "class_names": state.class_names}
        write_tensors(weights | told | {"step": state.step, "scores": scores, CHECKSUM: True}, file)


class Trained(NamedTuple):
    """A trained network, in evaluation mode, and what its checkpoint tells of it."""

    network: Network
    config: TrainConfig
    class_names: list[str]
    """Background first; empty where the checkpoint does not tell."""


def load_network(
    path: Path, weights: Weights | None = None, dataset: str | None = None, told: Mapping[str, Any] | None = None
) -> tuple[Network, TrainConfig]:
    """The network and the configuration of `load_trained`."""
    trained = load_trained(path, weights, dataset, told)
    return trained.network, trained.config


def load_trained(
    path: Path, weights: Weights | None = None, dataset: str | None = None, told: Mapping[str, Any] | None = None
) -> Trained:
    """A trained network.

    Args:
        path: A run's best.pt or checkpoint.pt, what `fsr export` wrote, or the bare state dict of one network.
        weights: Which of a run's two networks; by default the student.
        dataset: Preset that a bare state dict belongs to; ANY for the one that has as many classes.
        told: What only the user can tell of a bare state dict: fields of TrainConfig, None where they were not given.
            By default none was.

    Raises UserError if the file cannot be read or does not fit its network, if `told` says what the file tells itself,
    or if it does not say what the file leaves open.
    """
    content = load_file(path)
    told = dict.fromkeys(UNTOLD) if told is None else told
    if "student" in content:
        state, config = plain_state(content.get(weights or "student"), path), _config_of(content, path)
        class_names = list(content.get("class_names", ()))
        _check_told(told, f"checkpoint {path} is a run's, whose configuration tells")
    elif carried := carried_by(content, path):
        state, config, class_names = plain_state(content, path), _config_of(carried, path), carried["class_names"]
        _check_told(told, f"checkpoint {path} carries its configuration, which tells")
        if weights not in (None, carried["weights"]):
            raise UserError(
                f"checkpoint {path} holds the {carried['weights']} alone, not the {weights}; "
                "a run's best.pt or checkpoint.pt holds both"
            )
    else:
        state, class_names = plain_state(content, path), []
        if weights is not None:
            raise UserError(
                f"checkpoint {path} holds one network, and nothing tells whether it is the {weights}; "
                "a run's best.pt or checkpoint.pt tells it"
            )
        if dataset is None:
            raise UserError(f"checkpoint {path} must be a run's best.pt or checkpoint.pt, with its configuration")
        if dataset == ANY:
            dataset = preset_of(state, path)
        config = architecture(state, path, dataset, told)
    config = dataclasses.replace(config, pretrained="none")
    with torch.device("meta"):  # allocates no memory and draws no weights: the checkpoint replaces them
        network = Network(config)
    own = network.state_dict()
    check_tensors(state, own, path, same_dtype=False)
    network.load_state_dict({name: state[name].to(own[name].dtype) for name in own}, assign=True)
    if "student" in content and CHECKSUM not in content:
        tell_unchecked(path)
    return Trained(network.eval(), config, class_names)


def _check_told(told: Mapping[str, Any], who_tells: str) -> None:
    """Raise UserError where the user told something of the network that the file tells."""
    for name in (*UNTOLD, "backbone", "aux_layer"):
        if told.get(name) is not None:
            raise UserError(f"{who_tells} its {name} (--{name} {told[name]} must be left out)")


def _config_of(content: Mapping[str, Any], path: Path) -> TrainConfig:
    """The configuration that a checkpoint holds, or beside which a run's checkpoint of an earlier version lies."""
    run = Run(path.parent)
    try:
        return TrainConfig.from_json(content["config"]) if "config" in content else run.config()
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} tells no configuration, and {run.config_file} does not exist") from None
    except DamagedError:
        raise  # of the run's own file, which it names
    except (UserError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"checkpoint {path} holds no configuration of a run: {error}") from None
