"""The projector: tokens to the prototypes that student and teacher are compared on (DINO's head)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNormLinear(nn.Module):
    """Linear without bias whose rows have length 1: weight-normed, with its gain fixed at 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return F.linear(x, self.weight_g * F.normalize(self.weight_v, dim=1))


class Projector(nn.Module):
    """Three-layer MLP, L2 normalisation, weight-normed linear layer (METHOD "Projector")."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last_layer = WeightNormLinear(bottleneck, outputs)

    def embed(self, tokens: Tensor) -> Tensor:
        """[..., D] to vectors of length 1 [..., bottleneck]: what the last layer reads."""
        return F.normalize(self.mlp(tokens), dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., D] to [..., outputs]."""
        logits: Tensor = self.last_layer(self.embed(tokens))
        return logits
