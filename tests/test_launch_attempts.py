"""The attempt log: every attempt with its cause, what was repeated, nodes that kill."""

import dataclasses
import errno
import json
import os
import platform

import pytest

from fsr.config import synthetic
from fsr.errors import LostGpuError, UserError
from fsr.files import write_json
from fsr.run import Run
from launch.slurm import bad_nodes
from launch.slurm.environment import LocalEnvironment
from launch.slurm.error_causes import cause_of_error
from launch.state.attempts import Attempt, AttemptLog, cost_shares
from launch.state.paths import LaunchFolder, RunFolder
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.single_run import SingleRunWorker


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "trial_0000")


def attempt(run, first_step, reached, cause, detail="", seconds=100.0):
    """One more attempt in the run's log."""
    attempt_log = AttemptLog(run)
    started = 1000.0 * len(attempt_log.attempts())
    new = Attempt(
        job="7_0", restart=0, node="n1", pid=1, ranks=2, started=started, first_step=first_step, reached=reached,
        ended=started + seconds, cause=cause, detail=detail,
    )  # fmt: skip
    write_json(run.folder / "attempts.json", [dataclasses.asdict(a) for a in [*attempt_log.attempts(), new]])
    return attempt_log


def test_an_attempt_is_written_down_when_it_begins_and_when_it_ends(run):
    attempt_log = AttemptLog(run)
    attempt_log.begin("7_0", 1, "n1", 4)
    (begun,) = attempt_log.attempts()
    assert (begun.job, begun.restart, begun.node, begun.ranks, begun.pid) == ("7_0", 1, "n1", 4, os.getpid())
    assert begun.cause is None
    start = {"pid": os.getpid(), "host": platform.node(), "first_step": 5}
    write_json(run.provenance_file, {"attempts": [start]})
    run.log({"step": 12})
    attempt_log.end("preempted")
    (ended,) = attempt_log.attempts()
    assert (ended.cause, ended.first_step, ended.reached) == ("preempted", 5, 12)
    assert ended.ended >= ended.started


def test_an_attempt_that_died_without_a_word_is_closed_once_with_the_cause_that_is_found(run):
    attempt_log = AttemptLog(run)
    assert not attempt_log.close_lost(lambda attempt: ("node", "n1 is down"))
    attempt_log.begin("7_0", 0, "n1", 1)
    assert attempt_log.close_lost(lambda attempt: ("node", "n1 is down"))
    assert not attempt_log.close_lost(lambda attempt: pytest.fail("it is closed"))
    assert (attempt_log.attempts()[0].cause, attempt_log.attempts()[0].detail) == ("node", "n1 is down")


def test_steps_that_a_later_attempt_did_again_count_as_repeated(run):
    attempt(run, 0, 40, "killed")  # its last checkpoint was of step 30
    attempt_log = attempt(run, 30, 100, "finished")
    assert attempt_log.gpu_seconds() == {"useful": 350.0, "repeated": 50.0, "lost": 0.0}  # two ranks, 100 s each
    assert attempt_log.gpu_seconds(failed=True) == {"useful": 0.0, "repeated": 0.0, "lost": 400.0}


def test_steps_that_were_saved_before_the_next_record_are_useful(run):
    attempt(run, 0, 0, "preempted")  # at step 38; the first record would have been of step 50
    attempt(run, 38, 50, "preempted")  # at step 88
    attempt_log = attempt(run, 88, 100, "finished")
    assert attempt_log.gpu_seconds() == {"useful": 600.0, "repeated": 0.0, "lost": 0.0}


def test_costs_are_of_each_attempt_that_has_ended(run):
    attempt(run, 0, 40, "killed")  # its last checkpoint was of step 30
    attempt(run, 30, 30, "preempted")  # took no step
    first, second, third = attempt(run, 30, 100, "finished").attempts()
    assert cost_shares([first, second, third], failed=False) == [
        (first, {"useful": 150.0, "repeated": 50.0, "lost": 0.0}),
        (second, {"useful": 0.0, "repeated": 200.0, "lost": 0.0}),
        (third, {"useful": 200.0, "repeated": 0.0, "lost": 0.0}),
    ]
    works = dataclasses.replace(third, ended=None)
    assert [ended for ended, _ in cost_shares([first, second, works], failed=False)] == [first, second]
    assert cost_shares([first], failed=True) == [(first, {"useful": 0.0, "repeated": 0.0, "lost": 200.0})]
    assert cost_shares([], failed=True) == []


def test_a_node_is_left_out_when_two_trials_died_there_of_hardware(tmp_path, run):
    folder = LaunchFolder(tmp_path)
    (died,) = attempt(
        run, 0, 5, *cause_of_error(RuntimeError("CUDA error: uncorrectable ECC error encountered"))
    ).attempts()
    bad_nodes.report(folder, 0, died)
    bad_nodes.report(folder, 0, died)
    assert bad_nodes.bad_nodes(folder) == []
    own_mistake, _ = cause_of_error(ValueError("the program's own mistake, an eccentric one"))
    bad_nodes.report(folder, 1, dataclasses.replace(died, cause=own_mistake))
    assert bad_nodes.bad_nodes(folder) == []
    bad_nodes.report(folder, 2, died)
    assert bad_nodes.bad_nodes(folder) == ["n1"]
    assert bad_nodes.to_exclude(folder, {"n1", "n2"}) == ["n1"]
    assert bad_nodes.to_exclude(folder, {"n1"}) == []  # there is no other
    assert bad_nodes.to_exclude(folder, None) == []  # nobody knows whether there is


def test_the_file_is_json_that_others_can_read(run):
    attempt(run, 0, 5, "preempted")
    assert json.loads((run.folder / "attempts.json").read_text())[0]["cause"] == "preempted"


def test_a_node_is_left_out_as_soon_as_one_trial_found_no_gpu_there(tmp_path, run):
    folder = LaunchFolder(tmp_path)
    (died,) = attempt(run, 0, 5, *cause_of_error(LostGpuError("FSR_GPUS=1 promises a GPU"))).attempts()
    bad_nodes.report(folder, 0, died)
    assert bad_nodes.bad_nodes(folder) == ["n1"]


def test_a_single_run_marks_the_node_that_broke_it(tmp_path, monkeypatch, synthetic_folder):
    def train(*_, **__):
        raise LostGpuError("FSR_GPUS=1 promises a GPU")

    monkeypatch.setattr(method, "train", train)
    worker = SingleRunWorker(config=synthetic(synthetic_folder), folder=RunFolder(tmp_path))
    with StopRequest() as stop:
        assert worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks)) is Outcome.BROKEN
    assert bad_nodes.bad_nodes(worker.folder) == [platform.node()]


def test_a_run_that_has_finished_makes_no_attempt_when_its_job_is_requeued(tmp_path, synthetic_folder):
    config = synthetic(synthetic_folder)
    worker = SingleRunWorker(config=config, folder=RunFolder(tmp_path))
    write_json(worker.folder.run.config_file, config.to_json())
    write_json(worker.folder.run.result_file, {"val/seg_miou": 0.5})
    attempt(worker.folder.run, 0, 5, "preempted")
    attempt(worker.folder.run, 5, 12, "finished")
    with StopRequest() as stop:
        assert worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks)) is Outcome.DONE
    assert [each.cause for each in AttemptLog(worker.folder.run).attempts()] == ["preempted", "finished"]


def test_a_limit_of_the_user_is_his_mistake_and_fails_no_trial(tmp_path, monkeypatch, synthetic_folder):
    def train(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(method, "train", train)
    worker = SingleRunWorker(config=synthetic(synthetic_folder), folder=RunFolder(tmp_path))
    with StopRequest() as stop, pytest.raises(UserError, match="no more files can be opened"):
        worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks))
    (attempt,) = AttemptLog(Run(tmp_path)).attempts()
    assert attempt.cause == "cancelled" and "ulimit -n" in attempt.detail
    assert not (tmp_path / "error.txt").exists()
