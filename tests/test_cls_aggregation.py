"""The class token of the projector: by cross-attention, or pooled from the last features."""

import dataclasses

import numpy as np
import pytest
import torch
from test_train import torchrun

from fsr.compare import first_difference
from fsr.config import TrainConfig, voc
from fsr.errors import UserError
from fsr.models.network import Network
from fsr.optim import build_optimizer
from fsr.run import Run

SMALL = {"pretrained": "none", "embed_dim": 16, "depth": 3, "heads": 2, "crop_size": 64, "block_size": 16}
SMALL |= {"decoder_width": 8, "projector_hidden": 16, "projector_bottleneck": 8, "out_dim": 16, "drop_path": 0.1}
MASK = torch.tensor([[0, 1, 0, 0] * 4, [1, 1, 1, 0] * 4]).view(2, 4, 4).bool()


def small(**changes: object) -> TrainConfig:
    return dataclasses.replace(voc(), **SMALL | changes)


def network_of(config: TrainConfig) -> Network:
    torch.manual_seed(0)
    return Network(config)


def by_hand(encoder: torch.nn.Module, last: torch.Tensor, mask: torch.Tensor | None, how: str) -> list[np.ndarray]:
    """The pooled token image by image, over patches that no mask hides, with the encoder's last normalisation."""
    scale, shift = (parameter.detach().numpy().astype(float) for parameter in encoder.norm.parameters())
    tokens = []
    for image, patches in enumerate(last.detach().numpy().astype(float)):
        seen = [patch for i, patch in enumerate(patches) if mask is None or not mask[image].flatten()[i]]
        pooled = (
            sum(seen) / len(seen)
            if how == "average"
            else np.array([max(channel) for channel in zip(*seen, strict=True)])
        )
        tokens.append((pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-6) * scale + shift)
    return tokens


@pytest.mark.parametrize("attends", ["all", "unmasked"])
@pytest.mark.parametrize("how", ["average", "max"])
def test_the_pooled_token_is_the_one_by_hand(how, attends):
    encoder = network_of(small(cls_aggregation=how, cls_attends=attends)).encoder.eval()
    torch.nn.init.normal_(encoder.norm.weight)
    last = torch.randn(2, 16, 16)
    for mask in (None, MASK):
        expected = by_hand(encoder, last, mask if attends == "unmasked" else None, how)
        assert np.allclose(encoder.class_token(last, mask).detach().numpy(), expected, atol=1e-5)


def test_equal_seeds_start_with_equal_weights_and_released_names_however_patches_are_aggregated():
    states = [network_of(small(cls_aggregation=how)).state_dict() for how in ("attention", "average", "max")]
    for state in states[1:]:
        assert list(state) == list(states[0]) and all(map(torch.equal, state.values(), states[0].values()))


@pytest.mark.parametrize("how", ["average", "max"])
def test_whatever_is_trained_gets_a_gradient_where_patches_are_pooled(how):
    config = small(cls_aggregation=how)
    network = network_of(config).train()
    views = torch.randn(2, 2, 3, 64, 64)
    out = network(*views, MASK, [])
    sum(part.sum() for part in out if part.numel()).backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    fixed = {name for name, _ in network.named_parameters()} - trained
    assert fixed == {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("encoder.cls_blocks.", "encoder.cls_token")) or name == "projector.last_layer.weight_g"
    }
    optimised = sum(len(group["params"]) for group in build_optimizer(network, config).param_groups)
    assert optimised == len(trained)


def test_a_class_token_that_nothing_is_left_for_is_refused():
    with pytest.raises(
        UserError, match=r"cls_attends must be all where a mask leaves nothing to see \(mask_ratio 0.95"
    ):
        small(cls_attends="unmasked", mask_ratio=0.95)
    small(cls_attends="unmasked", mask_ratio=0.95, use_mim=False)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["average", "max"])
def test_pooling_on_two_ranks_resumes_with_the_same_bits(synthetic_folder, tmp_path, how):
    changes = {"ranks": 2, "cls_aggregation": how, "cls_attends": "unmasked", "uncertain_from": 0.5, "aux_layer": 2}
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    for run, steps in ((whole, 0), (stopped, 7), (stopped, 0)):
        torchrun(synthetic_folder, run.folder, steps, **changes)
    assert first_difference(stopped, whole) is None
