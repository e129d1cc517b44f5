"""Of a trial that has ended stays what --keep says, whoever is killed when; and room is asked for before a sweep."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import launch_stub
import optuna
import pytest
import torch
from optuna.trial import TrialState
from tiny import tiny_config

from fsr.checkpoint import load_file
from fsr.config import PRESETS
from fsr.errors import UserError
from fsr.inference.journal import fingerprint
from fsr.models.network import Network
from fsr.run import Run
from launch.plan import Options
from launch.slurm.environment import LocalEnvironment
from launch.state import retention, space
from launch.state.paths import StudyFolder
from launch.state.retention import LEFT, Retention, clean_up_all, clean_up_announced
from launch.state.space import Need, can_allocate, check_space, gigabytes, space_note, weights_of
from launch.state.stop import StopRequest
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import load
from launch.sweep import sweep
from launch.worker import claim as claim_module
from launch.worker import method
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import StudyWorker

fork = multiprocessing.get_context("fork")
ROOT = Path(__file__).parent.parent
WEIGHTS = ("checkpoint.pt", "checkpoint.previous.pt", "best.pt")


def train(config, run, *, stop_requested, prune):
    """launch_stub's run, which leaves weights of 1 MB, and something that was not finished."""
    end = launch_stub.train(config, run, stop_requested=stop_requested, prune=prune)
    for name in WEIGHTS[1:]:
        (run.folder / name).write_bytes(bytes(1 << 20))
    (run.folder / ".checkpoint.pt.elsewhere.7.0.part").write_bytes(bytes(1 << 20))
    return end


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker of the study smoke that keeps what is told; two trials are wanted."""
    monkeypatch.setattr(method, "train", train)
    data = tmp_path / "data"
    data.mkdir()
    study, folder = load("smoke"), StudyFolder(tmp_path / "runs" / "smoke")
    folder.folder.mkdir(parents=True)
    optuna.create_study(study_name="smoke", storage=open_storage(folder.folder), direction="maximize")
    Target(2, 2).write(folder)
    base = study.base("synthetic", data, iterations=12, seed=None)
    return StudyWorker(study=study, base=base, folder=folder)


def work(worker):
    with StopRequest() as stop:
        return worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks))


def weights(folder, number):
    return sorted(
        path.name for path in folder.run(number).folder.iterdir() if path.name in WEIGHTS or ".part" in path.name
    )


def study_of(worker):
    return optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder))


@pytest.mark.parametrize(
    "keep, left",
    [("best", ["best.pt"]), ("none", []), ("all", [".checkpoint.pt.elsewhere.7.0.part", *sorted(WEIGHTS)])],
)
def test_a_finished_trial_leaves_what_is_kept_and_its_summary_knows_its_bytes(worker, keep, left):
    Retention(keep).write(worker.folder)
    work(worker)
    for trial in study_of(worker).trials:
        assert trial.state == TrialState.COMPLETE
        assert weights(worker.folder, trial.number) == left
        run = worker.folder.run(trial.number)
        told = trial.user_attrs["summary"]["bytes"]
        # What is written behind the summary: the attempt's end is before it; HParams and the note of what went are not.
        assert 0 <= run.bytes() - told < 8000
        assert run.result() is not None and run.metrics()
    assert not list(worker.folder.ended.glob("*"))


def test_of_a_pruned_trial_only_records_stay_and_of_a_failed_one_everything(worker, monkeypatch):
    def pruned(config, run, *, stop_requested, prune):
        train(config, run, stop_requested=stop_requested, prune=prune)
        run.result_file.unlink()
        return "pruned"

    monkeypatch.setattr(method, "train", pruned)
    Retention("best").write(worker.folder)
    work(worker)
    assert [trial.state for trial in study_of(worker).trials] == [TrialState.PRUNED] * 2
    assert weights(worker.folder, 0) == []
    run = worker.folder.run(0)
    with pytest.raises(
        UserError, match=r"checkpoint\.pt was removed when its run had ended \(--keep best\); it cannot"
    ):
        run.check(run.config())
    assert all(state != TrialState.FAIL for _, state in LEFT)


def test_a_study_from_before_keeps_all(worker):
    assert Retention.of(worker.folder) == Retention("all")
    work(worker)
    assert len(weights(worker.folder, 0)) == 4


@pytest.mark.parametrize("when", ["before the mark", "told and not removed", "one file removed"])
def test_a_worker_that_is_killed_at_its_trials_end_leaves_the_removal_to_the_next(worker, monkeypatch, when):
    Retention("best").write(worker.folder)
    Target(1, 2).write(worker.folder)

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_after_one(self, missing_ok=False):
        if self.exists():
            os.unlink(self)
        if self.name in WEIGHTS:
            die()

    def dying():
        if when == "before the mark":
            claim_module.announce_end = die
        elif when == "told and not removed":
            claim_module.clean_up = die
        else:
            claim_module.clean_up = lambda *told: (setattr(Path, "unlink", die_after_one), retention.clean_up(*told))
        work(worker)

    process = fork.Process(target=dying)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert "checkpoint.previous.pt" in weights(worker.folder, 0)  # something was left
    told = study_of(worker).trials[0].state
    assert told == (TrialState.RUNNING if when == "before the mark" else TrialState.COMPLETE)
    Target(2, 2).write(worker.folder)
    work(worker)
    assert weights(worker.folder, 0) == weights(worker.folder, 1) == ["best.pt"]
    assert not list(worker.folder.ended.glob("*"))
    assert len(study_of(worker).trials) == 2


def test_a_mark_on_a_trial_that_was_not_told_removes_nothing(worker):
    Retention("none").write(worker.folder)
    study = study_of(worker)
    study.ask()
    run = worker.folder.run(0)
    run.folder.mkdir()
    for name in WEIGHTS:
        (run.folder / name).write_bytes(b"x")
    worker.folder.ended.mkdir()
    (worker.folder.ended / "0").touch()
    clean_up_announced(worker.folder, open_storage(worker.folder.folder))
    assert weights(worker.folder, 0) == sorted(WEIGHTS)
    assert (worker.folder.ended / "0").exists()


def test_a_trial_that_somebody_holds_is_left_alone(worker):
    Retention("none").write(worker.folder)
    work(replace_target(worker, 1))
    run = worker.folder.run(0)
    run.best_file.write_bytes(b"x")
    reading, writing = os.pipe()
    holder = fork.Process(target=hold, args=(worker.folder.trial_lock(0), writing))
    holder.start()
    os.read(reading, 1)
    clean_up_all(worker.folder, study_of(worker).trials)
    assert run.best_file.exists()
    holder.kill()
    holder.join()
    assert clean_up_all(worker.folder, study_of(worker).trials) == 1
    assert not run.best_file.exists()


def replace_target(worker, trials):
    Target(trials, trials).write(worker.folder)
    return worker


def hold(lock, writing):
    lock.acquire()
    os.write(writing, b"x")
    signal.pause()


def swept(tmp_path, *, keep=None, trials=2, repeat=None):
    (tmp_path / "data").mkdir(exist_ok=True)
    options = Options(
        study="smoke",
        data_folder=tmp_path / "data",
        runs=tmp_path / "runs",
        iterations=12,
        trials=trials,
        cluster="debug",
        keep=keep,
        repeat=repeat,
    )
    return sweep(options)


def test_a_sweep_keeps_the_best_weights_by_itself_and_a_later_one_may_keep_less(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(method, "train", train)
    folder = StudyFolder(tmp_path / "runs" / "smoke")
    definition = ("study", "metric", "base", "space", "storage")
    swept(tmp_path)
    first = json.loads(folder.study_file.read_text())
    assert Retention.of(folder) == Retention("best")
    assert weights(folder, 0) == ["best.pt"]
    swept(tmp_path, trials=3)  # says nothing, so it stays as it was
    assert Retention.of(folder) == Retention("best")
    capsys.readouterr()
    swept(tmp_path, trials=3, keep="none")
    assert "removed 3.15 MB of trials that have ended (--keep none)" in capsys.readouterr().out
    assert Retention.of(folder) == Retention("none", 3 << 20)
    assert [weights(folder, number) for number in range(3)] == [[]] * 3
    swept(tmp_path, trials=3, keep="all", repeat=1)  # what went does not come back, and repeats need none of it
    assert Retention.of(folder) == Retention("all", 3 << 20)
    trials = optuna.load_study(study_name="smoke", storage=open_storage(folder.folder)).trials
    assert len(trials) == 5 and all(trial.state == TrialState.COMPLETE for trial in trials)
    assert len(weights(folder, 4)) == 4
    assert {name: json.loads(folder.study_file.read_text())[name] for name in definition} == {
        name: first[name] for name in definition
    }


def test_what_needs_a_checkpoint_that_was_removed_says_so(tmp_path):
    run = Run(tmp_path)
    for name in WEIGHTS:
        (tmp_path / name).write_bytes(b"xyz")
    assert run.remove_weights(best=False, why="--keep best") == 6
    said = rf"{run.checkpoint_file} was removed when its run had ended \(--keep best\); {run.best_file} is there"
    for use in (load_file, fingerprint):
        with pytest.raises(UserError, match=said):
            use(run.checkpoint_file)
    assert run.remove_weights(best=True, why="--keep none") == 3
    assert run.remove_weights(best=True, why="--keep none") == 0
    assert json.loads(run.removed_file.read_text())["bytes"] == dict.fromkeys(WEIGHTS, 3)
    with pytest.raises(UserError, match=r"best\.pt was removed when its run had ended \(--keep none\)$"):
        load_file(run.best_file)
    with pytest.raises(UserError, match=r"nowhere\.pt does not exist"):
        load_file(tmp_path / "nowhere.pt")


def test_a_full_disk_does_not_keep_weights_from_being_removed(tmp_path, monkeypatch):
    import fsr.run

    write, run = fsr.run.write_json, Run(tmp_path)
    for name in WEIGHTS:
        (tmp_path / name).write_bytes(b"xyz")

    def write_json(path, value):
        if run.previous_checkpoint_file.exists():
            raise OSError(28, "No space left on device")
        write(path, value)

    monkeypatch.setattr(fsr.run, "write_json", write_json)
    assert run.remove_weights(best=False, why="--keep best") == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "removed.json"]


@pytest.mark.slow
def test_after_the_removal_inference_status_and_repeats_work(synthetic_folder, tmp_path):
    def command(program, *options, code=0):
        answer = subprocess.run(
            [sys.executable, ROOT / program, *options], capture_output=True, text=True, cwd=tmp_path
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        assert "Traceback" not in answer.stderr
        return answer.stdout + answer.stderr

    places = ["--study", "smoke", "--runs", tmp_path]
    data = ["--data_folder", synthetic_folder]
    sweep_it = ["launch/sweep.py", *places, *data, "--cluster", "local", "--trials", "1", "--iterations", "4"]
    command(*sweep_it)
    run = Run(tmp_path / "smoke" / "trial_0000")
    assert [file.name for file in run.weight_files(best=True)] == ["best.pt"]
    infer = ["fsr/infer.py", "synthetic", *data, "--output_folder", tmp_path / "results", "--checkpoint"]
    command(*infer, run.best_file)
    said = command(*infer, run.checkpoint_file, code=2)
    assert "was removed when its run had ended (--keep best)" in said and "best.pt is there" in said
    command(*sweep_it, "--repeat", "1")
    assert "on the disk: " in command("launch/status.py", *places)
    assert "1 finished" not in command("launch/doctor.py", *places)
    command("analysis/load.py", *places, "--out", tmp_path / "tables")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_size_of_checkpoints_is_known_without_torch(preset, tmp_path):
    config = replace(PRESETS[preset](tmp_path), pretrained="none")
    with torch.device("meta"):
        real = sum(parameter.numel() for parameter in Network(config).parameters())
    assert weights_of(config) == pytest.approx(real, rel=0.01)


def test_an_unknown_backbone_has_no_size(tmp_path):
    assert Need.of(replace(PRESETS["voc"](tmp_path), backbone="vit_giant_patch14_clip_224")) is None
    assert weights_of(tiny_config(tmp_path)) is not None


NEED = Need(checkpoint=1_700_000_000, best=850_000_000)


def test_what_trials_need_is_counted_for_those_in_work_and_those_that_have_ended():
    assert NEED.left("all") == 4_250_000_000
    assert NEED.total("best", trials=16, workers=4) == 4 * 6_800_000_000 + 12 * 850_000_000
    assert NEED.total("none", trials=2, workers=4) == 2 * 6_800_000_000


def test_too_little_space_is_told_with_numbers_and_too_little_for_one_checkpoint_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 30_000_000_000)
    note = space_note(tmp_path, NEED, "best", trials=16, workers=4)
    assert note.startswith(
        "16 trials may need 37.4 GB (6.80 GB of each that is trained, 850 MB of each that has finished"
    )
    assert "30.0 GB are free" in note
    assert space_note(tmp_path, NEED, "none", trials=16, workers=4) is None
    assert space_note(tmp_path, NEED, "all", trials=0, workers=4) is None
    monkeypatch.setattr(space, "can_allocate", lambda folder, size: size == NEED.checkpoint)
    check_space(tmp_path, NEED)
    monkeypatch.setattr(space, "can_allocate", lambda folder, size: False)
    with pytest.raises(UserError, match=r"a checkpoint of this study has 1\.70 GB, and there is no room for one"):
        check_space(tmp_path, NEED)


def test_space_is_tried_by_allocating_and_given_back(tmp_path):
    before = os.statvfs(tmp_path).f_bavail
    assert can_allocate(tmp_path, 1 << 20)
    assert not can_allocate(tmp_path, 1 << 60)
    assert list(tmp_path.iterdir()) == []
    assert abs(os.statvfs(tmp_path).f_bavail - before) < 1 << 18  # blocks; other tests write as well


@pytest.mark.parametrize(
    "number, text", [(4_250_000_000, "4.25 GB"), (0, "0.00 GB"), (1_500_000, "1.50 MB"), (37_400_000_000, "37.4 GB")]
)
def test_bytes_are_told_in_three_digits(number, text):
    assert gigabytes(number) == text
