"""Sweep a study: `fsr sweep --study NAME --data_folder DIR`. Running it again resumes where it was."""

if __name__ == "__main__":
    import sys
    from functools import partial
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("sweep")
    from fsr.command import help_first, parse_flags
    from launch.sweep_options import Options

    help_first(partial(parse_flags, Options, "sweep"))

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from fsr.command import parse_flags
from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.lock import FileLock
from fsr.pretrained import require_weights
from launch.plan import (
    Plan,
    define,
    definition_changes,
    definition_of,
    plan,
    renew_definition,
    undefine,
)
from launch.show.messages import announce, say
from launch.state.code_snapshot import listed
from launch.state.damage import naming_repair
from launch.state.journal import JOURNAL
from launch.state.paths import Keep, StudyFolder
from launch.state.repeats import Repeats, enqueue_settings, not_there
from launch.state.retention import Retention, clean_up_all, clean_up_announced
from launch.state.rights import check_rights, check_rights_to_trials
from launch.state.same_failure import StoppedError
from launch.state.space import Need, check_space, gigabytes, space_note
from launch.state.stop import StopRequest
from launch.state.storage import STORAGE_VARIABLE, check_not_lost, open_launched, open_storage, recorded_storage
from launch.state.study_storage import Counts, StudyStorage, counts_of
from launch.state.target import Target
from launch.study import Settings
from launch.submit import choose_code, scripts
from launch.submit_dry_run import limit_lines, script_lines
from launch.sweep_local import sweep_here
from launch.sweep_options import Options
from launch.sweep_slurm import prepare_workers, submit_workers, sweep_on_slurm, tell
from launch.verify_resume import verify_resume


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "sweep", arguments)
    sys.exit(sweep(options))


def sweep(options: Options) -> ExitCode:
    """Train the missing trials and compare all."""
    planned, console = plan(options), new_console()
    with naming_repair(planned.folder):
        return sweep_planned(options, planned, console)


def sweep_planned(options: Options, planned: Plan, console: Console) -> ExitCode:
    """The same, of options that make sense."""
    if planned.storage:
        os.environ[STORAGE_VARIABLE] = planned.storage  # for the workers
    if options.verify_resume:
        check_rights(planned.folder)
        return verify_resume(planned, console)
    if options.dry_run:
        return dry_run(options, planned, console)
    check_rights(planned.folder)
    check_whole(planned.folder)
    require_weights(planned.base)  # here, for the nodes may have no network
    with StopRequest() as stop, sweeping(planned) as lock:
        with undone_if_refused(planned):
            check_space_for(planned)
            define(planned)
            tell_code(planned, options.renew_code, console)
            planned.folder.stop_file.unlink(missing_ok=True)
            storage = open_the_storage(planned)
            study = open_study(planned, storage)
            check_rights_to_trials(planned.folder, running(study))
            keep = retain(options.keep, planned.folder, storage, console)
            if options.repeat:
                # Workers of an earlier submission may be at work on a grid, but on no search that is finished.
                grid = grid_of(options, planned)
                with planned.folder.claim_lock() if grid else nullcontext():
                    enqueue_settings(study, grid)
                    trials = study.get_trials(deepcopy=False)
                    repeats_of(options, options.repeat, planned, trials, grid, console).enqueue(study)
            there = counts_of(study)
            planned = replace(planned, target=planned.target + there.repeats)
            announce_plan(planned, there, console)
            Target(planned.target, planned.target + there.failed, time.time()).write(planned.folder)
            missing = max(0, planned.target - there.done)
            tell_space(planned, keep, missing, console)
            if planned.resources.cluster != "slurm":
                return sweep_here(planned, study, missing, stop, lock, console)
            submission, ids = submit_workers(planned, missing, console)
        return sweep_on_slurm(planned, study, submission, ids, stop, lock, options.detach, console)


def check_whole(folder: StudyFolder) -> None:
    """Raise DamagedError if trials are there without study.json or the journal, which say what they are, or a journal
    without study.json."""
    defined, told = folder.study_file.exists(), (folder.folder / JOURNAL).exists()
    if defined and (told or recorded_storage(folder) != JOURNAL):
        return
    if (told and not defined) or folder.trial_folders():
        open_launched(folder)


@contextmanager
def sweeping(planned: Plan) -> Iterator[FileLock]:
    """Hold the sweep lock. Where it cannot even be made, nothing of a new study's folder stays."""
    folder, lock = planned.folder.folder, planned.folder.sweep_lock(local=planned.resources.cluster != "slurm")
    was_there = folder.exists()
    try:
        lock.take(f"sweeping {folder}")
        yield lock
    finally:
        # Who could not take the lock may have met another sweep, whose folder it is.
        mine = not was_there and (lock.held or lock.holder() is None)
        lock.release()  # the local workers' sign to save and leave, however this ends
        if mine and not planned.folder.study_file.exists():
            lock.path.unlink(missing_ok=True)
            for made in (lock.path.parent, folder):
                with suppress(OSError):  # it is not there, or something else lies in it by now
                    made.rmdir()


@contextmanager
def undone_if_refused(planned: Plan) -> Iterator[None]:
    """If the work inside is refused, or cannot be written down, leave the study as it was. Holds the sweep lock."""
    folder = planned.folder
    target = Target.of(folder) if folder.target_file.exists() else None
    is_new = not folder.study_file.exists()
    before = set(folder.folder.iterdir()) if is_new else set()
    try:
        yield
    except StoppedError:
        raise
    except (UserError, OSError):
        if is_new and not folder.has_runs():  # nothing was accepted, so nothing is pinned
            if planned.storage:
                with suppress(KeyError, UserError):  # it was not made, or cannot be reached
                    optuna.delete_study(study_name=planned.study.name, storage=open_the_storage(planned))
            undefine(folder, before)
        elif target:  # what was accepted before is all that is wanted
            target.write(folder)
        raise


def running(study: optuna.Study) -> list[int]:
    """Numbers of the trials that were begun and have not ended."""
    return [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]


def check_space_for(planned: Plan) -> None:
    """Raise UserError if not even one checkpoint has room."""
    need = Need.of(planned.base)
    if need:
        check_space(planned.folder.folder, need)


def tell_space(planned: Plan, keep: Keep, missing: int, console: Console) -> None:
    """Say so if the missing trials may need more space than there is."""
    need = Need.of(planned.base)
    note = need and space_note(planned.folder.folder, need, keep, missing, planned.parallel)
    if note:
        say(console, f"note: {note}")


def retain(keep: Keep | None, folder: StudyFolder, storage: StudyStorage, console: Console) -> Keep:
    """Write down what is kept of trials that end, and clean up after those that have ended; what is kept from now on.

    Who names it means the trials that have ended before, too.
    """
    clean_up_announced(folder, storage)
    if keep is None and folder.keep_file.exists():
        return Retention.of(folder).keep
    retention = replace(Retention.of(folder), keep=keep or "best")
    retention.write(folder)
    study_id = storage.get_study_id_from_name(folder.name)
    freed = clean_up_all(folder, storage.get_all_trials(study_id, deepcopy=False)) if keep else 0
    if freed:
        replace(retention, freed=retention.freed + freed).write(folder)
        say(console, f"removed {gigabytes(freed)} of trials that have ended (--keep {keep})")
    return retention.keep


def grid_of(options: Options, planned: Plan) -> Sequence[Settings]:
    """The parameters of all trials, where --best all asks for all and they are known beforehand; else nothing."""
    return planned.study.all_params(planned.base, planned.target) if options.best == "all" else []


def repeats_of(
    options: Options,
    seeds: int,
    planned: Plan,
    trials: Sequence[FrozenTrial],
    grid: Sequence[Settings],
    console: Console,
) -> Repeats:
    """What --repeat asks for; says it, too. Where it is all of a grid, its settings need no trials yet.

    Raises UserError if it takes the best of a search that is not finished.
    """
    fresh = range(planned.base.seed + 1, planned.base.seed + 1 + seeds)
    if grid:
        repeats = Repeats.of_all(trials, fresh, to_come=sum(1 for _ in not_there(grid, trials)))
    else:
        repeats = Repeats.of(trials, len(trials) if options.best == "all" else options.best, fresh)
    say(console, f"to be trained again: {repeats}")
    return repeats


def dry_run(options: Options, planned: Plan, console: Console) -> ExitCode:
    """Say what would be done."""
    study = open_study(planned, open_the_storage(planned)) if planned.folder.study_file.exists() else None
    there = counts_of(study) if study else Counts()
    planned = replace(planned, target=planned.target + there.repeats)
    if options.repeat:
        trials = study.get_trials(deepcopy=False) if study else []
        repeats = repeats_of(options, options.repeat, planned, trials, grid_of(options, planned), console)
        planned = replace(planned, target=planned.target + repeats.number_missing(trials))
    announce_plan(planned, there, console)
    keep = Retention.of(planned.folder).keep if planned.folder.keep_file.exists() else "best"
    tell_space(planned, options.keep or keep, planned.target - there.done, console)
    if planned.resources.cluster == "slurm":
        submission = prepare_workers(planned, planned.target - there.done)
        tell(submission, [], console)
        texts = scripts(submission, planned.folder, planned.resources, planned.base)
        for line in (*limit_lines(submission, planned.resources, planned.base), *script_lines(texts)):
            say(console, line)
    return ExitCode.DONE


def announce_plan(planned: Plan, there: Counts, console: Console) -> None:
    """Say what is there and what will be done."""
    announce(planned.study, planned.base, planned.folder, planned.target, planned.parallel, there, console)
    for note in planned.notes:
        say(console, f"note: {note}")


def tell_code(planned: Plan, renew: bool, console: Console) -> None:
    """Say where the checkout differs from the study's code, which workers run; or take it as a new code version."""
    before = planned.folder.code.versions()[-1:]  # none, if somebody removed the list
    names = list(definition_changes(planned.folder.definition(), definition_of(planned)))
    redefined = f", and defines {listed(names)} in another way" if names else ""
    if choose_code(planned.folder, renew, redefined, console) not in before:
        renew_definition(planned)


def open_the_storage(planned: Plan) -> StudyStorage:
    """The storage of the study."""
    return open_storage(planned.folder.folder, planned.storage is not None)


def open_study(planned: Plan, storage: StudyStorage) -> optuna.Study:
    """The study in its storage, made if it is new. Raises DamagedError if the storage has lost trials."""
    check_not_lost(planned.folder, storage)
    return optuna.create_study(
        study_name=planned.study.name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
    )


if __name__ == "__main__":
    main()
