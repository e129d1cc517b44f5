"""The study page: one HTML file that opens from disk, asks no network and needs no JavaScript to be read."""

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import optuna
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analysis.again import next_line
from analysis.evaluation import Evaluation
from analysis.page.cams import cam_chart, class_chart, threshold_charts
from analysis.page.chart import Chart, Named
from analysis.page.curves import learning_chart
from analysis.page.gallery import Gallery
from analysis.page.parallel import parallel_chart
from analysis.page.parameters import effect_charts, importance_chart
from analysis.page.rows import SettingRow, TrialRow, costs, setting_rows, trial_rows
from analysis.page.settings import ranking_charts
from analysis.published import SETS, published
from analysis.ranking import by_search, parameters, setting_names
from analysis.tables import Tables
from analysis.verdict import Baseline, Verdict, judge, measured
from fsr.picture_columns import COLUMNS
from fsr.score_names import title_of
from launch.state.paths import Definition, EvaluationFolder, StudyFolder

PICTURE_BYTES = 3_500_000  # of all pictures in a page


@dataclass(frozen=True)
class StudyOnPage:
    """One study, as `page_of` takes it."""

    folder: StudyFolder
    definition: Definition
    search: optuna.Study
    """Without its repeats, for Optuna's importance."""
    target: int | None
    """Trials wanted, if it is known."""
    facts: dict[str, Any]
    """What was searched, on which data: name and value."""


@dataclass(frozen=True)
class Drawn:
    """A chart with its drawing for who has no JavaScript, and its specification for who has."""

    chart: Chart
    svg: Markup
    spec: Markup

    @classmethod
    def of(cls, chart: Chart) -> "Drawn":
        """Draw it. Nothing that a specification may name is loaded."""
        svg = vl_convert.vegalite_to_svg(chart.still(), allowed_base_urls=[])
        spec = json.dumps(chart.spec, allow_nan=False).replace("<", "\\u003c")  # so that no text in it ends the element
        return cls(chart, Markup(svg), Markup(spec))


@dataclass
class Section:
    """What the page shows of a study. All texts are escaped by the template."""

    id: str
    name: str
    verdict: Verdict
    next: str
    """The command to type next; empty where nothing is left."""
    facts: dict[str, Any]
    dataset: str
    metric: str
    baseline: str
    trials: list[TrialRow]
    costs: str
    learning: list[Drawn]
    evaluation: Evaluation
    """Of its checkpoints; empty where none was inferred."""
    # What follows is of finished trials, and empty where there is none.
    settings: list[SettingRow] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    """Trials whose CAMs and images are shown until the reader chooses others."""
    ranking: list[Drawn] = field(default_factory=list)
    effects: list[Drawn] = field(default_factory=list)
    parallel: list[Drawn] = field(default_factory=list)
    cams: list[Drawn] = field(default_factory=list)
    gallery: Gallery = field(default_factory=Gallery)


def page_of(studies: Sequence[StudyOnPage], tables: Tables) -> str:
    """The page of these studies, all in one text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    files = resources.files(__package__)
    script = (files / "page.js").read_text()
    library = plot_library()
    template = environment.from_string((files / "page.html").read_text())
    budget = PICTURE_BYTES // len(studies)
    return template.render(
        title=", ".join(study.folder.name for study in studies),
        made=time.strftime("%Y-%m-%d %H:%M"),
        studies=[section(study, tables, f"s{number}", budget) for number, study in enumerate(studies)],
        columns=COLUMNS,
        published=[(group, rows.to_dict("records")) for group, rows in published().groupby("group", sort=False)],
        published_sets=SETS,
        style=Markup((files / "page.css").read_text()),
        library=Markup(library),
        script=Markup(script),
        # Nothing but these two scripts runs, whatever stands in the files that the page was made from.
        allowed=" ".join(_hash(code) for code in (library, script)),
    )


@cache  # as it takes more than a second
def plot_library() -> str:
    """Vega, Vega-Lite and what puts them into a page, as one script without imports."""
    library: str = vl_convert.javascript_bundle("window.drawPlot = vegaEmbed;")
    return library


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def section(study: StudyOnPage, tables: Tables, id: str, budget: int) -> Section:
    """What is shown of a study, with at most `budget` bytes of pictures."""
    name, metric = study.folder.name, study.definition["metric"]
    trials = tables.trials[tables.trials["study"] == name]
    verdict = judge(tables, name, study.definition, study.target)
    baseline = Baseline.of(trials, study.definition["base"])
    changes = {row["trial"]: baseline.changes(row) or baseline.name for _, row in trials.iterrows()}
    names = Named(setting_names(trials), changes)
    shown = Section(
        id=id,
        name=name,
        verdict=verdict,
        next=next_line(study.folder, study.definition, *verdict.next) if verdict.next else "",
        facts=study.facts,
        dataset=study.definition["base"]["dataset"],
        metric=title_of(metric),
        baseline=baseline.name,
        trials=trial_rows(trials, metric, names),
        costs=costs(trials),
        learning=drawn(learning_chart(tables, name, metric, names)),
        evaluation=Evaluation.of(tables, name, EvaluationFolder.of(study.folder)),
    )
    ranked = measured(tables, name, metric)
    if ranked.empty:
        return shown
    ours = [0] if 0 in set(ranked["trial"]) else []
    shown.chosen = list(dict.fromkeys([*ours, int(ranked["trial"].iloc[0]), by_search(ranked)[0]]))
    shown.settings = setting_rows(ranked)
    shown.parameters = [column.removeprefix("param/") for column in parameters(ranked)]
    shown.ranking = drawn(*ranking_charts(ranked, metric, names, baseline.name))
    shown.effects = drawn(*effect_charts(tables, name, ranked, metric, names), importance_chart(study.search))
    shown.parallel = drawn(parallel_chart(tables, name, ranked, metric, names))
    curves = threshold_charts(tables, name, shown.chosen, names)
    shown.cams = drawn(*curves, cam_chart(tables, name, names), class_chart(tables, name, shown.chosen, names))
    shown.gallery = Gallery.of(study.folder, [*ours, *ranked["trial"]], names, budget)
    return shown


def drawn(*charts: Chart | None) -> list[Drawn]:
    """Those charts that there are, drawn."""
    return [Drawn.of(chart) for chart in charts if chart is not None]
