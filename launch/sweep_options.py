"""The flags of `fsr sweep`. Imports no Optuna, so that its help page is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fsr.bounds import COUNT, SEED, STEPS, WORKERS
from launch.slurm.resources import Resources
from launch.state.paths import Keep


@dataclass(frozen=True, kw_only=True)
class Options(Resources):
    """Train the trials of a study that are still missing, several at a time, and compare them.

    The same command again resumes what was interrupted, and starts only what is missing.

    Examples:
        --study mask_ratio --data_folder DIR --partition gpu --time_limit 12:00:00 --detach
        --study mask_ratio --data_folder DIR --repeat 5 --best 2
        --study released_choices --data_folder DIR --repeat 8 --best all
        --study smoke --data_folder data/synthetic --cluster local
    """

    # The study
    study: str
    """A file of sweeps/, by name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    trials: Annotated[int | None, COUNT] = None
    """Trials wanted in all, finished or pruned; by default the study's number."""
    parallel: Annotated[int | None, WORKERS] = None
    """Workers at a time; by default the study's number; on this machine no more than its cores."""
    repeat: Annotated[int | None, COUNT] = None
    """When the search is done: train the best settings, and trial 0's, again with so many fresh seeds each."""
    best: Annotated[int | Literal["all"], COUNT, tyro.conf.arg(metavar="{N,all}")] = 1
    """How many of the best settings --repeat takes, beside trial 0's; or all of them. Where all settings are known
    beforehand, as in a grid, all are trained with all seeds by this one command."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    verify_resume: bool = False
    """Kill a short run of this study at random steps, resume it, and check that it is bit-identical to an uninterrupted
    one."""

    # What is trained
    dataset: Literal["voc", "coco", "synthetic", "test_bed"] | None = None
    """Preset to start from; by default the study's."""
    data_folder: Path | None = None
    """Where the data lies; by default the preset's place."""
    iterations: Annotated[int | None, STEPS] = None
    """Steps of each run; by default the study's."""
    seed: Annotated[int | None, SEED] = None
    """Seed of the runs and of the search; by default the preset's."""

    # Slurm
    detach: bool = False
    """Submit and return, without watching."""

    # Storage
    storage: str | None = None
    """URL of a database to use instead of the journal: postgresql://…, mysql://…, sqlite:///FILE. One with a password
    is refused here, where every user of this machine can read it: set the environment variable FSR_STORAGE to it."""
    keep: Keep | None = None
    """What stays of the weights of trials that have ended. best: best.pt of a finished one, nothing of a pruned one.
    all: everything. none: nothing. One that failed keeps everything. By default what the study says, at first best; to
    name it here also cleans up after the trials that have ended before."""
