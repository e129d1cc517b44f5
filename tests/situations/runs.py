"""Run folders some of whose files are damaged, foreign or taken: a run resumes rightly, or is refused by name."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from situations.damage import CONTENTS, DAMAGES, SOCKET, UNREADABLE
from situations.readers import damage
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works
from situations.words import AGAIN, EXPORT, GALLERY, INFERENCE, LAUNCHED_RESUME, RESUME

KIND = "damaged run"
USER = 4001


def same_run(name: str) -> Check:
    """The result of the run is the undisturbed one's."""

    def check(place: Place, answer: Answer) -> Verdict:
        scores = []
        for file in (place[name] / "result.json", place["reference"] / "result.json"):
            try:
                found = json.loads(file.read_text())
                scores.append({key: value for key, value in found.items() if key.startswith("val/")})
            except (OSError, ValueError, AttributeError) as error:
                return f"silent: exit code 0 without a result: {error}"
        return None if scores[0] == scores[1] and scores[0] else f"wrong result: {scores[0]} instead of {scores[1]}"

    return check


def copes(name: str, file: str) -> Check:
    """The run is resumed to the same end, or refused by the file's name."""
    return either(refused(file), works(checks=same_run(name)))


def change_json(file: str, **changes: Any) -> Callable[[Place], None]:
    """The set-up that changes fields of a JSON object; None in them takes one away."""

    def prepare(place: Place) -> None:
        path = Path(place.fill(file))
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: value for name, value in content.items() if value != "GONE"}))

    return prepare


def change_checkpoint(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Place], None]:
    """The set-up that changes what a checkpoint holds."""

    def prepare(place: Place) -> None:
        path = Path(place.fill(file))
        content = torch.load(path, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, path)

    return prepare


def flip(file: str, part: float, bit: int = 0) -> Callable[[Place], None]:
    """The set-up that flips one bit of the tensors in a checkpoint, at this part of the largest ones."""

    def prepare(place: Place) -> None:
        path = Path(place.fill(file))
        with zipfile.ZipFile(path) as archive:
            largest = sorted(archive.infolist(), key=lambda entry: -entry.file_size)
            entry = largest[int(part * 20)]
        content = bytearray(path.read_bytes())
        start = entry.header_offset
        name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
        content[start + 30 + name + extra + entry.file_size // 2 + 3] ^= 1 << bit
        path.write_bytes(content)

    return prepare


def set_value(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """The change of one value of a checkpoint."""
    return lambda content: content.__setitem__(name, value)


def nan_weights(content: dict[str, Any]) -> None:
    """Makes one weight NaN in both networks."""
    for network in ("student", "teacher"):
        weight = content[network]["decoder.conv8.weight"]
        weight.view(-1)[0] = float("nan")


def other_shape(content: dict[str, Any]) -> None:
    """Gives one tensor another shape."""
    content["student"]["decoder.conv8.weight"] = torch.zeros(3, 3)


def fewer(content: dict[str, Any]) -> None:
    """Takes one tensor away."""
    content["student"].pop("decoder.conv8.weight")


CONFIGS = {
    "lacks a field": {"lr": "GONE"},
    "has an unknown field": {"colour": "red"},
    "has a text for a number": {"iterations": "ten"},
    "has a number for a text": {"dataset": 5},
    "has a negative number": {"iterations": -5},
    "has NaN": {"lr": float("nan")},
    "has a list for a number": {"seed": [1, 2]},
    "has null for a number": {"batch_size": None},
    "has an unknown data set": {"dataset": "imagenet"},
    "has other settings": {"seed": 5},
    "has a number too large": {"seed": 10**400},
}
# A field that an older version did not know has its default; no network depends on the seed.
HARMLESS = ("lacks a field", "has a number too large")
CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "lacks the optimizer": lambda content: content.__delitem__("optimizer"),
    "lacks the step": lambda content: content.__delitem__("step"),
    "has a text for its step": set_value("step", "six"),
    "has a negative step": set_value("step", -4),
    "has a step beyond the end": set_value("step", 1000),
    "has a text for its scores": set_value("scores", "good"),
    "has NaN for its best score": set_value("best", float("nan")),
    "has a list for its sums": set_value("loss_sums", [1.0, 2.0]),
    "has a NaN weight": nan_weights,
    "has a tensor of another shape": other_shape,
    "lacks a tensor": fewer,
    "holds a list": lambda content: [1, 2],
    "holds a tensor": lambda content: torch.zeros(3),
    "holds a text": lambda content: "hello",
    "holds nothing": lambda content: {},
    "holds one network": lambda content: content["student"],
}


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(
        name: str, words: Any, expects: Check, prepare: Any, needs: tuple[str, ...] = ("half",), **more: Any
    ) -> None:
        options = {"kind": KIND, "limit_s": 30} | more
        found.append(Situation(name=name, words=words, expects=expects, prepare=prepare, needs=needs, **options))

    for file in ("config.json", "checkpoint.pt", "metrics.jsonl", "quality.json", "provenance.json"):
        for how, make in (DAMAGES | SOCKET | UNREADABLE).items():
            user = USER if how in UNREADABLE else None
            falls_back = works(checks=same_run("half")) if file == "checkpoint.pt" and how not in UNREADABLE else None
            expects = falls_back or copes("half", file)
            add(f"train: {file} is {how}", RESUME, expects, damage(f"{{half}}/{file}", make), user=user)
    for how, make in DAMAGES.items():
        both = [damage(f"{{half}}/{name}", make) for name in ("checkpoint.pt", "checkpoint.previous.pt")]
        dangling = "link" in how  # a link to nothing is no checkpoint: the run starts anew
        expects = copes("half", "checkpoint") if dangling else refused("checkpoint")
        add(f"train: both checkpoints are {how}", RESUME, expects, together(*both))
        add(
            f"train: the result is {how}",
            AGAIN,
            copes("run", "result.json"),
            damage("{run}/result.json", make),
            ("run",),
        )
    for file in ("attempts.json", "config.json", "result.json"):
        for how, make in CONTENTS.items():
            name, words = ("half", LAUNCHED_RESUME) if file != "result.json" else ("run", replaced(LAUNCHED_RESUME))
            prepare = damage(f"{{{name}}}/{file}", make)
            add(f"launch train: {file} is {how}", words, copes(name, file), prepare, (name,))
    for what, changes in CONFIGS.items():
        add(f"train: config.json {what}", RESUME, refused("{half}"), change_json("{half}/config.json", **changes))
    for what, change in CHECKPOINTS.items():
        # The one before is whole.
        prepare = change_checkpoint("{half}/checkpoint.pt", change)
        add(f"train: checkpoint.pt {what}", RESUME, copes("half", "checkpoint.pt"), prepare)
    for number in range(8):
        prepare = flip("{half}/checkpoint.pt", number / 20, bit=3 * number % 8)
        add(f"train: bit {number} of checkpoint.pt is flipped", RESUME, copes("half", "checkpoint.pt"), prepare)
    networks = {"infer": INFERENCE, "export": EXPORT, "gallery": GALLERY}
    for command, words in networks.items():
        for how, make in (DAMAGES | SOCKET | UNREADABLE).items():
            user = USER if how in UNREADABLE else None
            prepare = damage("{run}/best.pt", make)
            add(f"{command}: best.pt is {how}", words, refused("best.pt"), prepare, ("run",), user=user)
        for number in range(3):
            prepare = flip("{run}/best.pt", number / 20, bit=2 + number)
            name = f"{command}: bit {number} of best.pt is flipped"
            add(name, words, refused("best.pt"), prepare, ("run",))
        for what, change in CHECKPOINTS.items():
            if what.split()[-1] in ("optimizer", "step", "scores", "end", "sums", "score", "network"):
                continue
            prepare = change_checkpoint("{run}/best.pt", change)
            add(f"{command}: best.pt {what}", words, refused("best.pt"), prepare, ("run",))
        for what, changes in CONFIGS.items():
            if what == "has other settings":
                continue
            prepare = change_checkpoint("{run}/best.pt", change_config(changes))
            expects = either(refused("best.pt"), *([works()] if what in HARMLESS else []))
            add(f"{command}: the configuration in best.pt {what}", words, expects, prepare, ("run",))
    of_run = [word.replace("best.pt", "checkpoint.pt") for word in EXPORT]
    for what, changes in CONFIGS.items():  # which a checkpoint does not need, as it carries its own
        prepare = change_json("{run}/config.json", **changes)
        add(f"export: config.json beside checkpoint.pt {what}", of_run, works(), prepare, ("run",))
    for how, make in DAMAGES.items():
        prepare = damage("{run}/config.json", make)
        add(f"export: config.json beside checkpoint.pt is {how}", of_run, works(), prepare, ("run",))
    return found


def together(*parts: Callable[[Place], None]) -> Callable[[Place], None]:
    """A set-up of several."""

    def prepare(place: Place) -> None:
        for part in parts:
            part(place)

    return prepare


def replaced(words: Any) -> list[str]:
    """The same command on the finished run."""
    return [word.replace("{half}", "{run}") for word in words]


def change_config(changes: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """The change of the configuration that a best.pt holds."""

    def change(content: dict[str, Any]) -> None:
        for name, value in changes.items():
            if value == "GONE":
                content["config"].pop(name)
            else:
                content["config"][name] = value

    return change
