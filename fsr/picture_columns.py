"""What the tiles of validation pictures show, from left to right; apart from what draws them, which needs torch."""

COLUMNS = ("image", "CAM", "aux CAM", "mask", "pseudo label", "prediction", "ground truth")
