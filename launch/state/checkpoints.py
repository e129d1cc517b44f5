"""Which checkpoints of a study are evaluated: those of its finished trials whose weights are there."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from fsr.errors import UserError
from fsr.run import missing_checkpoint
from launch.state.paths import StudyFolder
from launch.state.trials import REPEATS, best_settings, repeats_among, search_trials


def chosen_trials(
    trials: Sequence[FrozenTrial], best: int | None = None, numbers: Sequence[int] = (), repeats: bool = False
) -> list[int]:
    """Numbers of the finished trials that are meant, rising.

    They are `numbers`, or those of trial 0's setting and the `best` others of the search, or all of the search; with
    `repeats` also those that repeat their settings. Raises UserError for a number of no finished trial, or of no trial.
    """
    for number in numbers:
        if number >= len(trials):
            raise UserError(f"--trials must be of the study, whose trials are 0 to {len(trials) - 1}, got {number}")
        if trials[number].state != TrialState.COMPLETE:
            state = trials[number].state.name.lower()
            raise UserError(f"--trials must be finished trials, and trial {number} is {state}")
    if numbers:
        chosen = [trials[number] for number in numbers]
    else:
        chosen = search_trials(trials) if best is None else best_settings(trials, best)
    settings = {trial.user_attrs.get(REPEATS, trial.number) for trial in chosen}
    if repeats:
        chosen += [trial for trial in repeats_among(trials) if trial.user_attrs[REPEATS] in settings]
    return sorted({trial.number for trial in chosen if trial.state == TrialState.COMPLETE})


def checkpoints_of(
    study: StudyFolder, numbers: Sequence[int], named: Sequence[int]
) -> tuple[dict[int, Path], list[str]]:
    """The best.pt of each of these trials that has one, and a sentence on each other.

    Raises UserError for one that was named and has none, and if no trial has any.
    """
    files = {number: study.run(number).best_file for number in numbers}
    lacking = [number for number, file in files.items() if not file.exists()]
    for number in lacking:
        if number in named:
            raise UserError(missing_checkpoint(files[number]))
    notes = [f"trial {number} is left out: {missing_checkpoint(files[number])}" for number in lacking]
    if len(lacking) == len(files):
        more = f": {notes[0]}" if notes else ", and so no checkpoint"
        raise UserError(f"study {study.name} has no finished trial with weights to be evaluated{more}")
    return {number: file for number, file in files.items() if number not in lacking}, notes
