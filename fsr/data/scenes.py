"""Synthetic pictures on which image-level labels are not enough: a class shows only in a small part of its objects.

Classes 2p + 1 and 2p + 2 are a pair. Their objects share the body (stripes, shape, and a hue that differs by less than
the views' colour jitter); what tells them apart is a marker, a chequered square of the class's own hue on a tenth of
the object. A classifier therefore looks at markers, as classifiers of real pictures look at heads and wheels, and
segmentation has to find the bodies.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fsr.data.images import IGNORED

SIDE = 128  # pixels
CLASSES = 8

_BODY_HUES = (0.0, 0.25, 0.5, 0.75)  # by pair
_BODY_HUE_SHIFT = 0.07  # to either side, by class
# By class. The two markers of a pair lie opposite each other on the colour circle, and both 40° or more off their body.
_MARKER_HUES = (0.1875, 0.6875, 0.0625, 0.5625, 0.3125, 0.8125, 0.4375, 0.9375)
_STRIPES = (4, 7, 5, 9)  # along a body's diameter, by pair
_STRIPE_ANGLES = (0.0, 0.5, 0.25, 0.75)  # of half a turn, against the body, by pair
_SIZE_BY_COUNT = {1: 1.0, 2: 0.85, 3: 0.7}
_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    class_id: int
    """1..8"""
    outline: np.ndarray
    """Corners (x, y) in pixels, float [48, 2], hidden parts included, cut at the border of the picture."""
    area: int
    """Pixels of the body, hidden ones included."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom pixel of the visible part, inclusive."""


@dataclass(frozen=True)
class Scene:
    """One picture with its ground truth."""

    pixels: np.ndarray
    """uint8 [128, 128, 3]"""
    ground_truth: np.ndarray
    """Class of every pixel, uint8 [128, 128]; 255 along the edges of objects, 2 pixels wide."""
    things: tuple[Thing, ...]
    """From back to front, largest first."""


def draw_scene(seed: int, index: int) -> Scene:
    """Picture number `index` of the set `seed`: a function of these two numbers alone."""
    rng = np.random.default_rng((seed, index))
    pixels = _background(rng)
    for _ in range(rng.integers(0, 4)):
        _add_clutter(pixels, rng)

    count = int(rng.integers(1, 4))
    classes = rng.choice(CLASSES, count, replace=False)  # 0..7
    diameters = rng.uniform(0.40, 0.65, count) * _SIZE_BY_COUNT[count] * SIDE
    centres = _places(diameters, rng)
    turns = rng.uniform(0, 2 * np.pi, count)
    outlines = [_outline(c // 2, *thing) for c, *thing in zip(classes, centres, diameters, turns, strict=True)]
    bodies = [_filled(outline) for outline in outlines]
    # COCO's rule for overlapping masks is that the smaller object lies in front; this makes it true.
    from_back = sorted(range(count), key=lambda i: -int(bodies[i].sum()))

    owner = np.zeros((SIDE, SIDE), np.uint8)  # 0, or number of the object + 1
    for i in from_back:
        owner[bodies[i]] = i + 1
        _paint_body(pixels, bodies[i], classes[i], centres[i], diameters[i], turns[i], rng)
    for i in from_back:
        _paint_marker(pixels, owner == i + 1, classes[i], centres[i], diameters[i], rng)

    pixels += 0.06 * rng.standard_normal(pixels.shape, np.float32)
    ground_truth = np.concatenate([[0], classes + 1]).astype(np.uint8)[owner]
    ground_truth[_edges(owner)] = IGNORED
    things = [Thing(int(classes[i]) + 1, outlines[i], int(bodies[i].sum()), _box(owner == i + 1)) for i in from_back]
    return Scene((pixels.clip(0, 1) * 255).round().astype(np.uint8), ground_truth, tuple(things))


def _background(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, paler than any object, float32 [128, 128, 3] in 0..1."""
    coarse = (0.5 + rng.normal(0, 0.10, (6, 6, 1)) + rng.normal(0, 0.07, (6, 6, 3))).clip(0, 1)
    smooth = Image.fromarray((coarse * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / 255


def _add_clutter(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a plain greyish shape of no class, in the outline of some pair."""
    colour = rng.uniform(0.2, 0.8) + rng.uniform(-0.05, 0.05, 3)
    centre, diameter = rng.uniform(0, SIDE, 2), rng.uniform(0.15, 0.4) * SIDE
    pixels[_filled(_outline(int(rng.integers(4)), centre, diameter, rng.uniform(0, 2 * np.pi)))] = colour


def _places(diameters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centres (x, y) inside the picture, [count, 2]: each the least crowded of ten, so that no object hides another."""
    centres: list[np.ndarray] = []
    for diameter in diameters:
        candidates = rng.uniform(diameter / 2, SIDE - diameter / 2, (10, 2))
        gaps = [
            np.linalg.norm(candidates - centre, axis=1) - (diameter + other) / 2
            for centre, other in zip(centres, diameters, strict=False)
        ]
        best = np.min(gaps, axis=0).argmax() if gaps else 0
        centres.append(candidates[best])
    return np.array(centres)


def _outline(pair: int, centre: np.ndarray, diameter: float, turn: float) -> np.ndarray:
    """Corners of the pair's shape, with the area of a disc of that diameter, cut at the picture's border, [48, 2]."""
    cos, sin = np.cos(_ANGLES), np.sin(_ANGLES)
    radius = (
        np.ones_like(cos),  # disc
        1 / np.maximum(abs(cos), abs(sin)),  # square
        1 + 0.25 * np.cos(5 * _ANGLES),  # flower
        1 / np.hypot(cos / 1.3, sin * 1.3),  # ellipse
    )[pair]
    radius = radius * (diameter / 2) / np.sqrt((radius**2).mean())
    corners = centre + radius[:, None] * np.stack([np.cos(_ANGLES + turn), np.sin(_ANGLES + turn)], axis=1)
    inside: np.ndarray = corners.clip(0, SIDE - 1)
    return inside


def _filled(outline: np.ndarray) -> np.ndarray:
    """Pixels inside the outline, bool [128, 128]."""
    canvas = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in outline.tolist()], fill=1)
    return np.asarray(canvas).astype(bool)


def _paint_body(
    pixels: np.ndarray,
    body: np.ndarray,
    class_index: int,
    centre: np.ndarray,
    diameter: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    pair, member = divmod(class_index, 2)
    hue = _BODY_HUES[pair] + (2 * member - 1) * _BODY_HUE_SHIFT + rng.uniform(-0.02, 0.02)
    angle = turn + np.pi * _STRIPE_ANGLES[pair]
    along = (_X[body] - centre[0]) * np.cos(angle) + (_Y[body] - centre[1]) * np.sin(angle)
    dark = np.sin(2 * np.pi * _STRIPES[pair] * along / diameter) < 0
    colours = np.array([colorsys.hsv_to_rgb(hue % 1, 0.55, value) for value in (0.8, 0.55)])
    pixels[body] = colours[dark.astype(int)]


def _paint_marker(
    pixels: np.ndarray,
    visible: np.ndarray,
    class_index: int,
    centre: np.ndarray,
    diameter: float,
    rng: np.random.Generator,
) -> None:
    """Paint the marker of class 0..7 where the object is visible, at the least hidden of ten places near its centre."""
    side = round(0.28 * diameter)
    corners = (centre + rng.uniform(-0.2, 0.2, (10, 2)) * diameter - side / 2).round().astype(int).clip(0, SIDE - side)
    left, top = max(corners.tolist(), key=lambda at: visible[at[1] : at[1] + side, at[0] : at[0] + side].sum())
    window = np.s_[top : top + side, left : left + side]
    cells = np.arange(side) * 4 // side
    bright = (cells[:, None] + cells) % 2
    hue = _MARKER_HUES[class_index]
    colours = np.array([colorsys.hsv_to_rgb(hue, 1.0, 0.4), colorsys.hsv_to_rgb(hue, 0.75, 1.0)])
    pixels[window][visible[window]] = colours[bright][visible[window]]


def _edges(owner: np.ndarray) -> np.ndarray:
    """Pixels beside a change of owner, bool [128, 128]."""
    edges = np.zeros_like(owner, bool)
    down, across = owner[1:] != owner[:-1], owner[:, 1:] != owner[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges


def _box(visible: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
