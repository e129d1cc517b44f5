"""What a job asks of a Slurm cluster: from flags, or from a small file that a user writes once per cluster."""

import re
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch.slurm import commands

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = Path("~/.config/fsr/cluster.toml")
R = TypeVar("R", bound="Resources")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where and with what each trial is trained. On Slurm, what is not given here is the cluster's own default."""

    cluster: Literal["auto", "slurm", "local", "debug"] = "auto"
    """Slurm, processes of this machine, or this very process; auto is slurm where it answers, else local."""
    gpus: int | None = None
    """GPUs a trial, one process each, by default one for each micro-batch of a step (4 for voc and coco as in the
    paper), none for synthetic. Any number that divides them trains the same."""
    nodes: int = 1
    """Nodes a trial. Without GPUs there is one process a node."""
    partition: str | None = None
    """Partition, or several separated by commas."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that the nodes must have."""
    time_limit: str | None = None
    """Time limit of a job, as Slurm writes it: minutes, H:MM:SS or D-HH:MM:SS. A trial resumes in the next job."""
    signal_before_s: int = 120
    """Seconds before the time limit at which a job saves and goes back into the queue."""
    sbatch: tuple[str, ...] = ()
    """Any further option of sbatch, as key=value."""
    cluster_file: Path | None = None
    """TOML file with values for these flags; by default ~/.config/fsr/cluster.toml, if there is one."""

    def resolved(self: R) -> R:
        """With the cluster file's values where no flag was given, all checked. Raises UserError."""
        resources = self._with_file()
        if resources.nodes < 1:
            raise UserError(f"--nodes must be at least 1, got {resources.nodes}")
        if resources.gpus is not None and (resources.gpus < 0 or resources.gpus % resources.nodes):
            raise UserError(f"--gpus must be a multiple of the nodes, {resources.nodes}, or 0, got {resources.gpus}")
        if resources.signal_before_s < 1:
            raise UserError(f"--signal-before-s must be at least 1, got {resources.signal_before_s}")
        for name in ("partition", "account", "qos", "constraint"):
            value = getattr(resources, name)
            if value is not None and not re.fullmatch(r"[\w.,:&|*()\[\]@/+-]+", value):
                raise UserError(f"--{name} must be what Slurm calls one, without spaces, got {value!r}")
        if resources.time_limit is not None and not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", resources.time_limit):
            raise UserError(f"--time-limit must be minutes, H:MM:SS or D-HH:MM:SS, got {resources.time_limit!r}")
        resources.sbatch_options()
        if resources.cluster == "slurm" and not commands.answers_here():
            raise UserError("--cluster slurm was asked for, but no Slurm answers here (scontrol ping); allowed: local")
        if resources.cluster == "auto":
            resources = replace(resources, cluster="slurm" if commands.answers_here() else "local")
        return resources

    def gpus_for(self, config: TrainConfig | InferConfig) -> int:
        """GPUs of a run: by default one for each micro-batch of a step, or for an inference."""
        if self.gpus is not None:
            return self.gpus
        if config.dataset == "synthetic":
            return 0
        return config.ranks if isinstance(config, TrainConfig) else 1

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

    def sbatch_options(self) -> dict[str, str]:
        """The further options by name. Raises UserError for one that cannot be one."""
        options = {}
        for text in self.sbatch:
            name, equals, value = text.partition("=")
            name = name.removeprefix("--").replace("_", "-")
            if not equals or not re.fullmatch("[a-z][a-z0-9-]*", name) or not value.isprintable() or not value:
                raise UserError(f"--sbatch must be key=value with a name of sbatch's options, got {text!r}")
            if name in OWN:
                raise UserError(f"--sbatch cannot set {name}, which the sweep itself sets; allowed: any other option")
            options[name] = value
        return options

    def _with_file(self: R) -> R:
        file = (self.cluster_file or DEFAULT_FILE).expanduser()
        if not file.exists():
            if self.cluster_file:
                raise UserError(f"there is no cluster file {file}")
            return self
        try:
            content: dict[str, Any] = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"cluster file {file} is no TOML: {error}") from error
        defaults = {f.name: f.default for f in fields(Resources) if f.name != "cluster_file"}
        unknown = sorted(set(content) - set(defaults))
        if unknown:
            raise UserError(f"cluster file {file} has an unknown option {unknown[0]}; allowed: {', '.join(defaults)}")
        if isinstance(content.get("sbatch"), dict):
            content["sbatch"] = tuple(f"{name}={value}" for name, value in content["sbatch"].items())
        for name, value in content.items():
            kind = int if name in ("gpus", "nodes", "signal_before_s") else tuple if name == "sbatch" else str
            if not isinstance(value, kind):
                raise UserError(f"cluster file {file}: {name} must be {KINDS[kind]}, got {value!r}")
        if "sbatch" in content:
            content["sbatch"] += self.sbatch
        unset = {n: v for n, v in content.items() if n == "sbatch" or getattr(self, n) == defaults[n]}
        return replace(self, **unset)


OWN = ("array", "output", "error", "open-mode", "signal", "requeue", "job-name", "comment", "nodes", "ntasks-per-node")
KINDS = {int: "a whole number", str: "a text", tuple: "a table of names and values"}
