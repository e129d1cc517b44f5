"""`fsr sweep --repeat N --best all`: each setting of a grid with N fresh seeds by one command."""

import re

import pytest
from test_launch_sweep import Sweep

GRID = ("--study", "block_size", "--dataset", "synthetic")
ALL = ("--repeat", "2", "--best", "all")


@pytest.fixture
def grid(tmp_path):
    """The study block_size, whose five settings are all known beforehand."""
    swept = Sweep(tmp_path)
    swept.study_folder = tmp_path / "runs" / "block_size"
    yield swept
    assert swept.processes() == []


def settings(grid):
    import optuna

    from launch.state.storage import open_storage

    trials = optuna.load_study(study_name="block_size", storage=open_storage(grid.study_folder)).trials
    return [(trial.params["block_size"], trial.user_attrs.get("seed", 0), trial.state.name) for trial in trials]


@pytest.mark.slow
def test_each_cell_of_a_grid_is_trained_with_each_seed_by_one_command(grid):
    code, output = grid.run(*GRID, *ALL, "--dry-run")
    assert code == 0 and "the settings of trials 0 and 1, 2, 3, 4 with seeds 1 to 2" in output
    assert "15 trials wanted" in output and not grid.study_folder.exists()

    code, output = grid.run(*GRID, *ALL)
    assert code == 0, output
    sizes = [16, 8, 24, 32, 48]
    assert settings(grid) == [(size, seed, "COMPLETE") for seed in range(3) for size in sizes]
    assert re.search(r"15 trials wanted", output)

    assert grid.run(*GRID, *ALL)[0] == 0 and len(settings(grid)) == 15  # nothing twice
    assert grid.run(*GRID, "--repeat", "3", "--best", "all")[0] == 0
    assert settings(grid)[15:] == [(size, 3, "COMPLETE") for size in sizes]


def test_a_search_that_draws_its_settings_has_to_be_finished_first(grid):
    code, output = grid.run("--study", "mask_ratio", "--dataset", "synthetic", *ALL)
    assert code == 2 and "--repeat takes the best settings of a finished search" in output
    assert not (grid.folder / "runs" / "mask_ratio").exists()
