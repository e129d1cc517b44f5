"""What a sweep says: before it works, when it has submitted, and what came out."""

import os
import shlex
import sys

import optuna
from optuna.trial import TrialState
from rich.console import Console

from fsr.errors import UserError
from launch.plan import Plan
from launch.state.repeats import is_repeat, repeats_among
from launch.submit import Submission
from launch.worker.claim import DONE

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


def announce(planned: Plan, trials: list[optuna.trial.FrozenTrial], console: Console) -> None:
    """Say what is there and what will be done."""
    done, failed = count(trials, *DONE), count(trials, TrialState.FAIL)
    unfinished = count(trials, TrialState.RUNNING, TrialState.WAITING)
    base, folder = planned.base, relative(planned.folder.folder)
    lines = (
        f"study {planned.study.name} in {folder}: {planned.wanted} trials wanted, up to {planned.parallel} at a time",
        f"there are: {done} done, {unfinished} unfinished, {failed} failed",
        f"each run: {base.dataset} from {relative(base.data_folder)}, {base.iterations} steps, seed {base.seed}; "
        f"searched: {', '.join(planned.study.space(base))}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def tell_submission(submitted: Submission, ids: list[str], console: Console) -> None:
    """Say what was submitted, or would be."""
    for warning in submitted.warnings:
        console.print(f"note: {warning}", soft_wrap=True, highlight=False)
    if ids:
        what = "array" if len(ids) == 1 else f"{len(ids)} arrays"
        line = f"submitted {what} {', '.join(ids)}: {submitted.workers} workers"
    else:
        line = f"{submitted.workers} workers in {len(submitted.scripts)} sbatch calls"
    console.print(f"{line}; {submitted.live} were there already", soft_wrap=True, highlight=False)


def conclude(planned: Plan, study: optuna.Study, mistakes: list[str], stopped: bool, console: Console) -> int:
    """Say what came out and what to do next; returns the exit code."""
    if mistakes:
        raise UserError(mistakes[0])
    trials = study.get_trials(deepcopy=False)
    done, runs = count(trials, *DONE), relative(planned.folder.folder.parent)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    best = best_number(study)
    if best is not None:
        run = relative(planned.folder.run(best).folder)
        say(f"best: trial {best}, {planned.study.metric} {trials[best].value:.4f}, in {run}")
        if repeats_among(trials):
            say(f"means over seeds, with intervals: make report STUDY={planned.study.name} RUNS={runs}")
        else:
            say("One seed a setting: small differences may be chance; --repeat 5 trains the best with fresh seeds.")
        say(f"curves and pictures: make board STUDY={planned.study.name} RUNS={runs}")
    again = shlex.join(["python", *sys.argv])
    if stopped:
        say(f"stopped with {done} of {planned.wanted} trials done; nothing is lost, to go on: {again}")
        return INTERRUPTED
    if done < planned.wanted:
        say(
            f"{done} of {planned.wanted} trials done; error.txt in a failed trial's folder tells why; to go on: {again}"
        )
        return 1
    searched = planned.wanted - len(repeats_among(trials))
    say(f"more trials: add --trials {searched + planned.study.trials} to the same command")
    return 0


def best_number(study: optuna.Study) -> int | None:
    """The finished trial of the search with the highest score."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    search = [trial for trial in finished if not is_repeat(trial)]
    return max(search, key=lambda trial: trial.value).number if search else None


def count(trials: list[optuna.trial.FrozenTrial], *states: TrialState) -> int:
    """How many trials are in one of these states."""
    return sum(trial.state in states for trial in trials)


def relative(path: os.PathLike) -> str:
    """A path as seen from here, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
