"""What the benchmarks of large studies measure: the study that they write is one that workers could have left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from launch.state.storage import open_storage
from launch.state.trials import damage_of
from launch.worker.claim import claim

ROOT = Path(__file__).parent.parent
TRIALS = 40
FIELDS = ("number", "state", "values", "params", "distributions", "intermediate_values", "user_attrs", "system_attrs")


@pytest.fixture
def finished_study(monkeypatch):
    """benchmarks/finished_study.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import finished_study

    return finished_study


def told_of(trial):
    """What the storage tells of a trial, without the values."""
    summary = {name: type(value) for name, value in trial.user_attrs["summary"].items() if name != "steps_per_s"}
    told = trial.state, set(trial.user_attrs), set(trial.system_attrs), trial.distributions, trial.user_attrs["code"]
    return *told, summary, list(trial.intermediate_values), trial.duration is not None


def test_a_written_trial_is_told_as_one_that_a_worker_leaves(finished_study, tmp_path):
    made = finished_study.write_study(tmp_path, TRIALS)
    storage = open_storage(made.folder.folder)
    trials = optuna.load_study(study_name=made.study.name, storage=storage).trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert all(trial.state.is_finished() and damage_of(trial) is None for trial in trials)
    claimed = claim(made.study, made.base, made.folder, storage, "local", made.code)
    assert claimed.trial.number == TRIALS
    claimed.attempt_log.begin("local", 0, "n1", 1)
    for step in trials[TRIALS - 1].intermediate_values:
        claimed.trial.report(0.5, step)
    claimed.attempt_log.end("finished")
    claimed.tell(0.5)
    claimed.let_go()
    *_, written, left = optuna.load_study(study_name=made.study.name, storage=storage).trials
    assert told_of(written) == told_of(left)


def test_a_study_written_to_a_database_is_the_one_written_to_a_journal(finished_study, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/study.db"
    journal = finished_study.write_study(tmp_path / "journal", TRIALS)
    monkeypatch.setenv("FSR_STORAGE", url)
    database = finished_study.write_study(tmp_path / "database", TRIALS, storage=url)
    of_both = [
        [{name: getattr(trial, name) for name in FIELDS} for trial in load_trials(made)] for made in (journal, database)
    ]
    assert of_both[0] == of_both[1]


def load_trials(made):
    storage = open_storage(made.folder.folder, made.database)
    return optuna.load_study(study_name=made.study.name, storage=storage).trials


@pytest.mark.slow
def test_each_step_of_the_benchmark_is_measured(tmp_path):
    out = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "large_study.py", "--trials", "50", "--run_folders", "5"]
    subprocess.run(
        [*command, "--folder", tmp_path, "--out", out], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    row = json.loads(out.read_text())["rows"][0]
    for step in ("open", "claim", "tell", "evaluation", "status", "sweep", "load", "load again"):
        assert row[step]["cpu_s"] > 0 and row[step]["mb"] > 10, step
    assert 0 < row["claim"]["lock_cpu_s"] <= row["claim"]["cpu_s"]
