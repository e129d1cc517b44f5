"""The journal keeps every whole record, whatever happens to the processes that write it."""

import json
import multiprocessing
import os
import random
import signal
import time

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock, JournalStorage
from optuna.testing.pytest_storages import StorageTestCase

from fsr.lock import FileLock
from launch.state.journal import JournalFile
from launch.state.storage import open_storage

LOCKS = {
    "kernel": lambda path: FileLock(path.with_suffix(".lock")),
    "open": lambda path: JournalFileOpenLock(str(path), grace_period=3),
    "symlink": lambda path: JournalFileSymlinkLock(str(path), grace_period=3),
}
spawn = multiprocessing.get_context("spawn")


class TestOptunasOwnSuite(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path):
        return open_storage(tmp_path)


def whole(path):
    """All records of a journal."""
    return JournalFile(path, FileLock(path.with_suffix(".lock"))).read_new()


def append_many(path, lock, writer, count):
    journal = JournalFile(path, LOCKS[lock](path))
    for number in range(count):
        journal.append_logs([{"writer": writer, "number": number, "padding": "x" * 200}])


def append_slowly_for_ever(path):
    """A writer that is nearly always in the middle of an append."""
    write = os.write
    journal = JournalFile(path, FileLock(path.with_suffix(".lock")))

    class SlowFile:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            for byte in data:
                write(self.file.fileno(), bytes([byte]))
                time.sleep(0.0002)

    import launch.state.journal

    launch.state.journal.open = lambda *arguments, **options: SlowFile(open(*arguments, **options))  # noqa: SIM115
    number = 0
    while True:
        journal.append_logs([{"writer": os.getpid(), "number": number, "padding": "x" * 100}])
        number += 1


@pytest.mark.parametrize("lock", LOCKS)
def test_writers_at_the_same_time_lose_nothing_and_keep_their_order(tmp_path, lock):
    path = tmp_path / "journal.log"
    writers = [spawn.Process(target=append_many, args=(path, lock, writer, 40)) for writer in range(3)]
    for process in writers:
        process.start()
    reader, seen = JournalFile(path, LOCKS[lock](path)), []
    while any(process.is_alive() for process in writers):
        seen += reader.read_new()
    seen += reader.read_new()
    assert [process.exitcode for process in writers] == [0, 0, 0]
    assert len(seen) == 120
    for writer in range(3):
        assert [record["number"] for record in seen if record["writer"] == writer] == list(range(40))


def test_writers_killed_in_mid_append_cost_no_whole_record(tmp_path):
    path = tmp_path / "journal.log"
    journal = JournalFile(path, FileLock(path.with_suffix(".lock")))
    unfinished = 0
    rng = random.Random(0)
    for mine in range(8):
        writer = spawn.Process(target=append_slowly_for_ever, args=(path,))
        size = path.stat().st_size
        writer.start()
        while path.stat().st_size == size:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        unfinished += not path.read_bytes().endswith(b"\n")
        before = whole(path)
        journal.append_logs([{"writer": "me", "number": mine}])
        assert whole(path) == [*before, {"writer": "me", "number": mine}]
    assert unfinished >= 4  # otherwise nothing was tested
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["number"] for record in records if record["writer"] == "me"] == list(range(8))
    for killed in {record["writer"] for record in records} - {"me"}:
        numbers = [record["number"] for record in records if record["writer"] == killed]
        assert numbers == list(range(len(numbers)))


def test_a_study_resumes_behind_a_half_record(tmp_path):
    study = optuna.create_study(storage=open_storage(tmp_path), study_name="s")
    study.tell(study.ask(), 1.0)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    for cut in range(0, 40, 7):
        with open(journal, "ab") as file:
            file.write(whole.splitlines(keepends=True)[-1][: cut + 1])
        assert len(study.trials) == len(optuna.load_study(storage=open_storage(tmp_path), study_name="s").trials)
        other = optuna.load_study(storage=open_storage(tmp_path), study_name="s")
        other.tell(other.ask(), 2.0)
    assert [trial.number for trial in study.trials] == list(range(7))
    assert all(trial.state.is_finished() for trial in study.trials)
    # The repaired file is one that Optuna's own backend reads.
    stock = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name="s")
    assert len(stock.trials) == 7


def test_a_tail_longer_than_one_block_is_cut_off(tmp_path):
    path = tmp_path / "journal.log"
    journal = JournalFile(path, FileLock(path.with_suffix(".lock")))
    journal.append_logs([{"number": 0}])
    with open(path, "ab") as file:
        file.write(b'{"number": "' + b"x" * 10_000)
    assert whole(path) == [{"number": 0}]
    journal.append_logs([{"number": 1}])
    assert path.read_text() == '{"number":0}\n{"number":1}\n'


def test_a_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    holder = spawn.Process(target=hold_for_ever, args=(path,))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    lock = FileLock(path)
    assert not lock.try_acquire()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert lock.try_acquire()
    lock.release()


def hold_for_ever(path):
    lock = FileLock(path)
    lock.acquire()
    path.with_name("held").touch()
    time.sleep(60)
