"""A study may choose among texts, booleans, None and tuples, in every command from the sweep to the report."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from method_checkout import ROOT, private_checkout, surroundings_of
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from fsr.config import synthetic
from fsr.run import Run
from launch.state.hparams import read_hparams, write_hparams
from launch.state.journal_repair import _parameters
from launch.state.storage import open_storage
from launch.study import Study

CHOICES = {
    "cls_attends": ["all", "unmasked"],
    "precision": ["fp32", "tf32"],
    "backbone": ["vit_small_patch16_224", "vit_base_patch16_224"],
    "use_aa": [False, True],
    "fsr_iters": [None, 4],
    "uncertain": [(0.2, 0.7), (0.3, 0.6)],
}


def suggest(trial, base):
    return {name: trial.suggest_categorical(name, choices) for name, choices in CHOICES.items()}


STUDY = Study(
    name="options",
    suggest=suggest,
    known=lambda base: [{name: choices[place] for name, choices in CHOICES.items()} for place in (0, 1)],
    trials=3,
    dataset="synthetic",
)
FIRST = {name: choices[0] for name, choices in CHOICES.items()}


def test_a_trial_is_told_its_choices_again_by_another_process(tmp_path):
    def session():
        return optuna.load_study(study_name="options", storage=open_storage(tmp_path))

    base = synthetic(tmp_path)
    optuna.create_study(study_name="options", storage=open_storage(tmp_path), direction="maximize")
    first = session()
    first.enqueue_trial(STUDY.known_params(base)[0])
    trial = first.ask()
    assert STUDY.settings_of(trial, base) == FIRST
    assert STUDY.settings_of(optuna.Trial(session(), 0), base) == FIRST  # resumed
    (stored,) = session().get_trials()
    assert stored.params == FIRST | {"uncertain": "(0.2, 0.7)"} == STUDY.known_params(base)[0]
    again = session()
    again.enqueue_trial(stored.params)  # a repeat
    assert STUDY.settings_of(again.ask(), base) == FIRST
    assert STUDY.size(base) == 2 ** len(CHOICES)
    assert STUDY.first_settings(base) == FIRST


def test_hparams_have_one_type_a_parameter_and_restore_what_was_chosen(tmp_path):
    choices = {"mixed": ["auto", 0.5, None, True], "flag": [True, False], "number": [1, 2.5], "maybe": [None, 3]}
    space = {name: CategoricalDistribution(values) for name, values in choices.items()}
    study = optuna.create_study()
    for place in range(4):
        params = {name: values[place % len(values)] for name, values in choices.items()}
        study.enqueue_trial(params)
        trial, run = study.ask(space), Run(tmp_path / f"trial_{place}")
        write_hparams(run, trial, 0, TrialState.COMPLETE)
        told = read_hparams(run)
        assert [type(told[name]) for name in choices] == [str, bool, float, str]
        run.config_file.write_text("{}")
        found = _parameters(run, space)
        assert found == params
        assert [type(value) for value in found.values()] == [type(value) for value in params.values()]


FILE = f"""from launch.study import Study

CHOICES = {CHOICES!r}


def suggest(trial, base):
    return {{name: trial.suggest_categorical(name, choices) for name, choices in CHOICES.items()}}


study = Study(
    name="options",
    suggest=suggest,
    known=lambda base: [{{name: choices[place] for name, choices in CHOICES.items()}} for place in (0, 1)],
    trials=3,
    dataset="synthetic",
    settings={{"iterations": 10, "eval_every": 5, "pretrained": ""}},
)
"""


@pytest.mark.slow
def test_every_command_works_on_such_a_study(tmp_path):
    folder = private_checkout(tmp_path / "checkout", Path(__file__).parent / "launch_stub.py")
    (folder / "sweeps" / "options.py").write_text(FILE)
    (folder / "analysis").symlink_to(ROOT / "analysis")
    (tmp_path / "data").mkdir()
    runs = tmp_path / "runs"

    def said(module, *words):
        command = [sys.executable, "-m", module, *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, **surroundings_of(folder, COLUMNS="200")
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    study = ("--study", "options", "--runs", runs)
    sweep = ("launch.sweep", *study, "--data_folder", tmp_path / "data", "--cluster", "local")
    assert "searched: cls_attends, precision, backbone, use_aa, fsr_iters, uncertain" in said(*sweep, "--dry-run")
    assert "3 of 3 trials" in said(*sweep) + said("launch.status", *study)
    assert "seed 1" in said(*sweep, "--repeat", 2)
    trials = json.loads(said("launch.status", *study, "--json"))["trials"]
    assert trials[0]["parameters"] == (
        "cls_attends all  precision fp32  backbone vit_small_patch16_224  use_aa False  fsr_iters None  "
        "uncertain (0.2, 0.7)"
    )
    assert {trial["state"] for trial in trials} == {"complete"}
    configs = [Run(runs / "options" / f"trial_{number:04d}").config() for number in (0, 1)]
    assert [config.uncertain for config in configs] == CHOICES["uncertain"]
    assert [config.fsr_iters for config in configs] == CHOICES["fsr_iters"]
    said("analysis.load", *study, "--out", tmp_path)
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [row["param/uncertain"] for row in rows[:2]] == ["(0.2, 0.7)", "(0.3, 0.6)"]
    assert [row["param/fsr_iters"] for row in rows[:2]] == ["None", "4"]
    assert {row["damage"] for row in rows} == {""}
    said("analysis.figures", *study, "--out", tmp_path)
    said("analysis.report", *study)
    assert "vit_small_patch16_224" in (runs / "options" / "report.html").read_text()
