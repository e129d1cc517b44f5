"""Thresholds that follow the run: the cosine, and the mixture on the CAMs' histogram against plain loops."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import tiny_config

from fsr import thresholds
from fsr.checkpoint import TrainState, load_file
from fsr.config import synthetic, voc
from fsr.errors import UserError
from fsr.mixture import Mixture, boundaries, fitted
from fsr.run import Run
from fsr.schedules import falling_threshold
from fsr.tensor_file import write_tensors
from fsr.thresholds import BINS, ThresholdMixture, thresholds_of
from fsr.train import train

CPU = torch.device("cpu")


def start(low: float = 0.25, high: float = 0.7) -> Mixture:
    """A mixture before it has seen anything."""
    return Mixture(*ThresholdMixture(low, high).mixture)


def plain_em(weights, means, variances, samples, rounds, least_variance):
    """EM sample by sample. Each component keeps a thousandth of all mass as it was (kept=1e-3)."""
    kept = len(samples) / 1000
    for _ in range(rounds):
        sums = [[0.0, 0.0, 0.0] for _ in means]
        for x in samples:
            parts = [
                w * math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
                for w, m, v in zip(weights, means, variances, strict=True)
            ]
            for k, part in enumerate(parts):
                sums[k][0] += part / sum(parts)
                sums[k][1] += part / sum(parts) * x
        new_means = [(s[1] + kept * m) / (s[0] + kept) for s, m in zip(sums, means, strict=True)]
        for x in samples:
            parts = [
                w * math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(v)
                for w, m, v in zip(weights, means, variances, strict=True)
            ]
            for k, part in enumerate(parts):
                sums[k][2] += part / sum(parts) * (x - new_means[k]) ** 2
        variances = [
            max((s[2] + kept * v) / (s[0] + kept), least_variance) for s, v in zip(sums, variances, strict=True)
        ]
        weights = [(s[0] + kept) / (len(samples) + len(means) * kept) for s in sums]
        means = new_means
    order = sorted(range(len(means)), key=lambda k: means[k])
    return [[part[k] for k in order] for part in (weights, means, variances)]


def test_the_mixture_of_a_histogram_is_that_of_its_samples_one_by_one():
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 9, 40)
    values = (np.arange(40) + 0.5) / 40
    begin = [[0.2, 0.5, 0.3], [0.6, 0.3, 0.9], [0.01, 0.02, 0.0005]]  # not in order
    expected = plain_em(*begin, list(np.repeat(values, counts)), rounds=7, least_variance=0.004)
    found = fitted(
        Mixture(*torch.tensor(begin, dtype=torch.float64)),
        torch.from_numpy(values),
        torch.from_numpy(counts),
        rounds=7,
        kept=1e-3,
        least_variance=0.004,
    )
    assert torch.stack(found).tolist() == [pytest.approx(part, rel=1e-9) for part in expected]


def test_many_histograms_at_once_give_the_mixtures_of_each():
    counts = torch.randint(20, (5, 30))
    values = (torch.arange(30) + 0.5) / 30
    many = Mixture(*(part.expand(5, 3) for part in start()))
    together = fitted(many, values, counts, rounds=3, kept=1e-3, least_variance=1e-4)
    own_values = fitted(many, values.expand(5, 30), counts, rounds=3, kept=1e-3, least_variance=1e-4)
    for index, row in enumerate(counts):
        alone = fitted(start(), values, row, rounds=3, kept=1e-3, least_variance=1e-4)
        for part, same, own in zip(together, own_values, alone, strict=True):
            assert torch.equal(part[index], own) and torch.equal(same[index], own)


def test_a_histogram_of_nothing_leaves_the_mixture_as_it_is():
    found = fitted(start(), torch.arange(10) / 10, torch.zeros(10), rounds=5, kept=1e-3, least_variance=1e-4)
    assert all(torch.allclose(part, was) for part, was in zip(found, start(), strict=True))


def test_the_boundary_is_where_the_likelier_neighbour_changes():
    mixture = Mixture(*torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.4, 0.8], [0.01, 0.02, 0.004]], dtype=torch.float64))

    def density(k: int, x: float) -> float:
        w, m, v = (float(part[k]) for part in mixture)
        return w * math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(v)

    for k, found in enumerate(boundaries(mixture).tolist()):
        left, right = float(mixture.means[k]), float(mixture.means[k + 1])
        for _ in range(50):
            middle = (left + right) / 2
            left, right = (middle, right) if density(k, middle) > density(k + 1, middle) else (left, middle)
        assert found == pytest.approx(left, abs=2e-3)


@pytest.mark.parametrize("weights, expected", [([1 - 1e-9, 1e-9], 0.42), ([1e-9, 1 - 1e-9], 0.4)])
def test_where_one_neighbour_is_likelier_all_the_way_the_boundary_is_the_others_mean(weights, expected):
    mixture = Mixture(*torch.tensor([weights, [0.4, 0.42], [0.01, 0.01]], dtype=torch.float64))
    assert boundaries(mixture).tolist() == pytest.approx([expected])


def drawn(weights, means, deviations, count=4000, seed=0) -> torch.Tensor:
    """CAM values of a known mixture, and as many where the ReLU cut."""
    draw = np.random.default_rng(seed)
    which = draw.choice(len(means), count, p=weights)
    values = draw.normal(np.array(means)[which], np.array(deviations)[which]).clip(0.01, 0.999)
    return torch.from_numpy(np.concatenate([values, np.zeros(count)])).float()


def test_thresholds_find_the_boundaries_of_what_the_cams_were_drawn_from():
    rule = ThresholdMixture(0.25, 0.7)
    assert rule.thresholds.tolist() == pytest.approx([0.25, 0.7])
    parts = [0.3, 0.4, 0.3], [0.12, 0.45, 0.85], [0.04, 0.1, 0.04]
    for step in range(60):
        rule.see(drawn(*parts, seed=step).view(2, 50, -1))
        rule.update(step)
    expected = boundaries(
        Mixture(*torch.tensor(parts, dtype=torch.float64))._replace(variances=torch.tensor(parts[2]).double() ** 2)
    )
    assert rule.thresholds.tolist() == pytest.approx(expected.tolist(), abs=0.02)


def test_the_mixture_forgets_cams_of_more_than_a_hundred_steps_ago(monkeypatch):
    monkeypatch.setattr(thresholds, "STEPS", 3)
    rule, fresh = ThresholdMixture(0.25, 0.7), ThresholdMixture(0.25, 0.7)
    for step, value in enumerate([0.9, 0.1, 0.3, 0.5]):
        rule.see(torch.full((10,), value))
        rule.update(step)
    for step, value in enumerate([0.1, 0.3, 0.5]):
        fresh.see(torch.full((10,), value))
        fresh.update(step)
    assert torch.equal(rule.counts.sum(0), fresh.counts.sum(0))
    assert rule.counts.sum() == 30


def test_values_are_counted_in_hundredths_and_nothing_else_is():
    rule = ThresholdMixture(0.25, 0.7)
    values = torch.tensor([0.0, 0.005, 0.015, 0.5, 0.509, 0.99999, 1.0, math.nan])
    rule.see(values)
    rule.update(0)
    bins = {index: int(count) for index, count in enumerate(rule.counts[0]) if count}
    assert bins == {0: 2, 1: 1, 50: 2, BINS - 1: 2}


def test_the_shares_of_a_step_add_up_however_it_is_split(monkeypatch):
    values = torch.rand(8, 30)
    whole, split = ThresholdMixture(0.25, 0.7), ThresholdMixture(0.25, 0.7)
    whole.see(values)
    whole.update(0)
    for part in values[:4].chunk(2):
        split.see(part)
    others = ThresholdMixture(0.25, 0.7)  # another process's
    others.see(values[4:])
    monkeypatch.setattr(thresholds.distributed, "total", lambda own: own + others._seen)
    split.update(0)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, split.state_dict()[name]), name


def test_the_cosine_falls_from_its_start_to_the_high_threshold_after_a_tenth():
    config = dataclasses.replace(voc(), threshold_rule="cosine", high_threshold_start=0.85, iterations=1000)
    highs = [thresholds_of(step, config)[1] for step in range(1000)]
    assert highs[:101] == [0.85] * 101
    assert highs[550] == pytest.approx((0.85 + 0.7) / 2)  # half of the way
    assert highs[-1] == pytest.approx(0.7, abs=1e-5)
    assert highs == sorted(highs, reverse=True)
    for step in (101, 300, 999):
        t, total = step - 100, 900
        assert highs[step] == pytest.approx(0.85 - 0.5 * (0.85 - 0.7) * (1 - math.cos(t * math.pi / total)))
    assert {thresholds_of(step, config)[0] for step in (0, 999)} == {0.25}


def test_the_cosine_starts_fifteen_hundredths_above_by_default():
    config = dataclasses.replace(voc(), threshold_rule="cosine")
    assert thresholds_of(0, config)[1] == pytest.approx(0.85)
    assert thresholds_of(0, dataclasses.replace(config, high_threshold=0.9))[1] == 1


@pytest.mark.parametrize("iterations", [1, 2, 9, 10, 11])
def test_the_shortest_runs_have_a_threshold_too(iterations):
    assert all(0.5 <= falling_threshold(step, iterations, 0.7, 0.5) <= 0.7 for step in range(iterations))


def test_a_start_below_the_high_threshold_is_refused():
    with pytest.raises(UserError, match=r"high_threshold_start must be at least high_threshold 0.7, .* got 0.6"):
        dataclasses.replace(voc(), high_threshold_start=0.6)


def test_fixed_thresholds_are_the_configurations_at_any_step():
    assert {thresholds_of(step, voc()) for step in (0, 10_000, 19_999)} == {(0.25, 0.7)}


@pytest.mark.parametrize("rule", ["fixed", "mixture"])
def test_metrics_hold_the_thresholds_where_they_change(synthetic_folder, tmp_path, rule):
    run = Run(tmp_path)
    train(tiny_config(synthetic_folder, threshold_rule=rule, iterations=4, eval_every=4, pictures=0), run)
    named = [name for name in run.metrics()[0] if "threshold" in name]
    assert named == ([] if rule == "fixed" else ["train/low_threshold", "train/high_threshold"])
    assert ("mixture" in load_file(run.checkpoint_file)) == (rule == "mixture")


def test_a_checkpoint_without_its_mixture_is_refused(tmp_path):
    config = dataclasses.replace(tiny_config(tmp_path), threshold_rule="mixture")
    run = Run(tmp_path)
    TrainState(config, CPU).save(run)
    TrainState(config, CPU).resume(run, CPU)
    content = load_file(run.checkpoint_file)
    del content["mixture"]
    write_tensors(content, run.checkpoint_file.open("wb"))
    with pytest.raises(UserError, match="it lacks thresholds, mixture, counts"):
        TrainState(config, CPU).resume(run, CPU)


def test_the_published_settings_have_no_mixture():
    assert TrainState(dataclasses.replace(synthetic(), embed_dim=24, out_dim=8), CPU).mixture is None
