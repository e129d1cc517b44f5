"""The live view and status in a real terminal (tmux), as a user sees them."""

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from method_checkout import checkout
from rich.cells import cell_len

METHOD = Path(__file__).parent / "launch_stub.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (apt-get install tmux)"),
]


class Terminal:
    """A terminal of this size that runs a command; the command's exit code stands below its output."""

    def __init__(self, command, width, height=24, encoding="utf-8"):
        self.name = f"fsr_{uuid.uuid4().hex[:8]}"
        variables = {"PYTHONPATH": str(checkout(METHOD)), "TERM": "screen", "PYTHONIOENCODING": encoding}
        words = [*(f"{name}={value}" for name, value in variables.items()), *map(str, command)]
        line = f"cd {checkout(METHOD)}; env {shlex.join(words)}; echo EXIT $?; sleep 600"
        self.ask("new-session", "-d", "-x", str(width), "-y", str(height), line)

    def ask(self, verb, *options):
        where = ["-s" if verb == "new-session" else "-t", self.name]
        command = ["tmux", "-u", "-L", self.name, verb, *options[:-1], *where, *options[-1:]]
        command = command if options else ["tmux", "-u", "-L", self.name, verb, *where]
        answer = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMUX": ""})
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def lines(self):
        return self.ask("capture-pane", "-p").rstrip("\n").splitlines()

    def wait_for(self, text, seconds=90):
        deadline = time.monotonic() + seconds
        while not any(text in line for line in self.lines()):
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.2)
        return self.lines()

    def close(self):
        subprocess.run(["tmux", "-L", self.name, "kill-server"], capture_output=True)


@pytest.fixture
def terminals():
    opened = []

    def open_terminal(command, width, **options):
        opened.append(Terminal(command, width, **options))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        terminal.close()


def launch(name):
    return [sys.executable, checkout(METHOD) / "launch" / f"{name}.py", "--study", "smoke"]


def sound(lines, width):
    assert max(map(cell_len, lines)) <= width
    assert not any("\\x1b" in line or "Traceback" in line for line in lines), lines


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_sweep_and_two_watchers_in_terminals(tmp_path, terminals, width):
    data, runs = tmp_path / "data", tmp_path / "runs"
    data.mkdir()
    (data / "step_s").write_text("1")
    sweep = [*launch("sweep"), "--data_folder", data, "--runs", runs, "--cluster", "local", "--parallel", "2"]
    swept = terminals([*sweep, "--iterations", "20", "--trials", "40"], width)
    swept.wait_for("2 running")
    lines = swept.lines()
    assert sum("of 40 trials" in line for line in lines) == 1  # drawn in one place
    sound(lines, width)
    status = terminals([*launch("status"), "--runs", runs], width)
    lines = status.wait_for("EXIT 0")
    assert "workers of this machine: 2 alive on" in "\n".join(lines)
    sound(lines, width)
    watching = terminals([*launch("status"), "--runs", runs, "--watch"], width)
    watching.wait_for("2 running")
    (data / "step_s").write_text("0")
    lines = watching.wait_for("EXIT 0")
    sound(lines, width)
    lines = swept.wait_for("EXIT 0")
    assert any("more done" in line or "more pruned" in line for line in lines)
    sound(lines, width)


def test_watch_ends_where_nobody_works_any_more(tmp_path, terminals):
    data, runs = tmp_path / "data", tmp_path / "runs"
    data.mkdir()
    (data / "fail").write_text("yes")
    sweep = [*launch("sweep"), "--data_folder", data, "--runs", runs, "--cluster", "local", "--parallel", "2"]
    swept = terminals([*sweep, "--iterations", "20", "--trials", "2"], 80)
    swept.wait_for("EXIT 1")
    watching = terminals([*launch("status"), "--runs", runs, "--watch"], 80)
    lines = watching.wait_for("EXIT 1")
    assert any("nobody works any more, and trials are missing" in line for line in lines)
    assert any(line.startswith("2 trials (0, 1) failed: not finite: loss nan at step 0") for line in lines)
    assert any(line.startswith("  log: ") and line.endswith("trial_0001/error.txt") for line in lines)
    sound(lines, 80)


def test_a_terminal_without_unicode(tmp_path, terminals):
    data, runs = tmp_path / "data", tmp_path / "runs"
    data.mkdir()
    sweep = [*launch("sweep"), "--data_folder", data, "--runs", runs, "--cluster", "local", "--parallel", "2"]
    swept = terminals([*sweep, "--iterations", "20", "--trials", "40"], 80, encoding="ascii")
    lines = swept.wait_for("EXIT 0")
    assert any(line.startswith("~ ") for line in lines), lines
    sound(lines, 80)
