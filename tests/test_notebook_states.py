"""The notebooks on studies in every state: what is there is shown, and what is missing is one sentence."""

import pytest
from notebook_cells import NOTEBOOKS, run_cells
from studies import add_trial, new_study



def empty(runs):
    new_study(runs)


def none_finished(runs):
    folder, study = new_study(runs)
    for state in ("running", "fail", "pruned", "waiting"):
        add_trial(study, 0.4, state)


STATES = {"no trial at all": empty, "no finished trial": none_finished}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_study_without_a_finished_trial_is_shown_as_far_as_it_is(name, state, tmp_path, monkeypatch):
    STATES[state](tmp_path)
    shown = run_cells(name, monkeypatch, "smoke", tmp_path)
    assert shown
    if name != "efficiency":
        assert any("finished" in str(getattr(part, "data", part)) for part in shown), shown
