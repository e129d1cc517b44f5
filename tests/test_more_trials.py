"""What a finished sweep advises is what the same command then accepts."""

import pytest

from launch.plan import Options, plan
from launch.show.messages import more_trials
from launch.study import load


@pytest.mark.parametrize(
    "name, searched, advice",
    [
        ("mask_ratio", 16, "more trials: add --trials 32 to the same command"),
        ("block_size", 2, "more trials: add --trials 5 to the same command"),
        ("block_size", 5, "all 5 settings of the study have had their trial"),
    ],
)
def test_a_study_that_has_no_more_settings_is_advised_no_more_trials(name, searched, advice, tmp_path):
    study = load(name)
    base = study.base("synthetic", tmp_path, None, None)
    assert more_trials(study, base, searched) == advice
    if "--trials" in advice:
        trials = int(advice.split()[4])
        assert plan(Options(study=name, dataset="synthetic", data_folder=tmp_path, trials=trials)).target == trials
