"""Names and texts of others: terminal escapes and control characters are shown, never sent, wherever printed."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from fsr.console import ShowingConsole
from fsr.shown import in_one_line, shown
from launch.show.messages import say

ROOT = Path(__file__).parent.parent
HOSTILE = "a\x1b]0;owned\x07b\x1b[31mc\rd\x9be\u202ef\udcff"
SHOWN = r"a\x1b]0;owned\x07b\x1b[31mc\x0dd\x9be\u202ef\xff"


def test_what_is_hidden_is_shown_and_all_else_stays():
    assert shown(HOSTILE) == SHOWN
    assert shown("Ärger ×2 ± 日本 😀\tx\ny") == "Ärger ×2 ± 日本 😀\tx\ny"
    assert in_one_line("a\nerror: b") == r"a\nerror: b"


@pytest.mark.parametrize("what", ["text", "line", "cell", "title", "Text"])
def test_a_console_shows_names_and_takes_no_markup_from_them(what):
    file = io.StringIO()
    console, name = ShowingConsole(file=file, width=140), f"{HOSTILE}[red]x[/] [/] :smile:"
    if what == "cell":
        table = Table("name")
        table.add_row(name)
        console.print(table)
    elif what == "title":
        console.print(Table("name", title=name, width=130))
    elif what == "line":
        say(console, name)
    else:
        console.print(Text(name) if what == "Text" else name)
    told = file.getvalue()
    assert "\x1b" not in told and "\r" not in told and "\x9b" not in told and "\u202e" not in told
    assert r"b\x1b[31mc" in told and "[red]x[/] [/] :smile:" in told


PRINTS = """
import sys
from fsr.console import console
from fsr.errors import UserError, reports_user_errors

@reports_user_errors
def main():
    name = sys.argv[1]
    print(name)
    print(name, file=sys.stderr)
    console().print(name)
    raise UserError(f"{name} is\\nno data set")

main()
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_prints_no_escape_wherever_a_name_comes_from(tmp_path, encoding):
    (tmp_path / "prints.py").write_text(PRINTS)
    name = b"a\x1b[31m\xff\xc3\xa9"
    command = [sys.executable, tmp_path / "prints.py", name]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    answer = subprocess.run(command, capture_output=True, env=environment)
    seen = rb"a\x1b[31m\xff" + ("é".encode() if encoding == "utf-8" else rb"\xe9")
    assert answer.returncode == 2
    assert answer.stdout.splitlines() == [seen, seen]
    assert answer.stderr.splitlines() == [seen, b"error: " + seen + rb" is\nno data set"]


def test_a_command_line_and_a_path_with_escapes_are_shown(capfd, tmp_path):
    command = [sys.executable, "-m", "fsr.data.prepare", "voc", tmp_path / "\x1b[31m\nx[/]"]
    answer = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1 and r"\x1b[31m\nx[/]" in answer.stderr
