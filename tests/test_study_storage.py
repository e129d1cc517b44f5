"""The journal and a database keep the same contract: what a claim asks of either is the same, and what comes of it."""

import os
import random
import uuid

import optuna
import pytest
import test_launch_database
from optuna.trial import TrialState
from test_launch_database import folder, url  # noqa: F401
from test_packed_trials import live, told

from launch.state import journal, journal_storage
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.study_storage import Considered
from launch.state.target import Target
from launch.state.trial_records import settings_key
from launch.state.trials import CODE, SEED
from launch.study import load
from launch.worker.claim import Claim, claim

POSTGRESQL = pytest.param("postgresql", marks=[pytest.mark.slow, test_launch_database.pytestmark])


@pytest.fixture(params=["journal", pytest.param("sqlite", marks=pytest.mark.slow), POSTGRESQL])
def opened(request, tmp_path, monkeypatch):
    """Opens the same storage, as often as it is called."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    if request.param == "journal":
        monkeypatch.setattr(journal_storage, "PACK", 20)
        monkeypatch.setattr(journal, "CHUNK", 2000)
        return lambda: open_storage(tmp_path)
    server = request.getfixturevalue("url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv("FSR_STORAGE", server)
    return lambda: open_storage(tmp_path, database=True)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_what_a_claim_asks_is_what_counting_says(opened, seed):
    study = optuna.create_study(study_name=f"s{uuid.uuid4().hex}", storage=opened(), direction="maximize")
    reader, study_id = opened(), study._study_id
    for part in range(3):  # the reader has read some before
        live(study, random.Random(10 * seed + part), 50)
        check(reader, study_id)
    check(opened(), study_id)
    assert told(opened(), study_id) == told(reader, study_id)


def check(storage, study_id):
    trials = storage.get_all_trials(study_id)
    ask = lambda question: storage.ask(study_id, question)  # noqa: E731
    assert ask(len) == len(trials)
    for state in TrialState:
        assert ask(lambda store, state=state: store.count(state)) == sum(trial.state == state for trial in trials)
        numbers = [trial.number for trial in trials if trial.state == state]
        assert ask(lambda store, state=state: store.numbers([state])) == numbers
    complete = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: -t.value)
    assert sorted(ask(lambda store: store.best(5, 1))) == sorted(trial.number for trial in complete[:5])
    done = [t.number for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert ask(lambda store: store.newest(7)) == done[-7:]
    for code in ("v1", "v2", "v3"):
        has = any(t.number in done and t.user_attrs.get(CODE, [])[-1:] == [code] for t in trials)
        assert ask(lambda store, code=code: store.has_done(code)) == has
    repeats = [trial for trial in trials if SEED in trial.user_attrs and trial.state != TrialState.FAIL]
    assert ask(lambda store: store.repeats()) == len(repeats)
    for trial in trials:
        tried = trial.state.is_finished() and trial.state != TrialState.FAIL
        asked = trial.system_attrs.get("fixed_params")
        if tried:
            assert ask(lambda store, trial=trial: store.has_tried(settings_key(trial.params)))
        if asked and trial.state != TrialState.FAIL:
            assert ask(lambda store, asked=asked: store.has_tried(settings_key(asked)))
    assert not ask(lambda store: store.has_tried(settings_key({"ratio": 7})))


@pytest.fixture
def life(opened, tmp_path):
    """A study, and how to claim a trial of it."""
    name = f"s{uuid.uuid4().hex[:8]}"  # a server keeps what other tests left
    place = StudyFolder(tmp_path / name)
    place.folder.mkdir()
    study = optuna.create_study(study_name=name, storage=opened(), direction="maximize")
    smoke = load("smoke")
    object.__setattr__(smoke, "name", name)
    base = smoke.base("synthetic", tmp_path, iterations=20, seed=None)
    yield study, place, lambda code="v1": claim(smoke, base, place, opened(), "local", code)
    object.__setattr__(smoke, "name", "smoke")


def test_a_claimed_trial_has_its_parameters_and_its_number_whatever_keeps_it(life):
    study, place, claim_one = life
    Target(4, 5).write(place)
    known = claim_one()
    assert isinstance(known, Claim)
    assert (known.trial.number, known.settings["mask_ratio"]) == (0, 0.4)
    known.let_go()  # killed
    again = claim_one("v2")
    assert (again.trial.number, again.settings, again.trial.user_attrs[CODE]) == (0, known.settings, ["v1", "v2"])
    again.trial.report(0.3, 10)
    again.tell(0.5)
    again.let_go()
    study.enqueue_trial({"mask_ratio": 0.7}, user_attrs={"seed": 5, "repeats": 0})
    repeat = claim_one()
    assert (repeat.trial.number, repeat.settings["mask_ratio"], repeat.settings["seed"]) == (1, 0.7, 5)
    repeat.tell(state=TrialState.PRUNED)
    repeat.let_go()
    failing = claim_one()
    failing.fail("of itself")
    failing.let_go()
    for number in (3, 4):
        last = claim_one()
        assert last.trial.number == number
        last.tell(0.1)
        last.let_go()
    assert claim_one() == "nothing left"
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[0].intermediate_values == {10: 0.3}
    assert study.trials[0].user_attrs["summary"]["seconds"] == 0


def test_samplers_see_the_newest_and_the_best(opened):
    study = optuna.create_study(study_name=f"s{uuid.uuid4().hex}", storage=opened(), direction="maximize")
    for number in range(120):
        study.add_trial(optuna.trial.create_trial(value=number % 60))
    running = study.ask()
    shown = Considered(opened(), 3).get_all_trials(study._study_id)
    worst = {number for number in range(117) if number % 60 < 10}
    assert {trial.number for trial in shown} == set(range(120)) - worst | {running.number}
