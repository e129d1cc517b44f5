"""The encoder: timm's ViT with a mask token, and a class token that joins after the last block."""

from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fsr.config import TrainConfig
from fsr.errors import UserError


class Features(NamedTuple):
    """The encoder's features of images; h, w are the patch grid."""

    aux: Tensor  # [B, D, h, w] output of the third-last block, not normalised
    top: Tensor  # [B, D, h, w] output of the last block, normalised
    last: Tensor  # [B, n, D] the same, not normalised: what the class token attends to


class CrossAttention(nn.Module):
    """One query token attends to the patches."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, patches: Tensor, visible: Tensor | None) -> Tensor:
        """[B, 1, D], [B, N, D] and optionally the visible patches [B, N] (bool) to [B, 1, D]."""

        def split(tokens: Tensor) -> Tensor:
            return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)  # [B, heads, tokens, D / heads]

        seen = None if visible is None else visible[:, None, None, :]
        out = F.scaled_dot_product_attention(
            split(self.q(query)), split(self.k(patches)), split(self.v(patches)), attn_mask=seen
        )
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


class ClassBlock(nn.Module):
    """Updates the class token from the patches; the patches stay as they are."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, cls: Tensor, patches: Tensor, visible: Tensor | None) -> Tensor:
        """[B, 1, D], [B, N, D] and optionally the visible patches [B, N] (bool) to the new class token [B, 1, D]."""
        cls = cls + self.drop_path(self.attn(self.norm1(cls), self.norm1(patches), visible))
        cls = cls + self.drop_path(self.mlp(self.norm2(cls)))
        return cls


def plain_vit(name: str, **options: Any) -> VisionTransformer:
    """timm's ViT `name`. Raises UserError if there is none, or if it is not a plain ViT."""
    if not timm.models.is_model_in_modules(name, ["vision_transformer"]):
        raise UserError(f"backbone must be a plain ViT of timm such as vit_base_patch16_224, got {name}")
    vit = timm.create_model(name, num_classes=0, **options)
    if (
        not isinstance(vit, VisionTransformer)
        or vit.num_prefix_tokens != 1
        or not isinstance(vit.norm_pre, nn.Identity)
        or vit.pos_embed is None
    ):
        raise UserError(f"backbone must be a plain ViT of timm (class token, no registers, no first norm), got {name}")
    return vit


def attention_of(block: nn.Module) -> Attention:
    """The self-attention of a plain ViT's block."""
    assert isinstance(block.attn, Attention)
    return block.attn


def fused_is_faster(x: Tensor) -> bool:
    """Whether fused attention is the faster one for tokens `x`, gradient included.

    It is, but for the bf16 backward on CPUs: with AMX 272 ms a step of a small net against 107 ms written out, with
    AVX-512's bf16 10.7 ms against 5.5 for 4 images of 196 tokens and 78 against 47 for 2 of 784.
    """
    return not (x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled())


class Encoder(nn.Module):
    """ViT without a class token in its blocks (METHOD "Encoder"). Names follow the released checkpoint."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        sizes = {"embed_dim": config.embed_dim, "depth": config.depth, "num_heads": config.heads}
        vit = plain_vit(
            config.backbone,
            img_size=config.crop_size,
            patch_size=config.patch_size,
            drop_path_rate=config.drop_path,
            **{name: size for name, size in sizes.items() if size is not None},
        )
        self.dim = vit.embed_dim
        self.patch_size = config.patch_size
        self.attends_unmasked = config.cls_attends == "unmasked"
        heads = attention_of(vit.blocks[0]).num_heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (config.crop_size // config.patch_size) ** 2, self.dim))
        # Without masking nothing ever reads the mask token, and DDP wants a gradient for whatever it trains.
        self.mask_token = nn.Parameter(torch.zeros(1, self.dim), requires_grad=config.use_mim)
        self.patch_embed = vit.patch_embed
        self.blocks = vit.blocks
        self.cls_blocks = nn.ModuleList(ClassBlock(self.dim, heads, config.drop_path) for _ in range(config.cls_depth))
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)

    def position(self, h: int, w: int) -> Tensor:
        """Position embedding of an h × w patch grid, [1, h * w, D]; the class position is dropped."""
        patches = self.pos_embed[:, 1:]
        side = round(patches.shape[1] ** 0.5)
        if (h, w) == (side, side):
            return patches
        grid = torch.unflatten(patches, 1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
        return grid.flatten(2).transpose(1, 2)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Features of images [B, 3, H, W]; `mask` [B, h, w] (bool) hides patches behind the mask token."""
        x, h, w = self._aux_tokens(images, mask)
        aux = _grid(x, h, w)
        for block in self.blocks[-2:]:
            x = block(x)
        return Features(aux, _grid(self.norm(x), h, w), x)

    def aux_features(self, images: Tensor) -> Tensor:
        """Only the aux features [B, D, h, w] of images [B, 3, H, W], from two blocks less."""
        return _grid(*self._aux_tokens(images, None))

    def _aux_tokens(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, int, int]:
        """Tokens [B, n, D] after the third-last block, and the patch grid's height and width."""
        x = self.patch_embed.proj(images)  # [B, D, h, w]; a remainder of less than a patch is not seen
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)  # [B, n, D]
        if mask is not None:
            x = torch.where(mask.flatten(1)[:, :, None], self.mask_token.to(x.dtype), x)
        x = x + self.position(h, w)
        for block in self.blocks:
            attention_of(block).fused_attn = fused_is_faster(x)  # type: ignore[misc]  # Final, for TorchScript alone
        for block in self.blocks[:-2]:
            x = block(x)
        return x, h, w

    def class_token(self, last: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalised class token [B, D] of images from their last features [B, n, D]; `mask` as in `forward`."""
        visible = ~mask.flatten(1) if self.attends_unmasked and mask is not None else None
        cls = self.cls_token.expand(len(last), -1, -1)
        for block in self.cls_blocks:
            cls = block(cls, last, visible)
        normalised: Tensor = self.norm(cls)
        return normalised[:, 0]


def _grid(tokens: Tensor, h: int, w: int) -> Tensor:
    """[B, n, D] to [B, D, h, w]."""
    return torch.unflatten(tokens.transpose(1, 2), 2, (h, w))
