"""From the command line's options to what is to be done, and the record of how a study was launched."""

import json
import os
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import write_json
from fsr.run import provenance
from launch.slurm.resources import Resources
from launch.state.paths import StudyFolder
from launch.state.storage import JOURNAL, STORAGE_VARIABLE, check_url, without_password
from launch.study import Study, load

PLACES = ("data_folder", "list_folder", "workers")


@dataclass(frozen=True, kw_only=True)
class Options(Resources):
    """Train the trials of a study that are still missing, several at a time, and compare them."""

    study: str
    """A file of sweeps/, by name."""
    data_folder: Path | None = None
    """Where the data lies; by default the preset's place."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    dataset: Literal["voc", "coco", "synthetic"] | None = None
    """Preset to start from; by default the study's."""
    trials: int | None = None
    """Trials wanted in all, finished or pruned; by default the study's number."""
    parallel: int | None = None
    """Workers at a time; by default the study's number; on this machine no more than its cores."""
    iterations: int | None = None
    """Steps of each run; by default the study's."""
    repeat: int | None = None
    """When the search is done: train the best settings, and trial 0's, again with so many fresh seeds each."""
    best: int = 1
    """How many of the best settings --repeat takes, beside trial 0's."""
    seed: int | None = None
    """Seed of the runs and of the search; by default the preset's."""
    storage: str | None = None
    """URL of a database to use instead of the journal: postgresql://…, mysql://…, sqlite:///FILE. To keep its password
    off the command line, leave it out here and set the environment variable FSR_STORAGE to the whole URL."""
    detach: bool = False
    """On Slurm: submit and return, without watching."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    verify_resume: bool = False
    """Kill a short run of this study at random steps, resume it, and check that it is bit-identical to an uninterrupted
    one."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, worked out from the options before anything is touched."""

    study: Study
    base: TrainConfig
    folder: StudyFolder
    target: int
    """Trials wanted in all."""
    parallel: int
    resources: Resources
    storage: str | None
    """URL of the storage; None is the journal."""


def plan(options: Options) -> Plan:
    """Work out what is to be done. Raises UserError for options that make no sense."""
    study = load(options.study)
    for name in ("trials", "repeat", "best", "parallel", "iterations"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    base = study.base(options.dataset or study.dataset, options.data_folder, options.iterations, options.seed)
    base = replace(base, data_folder=base.data_folder.absolute())
    if not base.data_folder.is_dir():
        raise UserError(f"there is no data folder {base.data_folder}; name it with --data_folder")
    target, size = options.trials or study.trials, study.size(base)
    if size is not None and target > size:
        raise UserError(f"study {study.name} has only {size} different settings, got --trials {target}")
    resources = options.resolved()
    if resources.cluster == "slurm":
        resources.processes_for(base)  # refuses a number of processes that cannot train this study
    parallel = options.parallel or study.parallel
    if resources.cluster != "slurm":
        parallel = min(parallel, options.parallel or cores())
    if resources.cluster == "debug":
        parallel = 1
    return Plan(
        study=study,
        base=base,
        folder=StudyFolder.in_runs(options.runs, study.name),
        target=target,
        parallel=parallel,
        resources=resources,
        storage=storage_of(options),
    )


def storage_of(options: Options) -> str | None:
    """URL of the storage. Raises UserError for one that cannot be one."""
    url = os.environ.get(STORAGE_VARIABLE, options.storage)
    if url is None:
        return None
    if options.storage and without_password(url) != without_password(options.storage):
        shown = without_password(url), without_password(options.storage)
        raise UserError(f"{STORAGE_VARIABLE} names {shown[0]}, but --storage {shown[1]}; give only one of them")
    check_url(url)
    return url


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def define(plan: Plan) -> None:
    """Write study.json, or check that it defines the same study. Raises UserError where a setting has changed."""
    file = plan.folder.study_file
    definition = {
        "study": plan.study.name,
        "metric": plan.study.metric,
        "base": plan.base.to_json(),
        "space": plan.study.space(plan.base),
        "storage": without_password(plan.storage) if plan.storage else JOURNAL,
    }
    if file.exists():
        check_unchanged(plan.folder, definition)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    launched = provenance()
    launched["versions"] |= {name: metadata.version(name) for name in ("optuna", "submitit")}
    write_json(file, definition | {"target": plan.target, "launched": launched})


def check_unchanged(folder: StudyFolder, definition: dict[str, Any]) -> None:
    """Raise UserError if the study of this folder was launched with another definition; data may have moved."""
    before, now = json.loads(folder.study_file.read_text()), json.loads(json.dumps(definition))
    # A setting that the study did not know yet had its default.
    before["base"] = json.loads(json.dumps(TrainConfig.from_json(before["base"]).to_json()))
    for part in ("base", "space"):
        for name in sorted(before[part].keys() | now[part].keys()):
            old, new = before[part].get(name), now[part].get(name)
            if old != new and name not in PLACES:
                what = name if part == "base" else f"the range of {name}"
                raise UserError(
                    f"study {folder.folder} was launched with {what} {old}, not {new}; "
                    "take the same settings or another --runs folder"
                )
    for part, what in (("metric", "for"), ("storage", "with the storage")):
        if before[part] != now[part]:
            raise UserError(f"study {folder.folder} was launched {what} {before[part]}, not {now[part]}")
