"""Sweep a study: `python launch/sweep.py --study NAME --data_folder DIR`. Running it again goes on where it was."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace

import optuna
import tyro
from optuna.trial import TrialState
from rich.console import Console

from fsr.errors import UserError, reports_user_errors
from launch.plan import Options, Plan, define, plan
from launch.show.messages import announce, count, tell_submission
from launch.state.repeats import Repeats, repeats_among
from launch.state.stop import StopRequest
from launch.state.storage import STORAGE_VARIABLE, open_storage, without_password
from launch.state.target import Target
from launch.sweep_local import sweep_here
from launch.sweep_slurm import prepare, sweep_on_slurm
from launch.verify_resume import verify_resume
from launch.worker.claim import DONE
from launch.worker.study import train


@reports_user_errors
def main(arguments: list[str] | None = None, train: Callable[..., str] = train) -> None:
    """The command line; `train` is what a worker does with a trial's configuration and run folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = tyro.cli(Options, args=arguments)
    if options.storage:  # what is written down of the command must not show a password
        sys.argv = [word.replace(options.storage, without_password(options.storage)) for word in sys.argv]
    sys.exit(sweep(options, train))


def sweep(options: Options, train: Callable[..., str] = train) -> int:
    """Train the missing trials and compare all; returns the exit code."""
    planned = plan(options)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if planned.storage:
        os.environ[STORAGE_VARIABLE] = planned.storage  # for the workers
    if options.verify_resume:
        return verify_resume(planned, console)
    if options.dry_run:
        return dry_run(options, planned, console)
    lock = planned.folder.sweep_lock()
    if not lock.try_acquire(patience_s=1.0):
        raise UserError(f"process {lock.holder()} is sweeping {planned.folder.folder} already")
    on_slurm = planned.resources.cluster == "slurm"
    with StopRequest() as stop:
        try:
            define(planned)
            planned.folder.stop_file.unlink(missing_ok=True)
            study = open_study(planned)
            if options.repeat:
                repeats_of(options, planned, study.get_trials(deepcopy=False), console).enqueue(study)
            trials = study.get_trials(deepcopy=False)
            planned = replace(planned, wanted=planned.wanted + len(repeats_among(trials)))
            announce(planned, trials, console)
            Target(planned.wanted, planned.wanted + count(trials, TrialState.FAIL)).place(planned.folder)
            missing = max(0, planned.wanted - count(trials, *DONE))
            if on_slurm:
                return sweep_on_slurm(planned, study, missing, stop, lock, options.detach, train, console)
            return sweep_here(planned, study, missing, stop, lock, train, console)
        finally:
            lock.release()  # the local workers' sign to save and leave, however this ends


def repeats_of(options: Options, planned: Plan, trials: list[optuna.trial.FrozenTrial], console: Console) -> Repeats:
    """What --repeat asks for; says it, too. Raises UserError if the search is not finished."""
    seed = planned.base.seed
    repeats = Repeats.of(trials, options.best, range(seed + 1, seed + 1 + options.repeat))
    console.print(f"to be trained again: {repeats}", soft_wrap=True, highlight=False)
    return repeats


def dry_run(options: Options, planned: Plan, console: Console) -> int:
    """Say what would be done."""
    there = planned.folder.study_file.exists()
    trials = open_study(planned).get_trials(deepcopy=False) if there else []
    planned = replace(planned, wanted=planned.wanted + len(repeats_among(trials)))
    if options.repeat:
        missing = repeats_of(options, planned, trials, console).missing(trials)
        planned = replace(planned, wanted=planned.wanted + len(missing))
    announce(planned, trials, console)
    if planned.resources.cluster == "slurm":
        submitted = prepare(planned, planned.wanted - count(trials, *DONE))
        tell_submission(submitted, [], console)
        for number, text in enumerate(submitted.scripts):
            same = number > 0 and text == submitted.scripts[0]
            console.print(
                f"script {number} is the same" if same else text, soft_wrap=True, highlight=False, markup=False
            )
    return 0


def open_study(planned: Plan) -> optuna.Study:
    """The study in its storage, made if it is new."""
    return optuna.create_study(
        study_name=planned.study.name,
        storage=open_storage(planned.folder.folder, planned.storage is not None),
        direction="maximize",
        load_if_exists=True,
    )


if __name__ == "__main__":
    main()
