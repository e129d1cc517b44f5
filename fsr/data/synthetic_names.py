"""What the classes of the synthetic set are called: by their looks (fsr/data/looks.py)."""

SEGMENTATION_NAMES = (
    *("red disc with lime", "red disc with blue"),
    *("green square with orange", "green square with azure"),
    *("cyan flower with green", "cyan flower with purple"),
    *("violet ellipse with mint", "violet ellipse with pink"),
)
"""Classes 1 to 8: by the body that a pair of classes shares, and its own marker."""

_HUES = ("amber", "emerald", "azure", "magenta")
PRETRAINING_NAMES = tuple(
    f"{first} and {second} {pattern}"
    for pattern in ("dots", "rings", "zigzag", "spokes", "mesh")
    for first, second in zip(_HUES, (*_HUES[1:], _HUES[0]), strict=True)
)
"""Classes 1 to 20: by the hues of the two halves, and their pattern."""
