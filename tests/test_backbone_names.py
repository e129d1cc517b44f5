"""Plain ViTs have more names than one module of timm."""

import pytest

from fsr.errors import UserError
from fsr.models.encoder import plain_vit


def test_deits_without_a_second_token_are_plain_vits():
    assert plain_vit("deit_tiny_patch16_224", depth=1, num_heads=3).num_prefix_tokens == 1
    with pytest.raises(UserError, match="backbone must be a plain ViT of timm"):
        plain_vit("deit_tiny_distilled_patch16_224", depth=1, num_heads=3)
