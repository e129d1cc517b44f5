"""A lock is taken, is another's, or is one sentence: never a traceback, and never held by a stranger who only reads."""

import errno
import fcntl
import multiprocessing
import os

import pytest

from fsr import lock as lock_module
from fsr.errors import UserError
from fsr.lock import FileLock
from launch.lock_probe import try_folder, try_here
from launch.node_probe import KEPT_OUT
from launch.sweep import main

spawn = multiprocessing.get_context("spawn")


def failing(monkeypatch, *numbers):
    """Locking fails with each of these errors, then works."""
    left, real = list(numbers), fcntl.lockf

    def lockf(file, how, *rest):
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return real(file, how, *rest)

    monkeypatch.setattr(fcntl, "lockf", lockf)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch, number):
    before = open_files()
    failing(monkeypatch, *[number] * 9)
    for take in ("acquire", "try_acquire"):
        lock = FileLock(tmp_path / "claim.lock")
        with pytest.raises(UserError, match=r"claim\.lock cannot be locked .*fsr doctor --runs DIR tries them"):
            getattr(lock, take)()
        assert not lock.held
    assert open_files() == before


@pytest.mark.parametrize("number", [errno.EDEADLK, errno.ESTALE, errno.EINTR])
def test_what_passes_is_tried_again(tmp_path, monkeypatch, number):
    failing(monkeypatch, number, number)
    lock = FileLock(tmp_path / "claim.lock")
    assert lock.acquire() and lock.held


def test_what_does_not_pass_is_one_sentence_in_the_end(tmp_path, monkeypatch):
    failing(monkeypatch, *[errno.ESTALE] * 99)
    monkeypatch.setattr(lock_module, "PASSING_S", 0.1)
    with pytest.raises(UserError, match="cannot be locked"):
        FileLock(tmp_path / "claim.lock").acquire()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_of_another_process_is_not_taken(tmp_path, monkeypatch, number):
    failing(monkeypatch, number)
    assert not FileLock(tmp_path / "claim.lock").try_acquire()


def test_no_right_to_its_file_is_not_taken_for_somebody_who_holds_it(tmp_path, monkeypatch):
    def create(path, flags, lock):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(lock_module, "create", create)
    with pytest.raises(UserError, match=r"has no right to use .*which belongs to .*take another --runs folder"):
        FileLock(tmp_path / "claim.lock").try_acquire()


def test_taking_a_held_lock_again_keeps_it(tmp_path):
    lock = FileLock(tmp_path / "claim.lock")
    assert lock.acquire() and lock.acquire() and lock.try_acquire()
    lock.release()
    assert not lock.held


def test_a_holder_that_cannot_be_written_down_lets_go(tmp_path, monkeypatch):
    def write(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = FileLock(tmp_path / "claim.lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match=r"claim\.lock"):
            lock.acquire()
    other = spawn.Process(target=take_once, args=(lock.path,))
    other.start()
    other.join()
    assert (lock.held, other.exitcode) == (False, 0)


def take_once(path):
    os._exit(0 if FileLock(path).try_acquire() else 1)


def test_locks_of_this_machine_are_tried_by_taking_one(tmp_path, monkeypatch):
    assert try_here(tmp_path) == KEPT_OUT
    assert list(tmp_path.iterdir()) == []
    sound, (sentence, *_) = try_folder(tmp_path, on_slurm=False, partition=None)
    assert list(tmp_path.iterdir()) == []
    assert sound and "a second process of this machine was kept out" in sentence
    failing(monkeypatch, errno.ENOLCK)
    sound, (sentence,) = try_folder(tmp_path, on_slurm=True, partition=None)
    assert not sound and "cannot be locked (No locks available)" in sentence


def test_a_sweep_on_a_file_system_without_locks_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    failing(monkeypatch, *[errno.ENOLCK] * 9)
    places = ["--data_folder", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--cluster", "debug"]
    with pytest.raises(SystemExit) as end:
        main(["--study", "smoke", *places])
    assert end.value.code == 2
    assert "sweep.lock cannot be locked (No locks available)" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "smoke").exists()
