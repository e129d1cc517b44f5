"""What is compared: arms, each a few fields changed of the test bed, and rows, each an arm beside its counterpart."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fsr.config import TrainConfig
from sweeps.ingredients import OPTIONS, together

RELEASED = "released"
"""The arm that the frozen reference of the released training order trains (see released.py)."""

# What that reference does, whatever the bed says. A GPU has no way to give all of it the same bits, or to record it.
AS_RELEASED: Mapping[str, Any] = {
    "use_mim": True,
    "uncertain_from": 0.2,
    "block_uncertainty": "pixel",
    "cls_attends": "all",
    "cls_aggregation": "attention",
    "aux_layer": 3,
    "cls_lr_factor": 1.0,
    "image_levels": "truncate",
    "local_crops": 0,
    "drop_path": 0.0,
    "w_swap": 0.0,
    "w_contrast": 0.0,
    "w_seco": 0.0,
    "noise_filter_from": 1.0,
    "threshold_rule": "fixed",
    "pseudo_label_from": "student",
    "cam_source": "aux",
    "precision": "fp32",
    "deterministic": False,
    "graphs": False,
}

PAPERS_RATIO = 0.4
"""The mask ratio of the paper. The bed's own may leave masks no choice between blocks."""

BEST = (("swapped_assignment", "student"), ("thresholds", "mixture"))
"""The options of ingredients that were best on the seeds that the bed was chosen with (docs/results.md)."""


class Row(NamedTuple):
    """What a difference above 0 between two arms would show."""

    says: str
    arm: str
    counterpart: str


def arms_of(bed: TrainConfig) -> dict[str, Mapping[str, Any]]:
    """What each arm changes of the test bed, by its name."""
    gap = 1 - bed.momentum
    return {
        "method": {},
        "patch_alone": {"w_class": 0.0},
        "class_alone": {"w_patch": 0.0},
        "none": {"w_class": 0.0, "w_patch": 0.0},
        "random_masks": {"uncertain_from": 1.0},
        **{f"ratio_{ratio}": {"mask_ratio": ratio} for ratio in (0.2, PAPERS_RATIO, 0.8)},
        f"random_masks_{PAPERS_RATIO}": {"mask_ratio": PAPERS_RATIO, "uncertain_from": 1.0},
        **{f"blocks_{size}": {"block_size": size} for size in block_sizes(bed)},
        "average": {"cls_aggregation": "average"},
        "max": {"cls_aggregation": "max"},
        "slower_teacher": {"momentum": 1 - gap / 4},
        "faster_teacher": {"momentum": max(0.0, 1 - gap * 4)},
        **{called(*option): together(option) for option in OPTIONS},
        "together": together(*BEST),
        RELEASED: AS_RELEASED,
    }


def block_sizes(bed: TrainConfig) -> list[int]:
    """Sides of blocks of which a view has at least 2 × 2."""
    return [size for size in bed.block_sizes() if 2 * size <= bed.crop_size]


def claims(bed: TrainConfig) -> list[Row]:
    """What the paper says of the method, and what this program took over from it."""
    own = bed.block_size
    return [
        Row("the patch term helps", "patch_alone", "none"),
        Row("the class term helps on top of it", "method", "patch_alone"),
        Row("the class term helps alone", "class_alone", "none"),
        Row("self-reinforcement helps", "method", "none"),
        Row("uncertain masks beat random ones", "method", "random_masks"),
        Row(f"the same at mask ratio {PAPERS_RATIO}", f"ratio_{PAPERS_RATIO}", f"random_masks_{PAPERS_RATIO}"),
        *(
            Row(f"mask ratio {PAPERS_RATIO} beats {ratio}", f"ratio_{PAPERS_RATIO}", arm)
            for ratio, arm in ((0.2, "ratio_0.2"), (0.8, "ratio_0.8"), (bed.mask_ratio, "method"))
            if ratio != PAPERS_RATIO
        ),
        *(
            Row(f"blocks of {own} pixels beat {size}", f"blocks_{own}", f"blocks_{size}")
            for size in block_sizes(bed)
            if size != own
        ),
        *(Row(f"cross-attention beats {pooling} pooling", "method", pooling) for pooling in ("average", "max")),
        *(
            Row(f"momentum {bed.momentum:g} beats a {pace} teacher's", "method", f"{pace}_teacher")
            for pace in ("slower", "faster")
        ),
    ]


def ingredients(bed: TrainConfig) -> list[Row]:
    """What later methods added, each alone and the best together."""
    alone = [Row(f"{called(*option)} helps", called(*option), "method") for option in OPTIONS]
    return [*alone, Row(f"{' and '.join(called(*option) for option in BEST)} help together", "together", "method")]


def called(ingredient: str, option: str) -> str:
    """The arm of an ingredient's option."""
    return ingredient if option == "on" else f"{ingredient}_{option}"


def released(bed: TrainConfig) -> list[Row]:
    """The released training order beside ours: equal data, steps and seeds."""
    return [
        Row("our order of the method beats the released one", "method", RELEASED),
        Row("the best ingredients beat the released method", "together", RELEASED),
    ]


TABLES: dict[str, Callable[[TrainConfig], list[Row]]] = {
    "claims": claims,
    "ingredients": ingredients,
    "released": released,
}
