"""The flags of `fsr submit-infer`. Imports no Optuna, so that its help page is there at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fsr.bounds import WORKERS
from fsr.command import type_of_both
from fsr.inference.config import InferConfig, in_its_folder, parse_inference
from launch.slurm.resources import Resources


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
    kind = type_of_both(InferConfig, Options)
    text = Options.__doc__ or ""
    both = parse_inference(kind, "submit-infer", arguments, text, lambda config: kind(config, Options()))
    return in_its_folder(both.method), both.cluster
