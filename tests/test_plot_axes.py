"""Axes follow what was searched, thresholds are marked, and what a line stands for is said by its setting."""

import matplotlib
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from studies import add_run, new_study, quality, write_run

from analysis import plots
from analysis.load import load
from analysis.ranking import ranking, setting_names

matplotlib.use("agg")
SPACE = {
    "lin": FloatDistribution(0.001, 1.0),  # spans decades, and is linear all the same
    "log": FloatDistribution(0.1, 0.9, log=True),
    "count": IntDistribution(1, 5),
    "size": CategoricalDistribution([16, 8, 24]),
    "backbone": CategoricalDistribution(["vit_small", "vit_base"]),
    "use_aa": CategoricalDistribution([False, True]),
    "fsr_iters": CategoricalDistribution([None, 400]),
    "any": CategoricalDistribution(["auto", 0.5, True]),
}
FIRST = {"lin": 0.01, "log": 0.2, "count": 1, "size": 16, "backbone": "vit_small", "use_aa": False, "fsr_iters": None}
SECOND = {"lin": 0.9, "log": 0.3, "count": 4, "size": 24, "backbone": "vit_base", "use_aa": True, "fsr_iters": 400}
TRIALS = [FIRST | {"any": "auto"}, SECOND | {"any": 0.5}, FIRST | {"size": 8, "any": "auto"}, FIRST | {"any": "auto"}]


@pytest.fixture
def runs(tmp_path):
    """Three settings, and a repeat of the first."""
    folder, study = new_study(tmp_path)
    for number, params in enumerate(TRIALS):
        told = {"seed": 1, "repeats": 0} if number == 3 else {}
        value = 0.1 * (number + 1)
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=SPACE, value=value, user_attrs=told)
        )
        write_run(folder.run(number), **{"val/seg_miou": value})
    return tmp_path


@pytest.fixture
def tables(runs):
    """Read twice: from the files and from the cache."""
    load("smoke", runs=runs)
    return load("smoke", runs=runs)


def test_an_axis_has_the_scale_that_was_searched(tables):
    figure = plots.effects(tables, "smoke")
    by_name = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_visible()}
    assert set(by_name) == set(SPACE)
    scales = {name: axes.get_xscale() for name, axes in by_name.items()}
    assert scales == {name: "log" if name == "log" else "linear" for name in SPACE}
    ticks = {name: [label.get_text() for label in by_name[name].get_xticklabels()] for name in SPACE}
    assert ticks["size"] == ["8", "16", "24"]
    assert set(ticks["backbone"]) == {"vit_small", "vit_base"}
    assert ticks["use_aa"] == ["False", "True"]
    assert set(ticks["fsr_iters"]) == {"None", "400"}
    assert set(ticks["any"]) == {"auto", "0.5"}
    assert all(float(place).is_integer() for place in by_name["count"].get_xticks())


def test_the_columns_of_parameters_are_of_one_kind(tables):
    kinds = {name: tables.trials[f"param/{name}"].map(type).unique().tolist() for name in SPACE}
    assert [len(kind) for kind in kinds.values()] == [1] * len(SPACE)
    assert kinds["any"] == kinds["fsr_iters"] == kinds["backbone"] == [str]
    assert tables.trials["param/fsr_iters"].tolist()[:2] == ["None", "400"]
    assert not tables.trials["damage"].notna().any()
    space = tables.space.set_index("parameter")
    assert space["kind"].to_dict() == dict.fromkeys(SPACE, "categorical") | {
        "lin": "float",
        "log": "float",
        "count": "int",
    }
    assert space["log"].map(lambda log: log is True or log == 1).to_dict() == {name: name == "log" for name in SPACE}
    assert space["choices"]["size"] == "16, 8, 24"


def test_a_setting_is_called_by_what_it_changes(tables):
    names = setting_names(tables.trials)
    assert names[2] == "trial 2: size 8"
    assert names[3] == "trial 3: as trial 0  seed 1"
    assert names[0].startswith("trial 0: lin 0.01  log 0.2")
    assert "backbone vit_base" in names[1]
    assert set(setting_names(ranking(tables, "smoke"))) == {0, 1, 2}
    assert plots.wrapped(names[1], 30).splitlines()[0] == "trial 1: lin 0.9  log 0.3"


def lines_at(axes):
    return sorted(line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1)


def test_cam_curves_mark_the_threshold_of_the_run(runs, tables):
    figure = plots.threshold_curves(tables, "smoke", [0, 2])
    assert [lines_at(axes) for axes in figure.axes] == [[0.35], [0.35]]
    (legend,) = figure.legends
    texts = [text.get_text().replace("\n", "  ") for text in legend.get_texts()]
    assert texts[1:] == ["trial 2: size 8", "the run's threshold"]


def test_a_threshold_that_was_searched_is_marked_for_each_run(tmp_path, monkeypatch):
    folder, study = new_study(tmp_path)
    for number, threshold in enumerate((0.3, 0.5)):
        changed = quality(200)
        for kinds in changed["networks"].values():
            kinds["cam"] = kinds["cam"] | {"threshold": threshold}
        monkeypatch.setattr("studies.quality", lambda step, changed=changed: changed)
        add_run(folder, study, 0.4 + 0.1 * number, 0.2)
    figure = plots.threshold_curves(load("smoke", runs=tmp_path), "smoke", [0, 1])
    assert lines_at(figure.axes[0]) == [0.3, 0.5]
    assert lines_at(figure.axes[1]) == [0.35]
