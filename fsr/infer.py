"""Multi-scale inference with mirror."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import normalise_cam
from fsr.models.network import Network

SCALES = (1.0, 1.25, 1.5)


@torch.no_grad()
def multi_scale_inference(
    network: Network, images: Tensor, scales: tuple[float, ...] = SCALES
) -> tuple[Tensor, Tensor]:
    """Segmentation logits [B, C, H, W] and top CAM [B, K, H, W] in [0, 1] of images [B, 3, H, W] (METHOD "Inference").

    Logits are summed over image and mirror, then the maximum over scales is taken; CAMs are summed over both.
    """
    size = images.shape[-2:]

    def unmirrored_sum(maps: Tensor) -> Tensor:
        maps = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
        plain, mirrored = maps.chunk(2)
        return plain + mirrored.flip(-1)

    logits, cams = [], []
    for scale in scales:
        to = (int(scale * size[0]), int(scale * size[1]))
        scaled = images if scale == 1 else F.interpolate(images, size=to, mode="bilinear", align_corners=False)
        seen = network.encoder(torch.cat([scaled, scaled.flip(-1)]), with_cls=False)
        logits.append(unmirrored_sum(network.decoder(seen.top)))
        cams.append(unmirrored_sum(network.cams(seen)[0]))
    return torch.stack(logits).amax(0), normalise_cam(torch.stack(cams).sum(0))
