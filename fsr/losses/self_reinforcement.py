"""Class and patch self-reinforcement: the student's masked view learns from the teacher's unmasked views."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsr import distributed


class SelfReinforcement(nn.Module):
    """The two losses and the centres of the teacher's outputs (METHOD "Losses"; DINO, iBOT).

    Each call adds what it sees of the teacher; `update_centres` moves the centres by the mean over all calls since the
    last time, on all processes: over all micro-batches of a step, however many processes share them.
    """

    class_centre: Tensor  # [1, outputs]
    patch_centre: Tensor  # [1, 1, outputs]
    _seen: Tensor  # [2, outputs] class and patch outputs

    def __init__(self, outputs: int, student_temp: float = 0.1, centre_momentum: float = 0.9) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.centre_momentum = centre_momentum
        self.register_buffer("class_centre", torch.zeros(1, outputs))
        self.register_buffer("patch_centre", torch.zeros(1, 1, outputs))
        self.register_buffer("_seen", torch.zeros(2, outputs), persistent=False)  # sums since the last update

    def forward(
        self,
        student_cls: Tensor,
        student_patches: Tensor,
        local_cls: Tensor,
        teacher_cls: Tensor,
        teacher_patches: Tensor,
        mask: Tensor,
        teacher_temp: float | Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Class loss and patch loss.

        student_cls [B, out] is view 2's class token, local_cls [B * crops, out] the local crops', student_patches
        [M, out] view 2's masked patches in the order of `mask` [B, n, n] (bool); teacher_cls [B, out] is view 1's class
        token, teacher_patches [B, n * n, out] all of view 2's patches.
        """
        batch = len(teacher_cls)
        target = F.softmax((teacher_cls - self.class_centre) / teacher_temp, dim=-1)
        views = torch.cat([student_cls, local_cls])
        class_loss = self._cross_entropy(target.repeat(len(views) // batch, 1), views).mean()

        # The number of masked patches is known, so the host need not wait for the device to count them.
        hidden = torch.nonzero_static(mask.flatten(), size=len(student_patches))[:, 0]
        target = F.softmax((teacher_patches.flatten(0, 1)[hidden] - self.patch_centre[0]) / teacher_temp, dim=-1)
        counts = mask.flatten(1).sum(1, keepdim=True).clamp(min=1)
        share = mask.flatten(1) / counts / batch  # mean over an image's masked patches, then over images
        patch_loss = (self._cross_entropy(target, student_patches) * share.flatten()[hidden]).sum()

        with torch.no_grad():
            self._seen += torch.stack([teacher_cls.mean(0), teacher_patches.mean((0, 1))])
        return class_loss, patch_loss

    def _cross_entropy(self, target: Tensor, student: Tensor) -> Tensor:
        return -(target * F.log_softmax(student / self.student_temp, dim=-1)).sum(-1)

    @torch.no_grad()
    def update_centres(self, calls: int = 1) -> None:
        """Move the centres by what was seen in so many calls, and on as many in every other process."""
        means = distributed.mean(self._seen / calls)
        for centre, mean in zip((self.class_centre, self.patch_centre), means, strict=True):
            centre.lerp_(mean.view_as(centre), 1 - self.centre_momentum)
        self._seen.zero_()
