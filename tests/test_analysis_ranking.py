"""Rankings: means over fresh seeds alone, differences seed by seed, significant only where the intervals allow."""

import math

import pandas as pd
import pytest
from scipy import stats
from studies import add_run, add_trial, new_study

from analysis.intervals import half_width, mean_and_interval, verdict
from analysis.load import load
from analysis.ranking import by_search, ranking
from launch.state.trials import best_first


@pytest.fixture
def study(tmp_path):
    """Trial 1 was lucky in the search and is no better; trial 2 is better with every seed; 3 was not repeated."""
    folder, study = new_study(tmp_path)
    for ratio, value in ((0.4, 0.30), (0.6, 0.50), (0.8, 0.40), (0.2, 0.10)):
        add_run(folder, study, ratio, value)
    add_trial(study, 0.9, "pruned")
    for seed, level in enumerate((0.2, 0.3, 0.4), 1):
        add_run(folder, study, 0.4, level, seed=seed, repeats=0)
        add_run(folder, study, 0.6, level + (-0.02, 0.03, -0.013)[seed - 1], seed=seed, repeats=1)
        add_run(folder, study, 0.8, level + 0.01 + 0.0001 * seed, seed=seed, repeats=2)
    add_run(folder, study, 0.4, 0.9, seed=4, repeats=0)
    add_trial(study, 0.8, "running", seed=4, repeats=2)
    return load("smoke", runs=tmp_path)


def test_settings_with_fresh_seeds_come_first_by_their_difference(study):
    ranked = ranking(study, "smoke")
    assert ranked["trial"].tolist() == [2, 0, 1, 3]
    assert ranked["param/mask_ratio"].tolist() == [0.8, 0.4, 0.6, 0.2]
    assert ranked["seeds"].tolist() == [3, 4, 3, 0]
    assert ranked["searched"].tolist() == [0.40, 0.30, 0.50, 0.10]
    assert ranked["mean"].tolist()[:3] == pytest.approx([0.3102, 0.45, 0.299])  # trial 0 has a fourth, easy seed
    assert math.isnan(ranked["mean"][3])


def test_differences_are_taken_seed_by_seed_and_hold_together(study):
    ranked = ranking(study, "smoke").set_index("trial")
    assert ranked["difference"][[1, 2]].tolist() == pytest.approx([-0.001, 0.0102])
    differences = pd.Series([-0.02, 0.03, -0.013])
    wide = stats.t.ppf(1 - 0.025 / 2, 2) * differences.std() / math.sqrt(3)  # two settings are compared
    assert ranked["difference_half_width"][1] == pytest.approx(wide)
    assert ranked["verdict"].tolist() == ["better", "", "not significant", ""]
    assert ranked["half_width"][2] > 0.2  # the means themselves do not differ significantly: only the pairs do


def test_a_study_without_repeats_is_ranked_by_the_search_and_tells_nothing(all_states):
    ranked = ranking(load("smoke", runs=all_states), "smoke")
    assert ranked["trial"].tolist() == [0, 5]  # one repeat alone comes before none
    assert ranked["verdict"].tolist() == ["", ""]
    new_study(all_states, "empty")
    ranked = ranking(load("empty", runs=all_states), "empty")
    assert len(ranked) == 0
    assert "mean" in ranked


def test_without_repeats_the_first_is_the_best_trial_of_the_launcher(tmp_path):
    folder, study = new_study(tmp_path)
    for ratio, value in ((0.4, 0.30), (0.6, 0.50), (0.8, 0.40), (0.2, 0.50)):
        add_run(folder, study, ratio, value)
    ranked = ranking(load("smoke", runs=tmp_path), "smoke")
    assert best_first(study.get_trials())[0].number == 1
    assert ranked["trial"].tolist() == by_search(ranked) == [1, 3, 2, 0]
    add_run(folder, study, 0.8, 0.9, seed=1, repeats=2)  # first in the ranking, but no score of the search
    ranked = ranking(load("smoke", runs=tmp_path), "smoke")
    assert best_first(study.get_trials())[0].number == 1
    assert (ranked["trial"][0], by_search(ranked)) == (2, [1, 3, 2, 0])


def test_the_interval_is_students(study):
    values = [0.1, 0.4, 0.2, 0.3]
    low, high = stats.t.interval(0.95, 3, loc=0.25, scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert half_width(values, together=5) > half_width(values)
    assert math.isnan(half_width([0.3]))


def test_words_for_numbers():
    assert [verdict(0.1, 0.05), verdict(-0.1, 0.05), verdict(0.01, 0.05), verdict(0.1, math.nan)] == [
        "better",
        "worse",
        "not significant",
        "",
    ]
    assert mean_and_interval(0.41234, 0.03) == "0.412 ± 0.030"
    assert mean_and_interval(0.01, math.nan, sign=True) == "+0.010"
    assert mean_and_interval(math.nan, 0.1) == ""
