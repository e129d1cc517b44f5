"""The flags of `fsr submit-infer`. Imports no Optuna, so that its help page is there at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from fsr.bounds import WORKERS
from fsr.command import parse_flags, type_of_both
from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch.slurm.resources import Resources

R = TypeVar("R", bound=Resources)


@dataclass(frozen=True, kw_only=True)
class Options(Resources):
    """Infer on Slurm, by several workers; without Slurm, in this process. It takes the flags of fsr infer, and a job's.

    Examples:
        voc --checkpoint runs/voc/best.pt --data_folder DIR --shards 64 --parallel 8 --partition gpu
        voc --checkpoint runs/voc/best.pt --data_folder DIR --infer_set train_aug --pseudo_labels crf --shards 64
    """

    # Slurm
    parallel: Annotated[int, WORKERS] = 4
    """Workers at the same time on Slurm, each with one GPU; they take the shards in turn."""


def parse(arguments: Sequence[str]) -> tuple[InferConfig, Options]:
    """What is inferred, and where. Raises UserError for a value that is not allowed."""
    both = parse_flags(type_of_both(InferConfig, Options), "submit-infer", arguments, text=Options.__doc__)
    return both.method, both.cluster


def one_gpu_a_worker(resources: R, config: InferConfig) -> R:
    """What each worker of an inference gets: one GPU, none for the synthetic set. Raises UserError if more is asked
    for."""
    count = resources.gpu_count
    gpus = count if count is not None else 0 if config.dataset == "synthetic" else 1
    if gpus > 1 or resources.nodes > 1:
        raise UserError(
            f"--gpus must be 0 or 1 and --nodes 1, as each worker infers alone (more of them: --parallel), "
            f"got {gpus} and {resources.nodes}"
        )
    return resources if count is not None else replace(resources, gpus=gpus)
