"""From the command line's options to what is to be done, and the record of how a study was launched."""

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fsr.config import PLACES, TrainConfig
from fsr.errors import UserError
from fsr.files import write_json
from fsr.run import provenance
from launch.slurm.resources import Resources
from launch.state.journal import JOURNAL
from launch.state.packed_trials import PACKED
from launch.state.paths import Definition, StudyFolder, new_identity
from launch.state.storage import STORAGE_VARIABLE, absolute_url, check_url
from launch.state.storage_url import secrets_of, without_password
from launch.state.study_storage import BEST
from launch.study import Study, load
from launch.study_check import check_study
from launch.sweep_options import Options
from launch.worker.job_spec import JobSpec

OPTIONS = ("dataset", "iterations", "seed", "the storage")  # what a call's options define, whatever the code


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
    notes: tuple[str, ...] = ()
    """What the user should know of the study's file."""


def plan(options: Options) -> Plan:
    """Work out what is to be done. Raises UserError for options that make no sense."""
    study = load(options.study)
    base = study.base(options.dataset or study.dataset, options.data_folder, options.iterations, options.seed)
    base = base.from_anywhere()
    if not base.data_folder.is_dir():
        raise UserError(f"there is no data folder {base.data_folder}; name it with --data_folder")
    notes = check_study(study, base)
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
        notes=tuple(notes),
    )


def storage_of(options: Options) -> str | None:
    """URL of the storage. Raises UserError for one that cannot be one, and for a password on the command line."""
    given = os.environ.get(STORAGE_VARIABLE, options.storage)
    if given is None:
        return None
    url, flag = absolute_url(given), absolute_url(options.storage or given)
    if without_password(url) != without_password(flag):
        shown = without_password(url), without_password(flag)
        raise UserError(f"{STORAGE_VARIABLE} names {shown[0]}, but --storage {shown[1]}; give only one of them")
    check_url(url)
    if options.storage and secrets_of(options.storage):
        raise UserError(
            f"--storage must not hold a password, for every user of this machine can read it in ps; "
            f"set {STORAGE_VARIABLE} to the URL instead"
        )
    return url


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def define(plan: Plan) -> bool:
    """Write study.json, or check that it defines the same study; whether it was written.

    Raises UserError where a setting has changed. The sweep lock must be held.
    """
    file = plan.folder.study_file
    if file.exists():
        check_unchanged(plan.folder, definition_of(plan))
        return False
    launched = provenance()
    launched["versions"] |= {name: metadata.version(name) for name in ("optuna", "submitit")}
    identity = {"id": new_identity(), "code": plan.folder.code.take()}
    write_json(file, identity | definition_of(plan) | {"target": plan.target, "launched": launched})
    return True


def definition_of(plan: Plan) -> dict[str, Any]:
    """What defines the study, by the options of this call and the code of this checkout."""
    return {
        "study": plan.study.name,
        "metric": plan.study.metric,
        "base": plan.base.to_json(),
        "space": plan.study.space(plan.base),
        "storage": without_password(plan.storage) if plan.storage else JOURNAL,
        "considered": {"newest": plan.study.considered, "best": BEST},
    }


def undefine(folder: StudyFolder, before: Collection[Path]) -> None:
    """Remove what `define` and the start of a sweep made, because nothing was accepted; `before` is what lay in the
    folder before them, and stays. The sweep lock must be held."""
    journal = folder.folder / JOURNAL
    for file in (folder.study_file, folder.target_file, folder.keep_file, journal, Path(f"{journal}.lock")):
        if file not in before:
            file.unlink(missing_ok=True)
    for made in (folder.code.folder, folder.slurm, folder.folder / PACKED, *folder.trial_folders()):
        if made not in before:
            shutil.rmtree(made, ignore_errors=True)  # which refuses a link


def config_for_workers(plan: Plan) -> dict[str, Any]:
    """The configuration that trials start from, with the fields that the study's own code version knows.

    A newer checkout may have more of them; they had their defaults when the study was defined. Where the data lies is
    this call's.
    """
    defined = plan.folder.definition()["base"]
    now = plan.base.to_json()
    return defined | {name: now[name] for name in PLACES if name in defined}


def job_spec(plan: Plan) -> JobSpec:
    """What the study's workers have to do. It must be defined."""
    return JobSpec(
        kind="study",
        folder=str(plan.folder.folder),
        config=config_for_workers(plan),
        code=plan.folder.code.versions()[-1],
        database=plan.storage is not None,
    )


def renew_definition(plan: Plan) -> None:
    """Define the study as the new code version does. The sweep lock must be held."""
    definition = dict(plan.folder.definition())
    write_json(plan.folder.study_file, definition | definition_of(plan))


def check_unchanged(folder: StudyFolder, definition: dict[str, Any]) -> None:
    """Raise UserError if the study of this folder was launched with another definition; data may have moved.

    Where the checkout's code differs from the study's, so may what code defines: ranges, defaults, fields of a study's
    file. Workers run the study's code, so that changes nothing; `definition_changes` names it.
    """
    before = folder.definition()
    changes = definition_changes(before, definition)
    if folder.code.differences():
        changes = {name: change for name, change in changes.items() if name in OPTIONS}
    for name, (old, new) in changes.items():
        raise UserError(
            f"study {folder.folder} was launched with {name} {old}, not {new}; "
            "take the same settings or another --runs folder"
        )


def definition_changes(before: Definition, definition: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between a study's definition and another one: by its name, how it was and how it is."""
    now = json.loads(json.dumps(definition))
    # A setting that the study did not know yet had its default.
    known = {name: value for name, value in before["base"].items() if name in now["base"]}
    base = json.loads(json.dumps(TrainConfig.from_json(known).to_json()))
    parts = [
        {name: (base.get(name), now["base"].get(name)) for name in base | now["base"] if name not in PLACES},
        {
            f"the range of {name}": (before["space"].get(name), now["space"].get(name))
            for name in before["space"] | now["space"]
        },
        {"the metric": (before["metric"], now["metric"])},
        {"the storage": (before.get("storage", JOURNAL), now["storage"])},
    ]
    return {name: (old, new) for part in parts for name, (old, new) in sorted(part.items()) if old != new}
