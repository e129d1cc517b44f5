"""What is known of VOC's and COCO's lists: how many images each has, and that none for training is one of val."""

from collections.abc import Iterator, Mapping, Sequence

from fsr.data.prepared import PreparedSet
from fsr.errors import UserError

KNOWN_COUNTS: dict[str, dict[str, int]] = {
    "VOC2012": {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456},
    "VOC2007": {"train": 209, "val": 213, "test": 210},
    "COCO": {"train": 82081, "val": 40137},  # images with an annotation
}
"""Images by data set and list."""


def check_apart(names: Mapping[str, Sequence[str]], source: PreparedSet) -> None:
    """Raise UserError if a list for training has an image of `val`."""
    for split in names:
        shared = sorted(set(names[split]) & set(names["val"])) if split.startswith("train") else []
        if shared:
            raise UserError(
                f"the lists {split} and val of {source.root} share {len(shared)} images, first {shared[0]}; what is "
                "trained on cannot be evaluated on"
            )


def other_counts(names: Mapping[str, Sequence[str]], source: PreparedSet) -> Iterator[str]:
    """A sentence for each list that has another number of images than the data set that the folder seems to be."""
    known = KNOWN_COUNTS.get(source.root.name, KNOWN_COUNTS[source.usual_name])
    for split in () if source.has_own_classes or source.is_synthetic else names:
        if split in known and len(names[split]) != known[split]:
            called = source.root.name if source.root.name in KNOWN_COUNTS else source.usual_name
            yield f"{split} has {len(names[split])} images, but {called} {known[split]}: is its list whole?"
