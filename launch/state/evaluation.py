"""The evaluation of a study: which inferences it consists of, and which of them are done."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from fsr.inference.config import InferConfig
from fsr.inference.images import open_images
from fsr.inference.journal import Results, fingerprint
from launch.state.paths import EvaluationFolder

Weights: TypeAlias = Literal["student", "teacher"]


def inferences_of(
    checkpoints: Mapping[int, Path],
    folder: EvaluationFolder,
    common: InferConfig,
    infer_sets: Sequence[str],
    networks: Sequence[Weights],
) -> list[InferConfig]:
    """Of each checkpoint each list of images with each network; what they have in common is said by `common`.

    One pass of the network gives all that is scored of a list:

    - training images (a list whose name begins with train): CAMs, and pseudo labels from them by a CRF;
    - others with ground truth: segmentation at a single scale, at several, class-gated, and with a CRF;
    - those without (test): segmentation with a CRF, and the archive for the server.

    Raises UserError if the data set or a list is not there.
    """
    kinds = {}
    for name in infer_sets:
        images = open_images(common)
        images.items(name)  # which says what is missing, before anything is begun
        if name.startswith("train"):
            kinds[name] = replace(common, infer_set=name, crf=False, pseudo_labels="crf")
        else:
            scored = images.has_ground_truth(name)
            kinds[name] = replace(common, infer_set=name, single_scale=scored, class_gating=scored)
    return [
        replace(kind, checkpoint=file, weights=weights, output_folder=folder.results(number, name, weights))
        for number, file in checkpoints.items()
        for name, kind in kinds.items()
        for weights in dict.fromkeys(networks)
    ]


def unfinished(inferences: Sequence[InferConfig]) -> list[InferConfig]:
    """Those that are not done. Raises UserError if a folder holds results of another checkpoint or other settings."""
    hashes = {file: fingerprint(file) for file in {config.checkpoint for config in inferences}}
    for config in inferences:
        Results(config.results_folder).check(config.identity(hashes[config.checkpoint]))
    return [config for config in inferences if not is_finished(config)]


def is_finished(config: InferConfig) -> bool:
    """Whether all images of an inference have their scores, and its report is there if it is to have one."""
    results = Results(config.results_folder)
    if not results.scores_file.exists() or (config.report and not results.report_file.exists()):
        return False
    return results.scored(len(open_images(config).items(config.infer_set)))
