"""The settings of a study, ranked: means over fresh seeds with intervals, differences from trial 0's seed by seed."""

import math

import pandas as pd

from analysis.intervals import half_width, verdict
from analysis.tables import Tables
from fsr.score_names import SEG_MIOU
from fsr.setting_text import settings_text


def ranking(tables: Tables, study: str, score: str = SEG_MIOU) -> pd.DataFrame:
    """A row a setting of the study's search that was finished, best first: by difference, mean, score in the search.

    - `trial` (of the search) and its parameters `param/NAME`;
    - `searched`: its score in the search, by which the best were chosen, so that theirs is too high by luck;
    - `seeds`, `mean`, `half_width`: over its repeats, whose seeds are fresh; settings that have some come first;
    - `difference`, `difference_half_width`: mean difference from trial 0's setting over the `pairs` of equal seeds that
      both have; the intervals hold for all settings at once with 95 %;
    - `code`: the code versions that trained it, where the study has several: they may not be comparable;
    - `verdict`: better or worse than trial 0's setting, or "not significant"; empty where there are no repeats.

    The first is the study's best setting. Without repeats it is that of its best trial (`launch.state.trials`).
    """
    trials, search = (
        rows if score in rows else rows.assign(**{score: math.nan})  # no run recorded it
        for rows in (tables.finished(study), tables.search(study))
    )
    repeats = trials[trials["setting"] != trials["trial"]]
    seeds = {setting: rows.set_index("seed")[score].dropna() for setting, rows in repeats.groupby("setting")}
    seeds = {setting: values for setting, values in seeds.items() if len(values)}
    base = seeds.get(0, pd.Series(dtype=float))
    compared = max(1, sum(setting != 0 for setting in seeds))
    names = parameters(search)
    rows = []
    for _, trial in search.iterrows():
        values = seeds.get(trial["trial"], pd.Series(dtype=float))
        differences = (values - base).dropna() if trial["trial"] else pd.Series(dtype=float)
        width = half_width(differences, compared)
        rows.append(
            {
                "trial": trial["trial"],
                **{name: trial[name] for name in names},
                "code": trial["code"],
                "searched": trial[score],
                "seeds": len(values),
                "mean": values.mean(),
                "half_width": half_width(values),
                "pairs": len(differences),
                "difference": differences.mean(),
                "difference_half_width": width,
                "verdict": verdict(differences.mean(), width),
            }
        )
    several = search["code"].nunique() > 1
    columns = ["trial", *names, *(["code"] if several else []), "searched", "seeds", "mean", "half_width"]
    columns += ["pairs", "difference", "difference_half_width", "verdict"]
    ranked: pd.DataFrame = pd.DataFrame(rows, columns=columns)
    # Differences go before means: a difference compares two settings on the same seeds. Means of settings that were
    # repeated with different seeds differ by their seeds, too, and seeds matter more here than most settings do.
    ranked["order"] = ranked["difference"].mask((ranked["trial"] == 0) & (ranked["seeds"] > 0), 0.0)
    order, best_first = ["order", "mean", "searched", "trial"], [False, False, False, True]
    ranked = ranked.sort_values(order, ascending=best_first, na_position="last", ignore_index=True)
    ranked = ranked.drop(columns="order")
    return ranked


def by_search(ranked: pd.DataFrame) -> list[int]:
    """The trials of a `ranking` by their scores in the search alone, first the best trial (`launch.state.trials`)."""
    best_first: list[int] = ranked.sort_values(["searched", "trial"], ascending=[False, True])["trial"].tolist()
    return best_first


def parameters(table: pd.DataFrame) -> list[str]:
    """The columns of searched parameters that hold anything."""
    return [name for name in map(str, table) if name.startswith("param/") and table[name].notna().any()]


def setting_names(rows: pd.DataFrame) -> dict[int, str]:
    """What to call each trial: by what its setting changes of trial 0's, a repeat by its seed too; trial 0 by its own.

    `rows` are of one study, from `Tables.trials` or a `ranking`.
    """
    columns = parameters(rows)
    base = next((row for _, row in rows.iterrows() if row["trial"] == 0), None)
    names = {}
    for _, row in rows.iterrows():
        told = [name for name in columns if pd.notna(row[name])]
        changed = [name for name in told if base is None or row["trial"] == 0 or row[name] != base[name]]
        text = settings_text({name.removeprefix("param/"): row[name] for name in changed})
        if told and not text:
            text = "as trial 0"
        seed = f"seed {row['seed']}" if row.get("setting", row["trial"]) != row["trial"] else ""
        names[row["trial"]] = f"trial {row['trial']}: {'  '.join(filter(None, (text, seed)))}".removesuffix(": ")
    return names


def setting_name(row: pd.Series) -> str:
    """A setting as text: trial 4: mask_ratio 0.8."""
    values = {name.removeprefix("param/"): row[name] for name in parameters(row.to_frame().T)}
    return f"trial {row['trial']}: {settings_text(values)}"
