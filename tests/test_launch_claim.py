"""Workers never train more than was ordered, never one trial twice at once, and lose no number, whoever dies when."""

import multiprocessing
import os
import platform
import random
import signal
import time
from dataclasses import replace

import cloudpickle
import launch_stub
import optuna
import pytest
from optuna.trial import TrialState

from fsr.errors import LostGpuError, UserError
from fsr.files import write_json
from launch.slurm import bad_nodes
from launch.slurm.environment import LocalEnvironment
from launch.state.paths import StudyFolder
from launch.state.stop import StopRequest
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import load
from launch.worker import method, training
from launch.worker.claim import claim
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import StudyWorker

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def data_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def worker(tmp_path, data_folder, stub_method):
    """A worker of the study smoke that is to finish 8 trials."""
    study = load("smoke")
    folder = StudyFolder(tmp_path / "runs" / "smoke")
    folder.folder.mkdir(parents=True)
    base = study.base("synthetic", data_folder, iterations=12, seed=None)
    optuna.create_study(study_name="smoke", storage=open_storage(folder.folder), direction="maximize")
    return with_target(StudyWorker(study=study, base=base, folder=folder), 8, 8)


def with_target(worker, trials, limit):
    """The worker, with this target of its study."""
    Target(trials, limit).write(worker.folder)
    return worker


def trials_of(worker):
    return optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder)).trials


def claim_for(worker):
    return claim(worker.study, worker.base, worker.folder, open_storage(worker.folder.folder), platform.node(), "v1")


def attempts(worker, number):
    return (worker.folder.run(number).folder / "attempts").read_text().split()


def work_on(worker):
    """How a worker of this process ends."""
    with StopRequest() as stop:
        return worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks))


def work(pickled):
    method.train = launch_stub.train  # in a process of its own
    work_on(cloudpickle.loads(pickled))


def started(worker):
    """Attempts that have begun so far."""
    return sum(len(file.read_text().split()) for file in worker.folder.folder.glob("trial_*/attempts"))


def start(worker, count):
    processes = [spawn.Process(target=work, args=(cloudpickle.dumps(worker),)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


def test_many_workers_train_each_ordered_trial_once(worker):
    for process in start(worker, 5):
        process.join()
        assert process.exitcode == 0
    trials = trials_of(worker)
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert all(attempts(worker, number) == ["0"] for number in range(8))
    assert trials[0].params == worker.study.known(worker.base)[0]
    assert len({tuple(trial.params.values()) for trial in trials}) == 8


def test_workers_killed_at_random_lose_nothing(worker, data_folder):
    (data_folder / "step_s").write_text("0.1")
    rng = random.Random(0)
    for _ in range(3):
        before = started(worker)
        processes = start(worker, 3)
        while started(worker) == before and any(process.is_alive() for process in processes):
            time.sleep(0.05)
        for process in processes:
            time.sleep(rng.uniform(0, 0.4))
            process.kill()  # if it has not ended, with all trials done
            process.join()
    for process in start(worker, 2):
        process.join()
    trials = trials_of(worker)
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert sum(len(attempts(worker, number)) for number in range(8)) > 8  # otherwise nobody was killed in mid-trial
    for trial in trials:
        starts = [int(step) for step in attempts(worker, trial.number)]
        assert starts == sorted(starts)  # each attempt went on from a checkpoint
        assert worker.folder.run(trial.number).config().mask_ratio == trial.params["mask_ratio"]


def test_a_held_trial_is_not_claimed_and_an_interrupted_one_is_resumed(worker):
    holder = spawn.Process(target=hold_a_claim, args=(cloudpickle.dumps(worker),))
    holder.start()
    while not (worker.folder.folder / "held").exists():
        time.sleep(0.01)
    other = claim_for(worker)
    assert other.trial.number == 1
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    resumed = claim_for(with_target(worker, 2, 2))  # this process holds 1, but locks tell processes apart
    assert resumed.trial.number == 0
    assert resumed.settings["mask_ratio"] == worker.base.mask_ratio
    assert len(trials_of(worker)) == 2


def hold_a_claim(pickled):
    worker = cloudpickle.loads(pickled)
    claimed = claim_for(worker)
    assert claimed.lock.held
    (worker.folder.folder / "held").touch()
    time.sleep(60)


def test_workers_wait_while_others_train_the_last_trials(worker):
    worker = with_target(worker, 1, 1)
    holder = spawn.Process(target=hold_a_claim, args=(cloudpickle.dumps(worker),))
    holder.start()
    while not (worker.folder.folder / "held").exists():
        time.sleep(0.01)
    assert claim_for(worker) == "wait"
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    claimed = claim_for(worker)
    claimed.tell(0.5)
    claimed.let_go()
    assert claim_for(worker) == "nothing left"


def test_a_requeued_job_waits_for_its_own_earlier_start_that_is_still_ending(worker):
    worker = with_target(worker, 1, 1)
    holder = spawn.Process(target=hold_a_claim, args=(cloudpickle.dumps(worker),))
    holder.start()
    while not (worker.folder.folder / "held").exists():
        time.sleep(0.01)
    worker.folder.run(0).folder.mkdir()
    worker.folder.attempt_log(0).begin(platform.node(), 0, "n1", 1)
    assert claim_for(worker) == "ending"
    worker.folder.attempt_log(0).end("preempted")
    assert claim_for(worker) == "wait"
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert claim_for(worker).trial.number == 0


def test_a_worker_killed_between_asking_and_suggesting_leaves_the_known_setting_to_the_next(worker):
    study = optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder))
    study.enqueue_trial(worker.study.known(worker.base)[0])
    study.ask()
    claimed = claim_for(worker)
    assert claimed.trial.number == 0
    assert claimed.settings == {"mask_ratio": worker.base.mask_ratio, "momentum": worker.base.momentum}


def test_a_worker_killed_before_it_asked_for_what_it_enqueued_leaves_no_gap(worker):
    study = optuna.load_study(study_name="smoke", storage=open_storage(worker.folder.folder))
    study.enqueue_trial(worker.study.known(worker.base)[0])
    work_on(worker)
    assert [trial.number for trial in trials_of(worker)] == list(range(8))


def test_a_run_that_was_finished_but_not_told_is_told_and_not_trained_again(worker):
    worker = with_target(worker, 1, 1)
    claimed = claim_for(worker)
    config = replace(worker.base, **claimed.settings)
    launch_stub.train(config, worker.folder.run(0), stop_requested=lambda: False, prune=lambda *_: False)
    claimed.let_go()
    work_on(worker)
    assert [trial.state for trial in trials_of(worker)] == [TrialState.COMPLETE]
    assert attempts(worker, 0) == ["0"]


def test_a_failed_trial_keeps_its_cause_and_is_not_replaced_before_the_next_order(worker, data_folder):
    worker = with_target(worker, 2, 2)
    (data_folder / "fail").write_text("yes")
    assert work_on(worker) is Outcome.DONE
    trials = trials_of(worker)
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2
    assert trials[0].user_attrs["error"] == "not finite: loss nan at step 0"
    assert "NotFiniteError" in (worker.folder.run(0).folder / "error.txt").read_text()

    (data_folder / "fail").unlink()
    work_on(with_target(worker, 2, 2 + 2))
    trials = trials_of(worker)
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params not in [trial.params for trial in trials[1:]]  # it would fail again


@pytest.mark.parametrize("error, attempts", [("CUDA error: unspecified launch failure", 8), ("Broken pipe", 8)])
def test_a_known_setting_that_failed_of_something_else_gets_its_score_after_all(
    worker, data_folder, error, attempts, monkeypatch
):
    monkeypatch.setattr(bad_nodes, "bad_nodes", lambda folder: [])
    monkeypatch.setattr(training, "SIGNAL_S", 0.0)
    (data_folder / "step_s").write_text("0")
    (data_folder / "error").write_text(error)
    work_on(with_target(worker, 1, 1))
    (failed,) = trials_of(worker)
    assert (failed.state, len(failed.user_attrs["summary"]["causes"])) == (TrialState.FAIL, attempts)
    (data_folder / "error").unlink()
    work_on(with_target(worker, 1, 2))
    assert [trial.params for trial in trials_of(worker)] == [failed.params] * 2


def test_a_known_setting_that_failed_of_itself_is_tried_again_with_other_code(worker, data_folder):
    (data_folder / "error").write_text("mat1 and mat2 shapes cannot be multiplied")
    work_on(with_target(worker, 1, 1))
    (data_folder / "error").unlink()
    work_on(with_target(worker, 1, 2))
    work_on(with_target(replace(worker, code="v2"), 2, 3))
    failed, other, again = trials_of(worker)
    assert failed.user_attrs["error"] == "exception 2 times: RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert failed.params != other.params
    assert failed.params == again.params


@pytest.mark.parametrize("score", ["nan", "inf"])
def test_a_score_that_is_not_finite_fails_its_trial_with_a_sentence(worker, data_folder, score):
    (data_folder / "score").write_text(score)
    work_on(with_target(worker, 1, 1))
    (trial,) = trials_of(worker)
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["error"] == f"not finite: score val/seg_miou is {score} at step 6"


def test_a_finished_run_without_a_finite_score_fails_its_trial(worker):
    worker = with_target(worker, 1, 1)
    claimed = claim_for(worker)
    claimed.run.start(replace(worker.base, **claimed.settings))
    write_json(claimed.run.result_file, {"val/seg_miou": None})
    claimed.let_go()
    work_on(worker)
    assert trials_of(worker)[0].user_attrs["error"] == "not finite: score val/seg_miou is None at the end"


def test_a_metric_that_no_run_records_is_named_at_the_first_trial_with_those_that_are_there(worker):
    study = replace(worker.study, metric="val/seg_mIoU")
    with pytest.raises(
        UserError, match="needs the score val/seg_mIoU, which no run records; allowed: val/cam_miou, val/"
    ):
        work_on(replace(worker, study=study))
    (trial,) = trials_of(worker)
    assert trial.state == TrialState.RUNNING


def test_a_rank_that_dies_of_a_stop_request_is_a_stop(worker, monkeypatch):
    def train(config, run, *, stop_requested, prune):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 325) is killed by signal: Terminated. ")

    monkeypatch.setattr(method, "train", train)
    assert work_on(worker) is Outcome.STOPPED
    (attempt,) = worker.folder.attempt_log(0).attempts()
    assert (attempt.cause, attempt.detail[:18]) == ("cancelled", "DataLoader worker ")
    assert not (worker.folder.run(0).folder / "error.txt").exists()


def test_without_its_promised_gpu_a_local_worker_ends_with_a_mistake_and_no_trial_fails(worker, monkeypatch):
    def train(*_, **__):
        raise LostGpuError("CUDA_VISIBLE_DEVICES=0 promises a GPU")

    monkeypatch.setattr(method, "train", train)
    with pytest.raises(UserError, match=r"this machine is broken.*LostGpuError: CUDA_VISIBLE_DEVICES=0 promises a GPU"):
        work_on(worker)
    (trial,) = trials_of(worker)
    assert trial.state == TrialState.RUNNING
    assert [attempt.cause for attempt in worker.folder.attempt_log(0).attempts()] == ["node"]


def test_settings_that_make_no_configuration_fail_their_trial_alone(worker):
    study = replace(worker.study, suggest=lambda trial, base: {"mask_ratio": trial.suggest_float("mask_ratio", 2, 3)})
    study = replace(study, known=lambda base: [])
    work_on(with_target(replace(worker, study=study), 1, 1))
    (trial,) = trials_of(worker)
    assert trial.state == TrialState.FAIL
    assert "mask_ratio must be in (0, 1]" in trial.user_attrs["error"]


def test_a_mistake_of_the_user_stops_the_worker_and_leaves_the_trial_to_be_resumed(worker, data_folder):
    (data_folder / "mistake").write_text("no such list: train.txt")
    with pytest.raises(UserError, match=r"no such list: train\.txt"):
        work_on(worker)
    assert [trial.state for trial in trials_of(worker)] == [TrialState.RUNNING]
    (data_folder / "mistake").unlink()
    work_on(worker)
    assert len(trials_of(worker)) == 8


def test_pruning_stops_trials_that_fall_behind(worker):
    work_on(worker)
    trials = trials_of(worker)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert trial.value == trial.intermediate_values[trial.last_step]
        assert worker.folder.run(trial.number).result() is None
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert trial.value == worker.folder.run(trial.number).result()["val/seg_miou"]


def test_a_resumed_run_does_not_report_a_step_twice(worker, recwarn):
    worker = with_target(worker, 1, 1)
    claimed = claim_for(worker)
    claimed.trial.report(0.25, worker.base.eval_every)
    claimed.let_go()
    work_on(worker)
    (trial,) = trials_of(worker)
    assert trial.intermediate_values[worker.base.eval_every] == 0.25
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]


def test_the_search_depends_on_study_seed_and_number_not_on_the_worker(worker):
    study, base = worker.study, worker.base

    def draw(number, seed=0):
        sampler = study.sampler_for(number, replace(base, seed=seed))
        return optuna.create_study(sampler=sampler).ask().suggest_float("x", 0, 1)

    assert draw(3) == draw(3)
    assert len({draw(3), draw(4), draw(3, seed=1)}) == 3
