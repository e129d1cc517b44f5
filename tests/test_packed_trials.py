"""Trials that have ended are packed beside the journal: nothing is told otherwise for it, whatever damages the pack."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import time
from datetime import datetime, timezone

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from fsr.json_file import DamagedError
from launch.state import journal, journal_storage
from launch.state.storage import open_storage
from launch.state.study_storage import Considered
from launch.state.trial_records import local_time, offset_of, settings_key
from launch.state.trial_store import TrialStore
from launch.state.trials import CODE, SEED

fork = multiprocessing.get_context("fork")
RANGES = {
    "ratio": FloatDistribution(0.05, 0.95),
    "size": IntDistribution(1, 64),
    "kind": CategoricalDistribution(["a", None, 2]),
}


@pytest.fixture(autouse=True)
def packed_early(monkeypatch):
    """Packed after twenty records, read in small pieces; nobody pulls the plug here, so nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(journal_storage, "PACK", 20)
    monkeypatch.setattr(journal, "CHUNK", 2000)


@pytest.mark.slow
class TestOptunasOwnSuite(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path):
        return open_storage(tmp_path)


def live(study, rng, steps):
    """A life of a study: trials asked for, waited, set, told, in any order."""
    running = []
    for _ in range(steps):
        act = rng.random()
        if act < 0.1:
            study.enqueue_trial({"ratio": rng.uniform(0.1, 0.9)}, user_attrs={"seed": rng.randrange(9)})
        elif act < 0.4 or not running:
            running.append(study.ask({name: RANGES[name] for name in RANGES if rng.random() < 0.8}))
        elif act < 0.6:
            trial = rng.choice(running)
            trial.set_user_attr(rng.choice([CODE, "summary"]), [rng.choice(["v1", "v2"])])
            trial.report(rng.choice([0.5, float("nan"), 1.0, rng.random()]), rng.randrange(100))
        else:
            trial = running.pop(rng.randrange(len(running)))
            state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
            study.tell(trial, rng.random() if state == TrialState.COMPLETE else None, state)


def told(storage, study_id=0):
    """All trials, as text: a value may be no number, which equals nothing."""
    return [repr(trial) for trial in storage.get_all_trials(study_id)]


def stock(folder):
    """The same journal in Optuna's own storage."""
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def made(folder, seed=0, steps=80):
    """A study that has lived; its storage."""
    storage = open_storage(folder)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    live(study, random.Random(seed), steps)
    return storage


def packed(folder):
    """The index."""
    return json.loads((folder / "packed" / "index.json").read_bytes().partition(b"\n")[2])


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_packed_or_not_the_trials_are_those_that_optunas_own_storage_has(tmp_path, seed):
    storage = made(tmp_path, seed)
    index = packed(tmp_path)
    assert index["offset"] > 0
    assert told(storage) == told(open_storage(tmp_path)) == told(stock(tmp_path))


def test_a_setting_that_failed_has_not_been_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_storage, "PACK", 5)
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    for n in range(4):
        study.enqueue_trial({"ratio": 0.1 * n})
    for n, trial in enumerate([study.ask({"ratio": RANGES["ratio"]}) for _ in range(4)]):
        study.tell(trial, state=TrialState.FAIL if n == 1 else TrialState.PRUNED)
    again = open_storage(tmp_path)
    assert packed(tmp_path)["offset"] > 0
    tried = [again.ask(0, lambda store, n=n: store.has_tried(settings_key({"ratio": 0.1 * n}))) for n in range(4)]
    assert tried == [True, False, True, True]
    assert again.ask(0, lambda store: store.failed()) == [1]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_times_are_local_ones_also_where_the_clock_is_put_back(zone, monkeypatch):
    with monkeypatch.context() as place:
        place.setenv("TZ", zone)
        time.tzset()
        offset_of.cache_clear()
        put_back = datetime(2026, 4, 5) if zone == "Australia/Lord_Howe" else datetime(2026, 10, 25)
        start = round(put_back.timestamp())
        for second in range(start - 40_000, start + 40_000, 397):
            told = datetime.fromtimestamp(second + 0.25, timezone.utc).isoformat(timespec="microseconds")
            assert local_time(told) == datetime.fromtimestamp(second + 0.25)
            assert local_time(told.replace(".250000", "")) == datetime.fromtimestamp(second)
    time.tzset()
    offset_of.cache_clear()


def test_samplers_are_shown_the_newest_and_the_best(tmp_path):
    storage = made(tmp_path, 1, 200)
    trials = storage.get_all_trials(0)
    shown = Considered(storage, 4).get_all_trials(0)
    newest = [[t.number for t in trials if t.state == state][-4:] for state in (TrialState.RUNNING, TrialState.WAITING)]
    running = {number for numbers in newest for number in numbers}
    done = [t.number for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    best = {t.number for t in trials if t.state == TrialState.COMPLETE}
    assert len(best) < 100  # so they are all among the best
    assert [t.number for t in shown] == sorted(running | set(done[-4:]) | best)
    assert [repr(t) for t in shown] == [repr(trials[t.number]) for t in shown]


DAMAGE = {
    "no index": lambda folder: (folder / "index.json").unlink(),
    "a flipped bit in a line": lambda folder: flip(next(folder.glob("*.lines")), 1300),
    "half an index": lambda folder: os.truncate(folder / "index.json", 300),
    "an empty index": lambda folder: os.truncate(folder / "index.json", 0),
    "another index": lambda folder: (folder / "index.json").write_text('{"offset": 7}'),
    "a flipped bit in the index": lambda folder: flip(folder / "index.json", 200),
    "no lines": lambda folder: next(folder.glob("*.lines")).unlink(),
    "half of the lines": lambda folder: os.truncate(next(folder.glob("*.lines")), 900),
    "zeros for lines": lambda folder: next(folder.glob("*.lines")).write_bytes(bytes(50_000)),
    "a folder for an index": lambda folder: ((folder / "index.json").unlink(), (folder / "index.json").mkdir()),
    "an index of a repeat that is none": lambda folder: tell(folder, repeats=[10**9]),
    "an index of a direction that is none": lambda folder: tell(folder, directions=[7]),
    "an index of no distributions": lambda folder: tell(folder, distributions=[]),
    "nothing at all": lambda folder: shutil.rmtree(folder),
}
QUICK = ("no index", "a flipped bit in a line", "an index of no distributions")


@pytest.mark.parametrize(
    "damage", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGE]
)
def test_a_damaged_pack_is_left_alone_and_made_anew(tmp_path, damage):
    at_work = made(tmp_path)
    before = told(at_work)
    DAMAGE[damage](tmp_path / "packed")
    assert told(open_storage(tmp_path)) == told(at_work) == before
    repeats = [storage.ask(0, TrialStore.repeats) for storage in (open_storage(tmp_path), at_work)]
    assert repeats == [sum(SEED in t.user_attrs and t.state != TrialState.FAIL for t in at_work.get_all_trials(0))] * 2
    study = optuna.load_study(study_name="s", storage=at_work)
    live(study, random.Random(9), 60)
    assert told(open_storage(tmp_path)) == told(at_work) == told(stock(tmp_path))


def tell(folder, **fields):
    """Write an index that is sound but for what it tells."""
    body = json.dumps(packed(folder.parent) | fields).encode()
    (folder / "index.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def test_a_pack_of_another_journal_is_not_taken_for_this_ones(tmp_path):
    for name, seed in {"a": 1, "b": 2}.items():
        (tmp_path / name).mkdir()
        made(tmp_path / name, seed)
    before = told(open_storage(tmp_path / "b"))
    shutil.rmtree(tmp_path / "b" / "packed")
    shutil.copytree(tmp_path / "a" / "packed", tmp_path / "b" / "packed")
    assert told(open_storage(tmp_path / "b")) == before


def work(folder, seed):
    study = optuna.load_study(study_name="s", storage=open_storage(folder))
    live(study, random.Random(seed), 60)


@pytest.mark.slow
def test_processes_that_write_and_pack_at_once_agree(tmp_path):
    made(tmp_path)
    workers = [fork.Process(target=work, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    reader = open_storage(tmp_path)
    while any(worker.is_alive() for worker in workers):
        numbers = [trial.number for trial in reader.get_all_trials(0)]
        assert numbers == list(range(len(numbers)))
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert told(reader) == told(open_storage(tmp_path)) == told(stock(tmp_path))


def test_what_is_set_together_is_one_append(tmp_path):
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    other = open_storage(tmp_path)
    trial = study.ask()
    with storage.together():
        trial.set_user_attr("a", 1)
        trial.suggest_float("ratio", 0, 1)
        assert other.get_trial(0).user_attrs == {}
    assert other.get_trial(0).user_attrs == {"a": 1}
    assert set(other.get_trial(0).params) == {"ratio"}


def test_behind_a_damaged_record_nothing_counts_however_often_it_is_read(tmp_path):
    storage = made(tmp_path, steps=5)
    with open(tmp_path / "journal.log", "ab") as file:
        file.write(b'{"op_code":99,"worker_id":"x"}\n')
    for _ in range(2):
        with pytest.raises(DamagedError, match="it has op_code 99"):
            storage.get_all_trials(0)


@pytest.mark.parametrize("leap", [0, 10**9])
def test_who_catches_up_knows_what_who_reads_all_knows(tmp_path, monkeypatch, leap):
    monkeypatch.setattr(journal_storage, "LEAP", leap)
    writer = made(tmp_path, steps=30)
    reader = open_storage(tmp_path)
    study = optuna.load_study(study_name="s", storage=writer)
    for seed in range(3):
        live(study, random.Random(seed), 30)
        assert reader.unread() > 0
        reader.catch_up()
        assert reader.unread() == 0
        assert told(reader) == told(open_storage(tmp_path)) == told(writer)


def test_a_trial_that_is_held_is_known_without_reading_and_told_as_it_was_written(tmp_path):
    storage = made(tmp_path, steps=30)
    study = optuna.load_study(study_name="s", storage=storage)
    trial = study.ask()
    storage.hold(trial._trial_id)
    with storage.together():
        trial.suggest_float("ratio", 0.05, 0.95)
        trial.set_user_attr("code", ["v1"])
    live(optuna.load_study(study_name="s", storage=open_storage(tmp_path)), random.Random(5), 30)
    unread = storage.unread()
    trial.report(0.25, 10)
    study.tell(trial, state=TrialState.PRUNED)
    assert storage.unread() > unread > 0
    ended = storage.get_trial(trial._trial_id)
    assert (ended.state, ended.value, ended.intermediate_values) == (TrialState.PRUNED, 0.25, {10: 0.25})
    assert told(storage) == told(open_storage(tmp_path)) == told(stock(tmp_path))


@pytest.mark.parametrize("name", ["../mine.txt", "link.lines", "0123abcd.lines"])
def test_an_index_leads_to_no_file_but_the_packs_own(tmp_path, name):
    storage = made(tmp_path)
    before, pack = told(storage), tmp_path / "packed"
    (tmp_path / "mine.txt").write_text("mine")
    if "/" not in name:
        (pack / name).symlink_to(tmp_path / "mine.txt")
    tell(pack, lines=name, size=0)
    writer = open_storage(tmp_path)
    writer.add_trials(0, [optuna.trial.create_trial(value=0.5)] * 30)
    assert writer.ask(0, len) == len(before) + 30  # which packs them, before anything packed was read
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert told(writer)[: len(before)] == before
    assert told(open_storage(tmp_path)) == told(stock(tmp_path))
