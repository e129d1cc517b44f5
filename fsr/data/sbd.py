"""Masks as SBD comes, in MATLAB's format, which SciPy reads (no part of what this program needs)."""

from pathlib import Path

import numpy as np

from fsr.errors import UserError
from fsr.regular_file import open_regular

_TO_PNG = (
    "install SciPy (pip install scipy), which reads it, or write its GTcls.Segmentation as "
    "SegmentationClassAug/NAME.png"
)


def read_sbd(file: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Class of every pixel, uint8 [H, W], of a file of `benchmark_RELEASE/dataset/cls`.

    Raises UserError without SciPy and for another size than (width, height) `size`; whatever SciPy raises for damage.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(f"mask {file} is in MATLAB's format: {_TO_PNG}") from None
    with open_regular(file) as stream:
        content = loadmat(stream, variable_names=["GTcls"])
    classes: np.ndarray = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    if classes.ndim != 2 or classes.dtype != np.uint8:
        raise ValueError(f"GTcls.Segmentation must be uint8 [H, W], got {classes.dtype} {list(classes.shape)}")
    height, width = classes.shape
    if size is not None and (width, height) != size:
        raise UserError(f"mask {file} is {width} x {height} pixels, its image {size[0]} x {size[1]}")
    return classes
