"""What the classes of the synthetic set are called: by the body that a pair of classes shares, and its own marker."""

SEGMENTATION_NAMES = (
    *("red disc with lime", "red disc with blue"),
    *("green square with orange", "green square with azure"),
    *("cyan flower with green", "cyan flower with purple"),
    *("violet ellipse with mint", "violet ellipse with pink"),
)
"""Classes 1 to 8 (fsr/data/scenes.py)."""
