"""The page that `--help` prints: what a command does, what it needs, its flags by section, and examples."""

import argparse
import inspect
import re
import shutil
import textwrap
from collections.abc import Sequence

from fsr.flags import Flag
from fsr.next_command import next_command

NEEDED = "Needed"
GLUE = "\0"  # a space at which no line is broken
WIDEST = 100  # columns, beyond which lines are hard to read


def help_page(command: str, flags: Sequence[Flag], text: str) -> str:
    """The page of `fsr COMMAND` with these flags, as wide as the terminal.

    `text` is a docstring: what the command does, and under `Examples:` the words that may stand behind it.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    about, _, rest = inspect.cleandoc(text).partition("\n\nExamples:\n")
    examples = re.findall(r"^ +(\S.*)$", rest.partition("\n\n")[0], re.MULTILINE)
    about = re.split(r"\n\n(?:Args|Example|Raises)\b", about)[0]
    needed = [flag for flag in flags if flag.needed]
    more = ["[--FLAG VALUE ...]"] if len(flags) > len(needed) else []
    parts = [part.replace(" ", GLUE) for part in (*(flag.typed for flag in needed), *more)]
    usage = " ".join([next_command(command), *parts])
    page = argparse.ArgumentParser(
        usage="\n    ".join(_broken(usage, width - 8)).replace(GLUE, " "),
        description="\n\n".join(textwrap.fill(part, width - 1) for part in about.split("\n\n")),
        epilog="\n".join(["Examples:", *(_example(command, words, width) for words in examples)]) if examples else None,
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=width),
    )
    sections = dict.fromkeys([NEEDED, *(flag.section for flag in flags)])
    groups = {name: page.add_argument_group(name) for name in sections}
    for flag in flags:
        _add(groups[NEEDED if flag in needed else flag.section], flag)
    return page.format_help()


def _broken(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def _add(group: argparse._ArgumentGroup, flag: Flag) -> None:
    default = [f"default: {flag.shown_default}"] if flag.shown_default else []
    also = [f"also as {' '.join(flag.aliases)}"] if flag.aliases else []
    notes = "; ".join([*default, *also])
    text = (f"{flag.text} ({notes})" if notes else flag.text).replace("%", "%%")
    if flag.positional:
        group.add_argument(flag.name, metavar=flag.value, help=text)
    elif flag.kind is bool:
        group.add_argument(f"--{flag.name}", action=argparse.BooleanOptionalAction, help=text)
    else:
        group.add_argument(f"--{flag.name}", metavar=flag.value, help=text)


def _example(command: str, words: str, width: int) -> str:
    """A command line that fits the width, broken as a shell allows it."""
    lines = [f"  {next_command(command)}"]
    for part in re.split(" (?=--)", words):  # a flag stays with its value
        if len(lines[-1]) + len(part) + 3 > width:
            lines.append("     ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)
