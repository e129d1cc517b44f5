"""Class and patch self-reinforcement: the student's masked view follows the teacher's whole ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsr import distributed


class SelfReinforcement(nn.Module):
    """The two losses and the centres of the teacher's outputs (METHOD "Losses"; DINO, iBOT)."""

    def __init__(self, outputs: int, student_temp: float = 0.1, centre_momentum: float = 0.9) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.centre_momentum = centre_momentum
        self.register_buffer("class_centre", torch.zeros(1, outputs))
        self.register_buffer("patch_centre", torch.zeros(1, 1, outputs))

    def forward(
        self,
        student_cls: Tensor,
        student_patches: Tensor,
        local_cls: Tensor,
        teacher_cls: Tensor,
        teacher_patches: Tensor,
        mask: Tensor,
        teacher_temp: float,
    ) -> tuple[Tensor, Tensor]:
        """Class loss and patch loss; the centres are updated afterwards.

        student_cls [B, out] is view 2's class token, local_cls [B * crops, out] the local crops', student_patches
        [M, out] view 2's masked patches in the order of `mask` [B, n, n] (bool); teacher_cls [B, out] is view 1's class
        token, teacher_patches [B, n * n, out] all of view 2's patches.
        """
        batch = len(teacher_cls)
        target = F.softmax((teacher_cls - self.class_centre) / teacher_temp, dim=-1)
        views = torch.cat([student_cls, local_cls])
        class_loss = self._cross_entropy(target.repeat(len(views) // batch, 1), views).mean()

        hidden = mask.flatten(1)  # [B, n * n]
        target = F.softmax((teacher_patches[hidden] - self.patch_centre[0]) / teacher_temp, dim=-1)
        share = hidden / hidden.sum(1, keepdim=True).clamp(min=1) / batch  # mean over an image's patches, then images
        patch_loss = (self._cross_entropy(target, student_patches) * share[hidden]).sum()

        self._follow(self.class_centre, teacher_cls.mean(0, keepdim=True))
        self._follow(self.patch_centre, teacher_patches.mean((0, 1), keepdim=True))
        return class_loss, patch_loss

    def _cross_entropy(self, target: Tensor, student: Tensor) -> Tensor:
        return -(target * F.log_softmax(student / self.student_temp, dim=-1)).sum(-1)

    @torch.no_grad()
    def _follow(self, centre: Tensor, mean: Tensor) -> None:
        mean = distributed.mean(mean)
        centre.mul_(self.centre_momentum).add_(mean, alpha=1 - self.centre_momentum)
