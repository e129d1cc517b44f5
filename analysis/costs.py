"""What the runs of studies cost: counted as `fsr cost` counts, beside the rate at which they ran."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.load import study_folder
from fsr.config import TrainConfig
from fsr.json_file import UNREADABLE

IMAGE, SCALES = (500, 375), (1.0, 1.25, 1.5)  # of an inference, as in fsr cost
# Fields that change no operation of a run. One that is missing here costs no more than time: it is counted anew.
_FREE = {
    *("data_folder", "list_folder", "train_set", "val_set", "pretrained", "weight_init", "cls_attends", "seed"),
    *("crop_area", "local_crop_area", "use_aa", "use_gauss", "use_solar", "augment"),
    *("high_threshold", "low_threshold", "bkg_threshold", "image_levels", "uncertain", "block_uncertainty"),
    *("student_temp", "teacher_temp", "lr", "head_lr_factor", "cls_lr_factor", "weight_decay", "warmup", "momentum"),
    *("eval_every", "log_every", "save_every", "workers", "pictures", "deterministic"),
}
_WEIGHTS = ("w_class", "w_patch", "w_aff", "w_seg", "w_reg")


def costs(trials: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """The costs of finished trials (rows of `tables.trials`), a row for each set of settings that cost the same.

    `of` counts the trials of a study that cost so; `images/s` and `TFLOP/s` are the medians of what their runs reached,
    all ranks together. GPU-hours are arithmetic (fsr/gpu_hours.py). Trials whose configuration is gone are left out.
    """
    from fsr.cost import cost_of  # here, for it imports torch

    alike: dict[tuple[object, ...], list[tuple[TrainConfig, float]]] = defaultdict(list)
    done = trials[trials["state"] == "complete"]
    for study, number, rate in done[["study", "trial", "steps_per_s"]].itertuples(index=False):
        try:
            config = study_folder(study, runs).run(number).config()
        except UNREADABLE:
            continue
        key = (study, *_counted(config))
        alike[key].append((config, float("nan") if rate is None else rate))
    rows = []
    for (study, *_), members in alike.items():
        config = members[0][0]
        cost = cost_of(config, IMAGE, SCALES)
        rate = pd.Series([rate for _, rate in members], dtype=float).median()
        rows.append(
            {
                "study": study,
                "of": len(members),
                **{name: getattr(config, name) for name in _differing([each[0][0] for each in alike.values()])},
                "parameters, million": sum(cost.parameters.values()) / 1e6,
                "TFLOP a step": cost.step / 1e12,
                "PFLOP a run": cost.run / 1e15,
                "TFLOP an image": sum(cost.inference.values()) / 1e12,
                "images/s": rate * config.ranks * config.batch_size,
                "TFLOP/s": rate * cost.step / 1e12,
                **{f"{gpu}, h": hours for gpu, hours in cost.gpu_hours.items()},
            }
        )
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _counted(config: TrainConfig) -> tuple[object, ...]:
    """What the operations of a run depend on, and more."""
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    return tuple(value > 0 if name in _WEIGHTS else value for name, value in fields.items())


def _differing(configs: Sequence[TrainConfig]) -> list[str]:
    """Names of the fields in which configurations differ, of those that change operations."""
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _FREE]
    return [name for name in names if len({getattr(config, name) for config in configs}) > 1]
