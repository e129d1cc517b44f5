"""Whether a sweep's checkpoints will find room: asked before it starts, without torch."""

import ctypes
import errno
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import create, unfinished
from fsr.system_errors import FULL, nearest
from launch.state.paths import Keep

SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}  # ViTs: channels, blocks
VALUE = 4  # bytes of a float32
KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


@dataclass(frozen=True)
class Need:
    """Bytes that the trials of a sweep need. A network's weights are the unit of all files."""

    checkpoint: int
    """Student, teacher, and two values a weight of the optimizer."""
    best: int
    """Student and teacher."""

    @classmethod
    def of(cls, config: TrainConfig) -> "Need | None":
        """That of runs of this configuration; None for a backbone whose size is not known."""
        weights = weights_of(config)
        return None if weights is None else cls(4 * weights * VALUE, 2 * weights * VALUE)

    @property
    def while_training(self) -> int:
        """Most that one run needs: two checkpoints and a best.pt, and the next of each while it is being written."""
        return 3 * self.checkpoint + 2 * self.best

    def left(self, keep: Keep) -> int:
        """What a finished run leaves behind."""
        return {"all": 2 * self.checkpoint + self.best, "best": self.best, "none": 0}[keep]

    def total(self, keep: Keep, trials: int, workers: int) -> int:
        """Most that so many trials need, with so many workers at a time."""
        return min(workers, trials) * self.while_training + max(0, trials - workers) * self.left(keep)


def weights_of(config: TrainConfig) -> int | None:
    """Weights of one network of this configuration, within a percent; None for a backbone whose size is not known."""
    named = re.match("vit_([a-z]+)_", config.backbone)
    size = SIZES.get(named[1]) if named else None
    dim, depth = config.embed_dim or (size and size[0]), config.depth or (size and size[1])
    if not dim or not depth:
        return None
    block = 12 * dim**2 + 13 * dim
    patches = (config.crop_size // config.patch_size) ** 2
    encoder = (depth + config.cls_depth) * block + (3 * config.patch_size**2 + patches) * dim
    width, hidden, bottleneck = config.decoder_width, config.projector_hidden, config.projector_bottleneck
    decoder = 9 * dim * width + 9 * width**2 + width * config.num_classes
    projector = dim * hidden + hidden**2 + hidden * bottleneck + bottleneck * config.out_dim
    return encoder + decoder + projector + 2 * (config.num_classes - 1) * dim


def space_note(folder: Path, need: Need, keep: Keep, trials: int, workers: int) -> str | None:
    """A sentence with numbers if the trials may need more than is free; None if there is room for all."""
    total, free = need.total(keep, trials, workers), free_bytes(folder)
    if not trials or total <= free:
        return None
    return (
        f"{trials} trials may need {gigabytes(total)} ({gigabytes(need.while_training)} of each that is trained, "
        f"{gigabytes(need.left(keep))} of each that has finished with --keep {keep}), and {gigabytes(free)} are free "
        f"in {nearest(folder)}; workers wait where the disk is full"
    )


def check_space(folder: Path, need: Need) -> None:
    """Raise UserError if not even one checkpoint has room, by the disk or by the user's quota."""
    if free_bytes(folder) < need.checkpoint or not can_allocate(folder, need.checkpoint):
        raise UserError(
            f"a checkpoint of this study has {gigabytes(need.checkpoint)}, and there is no room for one in "
            f"{nearest(folder)} ({gigabytes(free_bytes(folder))} are free, or your quota allows less); make room, or "
            "take another --runs folder"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the file system of a folder, which need not be there yet."""
    return shutil.disk_usage(nearest(folder)).free


def can_allocate(folder: Path, size: int) -> bool:
    """Whether so much may be allocated in a folder. Quotas count, which no figure of free space tells.

    True where the file system does not allocate ahead: then only writing would tell.
    """
    probe = unfinished(folder / "probe")
    file = create(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        # The system's own call: posix_fallocate writes every block where a file system knows no better.
        libc = ctypes.CDLL(None, use_errno=True)
        allocate = getattr(libc, "fallocate", None)
        if allocate is None:
            return True
        failed = allocate(file, KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size))
        return not failed or ctypes.get_errno() not in (*FULL, errno.EFBIG)
    finally:
        os.close(file)
        probe.unlink()


def gigabytes(number: float) -> str:
    """Bytes as text: 4.25 GB, 0.5 MB."""
    unit, name = (1e9, "GB") if number >= 1e9 or number == 0 else (1e6, "MB")
    digits = max(0, 2 - int(math.log10(max(1, number / unit))))
    return f"{number / unit:.{digits}f} {name}"
