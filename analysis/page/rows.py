"""The tables of the study page as texts: its settings, best first, and all its trials."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.intervals import mean_and_interval
from analysis.page.chart import Named
from analysis.ranking import parameters
from analysis.tables import UNKNOWN
from fsr.setting_text import setting_text


@dataclass(frozen=True)
class SettingRow:
    """A setting of the search."""

    trial: int
    params: list[str]
    code: str
    """Version that trained it, where the study has several."""
    searched: str
    seeds: str
    mean: str
    difference: str
    verdict: str


def setting_rows(ranked: pd.DataFrame) -> list[SettingRow]:
    """A `ranking` in its order."""
    names = parameters(ranked)
    return [
        SettingRow(
            trial=int(row["trial"]),
            params=[setting_text(row[name]) if pd.notna(row[name]) else "" for name in names],
            code=str(row.get("code", "")),
            searched=mean_and_interval(row["searched"], math.nan),
            seeds=str(row["seeds"] or ""),
            mean=mean_and_interval(row["mean"], row["half_width"]),
            difference=mean_and_interval(row["difference"], row["difference_half_width"], sign=True),
            verdict=row["verdict"],
        )
        for _, row in ranked.iterrows()
    ]


@dataclass(frozen=True)
class TrialRow:
    """A trial, whatever became of it."""

    trial: int
    state: str
    seed: int
    score: str
    steps: str
    ends: str
    hours: str
    setting: str
    trouble: str
    """Error and damage."""


def trial_rows(trials: pd.DataFrame, metric: str, names: Named) -> list[TrialRow]:
    """All trials of a study, by number."""
    return [
        TrialRow(
            trial=int(row["trial"]),
            state=row["state"],
            seed=row["seed"],
            score=mean_and_interval(row[metric], math.nan) if metric in trials and pd.notna(row[metric]) else "–",
            steps=f"{row['step']:.0f} of {row['iterations']:.0f}" if pd.notna(row["step"]) else "",
            ends=ends_of(row),
            hours=f"{row[['useful_h', 'repeated_h', 'lost_h']].sum():.2f}",
            setting=names.row(row["trial"])["setting"],
            trouble="; ".join(str(row[name]) for name in ("error", "damage") if pd.notna(row[name])),
        )
        for _, row in trials.iterrows()
    ]


def ends_of(row: "pd.Series[Any]") -> str:
    """How the attempts of a trial ended; one that still works has not."""
    ends = [] if pd.isna(row["causes"]) else row["causes"].split(", ")
    working = row["state"] == "running" and ends[-1:] == [UNKNOWN]
    return ", ".join(ends[:-1] if working else ends)


def costs(trials: pd.DataFrame) -> str:
    """GPU-hours in a sentence."""
    useful, repeated, lost = (trials[name].sum() for name in ("useful_h", "repeated_h", "lost_h"))
    whole = useful + repeated + lost
    if not whole:
        return "No attempt has ended yet."
    shares = f"{useful / whole:.0%} useful, {repeated / whole:.0%} repeated after an end without a checkpoint"
    shares += f", {lost / whole:.0%} lost in trials that failed"
    return f"{whole:.2f} GPU-hours (hours of ranks where there is no GPU): {shares}."
