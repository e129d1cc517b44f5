"""Command lines: of a training run, a preset's name, then any field of TrainConfig as a flag; and how any is read."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import partial, wraps
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from fsr.config import PRESETS, TrainConfig
from fsr.errors import UserError
from fsr.exit_codes import ExitCode

More = TypeVar("More")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Nothing:
    """No further flags."""


@dataclass(frozen=True)
class TrainCommand:
    """The folder and the configuration of a run."""

    run_folder: Path
    """Folder of the run: configuration, metrics, checkpoints, result. A run in it resumes."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig]


def parse_command(program: str, arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """Configuration and run folder from `{voc,coco,synthetic} --run_folder DIR [--FIELD VALUE ...]`.

    Raises UserError for an unknown preset or flag, or a value that is not allowed.
    """
    return parse_with(Nothing, program, arguments)[1:]


def parse_with(more: type[More], program: str, arguments: Sequence[str]) -> tuple[More, TrainConfig, Path]:
    """The same with the flags of another dataclass beside, all with defaults; one --help shows both."""
    presets = ", ".join(PRESETS)
    flags = ["--run_folder", *flags_of(TrainConfig), *(flag.replace("_", "-") for flag in flags_of(more))]
    if set(arguments[:1]) & {"-h", "--help"}:
        print(f"usage: {program} DATASET --run_folder DIR [--FIELD VALUE ...]   (DATASET: {presets}; each has --help)")
        raise SystemExit(ExitCode.DONE)
    check_flags(arguments, flags)
    # Other flags may stand before the preset.
    _, others = parse_flags(more, program, arguments, return_unknown_args=True, add_help=False)
    preset = others[0] if others else "nothing"
    if preset not in PRESETS:
        raise UserError(f"{program} expects a data set as its first argument, got {preset}; allowed: {presets}")
    rest = list(arguments)
    rest.remove(preset)
    default = TrainCommand(tyro.MISSING, PRESETS[preset]())
    command = parse_both(TrainCommand, more, f"{program} {preset}", rest, default)
    return command.cluster, command.method.config, command.method.run_folder


def parse_both(
    method: type, cluster: type, program: str, arguments: Sequence[str], default: Any = tyro.MISSING, **options: Any
) -> Any:
    """The flags of two dataclasses from one command line, as the attributes `method` and `cluster` of the answer."""
    omit = tyro.conf.OmitArgPrefixes
    both = make_dataclass("Both", [("method", omit[method]), ("cluster", omit[cluster])])
    if default is not tyro.MISSING:
        options["default"] = both(default, cluster())
    return parse_flags(both, program, arguments, config=(tyro.conf.FlagConversionOff,), **options)


def parse_flags(kind: Callable[..., Any], program: str | None, arguments: Sequence[str] | None, **options: Any) -> Any:
    """What a command line says as a dataclass, or as the answer of a function with these flags.

    `arguments` are by default the process's own. Raises UserError, with tyro's reason, for a line that it does not
    accept; other options are tyro's.
    """
    words = {"true": "True", "false": "False"}  # the released flags' spelling
    given = [words.get(word, word) for word in (sys.argv[1:] if arguments is None else arguments)]
    check_given_once(kind, given)
    complaint, help_page = io.StringIO(), getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    try:
        with redirect_stderr(complaint), redirect_stdout(help_page):
            return tyro.cli(kind, prog=program, args=given, **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(reason_of(complaint.getvalue())) from None


def call(function: Callable[..., Answer], program: str, arguments: Sequence[str] | None, **options: Any) -> Answer:
    """Call a function whose parameters are the flags of a command line. Raises UserError as `parse_flags` does."""

    @wraps(function)
    def read(*args: Any, **kwargs: Any) -> Callable[[], Answer]:
        return partial(function, *args, **kwargs)

    work: Callable[[], Answer] = parse_flags(read, program, arguments, **options)
    return work()


def check_given_once(kind: Callable[..., Any], words: Sequence[str]) -> None:
    """Raise UserError where a flag that takes one value is given two different ones: the last would win in silence.

    Flags of UseAppendAction take them all.
    """
    single = {name for name, hint in _hints(kind) if tyro.conf.UseAppendAction not in getattr(hint, "__metadata__", ())}
    given: dict[str, list[str]] = {}
    places = [place for place, word in enumerate(words) if word.startswith("--")]
    for place, end in zip(places, [*places[1:], len(words)], strict=False):
        flag, equals, value = words[place].partition("=")
        values = [value] if equals else list(words[place + 1 : end])
        name = flag.removeprefix("--").replace("-", "_")
        if name in single and given.setdefault(name, values) != values:
            both = f"{' '.join(given[name])} and {' '.join(values)}"
            raise UserError(f"{flag} is given twice, {both}; it takes one value")


def _hints(kind: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The names and types of all flags, those of dataclasses inside too."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inside = getattr(hint, "__origin__", hint)  # of an Annotated
        if is_dataclass(inside) and isinstance(inside, type):
            yield from _hints(inside)
        else:
            yield name, hint


def reason_of(complaint: str) -> str:
    """The reason in the box that tyro draws around it, in one line: what stands between title and next rule."""
    lines = [line.strip("│╭╮╰╯ ") for line in complaint.splitlines()]
    inside = [line for line in lines if line][1:]
    parts = groupby(inside, key=lambda line: bool(line.strip("─-")))
    return f"{' '.join(next(part for is_text, part in parts if is_text))} (all flags: --help)"


def flags_of(kind: type) -> list[str]:
    """The flags that tyro makes of a dataclass, aliases too."""
    hints = get_type_hints(kind, include_extras=True)
    marks = (mark for field in fields(kind) for mark in getattr(hints[field.name], "__metadata__", ()))
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    return [*(f"--{field.name}" for field in fields(kind)), *aliases]


def check_flags(arguments: Iterable[str], flags: Sequence[str]) -> None:
    """Raise UserError for a word that begins like a flag and is none of them, with the nearest ones."""
    plain = {flag.replace("-", "_"): flag for flag in flags}
    for word in (argument.partition("=")[0] for argument in arguments):
        name = word.replace("-", "_")
        if word.startswith("--") and word not in ("--", "--help") and name not in plain:
            near = [plain[close] for close in get_close_matches(name, plain, n=3, cutoff=0.3)]
            raise UserError(f"unknown option {word}; nearest allowed: {', '.join(near) or 'none'} (all: --help)")
