"""The block of the aux features is an option."""

import dataclasses

import pytest
import torch

from fsr.config import TrainConfig, voc
from fsr.errors import UserError
from fsr.models.network import Network

SMALL = {"pretrained": "none", "embed_dim": 16, "heads": 2, "crop_size": 32, "block_size": 16, "drop_path": 0.0}


def small(**changes: object) -> TrainConfig:
    return dataclasses.replace(voc(), **SMALL | {"depth": 5} | changes)


@pytest.mark.parametrize("aux_layer", [1, 2, 3, 5])
def test_the_aux_features_are_the_output_of_that_block(aux_layer):
    torch.manual_seed(0)
    encoder = Network(small(aux_layer=aux_layer)).encoder.eval()
    images, outputs = torch.randn(2, 3, 32, 32), []
    x = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2) + encoder.position(2, 2)
    for block in encoder.blocks:
        x = block(x)  # timm's own forward, which ours does not call
        outputs.append(x)
    expected = outputs[5 - aux_layer].transpose(1, 2).unflatten(2, (2, 2))
    features = encoder(images)
    assert torch.allclose(features.aux, expected, atol=1e-5)
    assert torch.allclose(features.last, outputs[-1], atol=1e-5)
    assert torch.equal(encoder.aux_features(images), features.aux)


def test_a_block_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"depth must be at least 4: .* \(aux_layer\), got 3"):
        small(aux_layer=4, depth=3)
    with pytest.raises(UserError, match="aux_layer must be at most 12, the blocks of vit_tiny_patch16_224, got 13"):
        Network(small(aux_layer=13, depth=None, backbone="vit_tiny_patch16_224", embed_dim=None, heads=None))
