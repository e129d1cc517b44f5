"""What a finished sweep advises is what the same command then accepts."""

import pytest

from launch.plan import Options, plan
from launch.show.messages import more_trials
from launch.study import load


@pytest.mark.parametrize(
    "name, searched, advice",
    [
        ("mask_ratio", 16, "fsr sweep --study mask_ratio --trials 32"),
        ("block_size", 2, "fsr sweep --study block_size --trials 5"),
        ("block_size", 5, "all 5 settings of the study have had their trial"),
    ],
)
def test_a_study_that_has_no_more_settings_is_advised_no_more_trials(name, searched, advice, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep", "--study", name])
    study = load(name)
    base = study.base("synthetic", tmp_path, None, None)
    assert more_trials(study, base, searched).endswith(advice)
    if "--trials" in advice:
        trials = int(advice.split()[-1])
        assert plan(Options(study=name, dataset="synthetic", data_folder=tmp_path, trials=trials)).target == trials
