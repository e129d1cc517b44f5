"""`analysis/compare.py` as its users meet it: columns, differences, and what cannot be compared."""

import pytest
from studies import add_run, new_study

from analysis.compare import main


@pytest.fixture
def compared(tmp_path, capsys):
    def run(*studies):
        words = [word for study in studies for word in ("--study", study)]
        main([*words, "--runs", str(tmp_path)])
        return capsys.readouterr().out

    return run


def fill(runs, name, offset, seeds):
    folder, study = new_study(runs, name)
    add_run(folder, study, 0.4, 0.3)
    add_run(folder, study, 0.6, 0.35, cam_miou=0.1)
    for seed in seeds:
        noise = 0.001 * (seed % 2)
        add_run(folder, study, 0.6, 0.1 * seed + offset + noise, seed=seed, repeats=1, cam_miou=0.5, aux_cam_miou=0.4)


def lines(output, *words):
    return [line for line in output.splitlines() if all(word in line for word in words)]


def test_common_seeds_are_compared_in_pairs(tmp_path, compared):
    fill(tmp_path, "smoke", 0.0, (1, 2, 3))
    fill(tmp_path, "momentum", 0.05, (2, 3, 4))
    output = compared("smoke", "momentum")
    (row,) = lines(output, "segmentation mIoU", "momentum − smoke")
    assert "+0.050" in row and "2 seeds in pairs" in row and "better" in row
    assert len(lines(output, "trial 1: mask_ratio 0.6")) == 1
    assert lines(output, "fresh seeds", "3")
    assert "100.0%" in output


def test_other_seeds_are_compared_as_independent_means(tmp_path, compared):
    fill(tmp_path, "smoke", 0.0, (1, 2, 3))
    fill(tmp_path, "momentum", 0.05, (4, 5, 6, 7))
    (row,) = lines(compared("smoke", "momentum"), "segmentation mIoU", "momentum − smoke")
    assert "4 and 3 seeds" in row


def test_one_seed_has_no_interval_and_other_data_are_noted(tmp_path, compared):
    fill(tmp_path, "smoke", 0.0, ())
    fill(tmp_path, "momentum", 0.05, (4,))
    file = tmp_path / "momentum" / "study.json"
    file.write_text(file.read_text().replace('"iterations": 200', '"iterations": 400'))
    output = compared("smoke", "momentum")
    assert "one seed: no interval" in output
    assert "by which it was chosen" in output
    assert "differ in data or length" in output


def test_a_study_without_finished_trials_is_shown_and_not_compared(tmp_path, compared):
    fill(tmp_path, "smoke", 0.0, (1,))
    new_study(tmp_path, "momentum")
    output = compared("smoke", "momentum")
    assert "none finished" in output
    assert "differences" not in output


def test_less_than_two_studies_are_refused_in_a_sentence(tmp_path, capsys):
    new_study(tmp_path)
    for words in (["--study", "smoke"], ["--study", "smoke", "--study", "smoke"]):
        with pytest.raises(SystemExit) as end:
            main([*words, "--runs", str(tmp_path)])
        assert end.value.code == 2
        assert "name at least two different studies" in capsys.readouterr().err
