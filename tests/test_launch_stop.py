"""What ends a worker early becomes a flag; a worker whose sweep is gone does not stay."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from fsr.lock import FileLock
from launch.state.process import die_after
from launch.state.stop import StopRequest

spawn = multiprocessing.get_context("spawn")


def test_signals_set_a_flag_and_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_sweep_that_holds_its_lock_continues_and_one_that_let_go_or_is_another_does_not(tmp_path):
    sweep = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "sweep.lock"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    sweep.stdout.readline()
    assert not StopRequest(None, FileLock(tmp_path / "sweep.lock"), sweep.pid)()
    assert StopRequest(None, FileLock(tmp_path / "sweep.lock"), sweep.pid + 1)()
    sweep.kill()
    sweep.wait()
    assert StopRequest(None, FileLock(tmp_path / "sweep.lock"), sweep.pid)()


HOLD = """
import sys
from fsr.lock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
input()
"""


def work_for(process):
    die_after(process, grace_s=0.5)
    time.sleep(60)


def test_a_worker_in_a_long_evaluation_is_ended_some_time_after_its_sweep():
    sweep = subprocess.Popen(["sleep", "60"])
    worker = spawn.Process(target=work_for, args=(sweep.pid,))
    worker.start()
    worker.join(timeout=2)
    assert worker.is_alive()
    sweep.kill()
    sweep.wait()
    worker.join(timeout=10)
    assert worker.exitcode == 1
