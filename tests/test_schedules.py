"""The schedules' ends, bounds and directions, for any length of run."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsr.config import coco, synthetic, voc
from fsr.schedules import lr_factor, teacher_momentum, teacher_temperature


@given(st.integers(0, 300), st.integers(1, 1000))
def test_the_learning_rate_rises_then_falls_and_stays_in_range(warmup, rest):
    iterations = warmup + rest
    factors = [lr_factor(step, warmup, iterations) for step in range(iterations)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[warmup] == 1
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


@given(st.floats(0, 1), st.integers(1, 500))
def test_the_teachers_momentum_rises_from_its_start_to_one(start, steps):
    momenta = [teacher_momentum(step, start, steps) for step in range(steps + 5)]
    assert momenta[0] == pytest.approx(start)
    assert momenta[-1] == 1
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(momenta))


@given(st.integers(0, 100))
def test_the_teachers_temperature_rises_over_its_warmup_and_stays(warmup):
    temperatures = [teacher_temperature(step, warmup, 0.04, 0.07) for step in range(warmup + 3)]
    assert temperatures[-1] == 0.07
    assert temperatures[0] == (0.04 if warmup else 0.07)
    assert temperatures == sorted(temperatures)


def test_losses_start_where_the_paper_says():
    def first_step(config, name):
        return next(step for step in range(config.iterations) if config.loss_weights(step)[name] > 0)

    assert [first_step(voc(), name) for name in ("aff", "seg", "reg")] == [0, 2_000, 2_000]
    assert [first_step(coco(), name) for name in ("aff", "seg", "reg")] == [12_000, 8_000, 8_000]
    assert voc().warmup_steps == coco().warmup_steps == 1_500


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_masks_are_random_for_exactly_the_first_fifth(iterations, step):
    config = dataclasses.replace(voc(), iterations=iterations)
    assert config.masks_at_random(step) == (step < iterations // 5)


@pytest.mark.parametrize("iterations", [*range(1, 60), *range(5_000, 100_001, 5_000), *range(10**9 - 9, 10**9 + 1)])
def test_the_first_fifth_ends_where_the_released_one_does(iterations):
    config, fifth = dataclasses.replace(voc(), iterations=iterations), iterations // 5
    assert not config.masks_at_random(fifth) and (fifth == 0 or config.masks_at_random(fifth - 1))


@given(st.integers(1, 10**6), st.integers(0, 100))
def test_masks_are_random_before_any_percent_of_the_run(iterations, percent):
    config = dataclasses.replace(voc(), iterations=iterations, uncertain_from=percent / 100)
    steps = iterations * percent // 100
    assert not config.masks_at_random(steps) or percent == 100
    assert steps == 0 or config.masks_at_random(steps - 1)


@given(st.integers(1, 10**9))
def test_masks_are_always_random_at_1_and_never_at_0(iterations):
    always, never = (dataclasses.replace(voc(), iterations=iterations, uncertain_from=at) for at in (1.0, 0.0))
    assert always.masks_at_random(iterations - 1) and not never.masks_at_random(0)


def test_self_reinforcement_goes_from_fsr_from_to_fsr_iters():
    config = dataclasses.replace(synthetic(), iterations=200, fsr_from=0.25, fsr_iters=100)
    counts = [config.loss_weights(step)["patch"] > 0 and config.loss_weights(step)["class"] > 0 for step in range(200)]
    assert counts == [50 <= step < 100 for step in range(200)]
