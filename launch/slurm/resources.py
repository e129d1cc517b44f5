"""What a job asks of a Slurm cluster: from flags, or from a small file that a user writes once per cluster."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from fsr.bounds import Bounded, Bounds, check_bounds
from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.inference.config import InferConfig
from fsr.regular_file import read_regular
from launch.slurm import answers, commands, sbatch_options
from launch.slurm.commands import Silence
from launch.slurm.sbatch_options import FLAGS, GPUS, Options, asks_for_gpus

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = "~/.config/fsr/cluster.toml"
OF_ONE_CALL = ("cluster_file", "renew_code")  # what a cluster file cannot say
MOST_NOTICE_S = 65535  # Slurm's
THIS_MACHINE = "; --cluster local works on this machine"
R = TypeVar("R", bound="Resources")


class _Number(int):
    """A default, which can be told from the same number given by the user."""

    def __hash__(self) -> int:  # another one: tyro finds a default's type by the default
        return hash((_Number, int(self)))


class _Text(str):
    """A default, which can be told from the same text given by the user."""


AUTO: Any = _Text("auto")
ONE_NODE, NOTICE_S = _Number(1), _Number(120)


@dataclass(frozen=True, kw_only=True)
class Resources(Bounded):
    """Where and with what each trial is trained. On Slurm, what is not given here is the cluster's own default."""

    # Slurm
    cluster: Literal["auto", "slurm", "local", "debug"] = AUTO
    """Slurm, processes of this machine, or this very process; auto is slurm where its commands are, or where another
    flag asks for it, else local."""
    gpus: Annotated[int | str | None, Bounds(0, 10**5), tyro.conf.arg(metavar="N")] = None
    """GPUs a trial, one process each, or type and number as in a100:4; by default one for each micro-batch of a step (4
    for voc and coco as in the paper), none for synthetic. Any number that divides them trains the same."""
    nodes: Annotated[int, Bounds(1, 10**5)] = ONE_NODE
    """Nodes a trial. Without GPUs there is one process a node."""
    partition: str | None = None
    """Partition, or several separated by commas."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that the nodes must have."""
    time_limit: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None
    """Time limit of a job, as Slurm writes it: minutes, H:MM:SS or D-HH:MM:SS. A trial resumes in the next job."""
    signal_before_s: Annotated[int, Bounds(1, MOST_NOTICE_S)] = NOTICE_S
    """Seconds before the time limit at which a job saves and goes back into the queue."""
    sbatch: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Any further option of sbatch, as key=value or key; once for each. It replaces what this command would ask for;
    what would break its protocol is refused with the reason. Variables of Slurm's commands (SBATCH_PARTITION, …) are
    not read."""
    renew_code: bool = False
    """Let workers run the checkout's code from now on, as a new code version."""
    cluster_file: Path | None = None
    """TOML file with values for these flags; by default ~/.config/fsr/cluster.toml, if there is one."""

    def resolved(self: R) -> R:
        """With the cluster file's values where no flag was given, all checked. Raises UserError."""
        resources = self._with_file()
        for name in ("partition", "account", "qos", "constraint"):
            value = getattr(resources, name)
            if value is not None and not re.fullmatch(r"[\w.,:&|*()\[\]@/+-]+", value):
                raise UserError(f"--{name} must be what Slurm calls one, without spaces, got {value!r}")
        gpus = resources.gpu_count
        if gpus is not None and gpus % resources.nodes:
            raise UserError(f"--gpus must be a multiple of the nodes, {resources.nodes}, or 0, got {gpus}")
        resources = replace(resources, cluster=resources._where(self._asking(resources)))
        resources._check_notice()
        return resources

    @property
    def gpu_count(self) -> int | None:
        """GPUs a trial, if a flag or an option says it. Raises UserError for what is no number."""
        if self.gpus is not None:
            return _number_of(self.gpus)
        return sbatch_options.number_of_gpus(self.sbatch_options(), self.nodes)

    def gpus_for(self, config: TrainConfig | InferConfig) -> int:
        """GPUs of a run: by default one for each micro-batch of a step, or for an inference."""
        if self.gpu_count is not None:
            return self.gpu_count
        if config.dataset == "synthetic":
            return 0
        return config.ranks if isinstance(config, TrainConfig) else 1

    def for_inference(self: R, config: InferConfig) -> R:
        """With one GPU a worker, none for the synthetic set. Raises UserError if more is asked for."""
        gpus = self.gpus_for(config)
        if gpus > 1 or self.nodes > 1:
            raise UserError(
                f"--gpus must be 0 or 1 and --nodes 1, as each worker infers alone (more of them: --parallel), "
                f"got {gpus} and {self.nodes}"
            )
        return replace(self, gpus=gpus) if self.gpu_count is None else self

    def processes_for(self, config: TrainConfig) -> int:
        """Processes of a run. Raises UserError if they cannot share the micro-batches of a step equally."""
        gpus = self.gpus_for(config)
        processes = self.nodes * max(1, gpus // self.nodes)
        if processes not in config.process_counts():
            allowed = ", ".join(map(str, config.process_counts()))
            raise UserError(
                f"--gpus {gpus} on --nodes {self.nodes} makes {processes} processes, which must divide the "
                f"{config.ranks} micro-batches of a step (ranks); allowed: {allowed}"
            )
        return processes

    def sbatch_options(self) -> Options:
        """The further options by name. Raises UserError for one that cannot be one."""
        return sbatch_options.parse(self.sbatch)

    def gpu_lines(self, gpus: int) -> Options:
        """The options of sbatch that ask for so many GPUs a trial."""
        kind = sbatch_options.typed_number(self.gpus, "--gpus")[0] if isinstance(self.gpus, str) else None
        return sbatch_options.gpu_lines(self.sbatch_options(), kind, gpus, self.nodes)

    def _asking(self, resources: "Resources") -> str | None:
        """The first flag, or the cluster file's word, that asks for Slurm; None if nothing does.

        `resources` are these with the cluster file's values.
        """
        if resources.cluster == "slurm":
            return "--cluster slurm"
        for f in fields(Resources):
            if f.name not in ("cluster", *OF_ONE_CALL) and getattr(resources, f.name) != f.default:
                is_flag = self.sbatch if f.name == "sbatch" else f.name in self._given()
                return f"--{f.name}" if is_flag else f"the cluster file's {f.name}"
        return None

    def _where(self, asking: str | None) -> Literal["slurm", "local", "debug"]:
        """Where trials are trained. Raises UserError where Slurm is asked for, or is here, and does not answer.

        A machine with Slurm's commands may be a login node, which is no place to train on because Slurm is busy.
        """
        if self.cluster in ("local", "debug"):
            return "local" if self.cluster == "local" else "debug"
        presence = commands.presence()
        if isinstance(presence, Silence):
            raise UserError(f"Slurm does not answer: {presence.words}; try again later{THIS_MACHINE}")
        if presence == "answers":
            return "slurm"
        if asking is None:
            return "local"
        raise UserError(
            f"{asking} asks for Slurm, and no Slurm answers here: there is no sbatch, or no cluster that it knows"
            f"{THIS_MACHINE}"
        )

    def _check_notice(self) -> None:
        """Raise UserError where a job would be told to save as soon as it starts, and so never get anywhere."""
        limits = {"--time_limit": self.time_limit, "--sbatch time-min": self.sbatch_options().get("time-min")}
        if not self.time_limit and self.cluster == "slurm":
            partitions = commands.partitions()
            if not partitions:
                raise UserError("Slurm does not answer: `scontrol show partition` names no partition; try again later")
            limits |= partition_time_limits(partitions, self.partition)
        for said, limit in limits.items():
            if limit and self.signal_before_s >= sbatch_options.seconds(limit):
                raise UserError(
                    f"--signal_before_s must be shorter than a job may run ({said}: {limit}), or each job would save "
                    f"and requeue itself as soon as it starts, got {self.signal_before_s}"
                )

    def _given(self) -> dict[str, Any]:
        """The fields that are not left at their defaults, --sbatch aside."""
        names = [f for f in fields(Resources) if f.name not in ("sbatch", *OF_ONE_CALL)]
        return {f.name: value for f in names if (value := getattr(self, f.name)) is not f.default}

    def _with_file(self: R) -> R:
        """The command line laid over the cluster file; within either, nothing may be said in two ways that differ."""
        below, above = self._of_file(), _Level(self._given(), self.sbatch_options())
        nodes = int(above.fields.get("nodes", below.fields.get("nodes", self.nodes)))
        for level in (below, above):
            level.take_flags(nodes)
        number, above_number = (sbatch_options.number_of_gpus(level.options, nodes) for level in (below, above))
        # The command line's number of GPUs replaces the file's, whichever way each is written; options that say none
        # (gpus-per-node=0, gpus-per-task=1) are about the cluster and go with any number.
        gpus = above.fields.get("gpus")
        differs = gpus is not None and number is not None and number != _number_of(gpus)
        has_type = not str(gpus or "0").isdigit() and not below.has_own_gpus
        if above.gpu_option or differs or has_type:
            below.drop_gpus()
        if above_number is not None:
            below.fields.pop("gpus", None)
        settled: dict[str, Any] = {"cluster": str(self.cluster), "nodes": nodes}
        settled["signal_before_s"] = int(self.signal_before_s)
        options = sbatch_options.overlaid(below.options, above.options)
        return replace(self, **settled | below.fields | above.fields, sbatch=sbatch_options.texts(options))

    def _of_file(self) -> "_Level":
        file = _find(self.cluster_file)
        if file is None:
            return _Level({}, {})
        try:
            content: dict[str, Any] = tomllib.loads(read_regular(file).decode("utf-8-sig"))  # some editors write a BOM
        except OSError as error:
            raise UserError(f"cluster file {file} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # also of texts that are not UTF-8, and numbers beyond any use
            raise UserError(f"cluster file {file} is no TOML: {error}") from error
        check_names(file, content)
        options = content.pop("sbatch", {})
        for name, value in content.items():
            kind = "number or type" if name == "gpus" else "number" if name in ("nodes", "signal_before_s") else "text"
            allowed = {"number": (int,), "text": (str,), "number or type": (int, str)}[kind]
            if not isinstance(value, allowed) or isinstance(value, bool):
                raise UserError(f"cluster file {file}: {name} must be {KINDS[kind]}, got {value!r}")
        check_bounds(Resources, content, f"cluster file {file}: ")
        sbatch_options.typed_number(str(content.get("gpus", 0)), f"cluster file {file}: gpus")
        clusters = ("auto", "slurm", "local", "debug")
        if content.get("cluster", "auto") not in clusters:
            said = content["cluster"]
            raise UserError(f"cluster file {file}: cluster must be one of {', '.join(clusters)}, got {said!r}")
        if not isinstance(options, dict):
            raise UserError(f"cluster file {file}: sbatch must be a table of names and values, got {options!r}")
        for name, value in options.items():
            if not isinstance(value, int | str):
                raise UserError(f"cluster file {file}: sbatch.{name} must be a text, a number or true, got {value!r}")
        given = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not False]
        return _Level(content, sbatch_options.parse(given))


@dataclass
class _Level:
    """What one place says, the command line or the cluster file."""

    fields: dict[str, Any]
    options: Options

    def take_flags(self, nodes: int) -> None:
        """Read options that are flags, too, as these. Raises UserError where both are there and differ."""
        for name, flag in FLAGS.items():
            if name not in self.options:
                continue
            value, text = str(self.options.pop(name)), f"--{flag}"
            if not _same(flag, self.fields.setdefault(flag, value), value):
                raise UserError(f"{text} {self.fields[flag]} and --sbatch {name}={value} differ; give only one of them")
        if self.fields.get("time_limit") is not None and not re.fullmatch(TIME_LIMIT, self.fields["time_limit"]):
            limit = self.fields["time_limit"]
            raise UserError(f"--time_limit must be minutes, H:MM:SS or D-HH:MM:SS, got {limit!r}")
        if not re.fullmatch(TIME_LIMIT, time_min := str(self.options.get("time-min", "0"))):
            raise UserError(f"--sbatch time-min must be minutes, H:MM:SS or D-HH:MM:SS, got {time_min!r}")
        gpus, number = self.fields.get("gpus"), sbatch_options.number_of_gpus(self.options, nodes)
        if gpus is not None and _number_of(gpus) != number is not None:
            raise UserError(f"--gpus {gpus} and --sbatch {self.gpu_option} differ; give only one of them")
        if gpus is not None and not str(gpus).isdigit() and self.gpu_option and not self.has_own_gpus:
            raise UserError(f"--gpus {gpus} and --sbatch {self.gpu_option} both say a type; give only one of them")

    @property
    def gpu_option(self) -> str:
        """The option that says how GPUs are asked for, or an empty text."""
        asked = (name for name in GPUS if name in self.options and asks_for_gpus(name, self.options[name]))
        return next((f"{name}={self.options[name]}" for name in asked), "")

    @property
    def has_own_gpus(self) -> bool:
        """Whether an option says that Slurm knows nothing of the nodes' GPUs."""
        return sbatch_options.asks_for_none(self.gpu_option.partition("=")[2])

    def drop_gpus(self) -> None:
        """Forget the option that says how GPUs are asked for."""
        self.options.pop(self.gpu_option.partition("=")[0], None)


def partition_time_limits(partitions: Mapping[str, Mapping[str, str]], partition: str | None) -> dict[str, str]:
    """The limits that hold where none is asked for, by what sets each; None is the default partition."""
    names = partition.split(",") if partition else None
    rows = {n: r for n, r in partitions.items() if (n in names if names else r.get("Default") == "YES")}
    return {f"partition {name}": limit for name, row in rows.items() if (limit := answers.time_limit(row))}


def _same(flag: str, value: str, other: str) -> bool:
    if flag == "time_limit" and re.fullmatch(TIME_LIMIT, value) and re.fullmatch(TIME_LIMIT, other):
        return sbatch_options.seconds(value) == sbatch_options.seconds(other)
    return value == other


def _number_of(gpus: int | str) -> int:
    """Number of `4` and `a100:4`. Raises UserError."""
    return sbatch_options.typed_number(str(gpus), "--gpus")[1]


def _find(file: Path | None) -> Path | None:
    """The cluster file; None where none was named and there is none at home. Raises UserError if the named one lacks.

    A home may be unknown (a container without HOME and user), or one that this user cannot enter.
    """
    if file is None:
        home = Path(os.path.expanduser(DEFAULT_FILE))  # stays as it is where the home is unknown
        return home if home.is_absolute() and os.path.lexists(home) else None
    file = Path(os.path.expanduser(file))
    if not os.path.exists(file):
        raise UserError(f"there is no cluster file {file}")
    return file


def check_names(file: Path, names: Iterable[str]) -> None:
    """Raise UserError for a name that no flag has, with the nearest one: letters count, and so do tables around it."""
    known = [f.name for f in fields(Resources) if f.name not in OF_ONE_CALL]
    for name in sorted(set(names) - set(known)):
        near = get_close_matches(name.lower().replace("-", "_"), known, n=1)
        nearest = f" (nearest: {near[0]})" if near else ""
        raise UserError(f"cluster file {file} has an unknown option {name}{nearest}; allowed: {', '.join(known)}")


TIME_LIMIT = re.compile(r"(\d+-)?\d+(:\d+){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
KINDS = {"number": "a whole number", "text": "a text", "number or type": "a whole number, or type and number"}
