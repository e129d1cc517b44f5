"""Command lines: of a training run, a preset's name, then any field of TrainConfig as a flag; and how any is read.

A flag is called as its field, with `-` or `_`; a yes or no is `--FLAG` or `--no-FLAG`, or has true or false behind it.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, make_dataclass
from difflib import get_close_matches
from functools import partial, wraps
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, TypeVar

import tyro

from fsr.config import PRESETS, TrainConfig
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.flags import Flag, flags_of
from fsr.help_page import help_page
from fsr.next_command import next_command

More = TypeVar("More")
Answer = TypeVar("Answer")

YES_OR_NO = {"true": True, "false": False}


@dataclass(frozen=True)
class Nothing:
    """No further flags."""


@dataclass(frozen=True)
class TrainCommand:
    """Train one run on this machine. A run in the folder resumes.

    On several GPUs start it by torchrun, once for each: .venv/bin/torchrun --nproc_per_node 4 -m fsr.train voc
    --data_folder DIR --run_folder runs/voc. On Slurm, fsr submit-train takes the same flags.

    Examples:
        --data_folder DIR --run_folder runs/voc
        --data_folder DIR --run_folder runs/lr --lr 3e-5 --iterations 2000 --no-deterministic
    """

    run_folder: Path
    """Folder of the run: configuration, metrics, checkpoints, result. A run in it resumes."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig]


def parse_command(arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """Configuration and run folder from `{voc,coco,synthetic,test_bed} --run_folder DIR [--FIELD VALUE ...]`.

    Raises UserError for an unknown preset or flag, or a value that is not allowed.
    """
    return parse_with(Nothing, "train", arguments, TrainCommand.__doc__ or "")[1:]


def parse_with(more: type[More], command: str, arguments: Sequence[str], text: str) -> tuple[More, TrainConfig, Path]:
    """The same with the flags of another dataclass beside, all with defaults; one --help shows both.

    `text` is the docstring of the help page.
    """
    both = type_of_both(TrainCommand, more)

    def default(preset: TrainConfig) -> Any:
        return both(TrainCommand(tyro.MISSING, preset), more())

    read = parse_preset(both, command, arguments, text, default, "--run_folder DIR ")
    return read.cluster, read.method.config, read.method.run_folder


def parse_preset(
    kind: Callable[..., Any],
    command: str,
    arguments: Sequence[str],
    text: str,
    default: Callable[[TrainConfig], Any],
    needed: str = "",
) -> Any:
    """What a command line says that begins with a preset's name, as a dataclass that holds a TrainConfig.

    `default` makes one of the preset, which has as many classes as the data set's classes.txt names, if there is one.
    `needed` is what has to follow, for the usage. Raises UserError for a line that is not accepted.
    """
    presets = ", ".join(PRESETS)
    others, words = read_words(flags_of(kind), arguments)
    name = others.pop(0) if others else None
    if asks_for_help(arguments) and name not in PRESETS:
        print(f"usage: {next_command(command)} DATASET {needed}[--FLAG VALUE ...]\n")
        print(f"DATASET is one of {presets}. Each has its own defaults, which its page shows:")
        print(f"  {next_command(command, 'voc', '--help')}")
        raise SystemExit(ExitCode.DONE)
    if name not in PRESETS:
        told = name or "nothing"
        raise UserError(f"fsr {command} expects a data set as its first argument, got {told}; allowed: {presets}")
    preset = PRESETS[name]()
    if asks_for_help(arguments):
        words += ["--help"]
    else:
        from fsr.data.source import with_own_classes  # here, for --help does not wait for it

        folder = next((value for flag, value in pairwise(words) if flag == "--data_folder"), None)
        preset = with_own_classes(PRESETS[name](Path(folder)) if folder else preset)
    return parse_flags(kind, f"{command} {name}", [*others, *words], text=text, default=default(preset))


def type_of_both(method: type, cluster: type) -> Callable[..., Any]:
    """A dataclass with the flags of two, as the attributes `method` and `cluster`."""
    omit = tyro.conf.OmitArgPrefixes
    return make_dataclass("Both", [("method", omit[method]), ("cluster", omit[cluster])])


def parse_flags(
    kind: Callable[..., Any],
    command: str,
    arguments: Sequence[str] | None,
    *,
    text: str | None = None,
    without: Collection[str] = (),
    first: Sequence[str] = (),
    **options: Any,
) -> Any:
    """What the words behind `fsr COMMAND` say as a dataclass, or as the answer of a function with these flags.

    `arguments` are by default the process's own; `text` is the docstring of the help page, by default that of `kind`.
    `without` names fields that are no flags of this command, and `first` has the words that give them. Raises UserError
    for a line that is not accepted. Other options are tyro's.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    flags = [flag for flag in flags_of(kind, options.get("default")) if flag.name not in without]
    if asks_for_help(arguments):
        print(help_page(command, flags, text or kind.__doc__ or ""), end="")
        raise SystemExit(ExitCode.DONE)
    others, words = read_words(flags, arguments)
    positional = [flag for flag in flags if flag.positional]
    missing = [flag for flag in positional[len(others) :] if flag.needed] + [
        flag for flag in flags if flag.needed and not flag.positional
    ]
    missing = [flag for flag in missing if f"--{flag.name}" not in [word.partition("=")[0] for word in words]]
    if missing:
        wanted = ", ".join(flag.typed for flag in missing)
        raise UserError(f"fsr {command} needs {wanted} (all flags: {next_command(command, '--help')})")
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(
                kind, prog=f"fsr {command}", args=[*first, *others, *words], use_underscores=True, **options
            )
    except SystemExit:
        raise UserError(f"{reason_of(complaint.getvalue())} (all flags: {next_command(command, '--help')})") from None


def call(function: Callable[..., Answer], command: str, arguments: Sequence[str] | None) -> Answer:
    """Call a function whose parameters are the flags of a command line. Raises UserError as `parse_flags` does."""

    @wraps(function)
    def read(*args: Any, **kwargs: Any) -> Callable[[], Answer]:
        return partial(function, *args, **kwargs)

    work: Callable[[], Answer] = parse_flags(read, command, arguments)
    return work()


def help_first(parse: Callable[[Sequence[str]], Any]) -> None:
    """Where help is asked for, print it and end: before the imports of the command, which take seconds.

    Under torchrun the first rank alone tells it, later.
    """
    if asks_for_help(sys.argv[1:]) and "RANK" not in os.environ:
        reports_user_errors(parse)(sys.argv[1:])


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the help page, wherever in it."""
    return bool({"-h", "--help"} & set(arguments))


def read_words(flags: Sequence[Flag], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that belong to no flag; and its flags in one spelling, by their fields' names.

    A flag that takes several values may be given several times, and all count. Raises UserError for an unknown flag,
    for one that takes one value and is given two, and for one that takes several and is given none.
    """
    by_name = {plain(name): flag for flag in flags for name in (flag.name, *flag.aliases) if not flag.positional}
    negated = {f"no_{flag.name}": flag for flag in flags if flag.kind is bool}
    given: dict[str, list[str]] = {}
    others: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not is_flag(word):
            others.append(word)
            continue
        if word in ("-h", "--help"):
            continue
        name, equals, value = word.partition("=")
        flag = (negated | by_name).get(plain(name))
        if flag is None:
            raise UserError(unknown(name, by_name))
        values = [value] if equals else []
        if flag.kind is bool:
            if rest and not equals and rest[0].lower() in YES_OR_NO:
                values = [rest.pop(0)]
            values = [yes_or_no(flag, plain(name), values)]
        else:
            while rest and not is_flag(rest[0]) and takes_more(flag, values, rest[0]):
                values.append(rest.pop(0))
        if flag.words is None:
            if not values:
                raise UserError(f"--{flag.name} takes one or more values, got none")
            values = given.get(flag.name, []) + values
        elif given.get(flag.name, values) != values:
            told = " and ".join(" ".join(each) or "no value" for each in (given[flag.name], values))
            raise UserError(f"--{flag.name} is given twice, as {told}; give it once")
        given[flag.name] = values
    return others, [word for flag in flags if flag.name in given for word in typed(flag, given[flag.name])]


def takes_more(flag: Flag, values: Sequence[str], word: str) -> bool:
    """Whether the next word is a value of this flag: of `--sbatch` only where it is one for sure."""
    if flag.appended:
        return not values or "=" in word
    return flag.words is None or len(values) < flag.words


def typed(flag: Flag, values: Sequence[str]) -> list[str]:
    """A flag as tyro reads it."""
    if flag.kind is bool:
        return [f"--{flag.name}" if values == ["true"] else f"--no_{flag.name}"]
    if flag.appended:
        return [word for value in values for word in (f"--{flag.name}", value)]
    return [f"--{flag.name}={values[0]}"] if values and is_flag(values[0]) else [f"--{flag.name}", *values]


def yes_or_no(flag: Flag, name: str, values: Sequence[str]) -> str:
    """`true` or `false`, as a flag without a value, with `no` before it, or with a value says."""
    said = values[0] if values else "true"
    if said.lower() not in YES_OR_NO:
        raise UserError(f"--{flag.name} takes no value, or true or false (--no-{flag.name} turns it off), got {said}")
    return str(YES_OR_NO[said.lower()] == (name == plain(flag.name))).lower()


def is_flag(word: str) -> bool:
    """Whether a word begins a flag: not a negative number, and not the path `-`."""
    return bool(re.match(r"--?[A-Za-z_]", word)) and not re.fullmatch(r"-(inf|nan)", word, re.IGNORECASE)


def plain(name: str) -> str:
    """A flag's name without dashes, as its field is called."""
    return name.lstrip("-").replace("-", "_")


def unknown(name: str, known: Iterable[str]) -> str:
    """That there is no such flag, with the nearest ones."""
    near = [f"--{close}" for close in get_close_matches(plain(name), list(known), n=3, cutoff=0.3)]
    return f"unknown option {name}; nearest allowed: {', '.join(near) or 'none'} (all: --help)"


def reason_of(complaint: str) -> str:
    """The reason in the box that tyro draws around it, in one line: what stands between title and next rule."""
    lines = [line.strip("│╭╮╰╯ ") for line in complaint.splitlines()]
    inside = [line for line in lines if line][1:]
    parts = groupby(inside, key=lambda line: bool(line.strip("─-")))
    return " ".join(next(part for is_text, part in parts if is_text))
