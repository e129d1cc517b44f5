"""Synthetic pictures on which image-level labels are not enough: a class shows only in a small part of its objects.

A classifier therefore looks at markers, as classifiers of real pictures look at heads and wheels, and segmentation has
to find the bodies (fsr/data/looks.py).
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fsr.data.images import IGNORED
from fsr.data.looks import ANGLES, SEGMENTATION, Look, Shape, Split, along

SIDE = 128  # pixels

_SIZE_BY_COUNT = {1: 1.0, 2: 0.85, 3: 0.7}
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    class_id: int
    """From 1."""
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


def draw_scene(seed: int, index: int, split: Split = SEGMENTATION) -> Scene:
    """Picture number `index` of the set `seed`: a function of these two numbers and the split alone."""
    rng = np.random.default_rng((seed, index, *split.stream))
    pixels = _background(rng)
    for _ in range(rng.integers(0, 4)):
        _add_clutter(pixels, split.shapes, rng)

    count = int(rng.integers(1, 4))
    classes = rng.choice(len(split.looks), count, replace=False)  # from 0
    looks = [split.looks[c] for c in classes]
    diameters = rng.uniform(0.40, 0.65, count) * _SIZE_BY_COUNT[count] * SIDE
    centres = _places(diameters, rng)
    turns = rng.uniform(0, 2 * np.pi, count)
    outlines = [_outline(look.shape, *thing) for look, *thing in zip(looks, centres, diameters, turns, strict=True)]
    bodies = [_filled(outline) for outline in outlines]
    # COCO's rule for overlapping masks is that the smaller object lies in front; this makes it true.
    from_back = sorted(range(count), key=lambda i: -int(bodies[i].sum()))

    owner = np.zeros((SIDE, SIDE), np.uint8)  # 0, or number of the object + 1
    for i in from_back:
        owner[bodies[i]] = i + 1
        _paint_body(pixels, bodies[i], looks[i], centres[i], diameters[i], turns[i], rng)
    for i in from_back:
        hue = looks[i].marker_hue
        if hue is not None:
            _paint_marker(pixels, owner == i + 1, hue, centres[i], diameters[i], rng)

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


def _add_clutter(pixels: np.ndarray, shapes: tuple[Shape, ...], rng: np.random.Generator) -> None:
    """Paint a plain greyish object of no class, in one of the shapes that classes have."""
    colour = rng.uniform(0.2, 0.8) + rng.uniform(-0.05, 0.05, 3)
    centre, diameter = rng.uniform(0, SIDE, 2), rng.uniform(0.15, 0.4) * SIDE
    shape = shapes[int(rng.integers(len(shapes)))]
    pixels[_filled(_outline(shape, centre, diameter, rng.uniform(0, 2 * np.pi)))] = colour


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


def _outline(shape: Shape, centre: np.ndarray, diameter: float, turn: float) -> np.ndarray:
    """Corners of a shape, with the area of a disc of that diameter, cut at the picture's border, [48, 2]."""
    radius = shape * (diameter / 2) / np.sqrt((shape**2).mean())
    corners = centre + radius[:, None] * np.stack([np.cos(ANGLES + turn), np.sin(ANGLES + turn)], axis=1)
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
    look: Look,
    centre: np.ndarray,
    diameter: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    shift = rng.uniform(-0.02, 0.02)
    x, y = _X[body] - centre[0], _Y[body] - centre[1]
    dark = look.pattern(x, y, turn, diameter)
    half = along(x, y, turn) < 0
    hues = [(hue + shift) % 1 for hue in look.hues]
    colours = np.array([[colorsys.hsv_to_rgb(hue, 0.55, value) for value in (0.8, 0.55)] for hue in hues])
    pixels[body] = colours[half.astype(int), dark.astype(int)]


def _paint_marker(
    pixels: np.ndarray,
    visible: np.ndarray,
    hue: float,
    centre: np.ndarray,
    diameter: float,
    rng: np.random.Generator,
) -> None:
    """Paint a marker where the object is visible, at the least hidden of ten places near its centre."""
    side = round(0.28 * diameter)
    corners = (centre + rng.uniform(-0.2, 0.2, (10, 2)) * diameter - side / 2).round().astype(int).clip(0, SIDE - side)
    left, top = max(corners.tolist(), key=lambda at: visible[at[1] : at[1] + side, at[0] : at[0] + side].sum())
    window = np.s_[top : top + side, left : left + side]
    cells = np.arange(side) * 4 // side
    bright = (cells[:, None] + cells) % 2
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
