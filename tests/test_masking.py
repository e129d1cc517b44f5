"""The mask of the second view: exactly so many whole blocks, uncertain ones first."""

import dataclasses
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsr.config import voc
from fsr.masking import block_mask, uncertain_blocks


@st.composite
def masks(draw):
    side, patches = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    config = dataclasses.replace(
        voc(),
        patch_size=4,
        block_size=4 * patches,
        crop_size=4 * patches * side,
        mask_ratio=draw(st.floats(0.01, 1)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.rand(draw(st.integers(1, 3)), side * side, generator=generator)
    uncertain = torch.rand(noise.shape, generator=generator) < draw(st.floats(0, 1))
    return config, noise, uncertain


def blocks_of(mask: torch.Tensor, config) -> torch.Tensor:
    """[B, n, n] to [B, blocks, patches of a block]."""
    patches = config.block_size // config.patch_size
    return mask.unfold(1, patches, patches).unfold(2, patches, patches).flatten(3).flatten(1, 2)


@given(masks())
@settings(max_examples=200, deadline=None)
def test_exactly_the_stated_number_of_whole_blocks_is_masked(drawn):
    config, noise, uncertain = drawn
    wanted = math.ceil(config.mask_ratio * noise.shape[1])
    for which in (None, uncertain):
        blocks = blocks_of(block_mask(noise, which, config), config)
        assert torch.equal(blocks.all(2), blocks.any(2))
        assert (blocks.all(2).sum(1) == wanted).all()


@given(masks())
@settings(max_examples=200, deadline=None)
def test_uncertain_blocks_go_first_and_the_largest_noise_among_equals(drawn):
    config, noise, uncertain = drawn
    masked = blocks_of(block_mask(noise, uncertain, config), config).all(2)
    for chosen, unsure, draw in zip(masked, uncertain, noise, strict=True):
        if (chosen & ~unsure).any():
            assert chosen[unsure].all()
        for group in (unsure, ~unsure):
            inside, outside = draw[group & chosen], draw[group & ~chosen]
            if len(inside) and len(outside):
                assert inside.min() >= outside.max()


def test_a_block_is_uncertain_by_its_top_left_pixel_or_by_its_area():
    config = dataclasses.replace(voc(), crop_size=64, block_size=32)
    cam = torch.zeros(1, 2, 64, 64)
    cam[0, 0, 0, 0] = 0.5  # the corner of block 0
    cam[0, 0, 1:32, 32:64] = 0.5  # block 1 but for its first row
    cam[0, 1] = 0.5  # a class that is not there
    labels = torch.tensor([[1.0, 0.0]])
    by_pixel = uncertain_blocks(cam, labels, config)
    by_area = uncertain_blocks(cam, labels, dataclasses.replace(config, block_uncertainty="area"))
    assert by_pixel.tolist() == [[True, False, False, False]]
    assert by_area.tolist() == [[False, True, False, False]]
