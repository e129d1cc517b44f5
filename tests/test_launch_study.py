"""Every study of sweeps/ starts from the preset's own setting and suggests runs that are allowed."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from fsr.config import PRESETS
from fsr.errors import UserError
from launch.study import Study, load

STUDIES = ("momentum", "mask_ratio", "block_size", "loss_weights", "joint", "smoke")


@pytest.mark.parametrize("dataset", PRESETS)
@pytest.mark.parametrize("name", STUDIES)
def test_trial_0_is_the_base_and_all_others_are_allowed(name, dataset):
    study = load(name)
    assert study.name == name
    base = study.base(dataset, None, None, None)
    first = study.suggest(optuna.trial.FixedTrial(study.known(base)[0]), base)
    assert replace(base, **first) == base
    session = optuna.create_study(sampler=study.sampler_for(1, base))
    for settings in study.known(base):
        session.enqueue_trial(settings)
    for _ in range(20):
        config = replace(base, **study.suggest(session.ask(), base))
        assert 0 < config.momentum < 1


def test_block_size_orders_each_setting_once():
    for dataset in PRESETS:
        study = load("block_size")
        base = study.base(dataset, None, None, None)
        assert study.size(base) == study.trials == len(study.known(base))


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
