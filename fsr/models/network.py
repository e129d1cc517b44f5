"""The whole network: encoder, decoder, projector and the two classifiers."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsr.config import TrainConfig
from fsr.models.decoder import LargeFOV
from fsr.models.encoder import Encoder, Features
from fsr.models.pretrained import load_pretrained
from fsr.models.projector import Projector


class StudentOutput(NamedTuple):
    """The student's outputs that the losses read."""

    top_logits: Tensor  # [B, K] view 1
    aux_logits: Tensor  # [B, K] view 1
    segmentation: Tensor  # [B, C, h, w] view 1, on the patch grid
    features: Tensor  # [B, D, h, w] top features of view 1
    aux_features: Tensor  # [B, D, h, w] its aux features
    cls: Tensor  # [B, out] projected class token of view 2
    patches: Tensor  # [M, out] projected masked patches of view 2, in the order of the mask
    local_cls: Tensor  # [B * crops, out] projected class tokens of the local crops, crop by crop
    crops: Tensor  # [B * crops, bottleneck] embedded class tokens of the contrasts' crops, if there are any


class Targets(NamedTuple):
    """The teacher's outputs that the losses read."""

    cls: Tensor  # [B, out] projected class token of view 1
    patches: Tensor  # [B, n * n, out] projected patches of view 2
    features: Tensor  # [B, D, h, w] top features of view 1
    aux_features: Tensor  # [B, D, h, w] its aux features
    segmentation: Tensor  # [B, C, h, w] of view 1, if it is wanted
    whole: Tensor  # [B, bottleneck] embedded class token of view 2, if it is wanted
    crops: Tensor  # [B * crops, bottleneck] embedded class tokens of crops, if there are any


class Network(nn.Module):
    """Student or teacher. State dict names follow the released checkpoint."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        dim = self.encoder.dim
        self.decoder = LargeFOV(dim, config.decoder_width, config.num_classes, config.decoder_dilation)
        self.projector = Projector(dim, config.projector_hidden, config.projector_bottleneck, config.out_dim)
        self.top_classifier = nn.Conv2d(dim, config.num_classes - 1, 1, bias=False)
        self.aux_classifier = nn.Conv2d(dim, config.num_classes - 1, 1, bias=False)
        self._initialise(config)

    def _initialise(self, config: TrainConfig) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if config.weight_init == "vit":
                    nn.init.trunc_normal_(module.weight, std=0.02)
                else:
                    nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        for token in (self.encoder.cls_token, self.encoder.pos_embed, self.encoder.mask_token):
            nn.init.trunc_normal_(token, std=0.02)
        load_pretrained(self.encoder, config)

    def classify(self, features: Features) -> tuple[Tensor, Tensor]:
        """Top and aux class logits, each [B, K]: the classifier on the features' global maximum."""
        with self._in_float32(features.aux):
            top = _scores(self.top_classifier, features.top.float().amax((2, 3), keepdim=True))
            aux = _scores(self.aux_classifier, features.aux.float().amax((2, 3), keepdim=True))
        return top.flatten(1), aux.flatten(1)

    def top_scores(self, top: Tensor) -> Tensor:
        """Class logits [B, K, h, w] of each of the top features [B, D, h, w]: the CAM before its ReLU."""
        with self._in_float32(top):
            return _scores(self.top_classifier, top.float())

    @torch.no_grad()
    def top_cam(self, top: Tensor) -> Tensor:
        """CAM [B, K, h, w], not negative, of top features [B, D, h, w]."""
        return F.relu(self.top_scores(top))

    @torch.no_grad()
    def aux_cam(self, aux: Tensor) -> Tensor:
        """CAM [B, K, h, w], not negative, of aux features [B, D, h, w]."""
        with self._in_float32(aux):
            return F.relu(_scores(self.aux_classifier, aux.float()))

    @staticmethod
    def _in_float32(features: Tensor) -> torch.autocast:
        """Classifiers cost next to nothing, and CAMs of bf16's eight bits lower the scores (docs/results.md)."""
        return torch.autocast(features.device.type, enabled=False)

    def forward(
        self,
        view1: Tensor,
        view2: Tensor,
        mask: Tensor,
        local_crops: list[Tensor],
        masked: int | None = None,
        crops: Tensor | None = None,
    ) -> StudentOutput:
        """The student's pass over two views [B, 3, S, S] and the local crops; `mask` [B, n, n] hides patches.

        `masked` is the number M of hidden patches where it is known: else the host waits for the device to count them.
        `crops` [B * crops, 3, s, s] are those of the contrasts, where these count.
        """
        both: Features = self.encoder(torch.cat([view1, view2]), torch.cat([torch.zeros_like(mask), mask]))
        seen1, seen2 = map(Features, *(part.chunk(2) for part in both))
        masked = int(mask.sum()) if masked is None else masked
        hidden = torch.nonzero_static(mask.flatten(), size=masked)[:, 0]
        masked_patches = seen2.top.permute(0, 2, 3, 1).flatten(0, 2)[hidden]  # [M, D]
        tokens = [self.encoder.class_token(seen2.last, mask), masked_patches]
        tokens += [self.encoder.class_token(self.encoder(crop).last) for crop in local_crops]
        cls, patches, *local = self.projector(torch.cat(tokens)).split([len(part) for part in tokens])
        return StudentOutput(
            *self.classify(seen1),
            segmentation=self.decoder(seen1.top),
            features=seen1.top,
            aux_features=seen1.aux,
            cls=cls,
            patches=patches,
            local_cls=torch.cat(local) if local else cls.new_empty(0, cls.shape[1]),
            crops=cls.new_empty(0) if crops is None else self._embedded(self.encoder(crops).last),
        )

    def targets(
        self,
        view1: Tensor,
        view2: Tensor,
        *,
        segmentation: bool = False,
        whole: bool = False,
        crops: Tensor | None = None,
    ) -> Targets:
        """The teacher's pass over two views [B, 3, S, S], and over crops [B * crops, 3, s, s] if there are any.

        `segmentation` of view 1 and the `whole` of view 2 are made where they are wanted.
        """
        both: Features = self.encoder(torch.cat([view1, view2]))
        seen1, seen2 = map(Features, *(part.chunk(2) for part in both))
        cls = self.encoder.class_token(seen1.last)
        patches = seen2.top.flatten(2).transpose(1, 2)
        return Targets(
            self.projector(cls),
            self.projector(patches),
            seen1.top,
            seen1.aux,
            segmentation=self.decoder(seen1.top) if segmentation else cls.new_empty(0),
            whole=self._embedded(seen2.last) if whole else cls.new_empty(0),
            crops=cls.new_empty(0) if crops is None else self._embedded(self.encoder(crops).last),
        )

    def _embedded(self, last: Tensor) -> Tensor:
        """Embedded class tokens [B, bottleneck] of images from their last features [B, n, D]."""
        embedded: Tensor = self.projector.embed(self.encoder.class_token(last))
        return embedded


def _scores(classifier: nn.Conv2d, features: Tensor) -> Tensor:
    """A 1×1 convolution [B, K, h, w] of features [B, D, h, w] as a product.

    For exact float32 and the same bits every time cuDNN takes Fourier transforms: 5 ms of a step on an H100.
    """
    return F.linear(features.permute(0, 2, 3, 1), classifier.weight[:, :, 0, 0]).permute(0, 3, 1, 2)
