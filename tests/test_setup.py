"""`make setup` before it works, and where it cannot go on: one sentence with its remedy. And what else `make` has."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILERS = {"c++": "exit 0", "cc": "exit 0"}
NEEDED = ("sh", "df", "awk", "grep", "env", "dirname")


@pytest.fixture
def machine(tmp_path):
    """A machine whose programs are those that a test makes; a shell script each."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name))

    def add(**scripts):
        for name, script in scripts.items():
            file = programs / name.replace("__", ".")
            file.unlink(missing_ok=True)
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def check(python="python3", **variables):
        command = ["sh", str(ROOT / "setup.sh"), "check", python]
        environment = {"PATH": str(programs), "HOME": str(tmp_path), **variables}
        answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert answer.stderr.count("\n") <= 1
        return answer.returncode, answer.stderr + answer.stdout

    check.add = add
    return check


def python(version, *lacks):
    """A Python of this version, which lacks the modules that a script names."""
    lines = [
        f'case "$2" in *platform*) echo {version};;',
        f"*sys.exit*version_info*) exit {int(not 10 <= int(version.split('.')[1]) < 14)};;",
        f"*%d.%d*) echo python{version.rpartition('.')[0]};;",
        *(f"*{module}*) exit 1;;" for module in lacks),
        "esac",
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "scripts, told",
    [
        ({}, "setup needs Python 3.10 to 3.13, and there is no python3; install one, or name it: make setup PYTHON="),
        ({"python3": "exit 127"}, "python3 does not start; name another Python"),
        (
            {"python3": python("3.8.10")},
            "and python3 is 3.8.10; name another one: make setup PYTHON=/path/to/python3.12",
        ),
        ({"python3": python("3.8.10"), "python3__11": "exit 0"}, "name another one: make setup PYTHON=python3.11"),
        (
            {"python3": python("3.11.2", "ensurepip")},
            "has no venv; on Debian and Ubuntu: apt-get install python3.11-venv",
        ),
        ({"python3": python("3.11.2", "Python.h")}, "has no headers (Python.h)"),
        ({"python3": python("3.11.2")}, "setup needs a C++ compiler, and there is no c++"),
        ({"python3": python("3.11.2"), "c++": "exit 0"}, "setup needs a C++ compiler, and there is no cc"),
        (
            {"python3": python("3.11.2"), "c++": "exit 0", "cc": "exit 0", "df": "printf 'x\\nx 9 9 3000000 9'"},
            "where 3 GB are free",
        ),
    ],
)
def test_what_a_machine_lacks_is_one_sentence(machine, scripts, told):
    machine.add(**scripts)
    code, said = machine()
    assert code == 2 and said.startswith("error: ") and told in said


def test_a_machine_that_has_everything_goes_on(machine):
    machine.add(**COMPILERS | {"python3": python("3.12.1")})
    assert machine() == (0, "setup 1 of 4: .venv with Python 3.12.1\n")


@pytest.mark.parametrize(
    "log, told",
    [
        ("OSError: [Errno 28] No space left on device", "the disk or your quota is full"),
        ("NewConnectionError: Failed to establish: [Errno -3] Temporary failure in name resolution", "does not answer"),
        (
            "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            "a file is not the one that constraints.txt names",
        ),
        ("error: command '/usr/bin/g++' failed with exit code 1", "the compiler failed"),
        ("something else", "pip failed, as its lines above say"),
    ],
)
def test_where_pip_stops_its_reason_is_one_sentence(tmp_path, log, told):
    (tmp_path / "log").write_text(f"Collecting torch\n{log}\n")
    command = ["sh", ROOT / "setup.sh", "failed", "3", tmp_path / "log"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: setup stopped in step 3 of 4: ") and told in answer.stderr


def make(*words):
    command = ["make", "-o", ".venv/installed", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def test_what_a_target_cannot_do_without_is_named():
    command = ["make", "-o", ".venv/installed", "prepare"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert answer.stderr.startswith("error: make prepare needs DATASET=voc (or coco) and DATA=DIR\n")
    assert answer.returncode == 2


def test_make_lists_its_targets_on_one_screen():
    page = make()
    assert page == make("help")
    assert max(map(len, page.splitlines())) <= 80 and page.count("\n") <= 24
    rules = set(re.findall(r"^([a-z]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", page)) == rules - {"help"}


@pytest.mark.parametrize(
    "words, line",
    [
        (["sweep"], '.venv/bin/fsr sweep --study "$STUDY" --runs "$RUNS" --data_folder data/synthetic \\'),
        (["sweep", "DATA=a b", "ARGS=--dry_run"], '--data_folder "$DATA" \\\n\t --dry_run'),
        (
            ["train", "DATASET=voc", "DATA=x"],
            '.venv/bin/fsr train "$DATASET" --data_folder "$DATA" --run_folder "$RUN"',
        ),
        (["status", "STUDY=it's"], '.venv/bin/fsr status --study "$STUDY" --runs "$RUNS"'),
        (["board", "PORT=1"], '.venv/bin/fsr board --study "$STUDY" --runs "$RUNS" --port "$PORT"'),
    ],
)
def test_a_value_stays_one_word_whatever_is_in_it(words, line):
    assert line in make("--dry-run", *words)
