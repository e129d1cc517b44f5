"""What a trial's end leaves for TensorBoard's HParams, and that writing it loses no trial."""

import errno
import os

import optuna
import pytest
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import DATA_TYPE_BOOL, DATA_TYPE_FLOAT64, DATA_TYPE_STRING, STATUS_FAILURE

from fsr.run import Run
from fsr.score_names import MAIN_SCORES
from launch.slurm.environment import LocalEnvironment
from launch.state.hparams import write_hparams
from launch.state.paths import StudyFolder
from launch.state.stop import StopRequest
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import load
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import StudyWorker


def read(run):
    """Experiment, start and end of a run's session."""
    contents = EventAccumulator(str(run.folder)).Reload().summary_metadata
    parts = {tag: content.plugin_data.content for tag, content in contents.items()}
    return (
        metadata.parse_experiment_plugin_data(parts[metadata.EXPERIMENT_TAG]),
        metadata.parse_session_start_info_plugin_data(parts[metadata.SESSION_START_INFO_TAG]),
        metadata.parse_session_end_info_plugin_data(parts[metadata.SESSION_END_INFO_TAG]),
    )


def hparams(run):
    """The values of a run's session."""
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in read(run)[1].hparams.items()}


@pytest.fixture
def trial():
    """A trial with a parameter of each kind."""
    asked = optuna.create_study().ask()
    asked.suggest_float("momentum", 1e-4, 0.1, log=True)
    asked.suggest_categorical("block_size", [16, 28])
    asked.suggest_categorical("use_mim", [True, False])
    asked.suggest_categorical("cls_attends", ["all", "unmasked"])
    return asked


def test_numbers_stay_numbers_and_the_rest_can_be_chosen_from(trial, tmp_path):
    run = Run(tmp_path / "trial_0000")  # its folder may not be there yet: some settings cannot be tried
    write_hparams(run, trial, seed=3, state=TrialState.FAIL)
    assert hparams(run) == trial.params | {"seed": 3, "state": "fail"}
    assert type(hparams(run)["use_mim"]) is bool
    experiment, _, end = read(run)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert {name: info.type for name, info in infos.items()} == {
        **dict.fromkeys(("momentum", "block_size", "seed"), DATA_TYPE_FLOAT64),
        **{"use_mim": DATA_TYPE_BOOL, "cls_attends": DATA_TYPE_STRING, "state": DATA_TYPE_STRING},
    }
    assert list(infos["block_size"].domain_discrete) == [16, 28]
    assert list(infos["state"].domain_discrete) == ["complete", "pruned", "fail"]
    assert infos["momentum"].domain_interval.max_value == 0.1
    assert [metric.name.tag for metric in experiment.metric_infos] == list(MAIN_SCORES)
    assert end.status == STATUS_FAILURE


def test_what_is_written_again_takes_the_place_of_the_first(trial, tmp_path):
    run = Run(tmp_path)
    for state in (TrialState.PRUNED, TrialState.COMPLETE):
        write_hparams(run, trial, seed=0, state=state)
    assert hparams(run)["state"] == "complete"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def worker(tmp_path, stub_method):
    """A worker of the study smoke that is to finish 6 trials."""
    study, folder = load("smoke"), StudyFolder(tmp_path / "runs" / "smoke")
    folder.folder.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    base = study.base("synthetic", tmp_path / "data", iterations=12, seed=5)
    optuna.create_study(study_name="smoke", storage=open_storage(folder.folder), direction="maximize")
    Target(6, 6).write(folder)
    return StudyWorker(study=study, base=base, folder=folder)


def work_on(worker):
    with StopRequest() as stop:
        return worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks))


def trials_of(worker):
    return optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder)).trials


def test_every_trial_that_was_told_has_its_parameters_seed_and_end(worker):
    study = optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder))
    study.enqueue_trial(worker.study.known(worker.base)[0], user_attrs={"seed": 7, "repeats": 0})
    work_on(worker)
    trials = trials_of(worker)
    assert len({trial.state for trial in trials}) == 2
    for trial in trials:
        expected = trial.params | {"seed": trial.user_attrs.get("seed", 5), "state": trial.state.name.lower()}
        assert hparams(worker.folder.run(trial.number)) == pytest.approx(expected)
    assert hparams(worker.folder.run(0))["seed"] == 7


def test_a_full_disk_leaves_the_trial_to_be_told_by_the_next_worker(worker, monkeypatch):
    fsync = os.fsync

    def fail(file):
        if "hparams" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        work_on(worker)
    assert [trial.state.name for trial in trials_of(worker)] == ["RUNNING"]
    folder = worker.folder.run(0).folder
    assert not [file.name for file in folder.iterdir() if "hparams" in file.name]
    monkeypatch.undo()
    work_on(worker)
    assert {trial.state.name for trial in trials_of(worker)} <= {"COMPLETE", "PRUNED"}
    assert (folder / "attempts").read_text().split() == ["0"]  # it was not trained again
    assert hparams(worker.folder.run(0))["state"] == "complete"
