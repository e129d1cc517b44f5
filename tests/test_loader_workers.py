"""Loader workers: no signal that asks a rank to save ends them, none outlives the rank, and their end is a sentence."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import assert_same_run
from tiny import flags, tiny_config

from fsr.checkpoint import load_file
from fsr.data import loader_processes
from fsr.data.loader_processes import STOP_SIGNALS
from fsr.errors import LostLoaderError, SilentLoaderError, UserError
from fsr.run import Run
from fsr.train import train


class Pids(torch.utils.data.Dataset):
    """Element i: the worker's process, after `work(i)`."""

    def __init__(self, work=lambda index: None, length=40):
        self.work, self.length = work, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.work(index)
        return os.getpid()


class Pictures(torch.utils.data.Dataset):
    """Elements that pass through shared memory."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.full((3, 100, 100), float(index))


def load_each(dataset, workers):
    """The elements, not batched."""
    return loader_processes.load(dataset, workers, batch_size=None)


def gone(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("early", [False, True])
def test_no_stop_signal_ends_a_worker_from_the_very_fork_on(monkeypatch, early):
    def signal_all():
        for child in multiprocessing.active_children():
            for number in STOP_SIGNALS:
                os.kill(child.pid, number)

    begin = loader_processes._outlive_signals
    if early:  # as if the signals came between the fork and the first line of the worker's own code

        def begin_late(*arguments):
            for number in STOP_SIGNALS:
                os.kill(os.getpid(), number)
            begin(*arguments)

        monkeypatch.setattr(loader_processes, "_outlive_signals", begin_late)
    elements = load_each(Pids(), 2)
    first = [next(elements)]
    signal_all()
    pids = set(first + list(elements))
    assert len(pids) == 2 and os.getpid() not in pids
    assert all(gone(pid) for pid in pids)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(STOP_SIGNALS)


@pytest.mark.parametrize("number, words", [(signal.SIGKILL, "Killed; the node may be out of memory"), (11, "Segm")])
def test_the_death_of_a_worker_is_told_where_the_rank_waits_and_nowhere_else(number, words):
    def die(index):
        if index == 2:
            os.kill(os.getpid(), number)

    elements = load_each(Pids(die), 1)
    next(elements)
    wait_for(lambda: not multiprocessing.active_children())  # no error in here: the rank may be in the midst of a step
    with pytest.raises(LostLoaderError, match=rf"DataLoader worker \(pid \d+\) is killed by signal: {words}"):
        list(elements)


class BrokenOff:
    """What the rank cannot read to its end."""

    def __reduce__(self):
        return broken_off, ()


def broken_off():
    raise ConnectionResetError("as the test wants it")


def test_a_worker_whose_files_are_closed_before_it_has_ended_is_one_that_died():
    class Dying(Pids):
        def __getitem__(self, index):
            if index == 0:
                return BrokenOff()
            time.sleep(0.2)  # until the first is on its way
            os.closerange(3, 1000)
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LostLoaderError, match="is killed by signal: Killed"):
        next(load_each(Dying(), 1))


def test_an_error_in_a_worker_is_still_that_error():
    def fail(index):
        raise RuntimeError("as the test wants it")

    with pytest.raises(RuntimeError, match="as the test wants it"):
        next(load_each(Pids(fail), 1))


def test_workers_that_give_nothing_are_an_error_that_names_what_they_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FSR_SILENCE_S", "1")
    monkeypatch.setattr(loader_processes, "_POLL_S", 0.2)
    file = tmp_path / "0.jpg"
    file.touch()

    def hang(index):
        with open(file):
            time.sleep(100 if index else 0)

    with open(tmp_path / "records", "w"):  # a worker inherits it
        elements = load_each(Pids(hang), 1)
        pid = next(elements)
        with pytest.raises(SilentLoaderError, match=f"gave nothing for 1 s; they have open {file}$"):
            next(elements)
    assert gone(pid)
    monkeypatch.setenv("FSR_SILENCE_S", "soon")
    with pytest.raises(UserError, match="FSR_SILENCE_S must be a number of seconds from 1, got 'soon'"):
        next(load_each(Pids(), 1))


def test_a_worker_that_stops_in_the_middle_of_what_it_says_is_one_that_gives_nothing(monkeypatch):
    monkeypatch.setenv("FSR_SILENCE_S", "1")
    monkeypatch.setattr(loader_processes, "_POLL_S", 0.2)
    elements = loader_processes.load(Pictures(), 1, batch_size=None)
    next(elements)
    (worker,) = (child.pid for child in multiprocessing.active_children())
    time.sleep(0.2)  # the next ones lie in the queue, to be fetched from the worker's own hands
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(SilentLoaderError, match="the 1 loader workers gave nothing for 1 s"):
        list(elements)
    wait_for(lambda: gone(worker))


def test_a_slow_worker_is_waited_for(monkeypatch):
    monkeypatch.setattr(loader_processes, "_POLL_S", 0.1)
    assert len(list(load_each(Pids(lambda index: time.sleep(0.5), length=2), 1))) == 2


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_with_its_loader():
    elements = load_each(Pids(), 1)
    pid = next(elements)
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    elements.close()
    wait_for(lambda: gone(pid))
    assert time.monotonic() - started < 15


def children(pid):
    """Processes that a process started."""
    listing = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in listing.stdout.split()]


def started(module, *arguments, ready, workers=2, prefix=(sys.executable,), **variables):
    """A command in a process group of its own that has begun to work, and its loader workers."""
    command = [*prefix, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )
    wait_for(lambda: process.poll() is not None or (ready() and len(children(process.pid)) >= workers), 60)
    assert process.poll() is None, process.stderr.read()
    return process


LONG = {"workers": 2, "iterations": 3000, "eval_every": 3000, "log_every": 1, "save_every": 3000}


@pytest.fixture
def training(synthetic_folder, tmp_path):
    """A run with two loader workers."""
    arguments = [*flags(tiny_config(synthetic_folder, **LONG)), "--run_folder", tmp_path]
    process = started("fsr.train", *arguments, ready=lambda: Run(tmp_path).metrics_file.exists())
    yield process
    if process.poll() is None:
        process.kill()


def group_of(process):
    """Every process of its group."""
    listing = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True)
    return [int(line) for line in listing.stdout.split()]


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGHUP, signal.SIGINT))],
)
def test_a_signal_to_every_process_of_a_training_saves(training, tmp_path, number):
    workers = children(training.pid)
    for pid in sorted(group_of(training), reverse=True):  # the workers first
        os.kill(pid, number)
    _, errors = training.communicate(timeout=60)
    assert training.returncode == 128 + number, errors
    assert "Traceback" not in errors and "the same command resumes" in errors
    steps = [record["step"] for record in Run(tmp_path).metrics()]
    assert 0 < load_file(Run(tmp_path).checkpoint_file)["step"] == steps[-1] < 3000
    assert all(gone(pid) for pid in workers)


@pytest.mark.slow
def test_a_killed_training_leaves_no_worker(training):
    workers = children(training.pid)
    os.kill(workers[0], signal.SIGSTOP)  # not even one that could not notice
    training.kill()
    wait_for(lambda: all(gone(pid) for pid in workers), 5)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_training_with_its_cause(training, tmp_path):
    os.kill(children(training.pid)[0], signal.SIGKILL)
    _, errors = training.communicate(timeout=60)
    assert training.returncode == 1 and "is killed by signal: Killed; the node may be out of memory" in errors


@pytest.mark.parametrize("place", ["step", "evaluation"])
def test_a_worker_that_dies_during_a_stop_leaves_the_last_whole_step(synthetic_folder, tmp_path, monkeypatch, place):
    config = tiny_config(synthetic_folder, workers=1)
    whole = Run(tmp_path / "whole")
    train(config, whole)
    asked, found = [], []
    tell = loader_processes._end_of
    monkeypatch.setattr(loader_processes, "_end_of", lambda process: found.append(process) or tell(process))

    def stop():
        asked.append(None)
        if len(asked) == 5 and place == "evaluation":
            monkeypatch.setattr("fsr.evaluate.evaluation_images", lost)
        elif len(asked) == 7:
            for child in multiprocessing.active_children():
                child.kill()
        return bool(found)

    def lost(*_):
        found.append(None)
        raise LostLoaderError("as the test wants it")
        yield

    run = Run(tmp_path / "stopped")
    assert train(config, run, stop_requested=stop) == "stopped"
    saved = load_file(run.checkpoint_file)["step"]
    assert saved >= 4
    monkeypatch.undo()
    assert train(config, run) == "finished"
    assert run.starts()[1]["first_step"] == saved
    assert_same_run(run, whole)


@pytest.mark.slow
def test_a_signal_to_every_process_of_two_ranks_saves(synthetic_folder, tmp_path):
    arguments = [*flags(tiny_config(synthetic_folder, ranks=2, **LONG)), "--run_folder", tmp_path]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = started("fsr.train", *arguments, ready=lambda: bool(Run(tmp_path).metrics()), prefix=torchrun)
    processes = [pid for rank in children(process.pid) for pid in (*children(rank), rank)]
    assert len(processes) == 6
    for pid in processes:
        os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=90)
    assert errors.count("the same command resumes") == 1 and "DataLoader" not in errors, errors
    steps = [record["step"] for record in Run(tmp_path).metrics()]
    assert 0 < load_file(Run(tmp_path).checkpoint_file)["step"] == steps[-1] < 3000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_every_process_of_an_inference_stops_it_between_two_images(voc, checkpoint, tmp_path, number):
    flags = ["--num_classes", 9, "--infer_set", "train", "--batch_size", 1, "--workers", 2]
    arguments = ["voc", "--checkpoint", checkpoint, "--data_folder", voc, "--output_folder", tmp_path, *flags]
    process = started("fsr.infer", *arguments, ready=lambda: list(tmp_path.glob("crf/*")))
    for pid in sorted(group_of(process), reverse=True):
        os.kill(pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors and "the same command resumes" in errors
