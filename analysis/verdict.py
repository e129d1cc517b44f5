"""What a study has shown so far, in sentences, and what to type next: pure functions of its tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeGuard

import pandas as pd

from analysis.intervals import seeds_needed
from analysis.ranking import by_search, parameters, ranking
from analysis.tables import Tables
from fsr.score_names import title_of
from fsr.setting_text import setting_text
from launch.state.paths import Definition

Kind = Literal["better", "worse", "not significant", "unproven", "nothing finished"]

FRESH_SEEDS = 5  # what --repeat is advised with first: below it, intervals over seeds are wider than most differences
AFFORDABLE_SEEDS = 30  # a difference that needs more is one that nobody trains
MORE_TRIALS = 4
SHOWN_CHANGES = 3  # parameters named in a sentence


@dataclass(frozen=True)
class Verdict:
    """What a study says about its settings."""

    kind: Kind
    finding: str
    """One sentence: which setting, by how much, over how many seeds."""
    limits: tuple[str, ...]
    """Sentences that say how far the finding can be trusted."""
    next: tuple[str, ...] | None
    """Command and flags to type next, beside the study's own: ("sweep", "--repeat", "5"); None for nothing."""
    why: str
    """Why that is next, or why nothing is."""


def judge(tables: Tables, study: str, definition: Definition, target: int | None = None) -> Verdict:
    """The verdict on a study by its own metric. `target` is the number of trials wanted, if it is known.

    Differences are those of `ranking`: from trial 0's setting, seed by seed, with intervals that hold together. Where
    no setting was repeated nothing is proven, whatever the search's scores are.
    """
    metric, trials = definition["metric"], tables.trials[tables.trials["study"] == study]
    ranked = measured(tables, study, metric)
    if ranked.empty:
        return nothing_finished(trials, metric, definition["space"], target)
    baseline = Baseline.of(trials, definition["base"])
    limits = limits_of(trials)
    if ranked["seeds"].any():
        return after_repeats(ranked, trials, metric, baseline, limits)
    return after_search(ranked, trials, metric, baseline, limits, definition["space"], target)


def measured(tables: Tables, study: str, metric: str) -> pd.DataFrame:
    """The `ranking` without the settings whose score could not be measured."""
    kept: pd.DataFrame = pd.DataFrame()
    if metric in tables.trials:
        ranked = ranking(tables, study, metric)
        kept = ranked[ranked["searched"].notna() | (ranked["seeds"] > 0)]
    return kept


@dataclass(frozen=True)
class Baseline:
    """Trial 0's setting, with which all others are compared."""

    name: str
    """The preset, where trial 0 has the base configuration's own values; else trial 0's setting."""
    params: Mapping[str, Any]

    @property
    def owner(self) -> str:
        """Whose its values are: the preset's, or trial 0's."""
        return "the preset's" if self.name == "the preset" else "trial 0's"

    @classmethod
    def of(cls, trials: pd.DataFrame, base: Mapping[str, Any]) -> "Baseline":
        """From the study's trials and the configuration that each starts from."""
        params = {name: row[name] for _, row in trials[trials["trial"] == 0].iterrows() for name in parameters(trials)}
        own = all(same(_value_in(base, name.removeprefix("param/")), value) for name, value in params.items())
        return cls("the preset" if own and params else "trial 0's setting", params)

    def changes(self, row: "pd.Series[Any]", most: int = SHOWN_CHANGES) -> str:
        """What a setting changes of the baseline, the most changed first: "w_aff 0.75, w_patch 0.12 and 3 more"."""
        changed = [
            (name, row[name]) for name in parameters(row.to_frame().T) if not same(self.params.get(name), row[name])
        ]
        changed.sort(key=lambda pair: -_relative_change(self.params.get(pair[0]), pair[1]))
        text = ", ".join(f"{name.removeprefix('param/')} {setting_text(value)}" for name, value in changed[:most])
        return text + (f" and {len(changed) - most} more" if len(changed) > most else "")

    def setting(self, row: "pd.Series[Any]") -> str:
        """A setting in a sentence: trial 7 (w_aff 0.75), or the baseline's name."""
        if row["trial"] == 0:
            return self.name
        changes = self.changes(row)
        return f"trial {row['trial']} ({changes})" if changes else f"trial {row['trial']} ({self.name}'s values again)"


def same(one: Any, other: Any) -> bool:
    """Whether two values of a parameter are the same, numbers as far as floats can tell."""
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return setting_text(one) == setting_text(other)


def _value_in(base: Mapping[str, Any], name: str) -> Any:
    """A parameter's value in a configuration, also of one that is searched as 1 − NAME; None where it has no such."""
    whole = base.get(name.removeprefix("1-"))
    return 1 - whole if name.startswith("1-") and _is_number(whole) else base.get(name)


def _quoted(value: Any) -> str:
    """A value in a sentence: a text in quotes, so that it is not read as one of its words."""
    return f'"{value}"' if isinstance(value, str) else setting_text(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _relative_change(before: Any, now: Any) -> float:
    """How much a value changed, by which changes are ordered: texts first, then numbers by their ratio."""
    if not (_is_number(before) and _is_number(now)):
        return math.inf
    if before > 0 and now > 0:
        return abs(math.log(now / before))
    return float(abs(now - before))


def nothing_finished(trials: pd.DataFrame, metric: str, space: Mapping[str, Any], target: int | None) -> Verdict:
    """No trial was trained to its end and measured."""
    count = trials["state"].value_counts()
    count = count[count > 0]
    there = ", ".join(f"{number} {'failed' if state == 'fail' else state}" for state, number in count.items())
    limits = errors_of(trials)
    if not len(trials):
        return Verdict("nothing finished", "No trial has begun.", (), ("sweep",), "it starts the search")
    if "complete" in count:
        finished = plural(count["complete"], "finished trial")
        finding = f"No {title_of(metric)} could be measured in {finished}, so nothing is compared."
        return Verdict("nothing finished", finding, limits, None, "is all of the ground truth ignored?")
    if set(count.index) <= {"fail", "damaged"}:
        finding = "The only trial failed." if len(trials) == 1 else f"All {len(trials)} trials failed."
        return Verdict("nothing finished", finding, limits, ("sweep",), "once the cause is mended; it tries them again")
    if set(count.index) == {"pruned"}:
        finding = f"All {len(trials)} trials were pruned; none was trained to its end, so nothing is compared."
        more = more_trials(len(trials), target, space)
        why = "it adds trials" if more else "no other setting is in the space: prune later, or not at all"
        return Verdict("nothing finished", finding, limits, more, why)
    finding = f"No trial has finished yet: {there}."
    if "running" in count:
        return Verdict("nothing finished", finding, limits, ("status", "--watch"), "trials are in work")
    return Verdict("nothing finished", finding, limits, ("sweep",), "it trains what is missing")


def after_search(
    ranked: pd.DataFrame,
    trials: pd.DataFrame,
    metric: str,
    baseline: Baseline,
    limits: tuple[str, ...],
    space: Mapping[str, Any],
    target: int | None,
) -> Verdict:
    """Settings were trained with one seed each: nothing is proven, whatever their scores."""
    best = ranked.iloc[0]
    score = f"{title_of(metric)} {best['searched']:.3f}"
    waiting = int(trials["state"].isin(["running", "waiting"]).sum())
    done = int(trials["state"].isin(["complete", "pruned"]).sum())
    if len(ranked) == 1:
        finding = f"Only one setting has finished, {baseline.setting(best)}: {score}, with nothing to compare it with."
    elif best["trial"] == 0:
        finding = f"No setting of {len(ranked)} scored higher in the search than {baseline.name}: {score}."
    else:
        zero = ranked.loc[ranked["trial"] == 0, "searched"]
        above = f", {best['searched'] - zero.iloc[0]:+.3f} from {baseline.name}" if len(zero) else ""
        setting = capital(baseline.setting(best))
        finding = f"{setting} scored best of {len(ranked)} settings in the search: {score}{above}."
    if len(ranked) > 1:
        limits = (f"One seed a setting proves nothing, and the best of {len(ranked)} is also the luckiest.", *limits)
    if (trials["state"] == "running").any():
        return Verdict("unproven", finding, limits, ("status", "--watch"), f"{plural(waiting, 'trial')} to come")
    if waiting or (target is not None and done < target):
        wanted = f"{done} of {target} trials are done" if target is not None else f"{plural(waiting, 'trial')} to come"
        return Verdict("unproven", finding, limits, ("sweep",), f"{wanted}; it trains the rest")
    more = more_trials(done, target, space)
    if len(ranked) == 1 and more:
        return Verdict("unproven", finding, limits, more, "it adds trials")
    why = f"it trains the best setting and {baseline.name} with fresh seeds"
    return Verdict("unproven", finding, limits, ("sweep", "--repeat", str(FRESH_SEEDS)), why)


def after_repeats(
    ranked: pd.DataFrame, trials: pd.DataFrame, metric: str, baseline: Baseline, limits: tuple[str, ...]
) -> Verdict:
    """Settings were trained with fresh seeds, too: their differences from trial 0's say what can be said."""
    title = title_of(metric)
    repeated = ranked[ranked["seeds"] > 0]
    others = repeated[repeated["trial"] != 0]
    compared = others[others["difference"].notna()]
    seeds = int(repeated["seeds"].max())
    best_of_search = by_search(ranked)[0]
    again: tuple[str, ...] = ("sweep", "--repeat", str(max(FRESH_SEEDS, seeds)), "--best", str(max(1, len(others))))
    step: tuple[str, ...] | None
    coming = int((trials["state"].isin(["running", "waiting"]) & (trials["setting"] != trials["trial"])).sum())
    if best_of_search not in set(repeated["trial"]) and best_of_search != 0:
        limits = (f"The best of the search, trial {best_of_search}, has no fresh seeds yet.", *limits)

    if compared.empty:
        only = baseline.name if others.empty else baseline.setting(others.iloc[0])
        row = repeated.iloc[0]
        lacking = "no other setting" if others.empty else f"not {baseline.name}"
        mean = f"{title} {row['mean']:.3f} over {row['seeds']}"
        finding = f"Only {only} has fresh seeds ({mean}), {lacking}: nothing is compared."
        kind: Kind = "unproven"
        step, why = again, "it trains what is missing"
    else:
        # Another one may have the larger difference, and too wide an interval to say so.
        better = compared[compared["verdict"] == "better"]
        first = (compared if better.empty else better).iloc[0]
        kind, finding = found(first, compared, title, baseline)
        rest = compared[compared["trial"] != first["trial"]]
        if len(rest) == 1:
            limits = (f"The other repeated setting, {baseline.setting(rest.iloc[0])}, is {counts(rest)[2:]}.", *limits)
        elif len(rest):
            limits = (f"Of the {len(rest)} other repeated settings, {counts(rest)}.", *limits)
        step, why = next_after(kind, first, compared, baseline, again)
    if coming:
        step = ("status", "--watch") if (trials["state"] == "running").any() else again
        why = f"{plural(coming, 'repeat')} to come"
    return Verdict(kind, finding, limits, step, why)


def found(first: "pd.Series[Any]", compared: pd.DataFrame, title: str, baseline: Baseline) -> tuple[Kind, str]:
    """The sentence on the best of the compared settings, which are compared with the baseline."""
    setting, pairs = baseline.setting(first), plural(int(first["pairs"]), "seed")
    difference, width = first["difference"], first["difference_half_width"]
    interval = f"{abs(difference):.3f} ± {width:.3f}"
    if math.isnan(width):
        said = f"{difference:+.3f} {title} with {pairs}"
        return "unproven", f"{capital(setting)} differs from {baseline.name} by {said}, which proves nothing."
    if first["verdict"] == "better":
        return "better", f"{capital(setting)} beats {baseline.name} by {interval} {title} over {pairs}."
    if first["verdict"] == "worse":
        best = "the best of what was repeated, " if len(compared) > 1 else ""
        return "worse", f"{capital(baseline.name)} beats {best}{setting}: by {interval} {title} over {pairs}."
    names = parameters(compared)
    if len(names) == 1 and (compared["verdict"] == "not significant").all():
        name, own = names[0].removeprefix("param/"), baseline.params.get(names[0])
        fewest, widest = int(compared["pairs"].min()), compared["difference_half_width"].max()
        against = f" from {baseline.owner} {_quoted(own)}" if own is not None else ""
        finding = f"{name} makes no difference{against} that {plural(fewest, 'seed')} can show (±{widest:.3f} {title})."
        return "not significant", finding
    said = f"{difference:+.3f} ± {width:.3f} {title}"
    finding = f"{capital(setting)} makes no difference from {baseline.name} that {pairs} can show ({said})."
    return "not significant", finding


def next_after(
    kind: Kind, first: "pd.Series[Any]", compared: pd.DataFrame, baseline: Baseline, again: tuple[str, ...]
) -> tuple[tuple[str, ...] | None, str]:
    """What to type after such a comparison, and why."""
    if kind == "better":
        return None, "this setting is better and can be taken"
    if kind == "worse":
        return None, f"keep {baseline.name}"
    if kind == "unproven":
        return again, "more seeds give an interval"
    pairs, width = int(first["pairs"]), first["difference_half_width"]
    needed = seeds_needed(first["difference"], width, pairs, together=len(compared), most=AFFORDABLE_SEEDS)
    if needed is None or first["difference"] <= 0:
        return None, f"keep {baseline.name}: {AFFORDABLE_SEEDS} seeds would hardly show so small a difference"
    repeats = ("sweep", "--repeat", str(max(needed, pairs + 1)), "--best", again[-1])
    return repeats, f"about {needed} seeds would show a difference of this size"


def counts(compared: pd.DataFrame) -> str:
    """How many settings are better, worse and not significant."""
    words = {"better": "better", "worse": "worse", "not significant": "not significant", "": "without an interval"}
    number = compared["verdict"].value_counts()
    return ", ".join(f"{number[word]} {text}" for word, text in words.items() if number.get(word))


def limits_of(trials: pd.DataFrame) -> tuple[str, ...]:
    """What else may keep one from trusting the numbers: trials that are missing from them, and mixed code."""
    limits = []
    pruned = int((trials["state"] == "pruned").sum())
    if pruned:
        limits.append(f"{pruned} of {len(trials)} trials were pruned and are not ranked.")
    limits += errors_of(trials)
    versions = trials.loc[trials["state"] == "complete", "code"].replace("", None).dropna().nunique()
    if versions > 1:
        limits.append(f"{versions} code versions trained these trials; they may not be comparable.")
    return tuple(limits)


def errors_of(trials: pd.DataFrame) -> tuple[str, ...]:
    """What failed or is damaged, in a sentence each."""
    told = []
    failed = trials[trials["state"] == "fail"]
    if len(failed):
        last = failed["error"].dropna()
        because = f"; the last: {last.iloc[-1]}" if len(last) else ""
        told.append(f"{plural(len(failed), 'trial')} of {len(trials)} failed{because}.")
    damaged = trials["damage"].notna().sum()
    if damaged:
        told.append(
            f"{plural(int(damaged), 'trial')} of {len(trials)} have damaged files, which the table of trials names."
        )
    return tuple(told)


def more_trials(done: int, target: int | None, space: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What asks for a few trials more; None where the space has no other settings, which a sweep would refuse."""
    there, size = max(done, target or 0), size_of(space)
    wanted = there + MORE_TRIALS if size is None else min(there + MORE_TRIALS, size)
    return ("sweep", "--trials", str(wanted)) if wanted > there else None


def size_of(space: Mapping[str, Any]) -> int | None:
    """Number of different settings in a space, as study.json writes it; None where it has a range of numbers."""
    choices = [range_.get("attributes", {}).get("choices") for range_ in space.values()]
    return math.prod(len(values) for values in choices) if choices and all(choices) else None


def plural(number: int, thing: str) -> str:
    """1 seed, 2 seeds."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def capital(sentence: str) -> str:
    """With a capital letter in front."""
    return sentence[:1].upper() + sentence[1:]
