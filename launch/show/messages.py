"""What a sweep says: before it works, when it has submitted, and what came out."""

import sys
from collections.abc import Sequence

from rich.console import Console

from fsr.config import TrainConfig
from fsr.next_command import next_command, study_words
from launch.show.table import Row, best_of
from launch.state.paths import StudyFolder, relative
from launch.state.study_storage import Counts
from launch.study import Study

NOTHING_SUBMITTED = "no job was submitted, as your account has no room for one; run the same command again later"

MOST_NAMED = 10  # arrays in one line


def say(console: Console, line: str) -> None:
    """Print one line as it is: not broken to the width, not coloured."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def announce(
    study: Study,
    base: TrainConfig,
    folder: StudyFolder,
    target: int,
    parallel: int,
    there: Counts,
    console: Console,
) -> None:
    """Say what is there and what will be done."""
    say(console, f"study {study.name} in {relative(folder.folder)}: {target} trials wanted, up to {parallel} at a time")
    say(console, f"there are: {there.done} done, {there.unfinished} unfinished, {there.failed} failed")
    run = f"{base.dataset} from {relative(base.data_folder)}, {base.iterations} steps, seed {base.seed}"
    say(console, f"each run: {run}; searched: {', '.join(study.space(base))}")


def tell_submission(
    ids: Sequence[str], scripts: int, workers: int, live: int, notes: list[str], console: Console
) -> None:
    """Say what was submitted, or (without ids) would be."""
    for note in notes:
        say(console, f"note: {note}")
    if ids:
        what = "array" if len(ids) == 1 else f"{len(ids)} arrays"
        named = ids if len(ids) <= MOST_NAMED else [*ids[:3], "…", ids[-1]]
        line = f"submitted {what} {', '.join(named)}: {workers} workers"
    else:
        line = f"{workers} workers in {scripts} sbatch calls"
    say(console, f"{line}; {live} were there already")


def more_than_parallel(live: int, parallel: int) -> list[str]:
    """A note where more workers are there than are wanted."""
    if live <= parallel:
        return []
    stop = f"to stop {live - parallel} of them now, scancel their jobs (squeue -u $USER): each saves, and others resume"
    return [f"{live} workers are there, more than --parallel {parallel}, and none is stopped; {stop} its work"]


def tell_result(
    study: Study,
    base: TrainConfig,
    folder: StudyFolder,
    target: int,
    there: Counts,
    rows: Sequence[Row],
    stopped: bool,
    console: Console,
) -> None:
    """Say what came out, and what to do next."""
    done, named = there.done, study_words(study.name, folder.folder.parent)
    best = best_of(rows)
    if best is not None:
        value = next(row.value for row in rows if row.number == best)
        run = relative(folder.run(best).folder)
        say(console, f"best: trial {best}, {study.metric} {value:.4f}, in {run}")
        if there.repeats:
            say(console, f"means over seeds, with intervals: {next_command('report', *named)}")
        else:
            say(console, f"one page of it: {next_command('report', *named)}")
        say(console, f"curves and pictures: {next_command('board', *named)}")
    if stopped:
        say(console, f"stopped with {done} of {target} trials done; nothing is lost, to resume: {again()}")
    elif done < target:
        why = "error.txt in a failed trial's folder tells why"
        say(console, f"{done} of {target} trials done; {why}; to resume: {again()}")
    else:
        if best is not None and not there.repeats:
            say(console, f"small differences may be chance; with fresh seeds: {again('--repeat', '5')}")
        say(console, more_trials(study, base, max(target, done) - there.repeats, tried(rows)))


def again(flag: str | None = None, value: str = "") -> str:
    """The command of this sweep, to be typed again; or its search, with another value of this flag."""
    typed = list(sys.argv[1:])
    for name in (flag, "--repeat", "--best") if flag else ():
        while (place := next((i for i, word in enumerate(typed) if word.partition("=")[0] == name), None)) is not None:
            del typed[place : place + (1 if "=" in typed[place] else 2)]
    return next_command("sweep", *typed, *([flag, value] if flag else []))


def more_trials(study: Study, base: TrainConfig, searched: int, tried: int) -> str:
    """How to go on with a search of so many trials, which tried so many different settings.

    As many trials are accepted as the study has settings, though a sampler may draw one of them twice.
    """
    size = study.size(base)
    wanted = searched + study.trials if size is None else min(searched + study.trials, size)
    if wanted > searched:
        return f"more trials: {again('--trials', str(wanted))}"
    if size is not None and tried < size:
        return f"{tried} of the study's {size} settings were tried, as some were drawn twice; it takes no more trials"
    return f"all {size} settings of the study have had their trial"


def tried(rows: Sequence[Row]) -> int:
    """Number of different settings that the search has trained."""
    done = [row for row in rows if row.state in ("complete", "pruned") and not row.repeat]
    return len({repr(sorted(row.settings.items())) for row in done})
