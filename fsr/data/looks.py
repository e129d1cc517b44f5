"""What the objects of synthetic pictures look like: shapes, patterns and hues, by class, in the two splits.

In the segmentation split classes 2p + 1 and 2p + 2 are a pair. Their objects share the body (stripes, shape, and a hue
that differs by less than the views' colour jitter); what tells them apart is a marker, a chequered square of the
class's own hue on a tenth of the object.

The pretraining split shares no shape, pattern or hue with it, and has no markers. The halves of a body have two hues,
and what one half shows fits two classes: which it is, only the object as a whole tells. So features that tell these
classes apart see bodies, not places on them, and know no body or marker of the segmentation split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_COS, _SIN = np.cos(ANGLES), np.sin(ANGLES)

Shape: TypeAlias = np.ndarray
"""Distance of the outline from the centre at each of ANGLES, in any unit, [48]."""
Pattern: TypeAlias = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]
"""Of pixels x, y from the centre [n], the turn of the body (radians) and its diameter: which are dark, bool [n]."""


@dataclass(frozen=True, eq=False)
class Look:
    """How the objects of a class look."""

    shape: Shape
    pattern: Pattern
    hues: tuple[float, float]
    """Of the two halves, in turns of the colour circle."""
    marker_hue: float | None = None
    """None without a marker."""


@dataclass(frozen=True, eq=False)
class Split:
    """The classes of a set of pictures."""

    looks: tuple[Look, ...]
    """By class, without background."""
    shapes: tuple[Shape, ...]
    """That clutter has, too."""
    stream: tuple[int, ...]
    """Behind seed and number of a picture, for its draws: no picture of one split has a background of the other."""


def along(x: np.ndarray, y: np.ndarray, angle: float) -> np.ndarray:
    """Where pixels lie in a direction, [n]."""
    position: np.ndarray = x * np.cos(angle) + y * np.sin(angle)
    return position


def _stripes(count: int, angle: float) -> Pattern:
    """So many along a diameter, turned by a part of half a turn against the body."""

    def dark(x: np.ndarray, y: np.ndarray, turn: float, diameter: float) -> np.ndarray:
        below: np.ndarray = np.sin(2 * np.pi * count * along(x, y, turn + np.pi * angle) / diameter) < 0
        return below

    return dark


def _on_body(of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Pattern:
    """A pattern that is given where pixels lie on the body, u and v in diameters from its centre."""

    def dark(x: np.ndarray, y: np.ndarray, turn: float, diameter: float) -> np.ndarray:
        return of(along(x, y, turn) / diameter, along(x, y, turn + np.pi / 2) / diameter)

    return dark


_DISC = np.ones_like(_COS)
_SQUARE = 1 / np.maximum(abs(_COS), abs(_SIN))
_FLOWER = 1 + 0.25 * np.cos(5 * ANGLES)
_ELLIPSE = 1 / np.hypot(_COS / 1.3, _SIN * 1.3)
_BODIES = (  # by pair: shape, stripes, hue
    (_DISC, _stripes(4, 0.0), 0.0),
    (_SQUARE, _stripes(7, 0.5), 0.25),
    (_FLOWER, _stripes(5, 0.25), 0.5),
    (_ELLIPSE, _stripes(9, 0.75), 0.75),
)
_BODY_HUE_SHIFT = 0.07  # to either side, by class
# By class. The two markers of a pair lie opposite each other on the colour circle, and both 40° or more off their body.
_MARKER_HUES = (0.1875, 0.6875, 0.0625, 0.5625, 0.3125, 0.8125, 0.4375, 0.9375)


def _marked(class_index: int) -> Look:
    pair, member = divmod(class_index, 2)
    shape, pattern, pair_hue = _BODIES[pair]
    hue = pair_hue + (2 * member - 1) * _BODY_HUE_SHIFT
    return Look(shape, pattern, (hue, hue), _MARKER_HUES[class_index])


SEGMENTATION = Split(tuple(map(_marked, range(8))), (_DISC, _SQUARE, _FLOWER, _ELLIPSE), ())


def _polygon(corners: int) -> Shape:
    sides = 2 * np.pi / corners * np.arange(corners)[:, None]
    distance: Shape = 1 / np.cos(ANGLES - sides).max(0)
    return distance


_SHAPES = (
    _polygon(3).clip(max=1.6),  # a triangle without its tips, which would lie far outside
    np.maximum(
        np.minimum(1 / abs(_COS), 0.45 / abs(_SIN).clip(1e-9)), np.minimum(0.45 / abs(_COS), 1 / abs(_SIN).clip(1e-9))
    ),  # cross
    1 - 0.4 * abs(np.sin(3 * ANGLES)),  # star
    np.minimum(1, 0.35 / _COS.clip(1e-9)),  # dome
    _polygon(6),
)
_PATTERNS = (
    _on_body(lambda u, v: np.hypot(5 * u % 1 - 0.5, 5 * v % 1 - 0.5) < 0.4),  # dots
    _on_body(lambda u, v: np.sin(2 * np.pi * 6 * np.hypot(u, v)) < 0),  # rings
    _on_body(lambda u, v: np.sin(2 * np.pi * (6 * u + 3 * abs(3 * v % 1 - 0.5))) < 0),  # zigzag
    _on_body(lambda u, v: np.sin(8 * np.arctan2(v, u)) < 0),  # spokes
    _on_body(lambda u, v: np.minimum(6 * u % 1, 6 * v % 1) < 0.3),  # mesh
)
_HUES = (0.125, 0.375, 0.625, 0.875)  # between those of the pairs' bodies


def _halved(class_index: int) -> Look:
    kind, first = divmod(class_index, len(_HUES))
    hues = _HUES[first], _HUES[(first + 1) % len(_HUES)]
    return Look(_SHAPES[(kind + first) % len(_SHAPES)], _PATTERNS[kind], hues)


PRETRAINING = Split(tuple(map(_halved, range(len(_PATTERNS) * len(_HUES)))), _SHAPES, (1,))
