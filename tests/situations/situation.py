"""What a situation is, what came of it, and what counts as handled."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ESCAPE = "\x1b"
LONGEST = 200  # characters of a name that a sentence must show
PAYLOAD = "payload-ran"  # a file that only code from a hostile file would make
# Signs that the program itself broke, wherever they stand in its output.
BROKEN = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error", "Segmentation fault")
# What torchrun prints of a rank that ends with a code other than 0, whatever the rank itself has said.
OF_TORCHRUN = re.compile(r"Traceback(?:(?!Traceback).)*ChildFailedError:.*", re.DOTALL)


@dataclass
class Place:
    """The folder of one situation, and where things lie in it or in the stock, by name."""

    folder: Path
    paths: dict[str, Path]
    notes: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]

    def fill(self, text: str) -> str:
        """A text with the paths in the place of {names}."""
        return re.sub(r"{(\w+)}", lambda match: str(self.paths[match[1]]), text)


@dataclass
class Answer:
    """What came of a command."""

    code: int | None
    """Exit code, negative for a signal; None if it did not end in time."""
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """All output."""
        return self.out + self.err


Verdict = str | None  # None, or KIND: what is wrong
Check = Callable[[Place, Answer], Verdict]


def nothing(place: Place) -> None:
    """The set-up of a situation that needs none."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A command in some surroundings, and what it has to come to."""

    name: str
    kind: str
    """Which kind of surroundings, for the totals."""
    words: Sequence[str]
    """Program and arguments; {names} stand for paths."""
    expects: Check
    needs: Sequence[str] = ()
    """Parts of the stock that are copied, because the command or the set-up changes them."""
    prepare: Callable[[Place], None] = nothing
    user: int | None = None
    """Who runs it; root if None."""
    variables: dict[str, str | None] = field(default_factory=dict)
    """Changes of the environment; None takes a variable away."""
    limits: dict[str, int] = field(default_factory=dict)
    """Resource limits by their names in the module resource."""
    cwd: str = "{here}"
    umask: int = 0o022
    shell: str | None = None
    """A shell line in which "$@" is the command: a process of its own in surroundings that only a shell makes."""
    alone: bool = False
    """A process of its own without a shell."""
    interrupt_s: float | None = None
    """Seconds after which it gets SIGINT."""
    untouched: Sequence[str] = ()
    """Paths whose content must be the same afterwards."""
    limit_s: float = 60
    escapes: bool = False
    """Whether its output goes to a terminal, where colours are right."""

    @property
    def command(self) -> str:
        """The command's short name, for the totals."""
        program = self.words[1] if self.words[0] == "-m" else self.words[0]
        return program.replace("{checkout}/", "")


def judge(situation: Situation, place: Place, answer: Answer, before: dict[str, str]) -> Verdict:
    """None if the situation was handled, else the kind of failure and what is wrong."""
    if answer.code is None:
        return f"hang: no end within {situation.limit_s:.0f} s"
    if list(place.folder.rglob(PAYLOAD)):
        return "exposure: the payload ran"
    said = OF_TORCHRUN.sub("", answer.said)
    for sign in BROKEN:
        if sign in said:
            lines = re.findall(r"^[\w.]+(?:Error|Exception|Interrupt)\b.*", said, re.MULTILINE)
            return f"traceback: {(lines or [sign])[-1][:160]}"
    if answer.code < 0 and situation.interrupt_s is None:
        return f"traceback: died of signal {-answer.code}"
    if ESCAPE in answer.said and not situation.escapes:
        return "exposure: an escape character in the output"
    wrong = situation.expects(place, answer)
    if wrong:
        return wrong
    for name, digest in before.items():
        if digest_of(Path(place.fill(name))) != digest:
            return f"wrong result: {name} was changed"
    return None


def digest_of(path: Path) -> str:
    """Of a file's or folder's names and contents; links and what cannot be read by their kind alone."""
    found = hashlib.sha256()
    for entry in sorted([path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]):
        found.update(f"{entry}\0".encode(errors="surrogateescape"))
        if entry.is_symlink():
            found.update(os.readlink(entry).encode())
        elif entry.is_file():
            found.update(entry.read_bytes())
    return found.hexdigest()


def sentence(answer: Answer) -> str | None:
    """The sentence on standard error that says what is wrong; a box of the command line's parser counts as one."""
    lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    if lines:
        return lines[-1]
    box = [line.strip("│ ") for line in answer.err.splitlines() if line.startswith("│")]
    return " ".join(box) if box and "╭" in answer.err else None


def refused(*names: str, codes: Sequence[int] = (2,)) -> Check:
    """It ends with code 2 and a sentence that holds each of these words, of a very long one the beginning."""

    def check(place: Place, answer: Answer) -> Verdict:
        said = sentence(answer)
        if answer.code == 0:
            return f"silent: exit code 0, though it should refuse {', '.join(map(place.fill, names))}"
        if answer.code not in codes:
            return f"wrong result: exit code {answer.code}; {(answer.said.splitlines() or [''])[-1][:120]}"
        if said is None:
            return f"bad words: no sentence; {(answer.err.splitlines() or [''])[-1][:120]}"
        flat = said.replace("_", "-")  # both spellings of a flag
        missing = [name for name in map(place.fill, names) if name.replace("_", "-")[:LONGEST] not in flat]
        if missing:
            return f"bad words: the sentence does not name {', '.join(missing)}: {said[:160]}"
        return None

    return check


def works(says: str = "", checks: Check | None = None, codes: Sequence[int] = (0,)) -> Check:
    """It ends well, says this, and what it made is right."""

    def check(place: Place, answer: Answer) -> Verdict:
        if answer.code not in codes:
            return f"wrong result: exit code {answer.code}; {(answer.err.splitlines() or [''])[-1][:160]}"
        if place.fill(says) not in answer.said:
            return f"silent: does not say {place.fill(says)}"
        return checks(place, answer) if checks else None

    return check


def either(*checks: Check) -> Check:
    """One of these holds; the last one's verdict where none does."""

    def check(place: Place, answer: Answer) -> Verdict:
        verdicts = [one(place, answer) for one in checks]
        return None if None in verdicts else verdicts[0 if answer.code else -1]

    return check


def anything(place: Place, answer: Answer) -> Verdict:
    """Whatever it comes to, as long as nothing breaks."""
    return None if answer.code in (0, 1, 2, 130) else f"wrong result: exit code {answer.code}"


def same_scores(name: str, reference: str) -> Check:
    """Two JSON files of scores hold the same."""

    def check(place: Place, answer: Answer) -> Verdict:
        found, wanted = (Path(place.fill(file)) for file in (name, reference))
        try:
            same = json.loads(found.read_text()) == json.loads(wanted.read_text())
        except (OSError, ValueError) as error:
            return f"silent: exit code 0, but {name} is not there or damaged: {error}"
        return None if same else f"wrong result: {name} differs from {reference}"

    return check
