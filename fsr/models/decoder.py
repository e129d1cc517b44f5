"""The LargeFOV decoder: patch features to class logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LargeFOV(nn.Module):
    """Two dilated 3×3 convolutions and a 1×1, no biases (METHOD "Decoder"; DeepLab's LargeFOV)."""

    def __init__(self, dim: int, width: int, classes: int, dilation: int) -> None:
        super().__init__()
        self.conv6 = nn.Conv2d(dim, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv7 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv8 = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] to logits [B, C, h, w] on the same grid."""
        hidden = F.relu(_dilated(self.conv7, F.relu(_dilated(self.conv6, features))))
        logits: Tensor = self.conv8(hidden)
        return logits


def _dilated(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """A dilated 3×3 convolution of maps [B, D, h, w], on a GPU as one product with the nine places it looks at.

    Asked for the same bits every time, cuDNN takes Fourier transforms in bf16: 4 ms of a step on an H100.
    """
    if not maps.is_cuda:
        convolved: Tensor = conv(maps)
        return convolved
    h, w = maps.shape[-2:]
    step = conv.dilation[0]
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, step, step, step, step))
    offsets = range(0, 3 * step, step)
    places = torch.cat([padded[:, y : y + h, x : x + w] for y in offsets for x in offsets], dim=3)
    return F.linear(places, conv.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)
