"""Confidence intervals of means and of differences, and what they say."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def half_width(values: "Sequence[float] | pd.Series[float]", together: int = 1) -> float:
    """Half the width of the 95 % confidence interval of a mean (Student's t); NaN for fewer than two values.

    With `together` intervals all of them hold at once with 95 % (Bonferroni).
    """
    n = len(values)
    if n < 2:
        return math.nan
    quantile = stats.t.ppf(1 - 0.025 / together, n - 1)
    return float(quantile * np.std(values, ddof=1) / math.sqrt(n))


def difference(ours: "pd.Series[float]", theirs: "pd.Series[float]") -> tuple[float, float, str]:
    """Mean of theirs − ours, half its 95 % interval (NaN where there is none), and how it was taken.

    Runs of the same seed start alike, so they are compared pair by pair if two or more seeds are common; else Welch's
    interval for two independent means.
    """
    paired = (theirs - ours).dropna()
    if len(paired) > 1:
        return paired.mean(), half_width(paired), f"{len(paired)} seeds in pairs"
    if min(len(ours), len(theirs)) > 1:
        interval = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval(0.95)
        return theirs.mean() - ours.mean(), (interval.high - interval.low) / 2, f"{len(theirs)} and {len(ours)} seeds"
    return theirs.mean() - ours.mean(), math.nan, "one seed: no interval"


def verdict(difference: float, width: float) -> str:
    """What the interval of a difference says: better, worse or not significant; empty where there is none."""
    if math.isnan(width):
        return ""
    if abs(difference) <= width:
        return "not significant"
    return "better" if difference > 0 else "worse"


def mean_and_interval(mean: float, width: float, sign: bool = False) -> str:
    """A mean and its interval as text: 0.412 ± 0.030; empty where there is none. Differences have a `sign`."""
    if math.isnan(mean):
        return ""
    return f"{mean:{'+' if sign else ''}.3f}" + ("" if math.isnan(width) else f" ± {width:.3f}")


def seeds_needed(difference: float, width: float, seeds: int, together: int = 1, most: int = 100) -> int | None:
    """How many seeds would make a difference of this size significant, if it and its spread stayed as they are.

    `width` is half its interval over `seeds` pairs, of `together` intervals; None if more than `most` are needed. It is
    a guess for planning: the difference that more seeds show will be another one.
    """
    if seeds < 2 or not math.isfinite(width) or difference == 0:
        return None
    spread = width * math.sqrt(seeds) / stats.t.ppf(1 - 0.025 / together, seeds - 1)
    enough = (
        n
        for n in range(2, most + 1)
        if stats.t.ppf(1 - 0.025 / together, n - 1) * spread / math.sqrt(n) < abs(difference)
    )
    return next(enough, None)
