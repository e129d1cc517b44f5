"""The encoder: timm's ViT with a mask token, and a class token that joins after the last block."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.models.attention import attention
from fsr.resize import resize, resize_bicubic


class Features(NamedTuple):
    """The encoder's features of images; h, w are the patch grid."""

    aux: Tensor  # [B, D, h, w] output of the block that aux_layer names, not normalised
    top: Tensor  # [B, D, h, w] output of the last block, normalised
    last: Tensor  # [B, n, D] the same, not normalised: what the class token attends to


# Stochastic depth: the factor of each image's two branches, [2, B, 1, 1]. 0 drops one; None keeps all as they are.
Kept: TypeAlias = Tensor | None


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
        out = attention(split(self.q(query)), split(self.k(patches)), split(self.v(patches)), seen)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


class ClassBlock(nn.Module):
    """Updates the class token from the patches; the patches stay as they are."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, cls: Tensor, patches: Tensor, visible: Tensor | None, kept: Kept) -> Tensor:
        """[B, 1, D], [B, N, D] and optionally the visible patches [B, N] (bool) to the new class token [B, 1, D]."""
        cls = cls + weighted(self.attn(self.norm1(cls), self.norm1(patches), visible), kept, 0)
        cls = cls + weighted(self.mlp(self.norm2(cls)), kept, 1)
        return cls


def patch_block(block: Block, x: Tensor, kept: Kept) -> Tensor:
    """Tokens [B, n, D] after a block of timm's ViT; its stochastic depth is given."""
    x = x + weighted(block.ls1(self_attention(block, block.norm1(x))), kept, 0)
    x = x + weighted(block.ls2(block.mlp(block.norm2(x))), kept, 1)
    return x


def self_attention(block: Block, x: Tensor) -> Tensor:
    """What a block's self-attention makes of normalised tokens [B, n, D]."""
    layers = attention_of(block)
    q, k, v = torch.unflatten(layers.qkv(x), 2, (3, layers.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    out = attention(layers.q_norm(q), layers.k_norm(k), v)
    projected: Tensor = layers.proj(layers.norm(out.transpose(1, 2).flatten(2)))
    return projected


def weighted(branch: Tensor, kept: Kept, which: int) -> Tensor:
    """A block's first or second branch [B, n, D], times its factors of stochastic depth."""
    return branch if kept is None else branch * kept[which]


def average(patches: Tensor, visible: Tensor | None) -> Tensor:
    """The mean [B, 1, D] of patches [B, n, D], or of the `visible` [B, n] (bool) among them."""
    if visible is None:
        return patches.mean(1, keepdim=True)
    seen = visible[:, :, None]  # [B, n, 1]
    return (patches * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)


def largest(patches: Tensor, visible: Tensor | None) -> Tensor:
    """The maximum [B, 1, D] of each channel of patches [B, n, D], or of the `visible` [B, n] (bool) among them."""
    if visible is not None:
        patches = patches.masked_fill(~visible[:, :, None], -torch.inf)
    return patches.amax(1, keepdim=True)


def at_least(images: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, W], of which those that are too small for one patch are resized up to it."""
    height, width = images.shape[-2:]
    if min(height, width) >= side:
        return images
    return resize(images, (max(height, side), max(width, side)))


def plain_vit(name: str, **options: Any) -> VisionTransformer:
    """timm's ViT `name`. Raises UserError if there is none, or if it is not a plain ViT."""
    if not timm.models.is_model_in_modules(name, ["vision_transformer", "deit"]):
        raise UserError(f"backbone must be a plain ViT of timm such as vit_base_patch16_224, got {name}")
    if "num_heads" in options and "embed_dim" not in options:  # the configuration knows no backbone's own width
        with torch.device("meta"):  # allocates and draws nothing
            dim = timm.create_model(name, num_classes=0, **options | {"depth": 1, "num_heads": 1}).embed_dim
        if dim % options["num_heads"]:
            raise UserError(f"heads must divide the width {dim} of backbone {name}, got {options['num_heads']}")
    vit = timm.create_model(name, num_classes=0, **options)
    if (
        not isinstance(vit, VisionTransformer)
        or vit.cls_token is None
        or vit.num_prefix_tokens != 1
        or not isinstance(vit.norm_pre, nn.Identity)
        or vit.pos_embed is None
        or any(type(block) is not Block or not isinstance(block.attn, Attention) for block in vit.blocks)
    ):
        raise UserError(f"backbone must be a plain ViT of timm (class token, no registers, no first norm), got {name}")
    return vit


def attention_of(block: nn.Module) -> Attention:
    """The self-attention of a plain ViT's block."""
    assert isinstance(block.attn, Attention)
    return block.attn


class Encoder(nn.Module):
    """ViT without a class token in its blocks (METHOD "Encoder"). Names follow the released checkpoint."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        sizes = {"embed_dim": config.embed_dim, "depth": config.depth, "num_heads": config.heads}
        vit = plain_vit(
            config.backbone,
            img_size=config.crop_size,
            patch_size=config.patch_size,
            **{name: size for name, size in sizes.items() if size is not None},
        )
        self.dim = vit.embed_dim
        self.patch_size = config.patch_size
        self.drop_path = config.drop_path
        self.class_has_position = not vit.no_embed_class  # in the position tables of this backbone
        self.attends_unmasked = config.cls_attends == "unmasked"
        self.heads = attention_of(vit.blocks[0]).num_heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (config.crop_size // config.patch_size) ** 2, self.dim))
        # Without masking nothing ever reads the mask token, and DDP wants a gradient for whatever it trains.
        self.mask_token = nn.Parameter(torch.zeros(1, self.dim), requires_grad=config.use_mim)
        self.patch_embed = vit.patch_embed
        self.blocks = vit.blocks
        self.cls_blocks = nn.ModuleList(ClassBlock(self.dim, self.heads) for _ in range(config.cls_depth))
        self.patch_block: Callable[[Block, Tensor, Kept], Tensor] = patch_block
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        if config.aux_layer > len(vit.blocks):
            raise UserError(
                f"aux_layer must be at most {len(vit.blocks)}, the blocks of {config.backbone}, got {config.aux_layer}"
            )
        self.aux_blocks = len(vit.blocks) - config.aux_layer + 1  # which the aux features have passed
        self.aggregation = config.cls_aggregation
        # Nothing reads these where patches are pooled. They stay, so that the names are the released ones, and so that
        # equal seeds start with equal weights.
        for unread in (self.cls_token, *self.cls_blocks.parameters()) if self.aggregation != "attention" else ():
            unread.requires_grad_(False)

    def compile_blocks(self) -> None:
        """Compile the blocks, all as one: they are alike, so the code compiled for the first serves all."""
        self.patch_block = torch.compile(patch_block)

    def position(self, h: int, w: int) -> Tensor:
        """Position embedding of an h × w patch grid, [1, h * w, D]; the class position is dropped."""
        patches = self.pos_embed[:, 1:]
        side = round(patches.shape[1] ** 0.5)
        if (h, w) == (side, side):
            return patches
        grid = torch.unflatten(patches, 1, (side, side)).permute(0, 3, 1, 2)
        return resize_bicubic(grid, (h, w)).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Features of images [B, 3, H, W]; `mask` [B, h, w] (bool) hides patches behind the mask token."""
        x, h, w, kept = self._aux_tokens(images, mask)
        aux = _grid(x, h, w)
        x = self._through(x, kept, self.aux_blocks, len(self.blocks))
        return Features(aux, _grid(self.norm(x), h, w), x)

    def aux_features(self, images: Tensor) -> Tensor:
        """Only the aux features [B, D, h, w] of images [B, 3, H, W], without the blocks after them."""
        x, h, w, _ = self._aux_tokens(images, None)
        return _grid(x, h, w)

    def _aux_tokens(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, int, int, list[Kept]]:
        """Tokens [B, n, D] after the aux features' block, the patch grid's sides, all blocks' stochastic depth."""
        x, h, w = self._patch_tokens(images)
        if mask is not None:
            x = torch.where(mask.flatten(1)[:, :, None], self.mask_token.to(x.dtype), x)
        x = x + self.position(h, w)
        kept = self._draw(0.0, len(self.blocks), x)
        return self._through(x, kept, 0, self.aux_blocks), h, w, kept

    def _patch_tokens(self, images: Tensor) -> tuple[Tensor, int, int]:
        """The patch embedding [B, n, D] of images, and the patch grid; a remainder of less than a patch is not seen.

        It is the convolution as one product. The tokens lie in memory as all that follows reads them: each addition
        keeps the order of its first summand.
        """
        size = self.patch_size
        images = at_least(images, size)
        h, w = (side // size for side in images.shape[-2:])
        patches = torch.unflatten(images[..., : h * size, : w * size], 3, (w, size))
        patches = torch.unflatten(patches, 2, (h, size)).permute(0, 2, 4, 1, 3, 5)  # [B, h, w, 3, size, size]
        embed = self.patch_embed.proj
        return F.linear(patches.flatten(3).flatten(1, 2), embed.weight.flatten(1), embed.bias), h, w

    def _through(self, x: Tensor, kept: list[Kept], first: int, last: int) -> Tensor:
        """Tokens [B, n, D] after the blocks from `first` to before `last`."""
        for number in range(first, last):
            block = self.blocks[number]
            assert isinstance(block, Block)
            x = self.patch_block(block, x, kept[number])
        return x

    def class_token(self, last: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalised class token [B, D] of images from their last features [B, n, D]; `mask` as in `forward`."""
        visible = ~mask.flatten(1) if self.attends_unmasked and mask is not None else None
        if self.aggregation == "attention":
            cls = self.cls_token.expand(len(last), -1, -1)
            kept = self._draw(self.drop_path, len(self.cls_blocks), last)
            for block, factors in zip(self.cls_blocks, kept, strict=True):
                cls = block(cls, last, visible, factors)
        elif self.aggregation == "average":
            cls = average(last, visible)
        else:
            cls = largest(last, visible)
        normalised: Tensor = self.norm(cls)
        return normalised[:, 0]

    def _draw(self, lowest: float, blocks: int, x: Tensor) -> list[Kept]:
        """Stochastic depth of so many blocks, whose rates rise from `lowest` to the highest: 0, or 1 / (1 - rate).

        All draws of a pass at once, and the rates as a tensor: a compiled block is one for all rates.
        """
        if not self.training or self.drop_path == 0:
            return [None] * blocks
        rates = torch.linspace(lowest, self.drop_path, blocks, device=x.device)[:, None, None]
        kept = torch.rand(blocks, 2, len(x), device=x.device) >= rates
        return list((kept / (1 - rates))[:, :, :, None, None].unbind())


def _grid(tokens: Tensor, h: int, w: int) -> Tensor:
    """[B, n, D] to [B, D, h, w]."""
    return torch.unflatten(tokens.transpose(1, 2), 2, (h, w))
