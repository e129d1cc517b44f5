"""Studies side by side: `fsr compare --study mask_ratio block_size`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("compare")

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from rich.table import Table

from analysis.intervals import difference, half_width, mean_and_interval, verdict
from analysis.load import RUNS, definition_of, load, named, study_folder
from analysis.ranking import ranking, setting_name
from analysis.tables import Tables
from fsr.command import parse_flags
from fsr.console import console
from fsr.errors import UserError, reports_user_errors
from fsr.score_names import MAIN_SCORES, title_of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare studies: what each came to, and how their best settings differ.

    Examples:
        --study mask_ratio block_size
        --study mask_ratio momentum --runs DIR
    """

    study: tuple[str, ...]
    """Names of the studies; the first is compared with all others."""
    runs: Path = RUNS
    """Folder of all studies."""


@dataclass(frozen=True)
class Best:
    """A study's best setting: the first of its `ranking` by segmentation mIoU."""

    row: pd.Series
    scores: dict[str, pd.Series]
    """By score, the values by seed: of its repeats, or of the search's one run where there are none."""

    @classmethod
    def of(cls, tables: Tables, study: str) -> "Best | None":
        """None for a study without finished trials."""
        ranked = ranking(tables, study)
        if ranked.empty:
            return None
        row, trials = ranked.iloc[0], tables.finished(study)
        repeated = row["seeds"] > 0
        runs = trials[(trials["setting"] == row["trial"]) & ((trials["trial"] != row["trial"]) == repeated)]
        return cls(row, {score: runs.set_index("seed")[score].dropna() for score in MAIN_SCORES if score in runs})


def side_by_side(tables: Tables, bases: dict[str, dict[str, Any]], best: dict[str, Best | None]) -> Table:
    """A column a study."""
    drawn = Table("", *best, title="studies")

    def add(name: str, values: list[object]) -> None:
        drawn.add_row(name, *map(str, values))

    trials = {study: tables.trials[tables.trials["study"] == study] for study in best}
    add("data, steps", [f"{base['dataset']}, {base['iterations']}" for base in bases.values()])
    counts = [rows["state"].value_counts() for rows in trials.values()]
    add("trials", [", ".join(f"{n} {state}" for state, n in count.items() if n) for count in counts])
    add("best setting", [setting_name(found.row) if found else "none finished" for found in best.values()])
    for score in MAIN_SCORES:
        values = [found.scores.get(score, pd.Series(dtype=float)) if found else pd.Series() for found in best.values()]
        add(f"its {title_of(score)}", [mean_and_interval(series.mean(), half_width(series)) for series in values])
    add("fresh seeds", ["" if not found else seeds_of(found) for found in best.values()])
    hours = [rows[["useful_h", "repeated_h", "lost_h"]].sum() for rows in trials.values()]
    add("GPU-hours", [f"{row.sum():.2f}" for row in hours])
    add("of which useful", [f"{row['useful_h'] / row.sum():.1%}" if row.sum() else "" for row in hours])
    return drawn


def seeds_of(found: Best) -> str:
    """How many seeds the scores of a best setting are means of."""
    return str(found.row["seeds"] or "none: scores of the run by which it was chosen, too high by luck")


def differences(best: dict[str, Best]) -> Table:
    """How the best settings of the other studies differ from the first study's."""
    (first, ours), *others = best.items()
    drawn = Table("score", "difference", "mean ± 95 %", "over", "verdict", title="differences")
    for (study, theirs), score in itertools.product(others, MAIN_SCORES):
        if score in ours.scores and score in theirs.scores:
            mean, width, how = difference(ours.scores[score], theirs.scores[score])
            says = verdict(mean, width) or "not known"
            drawn.add_row(title_of(score), f"{study} − {first}", mean_and_interval(mean, width, sign=True), how, says)
    return drawn


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "compare", arguments)
    studies = named(options.study)
    if len(studies) < 2:
        raise UserError(f"name at least two different studies, got --study {studies[0]}")
    tables = load(*studies, runs=options.runs)
    bases = {study: definition_of(study_folder(study, options.runs))["base"] for study in studies}
    best = {study: Best.of(tables, study) for study in studies}
    out = console()
    out.print(side_by_side(tables, bases, best))
    compared = {study: found for study, found in best.items() if found}
    if len(compared) > 1:
        out.print(differences(compared))
    unlike = {(base["dataset"], base["val_set"], base["iterations"]) for base in bases.values()}
    if len(unlike) > 1:
        out.print("note: these studies differ in data or length, so their scores say nothing about their settings")


if __name__ == "__main__":
    main()
