"""TensorBoard's runs are named by trial and setting, while the study goes on."""

import json

import torch
from studies import new_study

from analysis.named_runs import NamedRuns, run_name
from fsr.pictures import COLUMNS, with_titles
from fsr.run_log import board_tag


def begin(folder, number, params, seed=0, **changes):
    run = folder.run(number).folder
    run.mkdir(exist_ok=True)
    told = {"study": "smoke", "id": None, "definition": None, "trial": number, "params": params, "seed": seed}
    (run / "trial.json").write_text(json.dumps(told | changes))
    return run


def test_a_name_says_what_the_trial_tried(tmp_path):
    folder, _ = new_study(tmp_path)
    assert run_name(begin(folder, 4, {"mask_ratio": 0.6}), "smoke", 0) == "0004 mask_ratio 0.6"
    assert run_name(begin(folder, 5, {"precision": "bf16", "x": None}, 3), "smoke", 0) == (
        "0005 precision bf16 x None seed 3"
    )
    assert run_name(begin(folder, 6, {"pretrained": "a/b.pt"}), "smoke", 0) == "0006 pretrained a_b.pt"
    assert run_name(begin(folder, 7, {}), "smoke", 0) == "0007"
    long = run_name(begin(folder, 8, {f"parameter_{n}": 0.123 for n in range(30)}, 2), "smoke", 0)
    assert len(long) == 150 and long.endswith("… seed 2")


def test_a_run_of_another_trial_keeps_the_name_of_its_folder(tmp_path):
    folder, _ = new_study(tmp_path)
    assert run_name(begin(folder, 1, {"a": 1.0}, trial=2), "smoke", 0) == "trial_0001"
    assert run_name(begin(folder, 2, {"a": 1.0}, study="other"), "smoke", 0) == "trial_0002"
    (begin(folder, 3, {}) / "trial.json").write_text("{")
    assert run_name(folder.run(3).folder, "smoke", 0) == "trial_0003"
    folder.run(4).folder.mkdir()
    assert run_name(folder.run(4).folder, "smoke", 0) is None  # nothing says yet what it will be
    folder.run(4).config_file.touch()
    assert run_name(folder.run(4).folder, "smoke", 0) == "trial_0004"  # of an earlier version


def test_links_follow_the_study(tmp_path):
    folder, _ = new_study(tmp_path / "runs")
    (tmp_path / "links").mkdir()
    runs = NamedRuns(folder, tmp_path / "links")
    runs.refresh()
    assert list((tmp_path / "links").iterdir()) == []
    begin(folder, 0, {"mask_ratio": 0.4})
    begin(folder, 1, {"mask_ratio": 0.5})
    runs.refresh()
    begin(folder, 1, {"mask_ratio": 0.7})  # set aside, and begun anew
    begin(folder, 2, {"mask_ratio": 0.4}, seed=1)
    runs.refresh()
    names = ["0000 mask_ratio 0.4", "0001 mask_ratio 0.7", "0002 mask_ratio 0.4 seed 1"]
    links = sorted((tmp_path / "links").iterdir())
    assert [link.name for link in links] == names
    assert [link.resolve() for link in links] == [folder.run(number).folder.resolve() for number in range(3)]


def test_what_is_computed_stands_before_how_fast():
    tags = [board_tag(name) for name in ("perf/steps_per_s", "train/loss", "val/seg_miou")]
    assert sorted(tags) == ["train/loss", "val/seg_miou", "~perf/steps_per_s"]


def test_tiles_have_the_names_of_their_columns():
    small = with_titles(torch.zeros(3, 32, 32 * len(COLUMNS)))
    assert small.shape == (3, 14 + 96, 96 * len(COLUMNS))  # three times as large, for the names to have room
    large = with_titles(torch.zeros(3, 128, 128 * len(COLUMNS)))
    assert large.shape == (3, 14 + 128, 128 * len(COLUMNS))
    for column in range(len(COLUMNS)):
        title = large[:, :14, 128 * column : 128 * (column + 1)]
        assert title.min() < 0.1 and title.max() == 1  # something is written on white
    assert large[:, 14:].max() == 0
