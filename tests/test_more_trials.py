"""What a finished sweep advises is what the same command then accepts."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from launch.plan import Options, plan
from launch.show.messages import more_trials, tell_result, tried
from launch.show.table import Row
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
from launch.state.study_storage import Counts
from launch.study import load


@pytest.mark.parametrize(
    "name, searched, advice",
    [
        ("mask_ratio", 16, "fsr sweep --study mask_ratio --trials 32"),
        ("block_size", 2, "fsr sweep --study block_size --trials 5"),
        ("block_size", 5, "all 5 settings of the study have had their trial"),
    ],
)
def test_a_study_that_has_no_more_settings_is_advised_no_more_trials(name, searched, advice, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep", "--study", name])
    study = load(name)
    base = study.base("synthetic", tmp_path, None, None)
    assert more_trials(study, base, searched, searched).endswith(advice)
    if "--trials" in advice:
        trials = int(advice.split()[-1])
        assert plan(Options(study=name, dataset="synthetic", data_folder=tmp_path, trials=trials)).target == trials


def test_settings_that_were_drawn_twice_are_not_all_settings(tmp_path):
    study = load("block_size")
    rows = [Row(size, "complete", "", Progress(), settings={"block_size": size}) for size in (8, 16, 16, 8, 32)]
    rows += [replace(rows[0], state="fail", settings={"block_size": 4}), replace(rows[0], repeat=True, settings={})]
    said = more_trials(study, study.base("synthetic", tmp_path, None, None), 5, tried(rows))
    assert said.startswith("3 of the study's 5 settings were tried")


def test_a_sweep_that_wanted_fewer_than_there_are_advises_more_than_these(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep", "--study", "mask_ratio", "--trials", "1"])
    study, plain = load("mask_ratio"), Console(file=io.StringIO())
    base = study.base("synthetic", tmp_path, None, None)
    rows = [Row(0, "complete", "", Progress(), value=0.1, settings={"mask_ratio": 0.4})]
    tell_result(study, base, StudyFolder(tmp_path / "mask_ratio"), 1, Counts(done=40, repeats=5), rows, False, plain)
    assert plain.file.getvalue().splitlines()[-1].endswith(f"--trials {35 + study.trials}")
