"""Files that others prepared: nothing in them runs, nothing outside is changed, no terminal obeys them."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from situations.readers import READERS
from situations.situation import (
    ESCAPE,
    PAYLOAD,
    Answer,
    Check,
    Place,
    Situation,
    Verdict,
    anything,
    either,
    refused,
    works,
)
from situations.words import (
    AGAIN,
    BOARD,
    EXPORT,
    FIGURES,
    GALLERY,
    INFERENCE,
    LAUNCHED_RESUME,
    RESUME,
    SWEEP,
    TRAIN,
)

KIND = "hostile file"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def pickled(place: Place) -> bytes:
    """A pickle that makes a file."""
    return pickle.dumps(Payload(place.folder / PAYLOAD))


def torch_pickle(place: Place) -> bytes:
    """The same as torch.save writes it."""
    stream = io.BytesIO()
    torch.save({"student": Payload(place.folder / PAYLOAD), "step": 5}, stream)
    return stream.getvalue()


def old_torch_pickle(place: Place) -> bytes:
    """The same as torch.save wrote it before version 1.6."""
    stream = io.BytesIO()
    torch.save({"student": Payload(place.folder / PAYLOAD)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


PICKLES = {"a pickle": pickled, "a pickle of torch's": torch_pickle, "an old pickle of torch's": old_torch_pickle}


def put(name: str, make: Callable[[Place], bytes]) -> Callable[[Place], None]:
    """The set-up that writes a file."""

    def prepare(place: Place) -> None:
        file = Path(place.fill(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make(place))

    return prepare


def snapshot(place: Place) -> bytes:
    """What Optuna would load beside a journal: a pickle with the stamp that it checks."""
    first = (place["runs"] / "smoke" / "journal.log").read_bytes().splitlines(keepends=True)[0]
    return hashlib.sha256(first + pickled(place)).digest() + pickled(place)


def change_journal(change: Callable[[list[dict[str, Any]]], object], runs: str = "states") -> Callable[[Place], None]:
    """The set-up that changes the records of a study's journal."""

    def prepare(place: Place) -> None:
        file = place[runs] / "smoke" / "journal.log"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        change(records)
        file.write_text("".join(json.dumps(record) + "\n" for record in records))

    return prepare


def error_text(text: str) -> Callable[[list[dict[str, Any]]], object]:
    """Puts a text where a failed trial's error stands."""

    def change(records: list[dict[str, Any]]) -> None:
        for record in records:
            if "error" in record.get("user_attr", {}):
                record["user_attr"]["error"] = text

    return change


def change_attempts(**changes: Any) -> Callable[[Place], None]:
    """The set-up that changes what an attempt log says."""

    def prepare(place: Place) -> None:
        file = place["states"] / "smoke" / "trial_0000" / "attempts.json"
        file.write_text(json.dumps([attempt | changes for attempt in json.loads(file.read_text())]))

    return prepare


def no_formula(place: Place, answer: Answer) -> Verdict:
    """No cell of the CSV files begins a formula."""
    import csv

    for file in place["out"].glob("*.csv"):
        for row in csv.reader(file.read_text().splitlines()):
            for cell in row:
                if cell[:1] in ("=", "@", "\t", "\r") or (cell[:1] in "+-" and cell[1:2].isalpha()):
                    return f"exposure: {file.name} has the cell {cell!r}"
    return None


def no_escapes(place: Place, answer: Answer) -> Verdict:
    """No file of tables holds an escape character; the output's are looked for always."""
    return None if ESCAPE not in answer.said else "exposure: an escape character"


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, prepare: Any, *needs: str, **more: Any) -> None:
        options = {"kind": KIND} | more
        found.append(Situation(name=name, words=words, expects=expects, prepare=prepare, needs=needs, **options))

    for what, make in PICKLES.items():
        add(
            f"train: checkpoint.pt is {what}",
            RESUME,
            either(works(), refused("checkpoint")),
            put("{half}/checkpoint.pt", make),
            "half",
        )
        add(
            f"launch train: checkpoint.pt is {what}",
            LAUNCHED_RESUME,
            either(works(), refused("checkpoint")),
            put("{half}/checkpoint.pt", make),
            "half",
        )

        def both(place: Place, make: Callable[[Place], bytes] = make) -> None:
            for name in ("checkpoint.pt", "checkpoint.previous.pt"):
                put(f"{{half}}/{name}", make)(place)

        add(f"train: both checkpoints are {what}", RESUME, refused("checkpoint"), both, "half")
        for command, words in {"infer": INFERENCE, "export": EXPORT, "gallery": GALLERY}.items():
            add(f"{command}: best.pt is {what}", words, refused("best.pt"), put("{run}/best.pt", make), "run")
        pretrained = [*TRAIN, "--pretrained", "{here}/weights.pth"]
        add(
            f"train: the pretrained file is {what}", pretrained, refused("weights.pth"), put("{here}/weights.pth", make)
        )
        pretrained = [*TRAIN, "--pretrained", "{here}/weights.npz"]
        add(
            f"train: the pretrained NumPy file is {what}",
            pretrained,
            refused("weights.npz"),
            put("{here}/weights.npz", make),
        )
        pretrained = [*TRAIN, "--pretrained", "{here}/weights.safetensors"]
        add(
            f"train: the pretrained safetensors file is {what}",
            pretrained,
            refused("weights.safetensors"),
            put("{here}/weights.safetensors", make),
        )
        add(
            f"train: the result is {what}",
            AGAIN,
            either(refused("result.json"), works()),
            put("{run}/result.json", make),
            "run",
        )
    readers = READERS | {"sweep": [*SWEEP, "--trials", "2"], "board": [*BOARD], "figures": [*FIGURES]}
    for reader, words in readers.items():
        interrupt = 8 if reader == "board" else None
        add(
            f"{reader}: a pickle beside the journal",
            words,
            anything if interrupt else works(),
            put("{runs}/smoke/journal.snapshot", snapshot),
            "runs",
            interrupt_s=interrupt,
        )
        for name in ("tables", "tables/smoke.pkl", "cache.pkl", ".cache/fsr.pkl"):
            if reader in ("load", "figures"):
                add(f"{reader}: a pickle called {name}", words, works(), put(f"{{runs}}/smoke/{name}", pickled), "runs")
    for reader in ("status", "status --json", "doctor", "load"):
        words = [word.replace("{runs}", "{states}") for word in READERS[reader]]
        for what, text in {
            "escapes": "\x1b]0;owned\x07\x1b[2J\x1b[31mred",
            "markup": "[bold red]not finite[/bold red] [/] [link=http://evil]x[/link]",
            "a bell and a carriage return": "all is well\r\x07\x08\x08",
            "a C1 control": "a\x9b31mb",
            "right-to-left override": "abc\u202egnp.exe",
        }.items():
            ends = works(codes=(0, 1))  # 1 is doctor's, for trials without a result
            add(f"{reader}: an error with {what}", words, ends, change_journal(error_text(text)), "states")
            add(f"{reader}: a node called with {what}", words, ends, change_attempts(node=text, detail=text), "states")
    words = [word.replace("{runs}", "{states}") for word in READERS["load"]]
    for start in ("=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1"):
        add(
            f"load: an error that begins {start!r}",
            words,
            works(checks=no_formula),
            change_journal(error_text(start)),
            "states",
        )
        add(
            f"load: a node that is called {start!r}",
            words,
            works(checks=no_formula),
            change_attempts(node=start, detail=start),
            "states",
        )
    # Links in the place of what is removed or written.
    for name, words in {"tables": READERS["load"], "report.html": READERS["status"]}.items():

        def linked(place: Place, name: str = name) -> None:
            precious = place["here"] / "precious"
            precious.mkdir()
            (precious / "thesis.tex").write_text("years of work")
            (place["runs"] / "smoke" / name).symlink_to(precious)

        add(f"{name} of a study is a link to a folder", words, works(), linked, "runs", untouched=["{here}/precious"])
    for command, words, folder in (
        ("train", RESUME, "half"),
        ("launch train", LAUNCHED_RESUME, "half"),
    ):
        for name in ("checkpoint.pt", "metrics.jsonl", "config.json", "best.pt", "result.json", "quality.json"):

            def to_others(place: Place, name: str = name, folder: str = folder) -> None:
                file = place[folder] / name
                other = place["here"] / "precious"
                other.write_bytes(file.read_bytes() if file.exists() else b"years of work")
                file.unlink(missing_ok=True)
                file.symlink_to(other)

            expects = either(works(), refused(name))
            add(
                f"{command}: {name} is a link to a file of others",
                words,
                expects,
                to_others,
                folder,
                untouched=["{here}/precious"] if name not in ("metrics.jsonl",) else [],
            )
        for name in (".notes.2024.part", ".thesis.part", ".checkpoint.pt.tmp", ".x.y.0.1.part"):

            def users_file(place: Place, name: str = name, folder: str = folder) -> None:
                (place[folder] / name).write_text("years of work")

            add(
                f"{command}: a file {name} of the user's",
                words,
                works(),
                users_file,
                folder,
                untouched=[f"{{{folder}}}/{name}"],
            )
    return found
