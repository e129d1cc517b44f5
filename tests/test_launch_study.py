"""Every study of sweeps/ starts from the preset's own setting and suggests runs that are allowed."""

import dataclasses
import importlib
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from fsr.config import PRESETS, synthetic
from fsr.errors import UserError
from launch.study import Study, load

STUDIES = ("momentum", "mask_ratio", "block_size", "loss_weights", "joint", "smoke")
STUDIES += ("released_choices", "ingredients", "recipe")


@pytest.mark.parametrize("dataset", PRESETS)
@pytest.mark.parametrize("name", STUDIES)
def test_trial_0_is_the_base_and_all_others_are_allowed(name, dataset):
    study = load(name)
    assert study.name == name
    base = study.base(dataset, None, None, None)
    assert replace(base, **study.first_settings(base)) == base
    session = optuna.create_study(sampler=study.sampler_for(1, base))
    for params in study.known_params(base):
        session.enqueue_trial(params)
    for _ in range(20):
        config = replace(base, **study.settings_of(session.ask(), base))
        assert 0 < config.momentum < 1


def test_block_size_orders_each_setting_once():
    for dataset in PRESETS:
        study = load("block_size")
        base = study.base(dataset, None, None, None)
        assert study.size(base) == study.trials == len(study.known(base))


@pytest.mark.parametrize("dataset", PRESETS)
@pytest.mark.parametrize("name, cells", [("released_choices", 64), ("recipe", 135)])
def test_a_grid_has_each_combination_once_first_one_change_at_a_time_then_the_most(name, cells, dataset):
    study = load(name)
    base = study.base(dataset, None, None, None)
    known = study.known(base)
    # Of the test bed, w_aff is none of the values, and comes first.
    more = 1 if (name, dataset) == ("recipe", "test_bed") else 0
    assert study.size(base) == cells + more * cells // 5 == len(known) == len({str(cell) for cell in known})
    changes = [sum(getattr(base, field) != value for field, value in cell.items()) for cell in known]
    singles = study.trials - (2 if name == "released_choices" else 1) + more
    assert changes[: 1 + singles] == [0] + [1] * singles
    assert changes[1 + singles :] == sorted(changes[1 + singles :], reverse=True) and changes[1 + singles] == len(
        known[0]
    )


def test_ingredients_are_tried_alone_and_the_claims_are_of_the_same():
    base = synthetic()
    module = importlib.import_module("sweeps.ingredients")
    tried = [module.suggest(optuna.trial.FixedTrial(params), base) for params in module.known(base)]
    assert tried[0] == {} and tried[1:] == [module.together(option) for option in module.OPTIONS]
    assert all(fields and dataclasses.replace(base, **fields) != base for fields in tried[1:])
    assert len(tried) == module.study.trials


def test_different_ingredients_change_different_fields_so_that_any_go_together():
    module = importlib.import_module("sweeps.ingredients")
    fields = [{field for changes in options.values() for field in changes} for options in module.INGREDIENTS.values()]
    assert sum(map(len, fields)) == len(set.union(*fields))


def test_momentum_is_searched_around_the_presets_own():
    for dataset, low, high in (("voc", 5e-5, 5e-3), ("synthetic", 2e-3, 0.2)):
        study = load("momentum")
        space = study.space(study.base(dataset, None, None, None))["1-momentum"]["attributes"]
        assert (space["low"], space["high"], space["log"]) == (pytest.approx(low), pytest.approx(high), True)


def test_a_shorter_run_is_evaluated_as_often():
    study = load("momentum")
    assert study.base("voc", Path("data"), 200, 3).eval_every == 20
    assert study.base("voc", Path("data"), 200, 3).seed == 3


def test_a_name_that_is_no_folder_name_is_refused():
    with pytest.raises(UserError, match="a study's name consists of a-z, 0-9, _ and -, got 'a/b'"):
        Study(name="a/b", suggest=lambda trial, base: {}, known=lambda base: [{}], trials=1)
