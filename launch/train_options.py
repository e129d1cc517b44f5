"""The flags of `fsr submit-train`. Imports no Optuna, so that its help page is there at once."""

from collections.abc import Sequence
from pathlib import Path

from fsr.command import parse_with
from fsr.config import TrainConfig
from launch.slurm.resources import Resources

TEXT = """Train one run on Slurm; without Slurm, on this machine. It takes the flags of fsr train, and those of a job.

Preemption, time limits and lost nodes lose nothing: it resumes. The same command again submits only what is missing.

Examples:
    --data_folder DIR --run_folder runs/voc --partition gpu --time_limit 12:00:00
    --data_folder DIR --run_folder runs/lr --lr 3e-5 --gpus 2 --sbatch mem=64G
"""


def parse(arguments: Sequence[str]) -> tuple[Resources, TrainConfig, Path]:
    """Where a run is trained, its configuration and its folder. Raises UserError for a value that is not allowed."""
    return parse_with(Resources, "submit-train", arguments, TEXT)
