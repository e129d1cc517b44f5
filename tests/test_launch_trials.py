"""The best trial: of the search, finished, highest value; the first of equal ones."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from launch.state.trials import REPEATS, SEED, best_first, search_trials


@pytest.fixture
def trials():
    """Makes the trials of a study from their values; a pair is a repeat of that trial, a word another state."""

    def make(*values):
        study = optuna.create_study(direction="maximize")
        for value in values:
            state = TrialState[value.upper()] if isinstance(value, str) else TrialState.COMPLETE
            repeats, value = value if isinstance(value, tuple) else (None, value)
            study.add_trial(
                create_trial(
                    state=state,
                    value=None if isinstance(value, str) else value,
                    params={"mask_ratio": 0.4},
                    distributions={"mask_ratio": FloatDistribution(0.05, 0.95)},
                    user_attrs={} if repeats is None else {SEED: 1, REPEATS: repeats},
                )
            )
        return study.get_trials()

    return make


def test_the_highest_value_wins_and_of_equal_values_the_first(trials):
    assert best_first(trials(0.2, 0.5, 0.3, 0.5))[0].number == 1
    assert best_first(trials(0.02, 0.005))[0].number == 0
    assert best_first(trials(0.0))[0].number == 0


def test_a_repeat_is_never_the_best(trials):
    study = trials(0.2, 0.5, (0, 0.9), (1, 0.7), 0.4)
    assert best_first(study)[0].number == 1
    assert [trial.number for trial in search_trials(study)] == [0, 1, 4]


def test_only_finished_trials_count(trials):
    assert best_first(trials("running", "fail", "pruned", "waiting", 0.1))[0].number == 4
    assert best_first(trials("running", "fail", (0, 0.9))) == []
    assert best_first([]) == []
