"""Folders of an inference's results some of whose files are damaged or of another inference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from situations.damage import CONTENTS, DAMAGES, UNREADABLE
from situations.readers import damage
from situations.runs import change_json
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works
from situations.words import LAUNCHED_INFER, RUNS_INFER

KIND = "damaged results"
RESUME = (*RUNS_INFER, "--output_folder", "{partial}")
LAUNCHED = tuple("{partial}" if word == "{out}" else word for word in LAUNCHED_INFER)


def same_scores(place: Place, answer: Answer) -> Verdict:
    """The scores are the undisturbed inference's."""
    try:
        found, wanted = (json.loads((place[name] / "scores.json").read_text()) for name in ("partial", "undisturbed"))
    except (OSError, ValueError) as error:
        return f"silent: exit code 0 without scores: {error}"
    same = isinstance(found, dict) and all(
        found.get(key) == wanted[key] for key in wanted if key not in ("provenance", "seconds", "settings")
    )
    return None if same else "wrong result: other scores than without the damage"


def copes(*names: str) -> Check:
    """It is refused by the file's name, or ends with the right scores."""
    return either(refused(*names), works(checks=same_scores))


def change_line(how: Callable[[str], str]) -> Callable[[Place], None]:
    """The set-up that changes the first line of the journal."""

    def prepare(place: Place) -> None:
        (file,) = (place["partial"] / "images").glob("*.jsonl")
        first, *others = file.read_text().splitlines(keepends=True)
        place.paths["journal"] = file
        file.write_text("".join([how(first), *others]))

    return prepare


def with_field(**changes: Any) -> Callable[[str], str]:
    """The line with other fields."""
    return lambda line: json.dumps(json.loads(line) | changes) + "\n"


LINES: dict[str, Callable[[str], str]] = {
    "is cut": lambda line: line[: len(line) // 2] + "\n",
    "is twice on one line": lambda line: line.rstrip("\n") + line,
    "is a list": lambda line: "[1, 2]\n",
    "is a number": lambda line: "5\n",
    "is null": lambda line: "null\n",
    "is zeros": lambda line: "\0" * 100 + "\n",
    "is empty": lambda line: "\n",
    "lacks everything but the name": lambda line: json.dumps({"name": json.loads(line)["name"]}) + "\n",
    "lacks the name": lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "name"}) + "\n",
    "has a number for its name": with_field(name=5),
    "has a list for its name": with_field(name=["a"]),
    "has .. in its name": with_field(name="../../../../escaped"),
    "has an absolute name": with_field(name="/etc/passwd"),
    "has an escape in its name": with_field(name="a\x1b[31mb"),
    "has the name of no image": with_field(name="no_such_image"),
    "was skipped by a number": with_field(skipped=5),
    "is nested too deeply": lambda line: "[" * 100_000 + "\n",
}


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, prepare: Any, **more: Any) -> None:
        options = {"kind": KIND, "needs": ["partial"], "limit_s": 30} | more

        def prepared(place: Place) -> None:
            place.paths["undisturbed"] = place.paths["results"]
            prepare(place)

        found.append(Situation(name=name, words=words, expects=expects, prepare=prepared, **options))

    for how, make in (DAMAGES | UNREADABLE).items():
        user = 4001 if how in UNREADABLE else None
        prepare = damage("{partial}/settings.json", make)
        add(f"infer: settings.json is {how}", RESUME, copes("settings.json"), prepare, user=user)

        def journal(place: Place, make: Callable[[Path], None] = make) -> None:
            (file,) = (place["partial"] / "images").glob("*.jsonl")
            place.paths["journal"] = file
            make(file)

        add(f"infer: the journal is {how}", RESUME, copes("{journal}"), journal, user=user)
    for how, make in CONTENTS.items():
        prepare = damage("{partial}/settings.json", make)
        add(f"launch infer: settings.json is {how}", LAUNCHED, copes("settings.json"), prepare)
    for how, make in LINES.items():
        add(f"infer: a line of the journal {how}", RESUME, copes("{journal}"), change_line(make))
    for name in ("segmentation", "cam_maps", "images", "crf"):
        prepare = damage(f"{{partial}}/{name}", DAMAGES["a dangling link"])
        add(f"infer: the folder {name} is a dangling link", RESUME, copes("{partial}"), prepare)
        prepare = damage(f"{{partial}}/{name}", DAMAGES["empty"])
        add(f"infer: the folder {name} is a file", RESUME, copes("{partial}"), prepare)
    for what, changes in {
        "other settings": {"settings": {"crf": True}},
        "a list of settings": {"settings": [1]},
        "no settings": {"settings": "GONE"},
    }.items():
        add(
            f"infer: settings.json has {what}",
            RESUME,
            refused("{partial}"),
            change_json("{partial}/settings.json", **changes),
        )
    for name in ("scores.json", "scores.csv", "cam_quality.json"):
        for how in ("a folder", "a pipe", "a link to itself", "a dangling link"):
            prepare = damage(f"{{partial}}/{name}", DAMAGES[how])
            add(f"infer: {name} is {how}", RESUME, copes(name), prepare)
    return found
