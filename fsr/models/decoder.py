"""The LargeFOV decoder: patch features to class logits."""

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
        logits: Tensor = self.conv8(F.relu(self.conv7(F.relu(self.conv6(features)))))
        return logits
