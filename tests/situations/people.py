"""Other people: who may only read changes nothing, who may not is told whose it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from situations.readers import READERS
from situations.situation import Check, Place, Situation, either, refused, works
from situations.words import (
    AGAIN,
    COMPARE,
    EXPORT,
    FIGURES,
    GALLERY,
    INFERENCE,
    LAUNCHED_RESUME,
    PREPARE,
    RESUME,
    SWEEP,
)

KIND = "other people"
ANNA, CARLA = 4001, 4003


def of_anna(*names: str, mode: str = "755", file: str | None = None) -> Callable[[Place], None]:
    """The set-up that gives folders to Anna, with a mode for them or for one file in them."""

    def prepare(place: Place) -> None:
        for name in names:
            for path in (place[name], *place[name].rglob("*")):
                os.lchown(path, ANNA, ANNA)
            Path(place.fill(file) if file else place[name]).chmod(int(mode, 8))

    return prepare


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, prepare: Any, *needs: str, **more: Any) -> None:
        options = {"kind": KIND, "user": CARLA} | more
        found.append(Situation(name=name, words=words, expects=expects, prepare=prepare, needs=needs, **options))

    readers = READERS | {"figures": list(FIGURES)}
    for reader, words in readers.items():
        add(f"{reader} of another's study", words, works(), of_anna("runs"), "runs", untouched=["{runs}"])
        add(f"{reader} of another's private study", words, refused("{runs}"), of_anna("runs", mode="700"), "runs")
        for name in ("smoke/study.json", "smoke/journal.log"):
            prepare = of_anna("runs", mode="600", file=f"{{runs}}/{name}")
            add(f"{reader} where another keeps {name} to herself", words, refused(name), prepare, "runs")
        for name in (
            "trial_0000",
            "trial_0000/metrics.jsonl",
            "trial_0000/attempts.json",
            "target.json",
            "keep.json",
            "locks",
            "code",
        ):
            prepare = of_anna("runs", mode="600" if "." in name else "700", file=f"{{runs}}/smoke/{name}")
            # What the doctor could not look at is not whole.
            told = [works(says=name.rpartition("/")[2], codes=(1,))] if reader == "doctor" else []
            expects = either(works(), refused(name), *told)
            add(f"{reader} where another keeps {name} to herself", words, expects, prepare, "runs")
    more = [*SWEEP, "--trials", "3"]
    add("sweep of another's study", more, refused("{runs}"), of_anna("runs"), "runs", untouched=["{runs}"])
    add("sweep of another's private study", more, refused("{runs}"), of_anna("runs", mode="700"), "runs")
    add("sweep in a sticky folder of others", more, refused("{runs}"), of_anna("runs", mode="1777"), "runs")
    dry = [*SWEEP, "--dry_run"]
    add(
        "dry run of another's study",
        dry,
        either(works(), refused("{runs}")),
        of_anna("runs"),
        "runs",
        untouched=["{runs}"],
    )
    for command, words, name in (
        ("train", RESUME, "half"),
        ("launch train", LAUNCHED_RESUME, "half"),
    ):
        for mode in ("755", "700", "1777"):
            prepare = of_anna(name, mode=mode)
            add(f"{command} in another's run folder with mode {mode}", words, refused(f"{{{name}}}"), prepare, name)
    add(
        "train in another's finished run",
        AGAIN,
        either(works(), refused("{run}")),
        of_anna("run"),
        "run",
        untouched=["{run}"],
    )
    to_anna = [word.replace("{out}", "{partial}") for word in INFERENCE]
    for mode in ("755", "700"):
        add(
            f"infer into another's results with mode {mode}",
            to_anna,
            refused("{partial}"),
            of_anna("partial", mode=mode),
            "partial",
        )
    add("infer with another's private run", INFERENCE, refused("best.pt"), of_anna("run", mode="700"), "run")
    add(
        "infer with another's private checkpoint",
        INFERENCE,
        refused("best.pt"),
        of_anna("run", mode="600", file="{run}/best.pt"),
        "run",
    )
    add("infer with another's run", INFERENCE, works(), of_anna("run"), "run", untouched=["{run}"])
    add(
        "infer beside another's checkpoint",
        INFERENCE[:-2],
        refused("{run}"),
        of_anna("run"),
        "run",
        untouched=["{run}"],
    )
    add("export of another's private run", EXPORT, refused("best.pt"), of_anna("run", mode="700"), "run")
    add("export of another's run", EXPORT, works(), of_anna("run"), "run", untouched=["{run}"])
    add("gallery of another's private run", GALLERY, refused("best.pt"), of_anna("run", mode="700"), "run")
    add("gallery of another's run", GALLERY, works(), of_anna("run"), "run", untouched=["{run}"])
    add("prepare in another's data", PREPARE, refused("{data}"), of_anna("data"), "data", untouched=["{data}"])
    add(
        "prepare of another's data with lists elsewhere",
        [*PREPARE, "--list_folder", "{here}/lists"],
        works(),
        of_anna("data"),
        "data",
        untouched=["{data}"],
    )
    add("prepare of another's private data", PREPARE, refused("{data}"), of_anna("data", mode="700"), "data")
    add("compare of another's studies", COMPARE, works(), of_anna("states"), "states", untouched=["{states}"])
    add("compare of another's private studies", COMPARE, refused("{states}"), of_anna("states", mode="700"), "states")
    return found
