"""What is said of parameters rests on the search alone: repeats are seeds of settings that were chosen as good ones."""

import optuna
import pytest
from optuna.importance import get_param_importances
from studies import add_trial, new_study

from analysis.load import load, load_search, load_study
from analysis.search import WithSearch, search_name
from launch.state.storage import open_storage

SPACE = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("strong", "weak")}


def tell(study, value, attributes=None, **params):
    trial = optuna.trial.create_trial(params=params, distributions=SPACE, value=value, user_attrs=attributes or {})
    study.add_trial(trial)


@pytest.fixture
def runs(tmp_path):
    """`strong` alone decides the scores of the search; the repeats of two settings share a high value of `weak`."""
    _, study = new_study(tmp_path)
    tell(study, 0.30, strong=0.3, weak=0.95)
    for number in range(1, 20):
        tell(study, 0.02 * number, strong=number / 20, weak=number * 7 % 20 / 20)
    tell(study, 0.41, strong=0.9, weak=0.96)
    for seed in range(1, 9):
        tell(study, 0.5 + seed / 100, {"seed": seed, "repeats": 0}, strong=0.3, weak=0.95)
        tell(study, 0.5 + seed / 100, {"seed": seed, "repeats": 20}, strong=0.9, weak=0.96)
    return tmp_path


def test_importance_counts_no_repeats(runs):
    of_all, of_search = (get_param_importances(of("smoke", runs)) for of in (load_study, load_search))
    assert list(of_all) == ["weak", "strong"]  # what the repeats would make of it
    assert list(of_search) == ["strong", "weak"]
    assert of_search["strong"] > 0.8


def test_the_search_has_the_numbers_of_the_study_and_lives_as_it_does(runs):
    storage = open_storage(runs / "smoke")
    search = optuna.load_study(study_name=search_name("smoke"), storage=WithSearch(storage, "smoke"))
    assert [trial.number for trial in search.trials] == list(range(21))
    assert search.best_trial.number == 20
    study = optuna.load_study(study_name="smoke", storage=open_storage(runs / "smoke"))
    tell(study, 0.9, strong=1.0, weak=0.0)  # another process goes on with the search
    assert search.best_trial.number == 37
    assert len(study.trials) == 38


def test_a_damaged_trial_is_no_evidence(runs):
    study = load_study("smoke", runs)
    tell(study, 7.0, strong=0.0, weak=0.0)  # no score
    assert len(load_search("smoke", runs).trials) == 21


def test_the_search_can_be_neither_removed_nor_extended(runs):
    storage = WithSearch(open_storage(runs / "smoke"), "smoke")
    names = [study.study_name for study in storage.get_all_studies()]
    assert names == ["smoke", "smoke (search)"]
    for change in (storage.delete_study, storage.create_new_trial):
        with pytest.raises(KeyError, match="is a view of a study"):
            change(storage.search_id)
    with pytest.raises(KeyError):
        WithSearch(open_storage(runs / "smoke"), "other")
    storage.set_study_user_attr(storage.search_id, "note", "x")
    assert storage.get_study_user_attrs(storage.get_study_id_from_name("smoke")) == {"note": "x"}


def test_the_tables_tell_the_search_from_its_repeats(tmp_path):
    _, study = new_study(tmp_path)
    for ratio in (0.4, 0.6):
        add_trial(study, ratio)
    add_trial(study, 0.7, "pruned")
    add_trial(study, 0.4, seed=1, repeats=0)
    tables = load("smoke", runs=tmp_path)
    assert tables.finished("smoke")["trial"].tolist() == [0, 1, 3]
    assert tables.search("smoke")["trial"].tolist() == [0, 1]
