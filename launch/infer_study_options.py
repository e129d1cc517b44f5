"""The flags of `fsr infer --study`. Imports no Optuna, so that its help page is there at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fsr.bounds import COUNT, PROCESSES, WORKERS, Bounds
from fsr.command import asks_for_help, parse_flags, plain
from launch.slurm.resources import Resources


@dataclass(frozen=True, kw_only=True)
class Options(Resources):
    """Infer the checkpoints of a study, on Slurm or on this machine, and show the table that a paper needs.

    Of each checkpoint, student and teacher: CAM seed and pseudo label on lists of training images; on others
    segmentation at a single scale, at several, class-gated, and with a CRF; of a set without ground truth the archive
    for the server. The same command again resumes what was interrupted, and does only what is missing.

    Examples:
        --study mask_ratio --best 3 --repeats --parallel 8 --partition gpu
        --study mask_ratio --trials 0 4 7 --cluster local
        --study mask_ratio --best 1 --infer_set test
    """

    # The checkpoints
    study: str
    """The study's name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    best: Annotated[int | None, COUNT] = None
    """Only the best settings of the search, so many, and trial 0's; by default all of its finished trials."""
    trials: Annotated[tuple[int, ...], Bounds(0, 10**6)] = ()
    """Only these trials."""
    repeats: bool = False
    """Also their repeats with fresh seeds, over which means and differences from trial 0 are taken."""

    # What is inferred
    infer_set: tuple[str, ...] = ("train", "val")
    """Prepared lists of the images: train, train_aug, val or test."""
    weights: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
    """Which networks of each checkpoint."""
    gate_threshold: Annotated[float, Bounds(-1000.0, 1000.0)] = 0.0
    """Class gating rejects a class whose top logit, of the image at scale 1 without its flip, is at most this."""
    data_folder: Path | None = None
    """Where the data lies; by default where the study's trials had it."""
    output_folder: Path | None = None
    """Where the results go; by default evaluation in the study's folder. An interrupted evaluation in it resumes."""
    report: bool = False
    """Write the report page of each inference, too."""
    skip_bad: bool = False
    """Leave out images whose files cannot be read, and report their names and number, instead of stopping."""

    # How it is computed
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the network's products: fp32 exact, tf32 with factors of 10 bits on a GPU, bf16 by autocast."""
    batch_size: Annotated[int, COUNT] = 4
    """Images of one size in a batch of the network."""
    workers: Annotated[int, PROCESSES] = 2
    """Processes that read images."""
    threads: Annotated[int | None, Bounds(1, 1024)] = None
    """Threads that take batches from the network to the files, a core each; by default all cores (4 on Slurm)."""
    shards: Annotated[int, COUNT] = 4
    """Shards of each list; the workers take them in turn, checkpoint after checkpoint."""

    # Slurm
    parallel: Annotated[int, WORKERS] = 4
    """Workers at the same time on Slurm, each with one GPU."""
    detach: bool = False
    """Submit and return, without waiting for the table."""


def parse(arguments: Sequence[str]) -> Options:
    """Read the flags. Raises UserError for a value that is not allowed."""
    command = "infer" if asks_for_help(arguments) else "infer --study NAME"  # whose help page is another one
    options: Options = parse_flags(Options, command, arguments)
    return options


def names_a_study(arguments: Sequence[str]) -> bool:
    """Whether a command line of an inference names a study, whose checkpoints are meant."""
    return any(plain(word.partition("=")[0]) == "study" for word in arguments if word.startswith("-"))
