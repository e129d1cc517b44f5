"""A claim costs the same in a small study and in a large one, and keeps others waiting for as little as it can."""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from fsr.lock import FileLock
from launch.plan import define, plan
from launch.slurm import commands
from launch.state import journal_storage
from launch.state.known_settings import KnownSettings
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.study_storage import one_by_one
from launch.state.target import Target
from launch.study import load
from launch.sweep_options import Options
from launch.worker import claim as claim_module
from launch.worker import interrupted
from launch.worker.claim import claim

fork = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody pulls the plug here
    folder = StudyFolder(tmp_path / "smoke")
    folder.folder.mkdir()
    optuna.create_study(study_name="smoke", storage=open_storage(folder.folder), direction="maximize")
    Target(1000, 1000).write(folder)
    return folder


def study_of(folder):
    return optuna.load_study(study_name="smoke", storage=open_storage(folder.folder))


def claim_of(folder, study=None, job="local"):
    study = study or load("smoke")
    base = study.base("synthetic", folder.folder, iterations=20, seed=None)
    return claim(study, base, folder, open_storage(folder.folder), job, "v1")


def is_free(lock):
    """Asked by another process, as the system lets no process wait for itself."""
    asker = fork.Process(target=lambda: sys.exit(FileLock(lock.path).is_held()))
    asker.start()
    asker.join()
    assert asker.exitcode in (0, 1)
    return asker.exitcode == 0


def test_nobody_waits_for_a_sampler(folder):
    study, seen = load("smoke"), []

    def suggest(trial, base):
        seen.append(is_free(folder.claim_lock()))
        return study.suggest(trial, base)

    claim_of(folder, replace(study, suggest=suggest)).let_go()
    assert seen == [True]


def test_nobody_waits_for_slurm(folder, monkeypatch):
    claimed, seen = claim_of(folder), []
    claimed.attempt_log.begin("77", 0, "n1", 1)
    claimed.let_go()

    def job(*_):
        seen.append(is_free(folder.claim_lock()))
        return None

    monkeypatch.setattr(commands, "job", job)
    claim_of(folder, job="78").let_go()
    assert seen and all(seen)


def test_a_claim_reads_few_trials_of_many(folder, monkeypatch):
    monkeypatch.setattr(journal_storage, "PACK", 20)
    told = study_of(folder)
    space = {"mask_ratio": optuna.distributions.FloatDistribution(0.05, 0.95)}
    for number in range(300):
        params = {"mask_ratio": 0.05 + number / 1000}
        told.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=number / 1000))
    read = []
    monkeypatch.setattr(
        journal_storage.PackedTrials,
        "trials",
        lambda self, numbers, real=journal_storage.PackedTrials.trials: read.extend(numbers) or real(self, numbers),
    )
    claimed = claim_of(folder, replace(load("smoke"), considered=30))
    assert claimed.trial.number == 300
    assert set(read) <= {*range(200, 300)}  # the 30 newest and the 100 best
    claimed.let_go()


def hold(folder, numbers, held, end):
    locks = [folder.trial_lock(number) for number in numbers]
    for lock in locks:
        lock.acquire()
    held.set()
    end.wait(60)


def test_of_many_running_trials_a_claim_looks_at_some_and_at_the_end_at_all(folder, monkeypatch):
    for module in (interrupted, claim_module):
        monkeypatch.setattr(module, "LOOKED_AT", 5)
    told = study_of(folder)
    for _ in range(40):
        told.ask()
    held, end = fork.Event(), fork.Event()
    holder = fork.Process(target=hold, args=(folder, [n for n in range(40) if n != 17], held, end))
    holder.start()
    held.wait(30)
    looked = []
    is_held = FileLock.is_held
    monkeypatch.setattr(FileLock, "is_held", lambda lock: looked.append(lock) or is_held(lock))
    claimed = claim_of(folder)
    # By chance it may look at the one that is free, and then looks once more, under the claim lock.
    assert (claimed.trial.number, len(looked)) in ((40, 5), (17, 6))
    claimed.let_go()
    Target(40, 50).write(folder)  # all that is wanted is begun
    assert claim_of(folder).trial.number == 17
    end.set()
    holder.join()


def resume(folder, start, found):
    start.wait(30)
    claimed = claim_of(folder)
    found.put(claimed.trial.number)
    start.wait(60)
    time.sleep(2)  # held until all have theirs
    claimed.let_go()


def test_workers_that_start_at_once_resume_what_is_interrupted_before_anything_new(folder):
    told = study_of(folder)
    for _ in range(4):
        told.ask()
    start, found = fork.Event(), fork.Queue()
    workers = [fork.Process(target=resume, args=(folder, start, found)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    assert sorted(found.get(timeout=30) for _ in workers) == [0, 1, 2, 3]
    for worker in workers:
        worker.join()


def test_a_thousand_workers_that_start_at_once_read_nobodys_records(folder):
    told = study_of(folder)
    for _ in range(50):
        trial = told.ask()
        trial.set_user_attr("code", ["v1"])
        folder.run(trial.number).folder.mkdir()
        folder.attempt_log(trial.number).file.write_text("broken")  # whoever reads it says so
    held, end = fork.Event(), fork.Event()
    holder = fork.Process(target=hold, args=(folder, range(50), held, end))
    holder.start()
    held.wait(30)
    assert claim_of(folder).trial.number == 50
    end.set()
    holder.join()


def test_known_settings_are_tried_in_turn_and_again_where_their_trial_failed_of_something_else(tmp_path):
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    settings = [{"x": n} for n in (1, 2, 2, 3)]
    known = KnownSettings(settings)
    following = lambda: storage.ask(0, lambda trials: known.untried(trials, lambda trial: trial.number == 1))  # noqa: E731
    assert following() == {"x": 1}
    trials = []
    for n in (1, 2, 3):
        study.enqueue_trial({"x": n})
        trials.append(study.ask())
    assert following() is None
    study.tell(trials[1], state=TrialState.FAIL)  # its setting is to blame
    assert following() is None
    study.tell(trials[2], state=TrialState.FAIL)
    assert following() == {"x": 3}
    study.tell(trials[0], state=TrialState.FAIL)
    assert following() == {"x": 1}
    study.enqueue_trial({"x": 1})
    assert following() == {"x": 3}


def test_a_million_known_settings_are_not_looked_through_at_each_claim(tmp_path):
    storage = open_storage(tmp_path)
    optuna.create_study(study_name="s", storage=storage)

    class Many:
        looked = 0

        def __len__(self):
            return 10**6

        def __getitem__(self, place):
            Many.looked += 1
            return {"x": place}

    known = KnownSettings(Many())
    for _ in range(5):
        assert storage.ask(0, lambda trials: known.untried(trials, lambda trial: False)) == {"x": 0}
    assert Many.looked == 10


def test_of_trials_that_failed_nothing_is_read_where_every_known_setting_has_its_trial(folder, monkeypatch):
    study = load("smoke")
    base = study.base("synthetic", folder.folder, iterations=20, seed=None)
    told = study_of(folder)
    for params in study.known_params(base):
        told.enqueue_trial(params)
        told.tell(told.ask(), 0.5)
    failed = [told.ask() for _ in range(5)]
    for trial in failed:
        told.tell(trial, state=TrialState.FAIL)
    known = study.known_settings(base, "v1")
    assert (
        open_storage(folder.folder).ask(
            0, lambda trials: known.untried(trials, lambda trial: pytest.fail("it is read"))
        )
        is None
    )


def test_what_sampler_and_pruner_see_is_stated_in_the_study(tmp_path):
    planned = plan(Options(study="smoke", data_folder=tmp_path, runs=tmp_path / "runs", cluster="local"))
    planned.folder.folder.mkdir(parents=True)
    define(planned)
    assert json.loads(planned.folder.study_file.read_text())["considered"] == {"newest": 500, "best": 100}


def test_rows_are_read_block_by_block(folder, monkeypatch):
    monkeypatch.setattr("launch.state.study_storage.AT_ONCE", 7)
    told = study_of(folder)
    for _ in range(30):
        told.ask()
    assert [trial.number for trial in one_by_one(told, unless={3, 29})] == [n for n in range(29) if n != 3]


def test_opening_a_packed_study_takes_no_longer_for_its_trials(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_storage, "PACK", 50)
    spent = {}
    for trials in (100, 2000):
        place = tmp_path / str(trials)
        place.mkdir()
        storage = open_storage(place)
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")
        done = optuna.trial.create_trial(value=0.5)
        with storage.together():
            for _ in range(trials):
                storage._write(4, study_id=study_id, **journal_storage.record_of(done))
        open_storage(place)
        seconds = []
        for _ in range(5):
            began = time.process_time()
            open_storage(place).ask(0, len)
            seconds.append(time.process_time() - began)
        spent[trials] = min(seconds)
    assert spent[2000] < 5 * spent[100]
