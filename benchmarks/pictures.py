"""Picture-like images: smooth regions, edges and grain, in place of photographs that nobody may pass on."""

import numpy as np
import torch
import torch.nn.functional as F

GRAIN = 3.0  # standard deviation of the noise in 8-bit levels, as in a photograph by daylight
SHAPES = 12


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A colour image uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    image = smooth(random, 4, height, width)
    y, x = np.mgrid[:height, :width]
    for _ in range(SHAPES):
        centre_y, centre_x, radius_y, radius_x = (random.random(4) * [1, 1, 0.25, 0.25] + [0, 0, 0.05, 0.05]) * (
            [height, width] * 2
        )
        turn = random.random() * np.pi
        along = (x - centre_x) * np.cos(turn) + (y - centre_y) * np.sin(turn)
        across = (y - centre_y) * np.cos(turn) - (x - centre_x) * np.sin(turn)
        inside = (along / radius_x) ** 2 + (across / radius_y) ** 2 < 1
        colour = 0.6 * smooth(random, 3, height, width) + 0.4 * 255 * random.random((3, 1, 1))
        image = np.where(inside, colour, image)
    image = image + random.normal(0, GRAIN, image.shape)
    return image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def probabilities(classes: int, height: int, width: int, seed: int) -> np.ndarray:
    """What a network might say, float32 [classes, height, width]: smooth at a stride of 16."""
    logits = np.random.default_rng(seed).normal(0, 3, (1, classes, height // 16, width // 16)).astype(np.float32)
    logits = F.interpolate(torch.from_numpy(logits), size=(height, width), mode="bilinear", align_corners=False)
    return logits.softmax(1)[0].numpy()


def smooth(random: np.random.Generator, cells: int, height: int, width: int) -> np.ndarray:
    """A colour field [3, height, width] in 0..255 that varies over `cells` cells a side."""
    coarse = torch.from_numpy(random.random((1, 3, cells, cells)) * 255)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0].numpy().clip(0, 255)
