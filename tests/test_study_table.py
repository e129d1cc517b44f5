"""The table of a study's checkpoints: means and differences over fresh seeds, in terminal, CSV, JSON and page."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from evaluations import write_evaluation, write_scores
from scipy import stats
from studies import add_run, new_study

from analysis.evaluation import Evaluation, main
from analysis.load import load
from analysis.paper_table import in_percent
from analysis.published import IMAGENET, LARGER, SETS, published
from launch.state.paths import EvaluationFolder, StudyFolder

# Trials 0 to 2 are the search; 3 to 8 repeat settings 0 and 2 with seeds 1 to 3.
SHIFT = {0: 0.0, 1: 0.02, 2: 0.05, 3: 0.01, 4: 0.06, 5: -0.02, 6: 0.05, 7: 0.0, 8: 0.03}


def evaluated(runs):
    """A study of three settings, two of them repeated with three seeds, all of whose checkpoints are evaluated."""
    folder, study = new_study(runs)
    for ratio in (0.4, 0.5, 0.6):
        add_run(folder, study, ratio, 0.2 + ratio / 10)
    for seed in (1, 2, 3):
        for setting, ratio in ((0, 0.4), (2, 0.6)):
            add_run(folder, study, ratio, 0.25, seed=seed, repeats=setting)
    write_evaluation(folder, SHIFT)
    return folder, study


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("evaluated"))[0]


@pytest.fixture
def study(written, tmp_path):
    """One that a test may change."""
    shutil.copytree(written.folder, tmp_path / "smoke")
    return StudyFolder(tmp_path / "smoke")


def table(study, *flags):
    main(["--study", study.name, "--runs", str(study.folder.parent), *map(str, flags)])
    return json.loads((EvaluationFolder.of(study).folder / "table.json").read_text())


def one(rows, **wanted):
    """The one row with these values."""
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_means_and_differences_are_those_computed_by_hand(study):
    rows = table(study)["table"]
    assert len(rows) == 3 * 2 * 6  # settings, networks, columns
    for network, own in (("student", 0.0), ("teacher", 0.01)):
        row = one(rows, network=network, set="val", kind="crf", trial=2)
        ours = np.array([SHIFT[trial] for trial in (4, 6, 8)]) + 0.5 + own
        base = np.array([SHIFT[trial] for trial in (3, 5, 7)]) + 0.5 + own
        assert row["searched"] == pytest.approx(0.55 + own) and (row["seeds"], row["pairs"]) == (3, 3)
        for name, values in (("mean", ours), ("difference", ours - base)):
            assert row[name] == pytest.approx(values.mean())
            low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
            width = row["half_width" if name == "mean" else "difference_half_width"]
            assert width == pytest.approx((high - low) / 2)
        assert row["verdict"] == ("better" if row["difference"] > row["difference_half_width"] else "not significant")
    alone = one(rows, network="student", set="train", kind="cam", trial=1)
    assert (alone["searched"], alone["seeds"], alone["mean"], alone["verdict"]) == (0.32, 0, None, "")


def test_each_checkpoint_is_a_row_of_its_own_with_what_the_inference_wrote(study):
    rows = table(study)["checkpoints"]
    assert len(rows) == 9 * 2 * 6
    row = one(rows, trial=4, network="teacher", set="train", kind="pseudo_labels")
    assert (row["miou"], row["images"]) == (0.42, 12)
    csv = pd.read_csv(EvaluationFolder.of(study).folder / "checkpoints.csv")
    assert len(csv) == len(rows) and set(csv["kind"]) == {
        *("cam", "pseudo_labels", "single_scale", "segmentation", "gated", "crf"),
    }
    assert len(pd.read_csv(EvaluationFolder.of(study).folder / "table.csv")) == 36


def test_the_terminal_shows_trial_0_first_the_best_next_and_the_published_apart(study, capsys):
    table(study)
    told = capsys.readouterr().out
    assert told.index("trial 0: ") < told.index("trial 2: ") < told.index("trial 1: ")
    words = " ".join(told.replace("│", " ").replace("┃", " ").split())
    assert "54.7 ± " in words and "1 (search)" in words
    assert told.index("differences from trial 0") < told.index(IMAGENET) < told.index(LARGER)
    assert told.index(IMAGENET) < told.index("MoRe") < told.index(LARGER) < told.index("WeCLIP+")
    assert "of other data than synthetic" in told


@pytest.mark.slow
def test_a_setting_whose_repeats_were_not_evaluated_makes_no_interval_wider(study, tmp_path):
    both = one(table(study)["table"], network="student", set="val", kind="crf", trial=2)
    folder, more = evaluated(tmp_path / "more")
    for seed in (1, 2):
        add_run(folder, more, 0.5, 0.25, seed=seed, repeats=1)
    row = one(table(folder)["table"], network="student", set="val", kind="crf", trial=2)
    assert row["difference_half_width"] == both["difference_half_width"]


def test_what_is_not_finished_damaged_or_not_measured_is_said_and_the_rest_is_shown(study, capsys):
    results = EvaluationFolder.of(study).results
    (results(1, "val", "student") / "scores.json").unlink()
    (results(2, "val", "student") / "scores.json").write_text("{")
    write_scores(study, 0, "student", "train_aug", {"cam": None, "pseudo_labels": None})
    rows = table(study)["table"]
    told = capsys.readouterr().out
    assert "1 inferences are not finished, among them" in told and "trial_0002/val_student/scores.json" in told
    assert one(rows, network="student", set="val", kind="crf", trial=2)["searched"] is None
    assert [row for row in rows if row["trial"] == 1 and row["network"] == "student" and row["set"] == "val"] == []
    assert one(rows, network="teacher", set="val", kind="crf", trial=1)["searched"] == 0.53


def test_a_study_without_scores_is_told_what_to_type(tmp_path, capsys):
    folder, more = new_study(tmp_path)
    add_run(folder, more, 0.4, 0.2)
    with pytest.raises(SystemExit) as end:
        table(folder)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "holds no scores of finished inferences; to infer: " in told and "infer --study smoke --runs" in told


def test_an_empty_table_has_no_columns(tmp_path):
    folder, more = new_study(tmp_path)
    add_run(folder, more, 0.4, 0.2)
    found = Evaluation.of(load("smoke", runs=tmp_path), "smoke", EvaluationFolder.of(folder))
    assert found.compared.empty and found.table.means == ()


def test_published_numbers_have_source_and_date_and_stand_in_two_groups():
    rows = published()
    assert set(rows["stages"]) == {"single"} and rows["source"].str.len().min() > 0
    assert rows["date"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert rows[list(SETS)].max().max() < 100 and rows[list(SETS)].min().min() > 30
    assert set(rows[rows["group"] == LARGER]["method"]) == {"ExCEL", "DiCLIP", "DFA", "WeCLIP+"}
    ours = rows[rows["method"] == "FSR"].iloc[0]
    assert (ours["voc_val"], ours["voc_test"], ours["coco_val"], ours["group"]) == (75.7, 75.0, 45.4, IMAGENET)


def test_numbers_are_percent_with_half_an_interval():
    assert in_percent(0.4123, 0.0301) == "41.2 ± 3.0"
    assert in_percent(-0.012, sign=True) == "-1.2" and in_percent(float("nan")) == "–"
