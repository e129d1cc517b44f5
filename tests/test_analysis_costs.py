"""The costs of a study's runs, counted once for all that cost the same."""

import dataclasses
import json

import pytest
from studies import add_run, add_trial, new_study
from tiny import tiny_config

from analysis.costs import costs
from analysis.load import load
from fsr import cost


@pytest.fixture
def counted(monkeypatch):
    """The configurations that were counted."""
    seen = []

    def cost_of(config, *others):
        seen.append(config)
        return cost.Cost({"encoder": 3_000_000}, {"student": 7}, 2e12 * config.depth, 4e15, {1.0: 5e11}, {"H100": 0.5})

    monkeypatch.setattr(cost, "cost_of", cost_of)
    return seen


def test_trials_that_cost_the_same_share_a_row_and_are_counted_once(tmp_path, counted):
    folder, study = new_study(tmp_path)
    for number, changes in enumerate(({}, {"lr": 0.1, "seed": 7}, {"depth": 4}, {"w_class": 0.3})):
        add_run(folder, study, 0.1 * (number + 1), 0.2)
        config = dataclasses.replace(tiny_config(tmp_path, batch_size=2), **changes)
        folder.run(number).config_file.write_text(json.dumps(config.to_json()))
    add_trial(study, 0.5, "running")
    add_run(folder, study, 0.6, 0.3)  # whose configuration is gone
    table = costs(load("smoke", runs=tmp_path).trials, tmp_path)
    assert len(counted) == len(table) == 2
    assert table["of"].tolist() == [3, 1] and table["depth"].tolist() == [3, 4]
    first = table.iloc[0]
    assert first["parameters, million"] == 3 and first["TFLOP a step"] == 6 and first["H100, h"] == 0.5
    assert first["images/s"] == 2.0 * 2 and first["TFLOP/s"] == 12


def test_a_study_without_a_finished_trial_has_no_costs(tmp_path, counted):
    _, study = new_study(tmp_path)
    add_trial(study, 0.5, "running")
    assert costs(load("smoke", runs=tmp_path).trials, tmp_path).empty


def test_every_field_that_costs_nothing_is_one(tmp_path):
    """A field that is renamed must not be left in the list."""
    from analysis.costs import _FREE, _WEIGHTS

    fields = {field.name for field in dataclasses.fields(tiny_config(tmp_path))}
    assert {*_FREE, *_WEIGHTS} <= fields


@pytest.mark.slow
def test_fields_that_cost_nothing_change_no_operation(tmp_path):
    from test_exported import other_value  # another value of every field

    from analysis.costs import _FREE
    from fsr.flops import step_flops

    config = tiny_config(tmp_path)
    wild = ("pretrained", "use_aa", "use_gauss", "augment")  # which need files, or contradict each other
    free = [field for field in dataclasses.fields(config) if field.name in _FREE and field.name not in wild]
    changed = dataclasses.replace(config, **{field.name: other_value(field) for field in free})
    assert step_flops(changed, [9]) == step_flops(config, [9])
