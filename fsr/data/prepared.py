"""What VOC and COCO have in common: a folder, class names, and lists that were prepared."""

from pathlib import Path

from fsr.data.lists import Item, read_list
from fsr.errors import UserError


class PreparedSet:
    """A data set at `data_folder`/`layout`, of which the first `num_classes` classes (background included) are used.

    Raises UserError if it is not there or has fewer classes.
    """

    def __init__(
        self,
        kind: str,
        layout: str,
        all_class_names: tuple[str, ...],
        data_folder: Path,
        list_folder: Path | None,
        num_classes: int,
    ) -> None:
        self.root = data_folder / layout
        if not self.root.is_dir():
            raise UserError(f"data folder {data_folder} must hold {layout}, which is missing")
        if num_classes > len(all_class_names):
            raise UserError(f"num_classes must be at most {len(all_class_names)} for {kind}, got {num_classes}")
        self.class_names = all_class_names[:num_classes]
        self.list_folder = list_folder or self.root / "ImageSets" / "fsr"
        self.remedy = f"python -m fsr.data.prepare {kind} {data_folder}"
        if list_folder is not None:
            self.remedy += f" --list_folder {list_folder}"

    def items(self, split: str) -> list[Item]:
        """The images of the prepared list `split`. Raises UserError if it is missing or damaged."""
        return read_list(self.list_folder / f"{split}.txt", len(self.class_names), self.remedy)
