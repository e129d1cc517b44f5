"""AdamW with the method's parameter groups."""

from typing import Any

import torch

from fsr.config import TrainConfig
from fsr.models.network import Network
from fsr.schedules import lr_factor

TOKENS = ("cls_token", "mask_token", "pos_embed")


def build_optimizer(network: Network, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the encoder, the cross-attention blocks and the heads, each without and with weight decay.

    No decay on 1-D tensors, biases, tokens and the position embedding (METHOD "Training"). With `cls_lr_factor` 1 the
    cross-attention blocks are part of the encoder's two groups, as released.
    """
    factors = {"encoder": 1.0, "heads": config.head_lr_factor}
    if config.cls_lr_factor != 1:
        factors["cls_blocks"] = config.cls_lr_factor
    groups: dict[tuple[str, bool], dict[str, Any]] = {
        (part, decays): {
            "params": [],
            "name": part,
            "peak_lr": config.lr * factor,
            "weight_decay": config.weight_decay * decays,
        }
        for part, factor in factors.items()
        for decays in (False, True)
    }
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            part = "encoder" if name.startswith("encoder.") else "heads"
            if name.startswith("encoder.cls_blocks.") and "cls_blocks" in factors:
                part = "cls_blocks"
            decays = parameter.ndim > 1 and not name.endswith(TOKENS)
            groups[part, decays]["params"].append(parameter)
    return torch.optim.AdamW(groups.values(), lr=config.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def set_learning_rates(optimizer: torch.optim.AdamW, step: int, config: TrainConfig) -> None:
    """Give every group its learning rate for step `step`, counted from 0."""
    factor = lr_factor(step, config.warmup_steps, config.iterations)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
