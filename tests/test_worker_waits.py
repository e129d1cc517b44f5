"""A process of an earlier attempt that is still ending is waited for: it is no mistake of the user."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_launch_nodes import OnSlurm

from fsr.errors import end_of
from fsr.exit_codes import ExitCode
from fsr.lock import FileLock
from launch.slurm.requeue_rules import RULES, Action
from launch.state.attempts import AttemptLog
from launch.state.paths import RunFolder
from launch.worker import method, training
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.single_run import SingleRunWorker

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from fsr.lock import FileLock
FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


class Asked:
    """A stop request."""

    def __init__(self, stop=False):
        self.stop = stop

    def __call__(self):
        return self.stop


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def trained(monkeypatch):
    """Runs are finished at once."""

    def train(config, run, **_):
        with FileLock(run.lock_file):
            return "finished"

    monkeypatch.setattr(method, "train", train)
    monkeypatch.setattr("fsr.run.Run.check", lambda *_: None)


@pytest.fixture
def held(folder):
    """Another process that holds a lock for some seconds."""
    processes = []

    def hold(lock_file, seconds):
        command = [sys.executable, "-c", HOLD, lock_file, str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout.readline() == "held\n"
        processes.append(process)
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("which", ["training", "run"])
def test_a_requeued_attempt_waits_for_the_process_of_the_one_before(folder, trained, held, which, capsys):
    lock_file = folder.run.lock_file if which == "training" else folder.lock().path
    holder = held(lock_file, 1.5)
    worker = SingleRunWorker(config=None, folder=folder)
    assert worker.work(Asked(), OnSlurm(), Rendezvous(folder.locks)) is Outcome.DONE
    assert f"waiting for process {holder.pid} on " in capsys.readouterr().out
    assert [attempt.cause for attempt in AttemptLog(folder.run).attempts()] == ["finished"]


@pytest.mark.parametrize("which", ["training", "run"])
def test_a_stop_ends_that_wait_and_is_no_mistake(folder, trained, held, which):
    held(folder.run.lock_file if which == "training" else folder.lock().path, 60)
    worker = SingleRunWorker(config=None, folder=folder)
    assert worker.work(Asked(stop=True), OnSlurm(), Rendezvous(folder.locks)) is Outcome.STOPPED
    assert AttemptLog(folder.run).attempts() == []


def test_cuda_out_of_memory_in_a_job_is_the_cause_that_is_tried_again_though_a_command_calls_it_a_mistake(
    folder, trained, monkeypatch
):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …")

    def train(*_, **__):
        raise error

    monkeypatch.setattr(method, "train", train)
    outcome = SingleRunWorker(config=None, folder=folder).work(Asked(), OnSlurm(), Rendezvous(folder.locks))
    (attempt,) = AttemptLog(folder.run).attempts()
    assert (outcome, attempt.cause, RULES[attempt.cause].action) == (Outcome.BROKEN, "out of memory", Action.RESTART)
    assert "Tried to allocate 2.00 GiB" in attempt.detail
    code, sentence = end_of(error)
    assert code == ExitCode.MISTAKE and sentence.startswith("not enough memory: CUDA out of memory. Tried to")


def test_who_holds_a_lock_for_good_is_named_in_the_end(folder, held):
    lock = FileLock(folder.run.lock_file)
    held(lock.path, 60)
    assert training.wait_until_free(lock, Asked(), patience_s=0.2)
