"""A paper's table of a study: what its settings come to in each column, and how they differ from trial 0's."""

import dataclasses
import math
from dataclasses import dataclass

import pandas as pd

from analysis.ranking import ranking, setting_names
from analysis.scores import TITLES
from analysis.tables import Tables

MEASURED = ("network", "set", "kind")  # what a column of the table is one of


def compared(tables: Tables, study: str, checkpoints: pd.DataFrame) -> pd.DataFrame:
    """The `ranking` of the study's settings in each column, one below the other: by `network`, `set` and `kind`.

    `checkpoints` are those of `analysis.scores.Scores`. Means are taken over fresh seeds, differences from trial 0 seed
    by seed; of each column, the intervals hold for all its settings at once. `searched` is the score of the checkpoint
    of the search.
    """
    own = tables.trials[tables.trials["study"] == study]
    parts = []
    for measured, rows in checkpoints.groupby(list(MEASURED), sort=False):
        scores = own["trial"].map(rows.set_index("trial")["miou"].astype(float))
        ranked = ranking(dataclasses.replace(tables, trials=own.assign(evaluated=scores)), study, "evaluated")
        ranked = ranked[ranked["searched"].notna() | (ranked["seeds"] > 0)]
        parts.append(ranked.assign(**dict(zip(MEASURED, measured, strict=True))))
    together = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(MEASURED))
    ordered: pd.DataFrame = together[[*MEASURED, *(name for name in together if name not in MEASURED)]]
    return ordered


@dataclass(frozen=True)
class Cell:
    """A number of the table as text, in percent; empty where it was not measured."""

    text: str = ""
    verdict: str = ""
    """Of a difference from trial 0: better, worse, not significant, or empty."""


@dataclass(frozen=True)
class Row:
    """A setting under one network."""

    trial: int
    setting: str
    network: str
    seeds: str
    """How many fresh seeds its numbers are means of."""
    cells: tuple[Cell, ...]
    """In the order of the columns."""


@dataclass(frozen=True)
class PaperTable:
    """The table as texts, for a terminal or a page."""

    columns: tuple[str, ...]
    means: tuple[Row, ...]
    differences: tuple[Row, ...]
    """From trial 0, of the settings that share fresh seeds with it."""


def paper_table(compared: pd.DataFrame, trials: pd.DataFrame) -> PaperTable:
    """The table of `compared` numbers: trial 0's setting first, then the best; `trials` of the study give the names."""
    if compared.empty:
        return PaperTable((), (), ())
    names = setting_names(trials)
    pairs = compared[["set", "kind"]].drop_duplicates().itertuples(index=False, name=None)
    kinds = list(TITLES)
    columns = sorted(pairs, key=lambda pair: (not pair[0].startswith("train"), pair[0], kinds.index(pair[1])))
    by_place = {(row["trial"], row["network"], row["set"], row["kind"]): row for _, row in compared.iterrows()}
    order = compared[compared["kind"] == columns[-1][1]]["trial"].drop_duplicates().tolist()
    order += [trial for trial in compared["trial"].drop_duplicates() if trial not in order]
    means, differences = [], []
    for trial in sorted(order, key=lambda trial: (trial != 0, order.index(trial))):
        for network in compared["network"].drop_duplicates():
            there = [by_place.get((trial, network, *column)) for column in columns]
            found = [row for row in there if row is not None]
            if not found:
                continue
            about = (int(trial), names[trial], str(network))
            seeds, paired = (max(int(row[name]) for row in found) for name in ("seeds", "pairs"))
            means.append(Row(*about, str(seeds or "1 (search)"), tuple(_mean(row, seeds) for row in there)))
            if paired:
                differences.append(Row(*about, str(paired), tuple(_difference(row) for row in there)))
    titles = tuple(f"{TITLES[kind]}, {name}" for name, kind in columns)
    return PaperTable(titles, tuple(means), tuple(differences))


def _mean(row: "pd.Series | None", seeds: int) -> Cell:
    """Mean over fresh seeds, or the search's score; says over how many seeds where others have more."""
    if row is None:
        return Cell()
    own = int(row["seeds"])
    text = in_percent(row["mean"], row["half_width"]) if own else in_percent(row["searched"])
    return Cell(f"{text} ({own or 1})" if own < seeds else text)


def _difference(row: "pd.Series | None") -> Cell:
    if row is None or not row["pairs"]:
        return Cell()
    return Cell(in_percent(row["difference"], row["difference_half_width"], sign=True), row["verdict"])


def in_percent(mean: float, width: float = math.nan, sign: bool = False) -> str:
    """A fraction and half its interval in percent, `41.2 ± 3.0`; a dash where it could not be measured."""
    if math.isnan(mean):
        return "–"
    return f"{100 * mean:{'+' if sign else ''}.1f}" + ("" if math.isnan(width) else f" ± {100 * width:.1f}")
