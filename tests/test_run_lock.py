"""One process trains a run at a time; the other one says who does."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import flags, tiny_config

import fsr.train as train_module
from fsr.errors import UserError
from fsr.lock import FileLock
from fsr.run import Run
from fsr.train import main, train
from launch.state.paths import LaunchFolder

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from fsr.lock import FileLock
FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def holder(run):
    """Another process that holds the run's lock."""
    command = [sys.executable, "-c", HOLD, run.lock_file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_training_of_a_run_is_refused_and_names_the_first(run, holder, synthetic_folder, monkeypatch, capsys):
    monkeypatch.setattr(train_module, "LOCK_PATIENCE_S", 0.2)
    with pytest.raises(SystemExit) as end:
        main([*flags(tiny_config(synthetic_folder)), "--run_folder", str(run.folder)])
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.count("\n") == 1
    assert f"process {holder.pid} is training in {run.folder} already, on {platform.node()}; wait" in told
    assert sorted(file.name for file in run.folder.iterdir()) == ["training.lock"]


def test_a_run_whose_process_was_killed_is_free_at_once(run, holder, synthetic_folder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert train(tiny_config(synthetic_folder, iterations=1, eval_every=1), run) == "finished"


def test_a_process_that_is_just_ending_is_waited_for(run, holder, synthetic_folder):
    ending = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {holder.pid}"])
    assert train(tiny_config(synthetic_folder, iterations=1, eval_every=1), run) == "finished"
    ending.wait()


@pytest.mark.parametrize("end", ["finished", "stopped", "an error"])
def test_a_training_that_has_ended_lets_others_train(run, synthetic_folder, end, monkeypatch):
    config = tiny_config(synthetic_folder, iterations=1, eval_every=1)
    if end == "an error":
        monkeypatch.setattr(train_module, "train_loader", lambda *_: (_ for _ in ()).throw(UserError("no")))
        with pytest.raises(UserError, match="no"):
            train(config, run)
    else:
        train(config, run, stop_requested=lambda: end == "stopped")
    taken = [sys.executable, "-c", HOLD.replace("600", "0"), run.lock_file]
    assert subprocess.run(taken, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout == "held\n"


def test_a_run_that_another_process_has_finished_meanwhile_is_finished(run, synthetic_folder, monkeypatch):
    config = tiny_config(synthetic_folder, iterations=1, eval_every=1)
    train(config, run)
    answers = iter((False, True))
    monkeypatch.setattr(train_module, "is_finished", lambda run: next(answers))
    monkeypatch.setattr(train_module, "one_step", lambda *_: pytest.fail("it trains"))
    assert train(config, run) == "finished"


def test_who_takes_a_lock_says_where_it_runs(tmp_path):
    lock = FileLock(tmp_path / "lock")
    with lock:
        assert lock.path.read_text() == f"{os.getpid()} {platform.node()}"


def test_a_lock_of_an_earlier_version_names_no_machine(tmp_path):
    lock = FileLock(tmp_path / "lock")
    lock.path.write_text("17")
    assert (lock.holder(), lock.host()) == (17, "an unknown machine")
    lock.path.write_bytes(b"\xff\0")
    assert lock.holder() is None


def test_workers_of_older_code_read_the_process_of_a_local_sweep_as_a_number(tmp_path):
    lock = LaunchFolder(tmp_path).sweep_lock(local=True)
    with lock:
        assert int(lock.path.read_text()) == os.getpid()
    with LaunchFolder(tmp_path).sweep_lock() as lock:
        assert lock.path.read_text().split() == [str(os.getpid()), platform.node()]


@pytest.mark.slow
def test_of_two_commands_at_once_one_trains(synthetic_folder, run):
    config = tiny_config(synthetic_folder, iterations=400, eval_every=400)
    command = [sys.executable, "-m", "fsr.train", *flags(config), "--run_folder", str(run.folder)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "12"
    ]
    deadline = time.monotonic() + 120
    while all(process.poll() is None for process in both) and time.monotonic() < deadline:
        time.sleep(0.1)
    refused = next(process for process in both if process.poll() is not None)
    (trains,) = set(both) - {refused}
    assert refused.returncode == 2
    assert f"process {trains.pid} is training in {run.folder} already" in refused.communicate()[1]
    assert trains.poll() is None and len(run.starts()) == 1
    trains.terminate()
    trains.communicate()
    assert trains.returncode == 128 + signal.SIGTERM
