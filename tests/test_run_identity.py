"""A run folder belongs to one trial of one study; what lies there of another is set aside, and never counted."""

import json
import shutil
from dataclasses import replace

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from studies import add_trial, new_study, write_run
from test_launch_claim import claim_for, data_folder, trials_of, with_target, work_on, worker  # noqa: F401

from analysis.load import load
from fsr.errors import UserError
from fsr.run import Run
from launch.state.paths import RunFolder
from launch.state.storage import JOURNAL, open_storage
from launch.worker.single_run import SingleRunWorker


def define(folder, **more):
    """The definition of a study, as far as its trials' identity goes."""
    definition = {"id": "aaaa0000", "metric": "val/seg_miou", "base": {"seed": 0}, "space": {}}
    folder.study_file.write_text(json.dumps(definition | more))


@pytest.fixture
def swept(worker):  # noqa: F811
    """A worker of a study with two finished trials."""
    define(worker.folder)
    work_on(with_target(worker, 2, 2))
    assert [trial.state for trial in trials_of(worker)] == [TrialState.COMPLETE] * 2
    return worker


def new_journal(worker):  # noqa: F811
    for file in worker.folder.folder.glob(f"{JOURNAL}*"):
        file.unlink()
    optuna.create_study(study_name="smoke", storage=open_storage(worker.folder.folder), direction="maximize")


def scores_of_own_settings(worker):  # noqa: F811
    """Whether each trial's score is what the stub gives its parameters (tests/launch_stub.py)."""
    fixed = [(trial, optuna.trial.FixedTrial(trial.params)) for trial in trials_of(worker)]
    pairs = [(trial, worker.study.suggest(one, worker.base)) for trial, one in fixed]
    configs = [(trial, replace(worker.base, **settings)) for trial, settings in pairs]
    scores = [1 - abs(config.mask_ratio - 0.5) - abs(config.momentum - 0.97) for _, config in configs]
    return [trial.value for trial, _ in configs] == pytest.approx(scores)


def attempts(worker, number):  # noqa: F811
    return (worker.folder.run(number).folder / "attempts").read_text().split()


def set_aside(worker):  # noqa: F811
    return sorted(path.name for path in worker.folder.set_aside.glob("*"))


def test_a_run_folder_says_which_trial_it_belongs_to(swept):
    for trial in trials_of(swept):
        said = json.loads((swept.folder.run(trial.number).folder / "trial.json").read_text())
        wanted = {"study": "smoke", "id": "aaaa0000", "trial": trial.number, "params": trial.params, "seed": 0}
        assert wanted.items() <= said.items() and len(said["definition"]) == 16


def test_a_new_journal_does_not_credit_old_runs_to_other_parameters(swept, capsys):
    other = swept.folder.run(1).folder
    said = json.loads((other / "trial.json").read_text())
    (other / "trial.json").write_text(json.dumps(said | {"params": {"mask_ratio": 0.123}}))
    new_journal(swept)
    work_on(with_target(swept, 2, 2))
    assert scores_of_own_settings(swept)
    assert set_aside(swept) == ["trial_0001_1"]
    told = capsys.readouterr().err
    assert "trial_0001 is not of this trial (params {'mask_ratio': 0.123}, not " in told and "set_aside" in told


def test_with_another_seed_no_trial_is_complete_at_once(swept):
    new_journal(swept)
    define(swept.folder, id="bbbb1111")
    work_on(with_target(replace(swept, base=replace(swept.base, seed=1)), 2, 2))
    assert set_aside(swept) == ["trial_0000_1", "trial_0001_1"]
    assert swept.folder.run(0).config().seed == 1
    assert [attempts(swept, number) for number in (0, 1)] == [["0"], ["0"]]


def test_runs_of_another_study_are_not_adopted(swept):
    new_journal(swept)
    define(swept.folder, id="bbbb1111")  # a study of the same name, defined anew
    work_on(with_target(swept, 2, 2))
    assert set_aside(swept) == ["trial_0000_1", "trial_0001_1"]


def test_a_folder_of_an_earlier_version_is_known_by_its_configuration(swept):
    for number, seed in ((0, 0), (1, 5)):
        run = swept.folder.run(number)
        (run.folder / "trial.json").unlink()
        run.config_file.write_text(json.dumps(run.config().to_json() | {"seed": seed}))
    new_journal(swept)
    work_on(with_target(swept, 2, 2))
    assert set_aside(swept) == ["trial_0001_1"]
    assert (swept.folder.run(0).folder / "trial.json").exists()


def test_a_result_without_a_configuration_belongs_to_nobody(swept):
    for name in ("trial.json", "config.json"):
        (swept.folder.run(1).folder / name).unlink()
    new_journal(swept)
    work_on(with_target(swept, 2, 2))
    assert set_aside(swept) == ["trial_0001_1"]


def test_what_was_set_aside_before_stays(swept):
    for identity in ("bbbb1111", "cccc2222"):
        new_journal(swept)
        define(swept.folder, id=identity)
        work_on(with_target(swept, 1, 1))
    assert set_aside(swept) == ["trial_0000_1", "trial_0000_2"]


def test_an_interrupted_trial_is_resumed_in_its_own_folder(worker):  # noqa: F811
    define(worker.folder)
    worker = with_target(worker, 1, 1)
    claimed = claim_for(worker)
    run, config = claimed.run, replace(worker.base, **claimed.settings)
    run.start(config)
    run.checkpoint_file.write_text("5")
    claimed.let_go()
    work_on(worker)
    assert attempts(worker, 0) == ["5"] and set_aside(worker) == []


def test_a_damaged_identity_is_restored_where_the_configuration_fits(swept):
    file = swept.folder.run(0).folder / "trial.json"
    file.write_bytes(b"")
    new_journal(swept)
    work_on(with_target(swept, 1, 1))
    assert set_aside(swept) == [] and json.loads(file.read_text())["id"] == "aaaa0000"


def test_a_single_run_takes_no_result_of_other_settings(swept, tmp_path):
    folder = RunFolder(tmp_path / "single")
    shutil.copytree(swept.folder.run(0).folder, folder.folder)
    before = (folder.folder / "attempts.json").read_bytes()
    with pytest.raises(UserError, match="holds a run with seed 0, not 9"):
        work_on(SingleRunWorker(config=replace(folder.run.config(), seed=9), folder=folder))
    assert (folder.folder / "attempts.json").read_bytes() == before


def test_a_run_folder_without_its_configuration_is_refused(swept, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(swept.folder.run(0).folder, run.folder)
    config = run.config()
    run.config_file.unlink()
    with pytest.raises(UserError, match=r"result\.json is there without config\.json"):
        run.check(config)


def test_readers_do_not_count_what_belongs_to_another_trial(tmp_path):
    folder, study = new_study(tmp_path)
    for mask_ratio in (0.4, 0.6):
        add_trial(study, mask_ratio)
    identity = {"study": "smoke", "id": None, "definition": None, "params": {"mask_ratio": 0.4}, "seed": 0}
    for number, trial in ((0, 0), (1, 0)):
        write_run(folder.run(number))
        (folder.run(number).folder / "trial.json").write_text(json.dumps(identity | {"trial": trial}))
    trials = load("smoke", runs=tmp_path).trials
    assert pd.isna(trials["damage"][0]) and trials["step"][0] == 200
    assert "trial_0001 belongs to another trial: trial 0, not 1" in trials["damage"][1]
    assert trials["step"][1] == 0 and set(load("smoke", runs=tmp_path).curves["trial"]) == {0}
