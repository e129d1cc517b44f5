"""How a command line is read: one spelling of flags, each value counted, a yes or no in all its forms."""

import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.address import address_lines
from analysis.compare import Options as CompareOptions
from analysis.load import Options as LoadOptions
from fsr.command import parse_flags
from fsr.errors import UserError
from fsr.inference.config import parse
from fsr.next_command import next_command, shown_path, study_words
from launch.commands import MODULES
from launch.slurm.resources import Resources
from launch.state.damage import repair_command
from launch.state.paths import StudyFolder
from launch.sweep_options import Options

ROOT = Path(__file__).parent.parent
INFER = ["voc", "--checkpoint", "best.pt", "--data_folder", "data"]


def infer(*words):
    return parse([*INFER, *words])


@pytest.mark.parametrize("words", [("--report",), ("--report", "true"), ("--report", "True"), ("--report=TRUE",)])
def test_yes_is_said_in_every_form(words):
    assert infer(*words).report is True


@pytest.mark.parametrize(
    "words",
    [("--no-crf",), ("--no_crf",), ("--crf", "false"), ("--crf", "False"), ("--crf=false",), ("--no-crf", "true")],
)
def test_no_is_said_in_every_form(words):
    assert infer(*words).crf is False


def test_what_stands_behind_a_yes_or_no_may_be_something_else():
    config = parse(["--report", *INFER])
    assert (config.report, config.dataset) == (True, "voc")
    assert parse_flags(Options, "sweep", ["--detach", "--study", "smoke", "--dry_run"]).detach


@pytest.mark.parametrize(
    "words", [["--data-folder", "x"], ["--data_folder", "x"], ["--data_folder=x"], ["--data-folder=x"]]
)
def test_both_spellings_of_a_flag_are_read_everywhere(words):
    assert parse_flags(Options, "sweep", ["--study", "smoke", *words]).data_folder == Path("x")
    assert parse(["voc", "--checkpoint", "best.pt", *words]).data_folder == Path("x")


@pytest.mark.parametrize(
    "words",
    [["--study", "a", "b"], ["--study", "a", "--study", "b"], ["--study=a", "--runs", "r", "--study", "b"]],
)
@pytest.mark.parametrize("kind, more", [(LoadOptions, ["--out", "o"]), (CompareOptions, [])])
def test_several_studies_are_named_in_either_way(kind, more, words):
    assert parse_flags(kind, "command", [*words, *more]).study == ("a", "b")


@pytest.mark.parametrize(
    "words, told",
    [
        (["--trials", "1", "--trials", "2"], "--trials is given twice, as 1 and 2; give it once"),
        (["--trials", "1", "--trials=2"], "--trials is given twice, as 1 and 2"),
        (["--time-limit", "1", "--time_limit=2"], "--time_limit is given twice, as 1 and 2"),
        (["--partition=a", "--partition"], "--partition is given twice, as a and no value"),
        (["--detach", "--no-detach"], "--detach is given twice, as true and false"),
        (["--data_folder", "a", "--data-folder", "b"], "--data_folder is given twice, as a and b"),
        (["--trails", "2"], "unknown option --trails; nearest allowed: --trials"),
        (["--dry_run=maybe"], "--dry_run takes no value, or true or false (--no-dry_run turns it off), got maybe"),
        (["--trials"], "--trials"),
        (["stray"], "stray"),
    ],
)
def test_what_would_lose_a_word_is_one_sentence(words, told):
    with pytest.raises(UserError) as caught:
        parse_flags(Options, "sweep", ["--study", "smoke", *words])
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_are_one_flag():
    assert infer("--num_workers", "3").workers == 3
    with pytest.raises(UserError, match="--workers is given twice, as 3 and 4"):
        infer("--num_workers", "3", "--workers", "4")
    assert parse_flags(Options, "sweep", ["--study", "smoke", "--trials", "2", "--trials", "2"]).trials == 2


@pytest.mark.parametrize(
    "words, values",
    [
        (["--sbatch", "a=1", "--sbatch", "b=2"], ("a=1", "b=2")),
        (["--sbatch", "a=1", "b=2"], ("a=1", "b=2")),
        (["--sbatch=a=1", "--sbatch", "exclusive"], ("a=1", "exclusive")),
        ([], ()),
    ],
)
def test_each_value_of_sbatch_counts(words, values):
    assert parse_flags(Resources, "sweep", words).sbatch == values


def test_numbers_below_zero_and_lists_are_values():
    assert infer("--scales", "1", "1.5", "--shard", "-0").scales == (1.0, 1.5)
    with pytest.raises(UserError, match=r"--trials must be from 1 to 1000000, got -2"):
        parse_flags(Options, "sweep", ["--study", "smoke", "--trials", "-2"])


@pytest.mark.parametrize(
    "command, words, wanted",
    [("sweep", [], "--study NAME"), ("infer", ["voc"], "--checkpoint PATH, --data_folder DIR")],
)
def test_what_is_missing_is_named_as_it_is_typed(command, words, wanted):
    read = parse if command == "infer" else lambda words: parse_flags(Options, "sweep", words)
    with pytest.raises(UserError, match=f"^fsr {command} needs {wanted} "):
        read(words)


# The command fsr


def fsr(*words, **options):
    command = [sys.executable, "-m", "launch.commands", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


def test_fsr_names_its_commands_and_the_nearest_to_a_wrong_one():
    page = fsr("--help")
    assert page.returncode == 0 and all(f"\n  {name} " in page.stdout for name in MODULES)
    assert max(map(len, page.stdout.splitlines())) <= 80
    wrong = fsr("swep")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: fsr has no command swep; nearest: sweep (all: ")
    assert fsr("status", "--study", "nothing").returncode == 2


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an environment, whose Python runs this process."""
    bin_folder = tmp_path / "my clone" / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "fsr").touch()
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    return tmp_path / "my clone"


def test_what_to_type_next_is_right_wherever_it_is_read(place, monkeypatch):
    runs = place / "runs"
    runs.mkdir()
    monkeypatch.chdir(place)
    assert next_command("status", *study_words("a", Path("runs"))) == ".venv/bin/fsr status --study a"
    assert next_command("status", *study_words("a", runs)) == ".venv/bin/fsr status --study a"
    other = study_words("a", place / "my runs")
    assert next_command("status", *other) == ".venv/bin/fsr status --study a --runs './my runs'"
    (place / ".venv/bin").mkdir(exist_ok=True)
    monkeypatch.chdir(place / ".venv/bin")
    assert next_command("status") == "./fsr status"
    # A worker stands in its code snapshot, and its sentence is read elsewhere.
    snapshot = runs / "a" / "code" / "0123"
    snapshot.mkdir(parents=True)
    monkeypatch.chdir(snapshot)
    script = f"'{place}/.venv/bin/fsr'"
    assert repair_command(StudyFolder.in_runs(runs, "a")) == f"{script} doctor --study a --runs '{runs}' --repair"
    assert shlex.split(next_command("prepare", "voc", Path("/x y")))[1:] == ["prepare", "voc", "/x y"]


def test_without_an_installed_package_the_module_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.chdir("/")
    assert next_command("status", "--watch") == f"{shown_path(tmp_path / 'python')} -m launch.commands status --watch"


@dataclass
class Bare:
    """A checkout, and what a Python without packages says in it."""

    folder: Path

    def says(self, *words, cwd=None):
        command = [sys.executable, "-S", "-E", *map(str, words)]  # -S: nothing that is installed is found
        answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd or self.folder)
        assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
        return answer.stderr


@pytest.fixture
def bare(tmp_path):
    folder = tmp_path / "clone"
    for name in ("fsr", "launch", "analysis", "sweeps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return Bare(folder)


def test_a_python_without_packages_is_told_what_to_type(bare, tmp_path):
    line = ("launch/sweep.py", "--study", "mask ratio", "--dry_run")
    assert "`make setup` in " in bare.says(*line)
    (bare.folder / ".venv/bin").mkdir(parents=True)
    (bare.folder / ".venv/bin/fsr").touch()
    assert bare.says(*line).endswith("type this instead: .venv/bin/fsr sweep --study 'mask ratio' --dry_run\n")
    elsewhere = bare.says(bare.folder / line[0], "--study", "a", cwd=tmp_path)
    assert elsewhere.endswith("type this instead: clone/.venv/bin/fsr sweep --study a\n")
    for script, name in (
        ("launch/status.py", "status"),
        ("analysis/report.py", "report"),
        ("launch/train.py", "submit-train"),
    ):
        assert f"type this instead: .venv/bin/fsr {name} --help\n" in bare.says(script, "--help")


def test_every_command_begins_under_its_own_name():
    for name, module in MODULES.items():
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert f'beginning.begin("{name}"' in source
        assert (f'"{name}", arguments' in source) or name in (
            "train",
            "infer",
            "infer --study",
            "submit-train",
            "submit-infer",
            "pretrained",
            "cost",
        )


def test_an_address_comes_with_the_way_to_it():
    told = address_lines("http://127.0.0.1:6007/?token=x")
    assert told.startswith("http://127.0.0.1:6007/?token=x ")
    assert "ssh -L 6007:localhost:6007 " in told and told.endswith(f"@{socket.gethostname()}")
