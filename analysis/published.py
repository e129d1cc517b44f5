"""Published numbers, from one table with the source and the date of each row."""

from importlib import resources

import pandas as pd

SETS = {"voc_val": "VOC 2012 val", "voc_test": "VOC 2012 test", "coco_val": "COCO 2014 val"}
IMAGENET, LARGER = "single-stage, ImageNet weights", "single-stage, weights of image-text or self-supervised models"


def published() -> pd.DataFrame:
    """A row a method: mIoU in percent by set (the keys of `SETS`; at several scales, with CRF), its `source`, the
    `date` when it was read there, and the `group` in which it may be compared."""
    with resources.files("analysis").joinpath("published.csv").open() as file:
        table: pd.DataFrame = pd.read_csv(file, dtype={"date": str, "source": str})
    imagenet = table["pretraining"].str.startswith("ImageNet")
    table["group"] = imagenet.map({True: IMAGENET, False: LARGER})
    return table
