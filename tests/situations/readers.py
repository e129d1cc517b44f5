"""Readers of a study some of whose files are damaged: they show the trial as damaged and go on, or name the file."""

from collections.abc import Callable
from pathlib import Path

from situations.damage import DAMAGES, UNREADABLE
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works

KIND = "damaged study"
READERS = {
    "status": ["{checkout}/launch/status.py", "--study", "smoke", "--runs", "{runs}"],
    "status --json": ["{checkout}/launch/status.py", "--study", "smoke", "--runs", "{runs}", "--json"],
    "doctor": ["{checkout}/launch/doctor.py", "--study", "smoke", "--runs", "{runs}"],
    "load": ["{checkout}/analysis/load.py", "--study", "smoke", "--runs", "{runs}", "--out", "{out}"],
}
STUDY_FILES = ("study.json", "target.json", "keep.json", "journal.log")
# What each reader looks at, of a finished trial or of one that is being trained.
TRIAL_FILES = {
    "status": {"states": ("trial_0003/metrics.jsonl", "trial_0003/attempts.json")},
    "status --json": {"states": ("trial_0003/metrics.jsonl", "trial_0003/attempts.json")},
    "doctor": {"runs": ("trial_0000/result.json",), "states": ("trial_0003/attempts.json",)},
    "load": {"runs": ("trial_0000/metrics.jsonl", "trial_0000/quality.json", "trial_0000/attempts.json")},
}
# Damage that looks like a file that is not there, or that somebody is just writing to.
LIKE_MISSING = ("a dangling link", "a link to itself")
LIKE_GROWING = ("empty", "torn", "nested too deeply", "zeros at its end")
GROWING = ("metrics.jsonl", "journal.log")


def damage(name: str, how: Callable[[Path], None]) -> Callable[[Place], None]:
    """The set-up that damages a file, called as in {runs}/smoke/study.json."""
    return lambda place: how(Path(place.fill(name)))


def goes_on(reader: str, runs: str) -> Check:
    """It shows the other trials."""

    def check(place: Place, answer: Answer) -> Verdict:
        if answer.code not in (0, 1):
            return f"wrong result: exit code {answer.code}; {(answer.err.splitlines() or [''])[-1][:160]}"
        trials = 2 if runs == "runs" else 6
        if reader == "load":
            try:
                rows = (place["out"] / "trials.csv").read_text().splitlines()[1:]
            except OSError as error:
                return f"silent: no trials.csv: {error}"
            return None if len(rows) == trials else f"wrong result: {len(rows)} trials instead of {trials}"
        shown = f"{trials} trials" if reader == "doctor" else '"number": 1' if "json" in reader else "complete"
        return None if shown in answer.said else "wrong result: the other trials are not shown"

    return check


def names(file: str) -> Check:
    """The output, or load's table of trials, tells of the damage."""

    def check(place: Place, answer: Answer) -> Verdict:
        table = place["out"] / "trials.csv"
        said = answer.said + (table.read_text() if table.exists() else "")
        return None if Path(file).name in said or "damaged" in said else f"silent: {file} is not said to be damaged"

    return check


def both(*checks: Check) -> Check:
    """All of these hold."""
    return lambda place, answer: next(filter(None, (check(place, answer) for check in checks)), None)


def expected(reader: str, runs: str, file: str, how: str) -> Check:
    """What a reader has to do: go on and tell of the damage, or stop where it cannot do without the file."""
    name, going_on = Path(file).name, goes_on(reader, runs)
    missing, growing = how in LIKE_MISSING, how in LIKE_GROWING and name in GROWING
    stops = [refused(f"{{{runs}}}/smoke" if name == "study.json" and missing else name)]
    if reader == "doctor":  # it shows what is left, tells of the damage, and ends with 1
        stops.append(both(works(codes=(1,)), names(file)))
    if name == "study.json":
        return either(*stops)
    if name == "journal.log":
        # Where its end is missing, trials are: nobody can tell.
        return either(*stops, works()) if growing and how != "empty" else either(*stops)
    if reader == "load" and name in ("target.json", "keep.json"):
        return going_on  # it does not need them
    if missing or growing:
        return either(going_on, refused(name))
    tells = both(going_on, names(file))
    return tells if "trial_" in file else either(tells, refused(name))


def situations() -> list[Situation]:
    """Every reader with every damage of every file."""
    found = []
    for reader, words in READERS.items():
        of_trials = [(runs, file) for runs, files in TRIAL_FILES[reader].items() for file in files]
        for runs, file in [*(("runs", file) for file in STUDY_FILES), *of_trials]:
            for how, make in (DAMAGES | UNREADABLE).items():
                if reader == "status --json" and how not in ("torn", "a list", "a folder"):
                    continue
                found.append(
                    Situation(
                        name=f"{reader}: {file} is {how}",
                        kind=KIND,
                        words=[word.replace("{runs}", f"{{{runs}}}") for word in words],
                        needs=[runs],
                        prepare=damage(f"{{{runs}}}/smoke/{file}", make),
                        user=4001 if how in UNREADABLE else None,
                        expects=expected(reader, runs, file, how),
                        untouched=() if reader == "doctor" else [f"{{{runs}}}"],
                        limit_s=20,
                    )
                )
    return found
