"""The method's training step as plainly as METHOD.md reads, in the released code's order and with its waste.

It is the reference that `fsr/step.py` must equal and the baseline of its speed (`benchmarks/train_step.py`): float32,
attention written out, three multi-scale CAMs a step of which one is for pictures, each through class token and
projector; every token of both views projected by student and teacher; labels refined image by image, once for each
threshold, over a stack of 48 shifted copies, from the top CAM and, unused, from the aux CAM. Only the weights, the
lattice filter and the optimizer are the project's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.config import TrainConfig
from fsr.models.encoder import ClassBlock
from fsr.models.network import Network
from fsr.ops import bilateral_filter
from fsr.schedules import teacher_temperature

IGNORED = 255
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DILATIONS = (1, 2, 4, 8, 12, 24)
DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def reference_losses(
    student: Network,
    teacher: Network,
    centres: dict[str, Tensor],
    batch: tuple[Tensor, Tensor, Tensor],
    noise: Tensor,
    step: int,
    config: TrainConfig,
) -> dict[str, Tensor]:
    """Every loss of step `step` for (view 1, view 2, labels), as `step_losses`; moves `centres` ("class", "patch")."""
    view1, view2, labels = batch
    aux_cam2 = cams(student, view2, config.cam_scales)[1]
    mask = block_mask(aux_cam2, labels, noise, step, config)
    cam1, aux_cam1 = cams(student, view1, config.cam_scales)
    cams(student, view2, config.cam_scales)  # for the pictures of the log
    pseudo_label = torch.stack([refined_label(*image, config) for image in zip(view1, cam1, labels, strict=True)])
    for image in zip(view1, aux_cam1, labels, strict=True):
        refined_label(*image, config)  # nothing reads it

    both = torch.cat([view1, view2])
    with torch.no_grad():
        target = whole_network(teacher, both)["projected"]
    out = whole_network(student, both, torch.cat([torch.zeros_like(mask), mask]))
    top, aux, segmentation = (out[name][: len(view1)] for name in ("top", "aux", "segmentation"))

    def logits(features: Tensor, classifier: torch.nn.Conv2d) -> Tensor:
        return classifier(features.amax((2, 3), keepdim=True)).flatten(1)

    small = F.interpolate(aux_cam1, size=top.shape[2:], mode="bilinear", align_corners=False)
    losses = {
        "cls_top": F.multilabel_soft_margin_loss(logits(top, student.top_classifier), labels),
        "cls_aux": F.multilabel_soft_margin_loss(logits(aux, student.aux_classifier), labels),
        **self_reinforcement(out["projected"], target, mask, centres, step, config),
        "aff": affinity(top, two_threshold_label(small, labels, config)),
        "seg": segmentation_loss(segmentation, pseudo_label),
        "reg": energy(segmentation, view1, pseudo_label),
    }
    losses["loss"] = sum(weight * losses[name] for name, weight in config.loss_weights(step).items())
    return losses


# Network


def whole_network(network: Network, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """All that the network makes of images [B, 3, H, W] with masked patches [B, h, w]."""
    seen = encode(network, images, mask)
    return seen | {"segmentation": network.decoder(seen["top"])}


def encode(network: Network, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Top and aux features [B, D, h, w] and the projected tokens [B, 1 + h * w, out], class token first."""
    encoder = network.encoder
    x = encoder.patch_embed.proj(images)
    h, w = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    if mask is not None:
        x = torch.where(mask.flatten(1)[:, :, None], encoder.mask_token, x)
    position = encoder.pos_embed[:, 1:]
    side = math.isqrt(position.shape[1])
    if (h, w) != (side, side):
        grid = position.transpose(1, 2).unflatten(2, (side, side))
        grid = F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
        position = grid.flatten(2).transpose(1, 2)
    x = x + position
    for i, block in enumerate(encoder.blocks):
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=2)
        x = x + block.attn.proj(attention(q, k, v, heads))
        x = x + block.mlp(block.norm2(x))
        if i == len(encoder.blocks) - 3:
            aux = x
    cls = encoder.cls_token.expand(len(x), -1, -1)
    for block in encoder.cls_blocks:
        cls = aggregate(block, cls, x)
    tokens = encoder.norm(torch.cat([cls, x], dim=1))

    def grid_of(patches: Tensor) -> Tensor:
        return patches.transpose(1, 2).unflatten(2, (h, w))

    bottleneck = F.normalize(network.projector.mlp(tokens), dim=-1)
    last = network.projector.last_layer
    weight = last.weight_g * last.weight_v / last.weight_v.norm(dim=1, keepdim=True)
    return {"top": grid_of(tokens[:, 1:]), "aux": grid_of(aux), "projected": bottleneck @ weight.T}


def aggregate(block: ClassBlock, cls: Tensor, patches: Tensor) -> Tensor:
    """The class token [B, 1, D] after one cross-attention block over the patches [B, n, D]."""
    z = block.norm1(torch.cat([cls, patches], dim=1))
    q, k, v = block.attn.q(z[:, :1]), block.attn.k(z[:, 1:]), block.attn.v(z[:, 1:])
    cls = cls + block.attn.proj(attention(q, k, v, block.attn.heads))
    return cls + block.mlp(block.norm2(cls))


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ / √d) v for every head of q [B, m, D], k and v [B, n, D]."""
    q, k, v = (tokens.unflatten(2, (heads, -1)).transpose(1, 2) for tokens in (q, k, v))
    weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=3)
    return (weights @ v).transpose(1, 2).flatten(2)


# CAMs and labels


@torch.no_grad()
def cams(network: Network, images: Tensor, scales: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Top and aux multi-scale CAM, each [B, K, H, W] in [0, 1]."""
    h, w = images.shape[2:]
    sums = {"top": 0, "aux": 0}
    for scale in scales:
        size = (int(h * scale), int(w * scale))
        scaled = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        seen = encode(network, torch.cat([scaled, scaled.flip(3)]))
        for name in sums:
            classifier = getattr(network, f"{name}_classifier")
            cam = F.relu(classifier(seen[name]))
            cam = F.interpolate(cam, size=(h, w), mode="bilinear", align_corners=False)
            upright, flipped = cam.chunk(2)
            sums[name] = sums[name] + F.relu(torch.maximum(upright, flipped.flip(3)))

    def normalised(cam: Tensor) -> Tensor:
        cam = cam - cam.amin((2, 3), keepdim=True)
        return cam / (cam.amax((2, 3), keepdim=True) + 1e-5)

    return normalised(sums["top"]), normalised(sums["aux"])


def two_threshold_label(cam: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """CAM [B, K, h, w] and labels [B, K] to classes [B, h, w]: 255 up to high, 0 up to low."""
    value, best = (cam * labels[:, :, None, None]).max(dim=1)
    label = best + 1
    label[value <= config.high_threshold] = IGNORED
    label[value <= config.low_threshold] = 0
    return label


def block_mask(aux_cam: Tensor, labels: Tensor, noise: Tensor, step: int, config: TrainConfig) -> Tensor:
    """Mask [B, n, n] of view 2 from its aux CAM and the draw [B, blocks]."""
    side = config.crop_size // config.block_size
    if step + 1 > config.iterations // 5:
        value = (aux_cam * labels[:, :, None, None]).amax(dim=1)
        corners = value[:, :: config.block_size, :: config.block_size].flatten(1)
        noise = noise + ((corners > config.uncertain[0]) & (corners < config.uncertain[1]))
    masked = torch.zeros_like(noise)
    for row, draw in zip(masked, noise, strict=True):
        row[draw.argsort(descending=True)[: math.ceil(config.mask_ratio * side**2)]] = 1
    patches = config.crop_size // config.patch_size
    return F.interpolate(masked.view(-1, 1, side, side), size=(patches, patches))[:, 0].bool()


def levels_of(view: Tensor) -> Tensor:
    """The levels 0 to 255 of normalised views [..., 3, H, W]."""
    mean, std = (view.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return view * std + mean


@torch.no_grad()
def refined_label(view: Tensor, cam: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Pseudo label [S, S] of one view [3, S, S] with top CAM [K, S, S] and labels [K]."""
    levels = levels_of(view)
    levels = levels.round() if config.image_levels == "round" else levels.trunc()
    image = levels.clamp(0, 255)[None] / 255
    size = image.shape[2:]
    half = [side // 2 for side in size]
    image = F.interpolate(image, size=half, mode="bilinear", align_corners=False)
    cam = F.interpolate((cam * labels[:, None, None])[None], size=half, mode="bilinear", align_corners=False)
    present = labels.nonzero().flatten()

    def answer(background: float) -> Tensor:
        masks = torch.cat([torch.full_like(cam[:, :1], background), cam[:, present]], dim=1).softmax(dim=1)
        masks = F.interpolate(refine(image, masks), size=size, mode="bilinear", align_corners=False)
        return F.pad(present + 1, (1, 0))[masks[0].argmax(dim=0)]

    high, low = answer(config.high_threshold), answer(config.low_threshold)
    label = high.clone()
    label[high == 0] = IGNORED
    label[(high == 0) & (low == 0)] = 0
    return label


def refine(image: Tensor, masks: Tensor) -> Tensor:
    """PAR of masks [1, C, h, w] along an image [1, 3, h, w] in [0, 1]."""
    masks = F.interpolate(masks, size=image.shape[2:], mode="bilinear", align_corners=True)
    around = neighbours(image)  # [1, 3, 48, h, w]
    colour = -(((around - image[:, :, None]) / (around.std(dim=2, keepdim=True) + 1e-8) / 0.3) ** 2).mean(dim=1)
    distance = image.new_tensor([d * math.hypot(y, x) for d in DILATIONS for y, x in DIRECTIONS])
    position = -((distance / (distance.std() + 1e-8) / 0.3) ** 2)
    affinity = colour.softmax(dim=1) + 0.01 * position.softmax(dim=0)[:, None, None]
    for _ in range(10):
        masks = (affinity[:, None] * neighbours(masks)).sum(dim=2)
    return masks


def neighbours(image: Tensor) -> Tensor:
    """The 48 neighbours of each pixel: [1, C, h, w] to [1, C, 48, h, w]."""
    h, w = image.shape[2:]
    shifted = []
    for d in DILATIONS:
        padded = F.pad(image, (d, d, d, d), mode="replicate")
        shifted += [padded[:, :, d + d * y : d + d * y + h, d + d * x : d + d * x + w] for y, x in DIRECTIONS]
    return torch.stack(shifted, dim=2)


# Losses


def self_reinforcement(
    projected: Tensor, target: Tensor, mask: Tensor, centres: dict[str, Tensor], step: int, config: TrainConfig
) -> dict[str, Tensor]:
    """Class and patch loss of projected tokens [2B, 1 + n², out], view 1's rows and the class token first."""
    batch = len(mask)
    temperature = teacher_temperature(step, config.teacher_temp_steps, *config.teacher_temp)
    student = F.log_softmax(projected[batch:] / config.student_temp, dim=2)  # of view 2
    cls = F.softmax((target[:batch, 0] - centres["class"]) / temperature, dim=1)
    class_loss = -(cls * student[:, 0]).sum(dim=1).mean()
    patches = F.softmax((target[batch:, 1:] - centres["patch"]) / temperature, dim=2)
    each = -(patches * student[:, 1:]).sum(dim=2)  # [B, n²]
    hidden = mask.flatten(1).float()
    patch_loss = ((each * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()
    means = {"class": target[:batch, 0].mean(dim=0), "patch": target[batch:, 1:].mean(dim=(0, 1))}
    for name, mean in means.items():
        centres[name] = 0.9 * centres[name] + 0.1 * mean
    return {"class": class_loss, "patch": patch_loss}


def affinity(features: Tensor, label: Tensor) -> Tensor:
    """Affinity loss of features [B, D, h, w] with labels [B, h, w]."""
    tokens = F.normalize(features.flatten(2), dim=1)
    cosine = (tokens.transpose(1, 2) @ tokens).abs()
    label = label.flatten(1)
    itself = torch.eye(label.shape[1], dtype=torch.bool, device=label.device)
    counts = ~itself & (label != IGNORED)[:, :, None] & (label != IGNORED)[:, None]
    equal = label[:, :, None] == label[:, None, :]
    positive, negative = cosine[counts & equal], cosine[counts & ~equal]
    return 0.5 * (1 - positive.sum() / (len(positive) + 1)) + 0.5 * negative.sum() / (len(negative) + 1)


def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C, h, w], background and foreground alike; no pixels, no loss."""
    logits = F.interpolate(logits, size=label.shape[1:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(logits, label, ignore_index=IGNORED, reduction="none")
    parts = [loss[label == 0], loss[(label != 0) & (label != IGNORED)]]
    return sum(0.5 * part.mean() for part in parts if len(part))


def energy(logits: Tensor, view: Tensor, label: Tensor) -> Tensor:
    """Dense energy of logits [B, C, h, w] along the view; made even where its weight is 0, as released."""
    logits = F.interpolate(logits, size=view.shape[2:], mode="bilinear", align_corners=False)
    halved = F.interpolate(logits.softmax(dim=1), scale_factor=0.5, mode="bilinear", align_corners=False)
    image = levels_of(F.interpolate(view, scale_factor=0.5))
    ignored = F.interpolate(label[:, None].float(), scale_factor=0.5) == IGNORED
    probabilities = halved.detach()
    filtered = bilateral_filter(image, probabilities, 15.0, 50.0)
    gate = torch.where(ignored, 1.0, (1 - probabilities.amax(1, keepdim=True)).clamp(min=0))
    value = -1e-7 * (probabilities * gate * filtered).sum() / len(view)
    slope = -2e-7 * gate * filtered / len(view)
    return value + (slope * (halved - probabilities)).sum()  # the last term is 0 and carries the gradient
