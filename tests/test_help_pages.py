"""The page of --help: what is needed comes first, flags stand in sections, nothing is cut, and it is there at once."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from fsr.config import PRESETS, TrainConfig
from fsr.flags import flags_of
from fsr.inference.config import InferConfig
from launch.commands import MODULES
from launch.sweep_options import Options

PAGES = [name for name in MODULES if "train" not in name and name != "cost"]
PAGES += ["train voc", "train synthetic", "submit-train coco", "cost voc", "infer images", "submit-infer images"]
AT_ONCE = (
    "train voc",
    "cost voc",
    "infer",
    "sweep",
    "submit-train voc",
    "submit-infer",
    "export",
    "gallery",
    "status",
    "board",
)
CPU_S = 0.5
AT_ONCE += ("infer --study",)


@pytest.fixture
def page(capsys, monkeypatch):
    """Prints a command's page on a terminal of so many columns."""

    def show(name, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        command, *preset = name.split()
        with pytest.raises(SystemExit) as end:
            importlib.import_module(MODULES.get(name, MODULES[command])).main([*preset, "--help"])
        assert end.value.code == 0
        return capsys.readouterr().out

    return show


def sections(text):
    """The titles of a page, in their order."""
    return re.findall(r"^(\S.*):$", text, re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_wider_than_the_terminal(page, name, columns):
    command = f"{sys.executable.removesuffix('python')}fsr {name}"  # a long one is not broken
    for line in page(name, columns).splitlines():
        assert len(line) <= min(columns, 100) or command in line


@pytest.mark.parametrize("name", PAGES)
def test_what_is_needed_comes_first_and_examples_last(page, name):
    text = page(name)
    titles = sections(text)
    assert titles[-1] == "Examples"
    needs_something = text.partition("\n\n")[0].split(name)[1].strip() != "[--FLAG VALUE ...]"
    assert (titles[0] == "Needed") == needs_something
    examples = text.partition("\nExamples:\n")[2].replace("\\\n", " ").strip().splitlines()
    assert len(examples) >= 2
    known = set(re.findall(r"--[\w-]+", text.partition("\nExamples:")[0]))
    for line in examples:
        words = shlex.split(line)
        assert words[0].endswith("fsr") or words[1:3] == ["-m", "launch.commands"]
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", PAGES)
def test_defaults_are_readable(page, name):
    for nonsense in ("PosixPath", "None", "{", "(default: False)", "(default: True)", "('", "MISSING"):
        where = re.sub(r"\{[\w,]+\}", "", page(name))  # choices
        assert nonsense not in where


def test_a_sweep_tells_the_study_first(page):
    assert sections(page("sweep")) == ["Needed", "The study", "What is trained", "Slurm", "Storage", "Examples"]


def test_a_training_has_the_sections_of_its_configuration(page):
    titles = ["Data", "Network", "Views", "CAMs and labels", "Masking", "Losses", "Optimisation", "Running"]
    assert sections(page("train voc")) == ["Needed", *titles, "Examples"]
    assert sections(page("submit-train voc")) == ["Needed", *titles, "Slurm", "Examples"]


def test_every_field_has_a_text_and_the_presets_default(page):
    for kind, default in ((TrainConfig, PRESETS["coco"]()), (InferConfig, None), (Options, None)):
        found = flags_of(kind, default)
        assert {flag.name for flag in found} == {field.name for field in fields(kind)}
        assert all(flag.text for flag in found)
    assert "(default: 80000)" in page("submit-train coco") and "(default: 0.32 1.0)" in page("train voc")
    assert "(default: 0)" in page("train voc")


def test_a_yes_or_no_has_both_of_its_forms_and_a_flag_one_spelling(page):
    text = page("infer")
    assert "--report, --no-report" in text and "--crf, --no-crf" in text
    assert "also as --model_path" in " ".join(text.split())
    for name in PAGES:
        assert not re.findall(r"--(?!no-)[a-z]+-[a-z]", page(name))


@pytest.mark.parametrize("name", AT_ONCE)
def test_help_is_there_at_once(name):
    command, *preset = name.split()
    started = os.times()
    words = [sys.executable, "-X", "importtime", "-m", MODULES.get(name, MODULES[command]), *preset, "--help"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    ended = os.times()
    assert "torch" not in re.findall(r"\| +(\w+)$", answer.stderr, re.MULTILINE)
    spent = ended.children_user + ended.children_system - started.children_user - started.children_system
    assert spent < 2 * CPU_S, f"{spent:.2f} s"  # of a machine that is busy with other tests
