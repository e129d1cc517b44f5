"""Sweeps of a study some of whose files are damaged, gone or of another study: nothing is lost, nothing adopted."""

import json
import shutil
from collections.abc import Callable
from typing import Any

from situations.damage import DAMAGES, UNREADABLE, remove
from situations.readers import KIND, LIKE_GROWING, LIKE_MISSING, damage
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works
from situations.words import DOCTOR, LOAD, STATUS, SWEEP

MORE = (*SWEEP, "--trials", "3")
FILES = ("study.json", "target.json", "keep.json", "journal.log", "code/versions.json")
OTHERS = {  # what readers and sweeps meet beside the study's files, and what may stand there
    "locks": ("a file", "a dangling link", "a link to itself"),
    "code": ("a file", "a dangling link"),
    "mistakes": ("a file", "a pipe"),
    "slurm": ("a file",),
    "stop": ("a folder", "a pipe", "a dangling link"),
    "ended": ("a file", "a dangling link"),
    "trial_0000": ("a file", "a pipe", "a dangling link", "a link to itself"),
    "trial_0002": ("a file", "a pipe", "a dangling link", "a link to itself"),
    "trial_xyz": ("a folder", "a file", "a pipe"),
    "local": ("a file",),
}


def three_trials(place: Place, answer: Answer) -> Verdict:
    """The study has three trials that were trained to their end."""
    for number in range(3):
        file = place["runs"] / "smoke" / f"trial_{number:04d}" / "result.json"
        try:
            score = json.loads(file.read_text())["val/seg_miou"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"silent: exit code 0, but {file.parent.name} has no result: {error!r}"
        if not 0 <= score <= 1:
            return f"wrong result: {score}"
    return None


def gone(*names: str) -> Callable[[Place], None]:
    """The set-up that removes parts of the study."""

    def prepare(place: Place) -> None:
        for name in names:
            remove(place["runs"] / "smoke" / name)

    return prepare


def foreign(place: Place) -> None:
    """Another trial's run in the place of the next one's."""
    shutil.copytree(place["runs"] / "smoke" / "trial_0000", place["runs"] / "smoke" / "trial_0002")


def of_other_parameters(place: Place) -> None:
    """A finished run that says it is the next one's, with a score that nobody trained."""
    foreign(place)
    file = place["runs"] / "smoke" / "trial_0002" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"val/seg_miou": 0.987}))
    (place["runs"] / "smoke" / "trial_0002" / "config.json").unlink()


def not_adopted(place: Place, answer: Answer) -> Verdict:
    """No score that was not trained for is shown."""
    file = place["runs"] / "smoke" / "trial_0002" / "result.json"
    adopted = file.exists() and "0.987" in file.read_text() and answer.code == 0
    return "wrong result: another run's score is adopted" if adopted or "0.987" in answer.said else None


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, prepare: Callable[[Place], None], **more: Any) -> None:
        options = {"kind": KIND, "needs": ["runs"], "limit_s": 40} | more
        found.append(Situation(name=name, words=words, expects=expects, prepare=prepare, **options))

    for file in FILES:
        for how, make in (DAMAGES | UNREADABLE).items():
            goes_on = works(checks=three_trials)
            names = refused(file if how not in LIKE_MISSING else "{runs}/smoke")
            growing = file == "journal.log" and how in LIKE_GROWING and how != "empty"
            needed = file in ("study.json", "journal.log", "code/versions.json") and not growing
            user = 4001 if how in UNREADABLE else None
            prepare = damage(f"{{runs}}/smoke/{file}", make)
            untouched = ["{runs}/smoke/trial_0000/result.json"]
            anew = file == "code/versions.json" and how == "a dangling link"  # a list that is gone is made anew
            check = names if needed and not anew else either(names, goes_on)
            add(f"sweep: {file} is {how}", MORE, check, prepare, user=user, untouched=untouched)
    kept = ["{runs}/smoke/trial_0000"]
    add("sweep: study.json is gone", MORE, refused("study.json"), gone("study.json"), untouched=kept)
    add("sweep: the journal is gone", MORE, refused("journal.log"), gone("journal.log"), untouched=kept)
    both = gone("study.json", "journal.log")
    add("sweep: study.json and the journal are gone", MORE, refused("{runs}/smoke"), both, untouched=kept)
    add("sweep: the code is gone", MORE, works(checks=three_trials), gone("code"), untouched=kept)  # it is taken anew
    add("sweep: trial 0 is gone", MORE, either(works(), refused("trial_0000")), gone("trial_0000"))
    add(
        "sweep: another trial's run is in the place of the next",
        MORE,
        either(works(checks=three_trials), refused("trial_0002")),
        foreign,
    )
    add("sweep: a foreign result is in the place of the next", MORE, not_adopted, of_other_parameters)
    commands = {"status": STATUS, "doctor": DOCTOR, "load": LOAD, "sweep": MORE}
    for name, kinds in OTHERS.items():
        for how in kinds:
            make = DAMAGES["null" if how == "a file" else how]
            for command, words in commands.items():
                check = works(codes=(0, 1)) if command != "sweep" else either(works(), refused(name))
                if name == "trial_0000" or (name, command) == ("locks", "doctor"):
                    check = either(check, refused(name))
                add(f"{command}: {name} is {how}", words, check, damage(f"{{runs}}/smoke/{name}", make))
    return found
