"""Pretrained files as people have them: the encoder computes what timm's network does, or one sentence says why not.

Each row of LOADS and REFUSED is a file, made from a small network of timm, and what becomes of it.
"""

import argparse
import dataclasses
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fsr.config import voc
from fsr.errors import UserError
from fsr.models import pretrained
from fsr.models.encoder import Encoder
from fsr.models.network import Network
from fsr.models.pretrained import encoder_weights

SIZES = {"embed_dim": 32, "depth": 3, "num_heads": 2}
CONFIG = dataclasses.replace(
    voc(), pretrained="none", embed_dim=32, depth=3, heads=2, crop_size=64, block_size=16, cls_depth=1, drop_path=0.0,
    decoder_width=8, projector_hidden=12, projector_bottleneck=6, out_dim=10,
)  # fmt: skip


def vit(name="vit_tiny_patch16_224", img_size=64, seed=0, **options):
    """A small network of timm, none of whose weights is zero or one."""
    model = timm.create_model(name, img_size=img_size, **(SIZES | options)).eval()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return model


def state(name="vit_tiny_patch16_224", **options):
    return vit(name, **options).state_dict()


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def head(prefix="head."):
    """DINO's head in the old spelling of weight norm."""
    shapes = {"mlp.0.weight": (8, 32), "last_layer.weight_g": (5, 1), "last_layer.weight_v": (5, 8)}
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


def optimizer():
    layer = nn.Linear(3, 3)
    adam = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    adam.step()
    return adam.state_dict()


ARGUMENTS = argparse.Namespace(
    arch="vit", lr=1e-3, output_dir=pathlib.PosixPath("/out"), betas=(0.9, 0.95), resume=None
)


def dino(student=1, teacher=0):
    """DINO's training checkpoint."""
    copies = {
        name: prefixed("module.", prefixed("backbone.", state(seed=seed, num_classes=0)) | head())
        for name, seed in (("student", student), ("teacher", teacher))
    }
    more = {"optimizer": optimizer(), "epoch": 3, "args": ARGUMENTS, "dino_loss": {"center": torch.zeros(1, 5)}}
    return {"student": copies["student"], "teacher": copies["teacher"], **more, "fp16_scaler": None}


def mae():
    """MAE's training checkpoint: its decoder, a mask token of the decoder's width."""
    decoder = {
        "mask_token": torch.randn(1, 1, 16),
        "decoder_pos_embed": torch.randn(1, 17, 16),
        "decoder_blocks.0.attn.qkv.weight": torch.randn(48, 16),
        "decoder_pred.bias": torch.randn(768),
    }
    model = state(num_classes=0) | decoder
    return {"model": model, "optimizer": optimizer(), "epoch": 7, "scaler": {"scale": 65536.0}, "args": ARGUMENTS}


def distilled():
    return state("deit_tiny_distilled_patch16_224")


def with_table(tensors, table):
    return tensors | {"pos_embed": table}


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def renamed(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


LOADS = {
    "timm's state dict": state,
    "an ordered dict of half precision": lambda: OrderedDict((name, t.half()) for name, t in state().items()),
    "double precision": lambda: {name: t.double() for name, t in state().items()},
    "without a head": lambda: state(num_classes=0),
    "with the layer before the head of older timm": lambda: state() | {"pre_logits.fc.weight": torch.zeros(32, 32)},
    "{state_dict}, as timm trains": lambda: {"state_dict": state(), "epoch": 3, "arch": "vit", "metric": np.float64(1)},
    "{state_dict, state_dict_ema}": lambda: {"state_dict": state(seed=1), "state_dict_ema": state(), "args": ARGUMENTS},
    "{model}, as DeiT trains": lambda: {"model": state(), "optimizer": optimizer(), "args": ARGUMENTS},
    "{model, model_ema}": lambda: {"model": state(seed=1), "model_ema": state()},
    "DDP": lambda: prefixed("module.", state()),
    "torch.compile": lambda: prefixed("_orig_mod.", state()),
    "torch.compile of each block": lambda: renamed(state(), "blocks.1.", "blocks.1._orig_mod."),
    "DDP around torch.compile": lambda: prefixed("module._orig_mod.", state()),
    "torch.compile around DDP": lambda: {"state_dict": prefixed("_orig_mod.module.", state())},
    "FSDP": lambda: renamed(state(), "blocks.", "_fsdp_wrapped_module.blocks."),
    "activation checkpointing": lambda: renamed(state(), ".attn.", "._checkpoint_wrapped_module.attn."),
    "a backbone in another program": lambda: prefixed("backbone.", state()) | {"neck.weight": torch.ones(2)},
    "Lightning": lambda: {"state_dict": prefixed("model.backbone.", state()), "pytorch-lightning_version": "2"},
    "DeepSpeed": lambda: {"module": state(), "global_steps": 3},
    "an unknown wrapper": lambda: {"payload": {"weights": prefixed("net.", state())}},
    "DINO's training checkpoint": dino,
    "DINO's teacher alone": lambda: {"teacher": dino()["teacher"]},
    "iBOT's, with its mask": lambda: {"state_dict": state(num_classes=0) | {"masked_embed": torch.randn(1, 32)}},
    "MoCo v3's": lambda: {
        "state_dict": prefixed("module.base_encoder.", state(num_classes=0) | head())
        | prefixed("module.momentum_encoder.", state(seed=1, num_classes=0) | head())
        | {"module.predictor.0.weight": torch.ones(2, 2)},
        "optimizer": optimizer(),
    },
    "MAE's training checkpoint": mae,
    "MAE's encoder alone": lambda: {"model": state(num_classes=0)},
    "CAE's and SimMIM's mask token": lambda: state() | {"mask_token": torch.randn(1, 1, 32)},
    "distilled: two tokens before the patches": distilled,
    "a norm of pooled features beside the last one": lambda: state() | {"fc_norm.weight": torch.ones(32)},
}  # fmt: skip

REFUSED = {
    "DINOv2's LayerScale": (
        lambda: state("vit_small_patch14_dinov2", patch_size=16),
        ["blocks.0.ls1.gamma (and 2 like it)", "blocks.0.ls2.gamma", "which would change what the network computes"],
    ),
    "DINOv2's registers": (
        lambda: state("vit_small_patch14_reg4_dinov2", patch_size=16),
        ["reg_token", "blocks.0.ls1.gamma"],
    ),
    "registers in DINOv2's own names": (
        lambda: state() | {"register_tokens": torch.ones(1, 4, 32)},
        ["register_tokens"],
    ),
    "DINOv2 in chunks": (lambda: renamed(state(), "blocks.", "blocks.0."), ["lack blocks.0.norm1.weight"]),
    "SwiGLU": (
        lambda: renamed(state(), "mlp.fc1.", "mlp.w12."),
        ["lack blocks.0.mlp.fc1.weight", "blocks.0.mlp.w12.weight"],
    ),
    "timm's CLIP": (lambda: state("vit_base_patch16_clip_224"), ["lack patch_embed.proj.bias", "norm_pre.weight"]),
    "OpenAI's CLIP": (
        lambda: {"visual.conv1.weight": torch.ones(32, 3, 16, 16), "visual.ln_pre.weight": torch.ones(32)},
        ["visual.conv1.weight, visual.ln_pre.weight"],
    ),
    "CLIP's first norm": (lambda: state() | {"norm_pre.weight": torch.ones(32)}, ["norm_pre.weight"]),
    "normed queries and keys": (
        lambda: state(qk_norm=True),
        ["blocks.0.attn.q_norm.weight (and 2 like it)", "blocks.0.attn.k_norm.weight"],
    ),
    "BEiT": (
        lambda: state("beit_base_patch16_224"),
        ["lack pos_embed, blocks.0.attn.qkv.bias", "gamma_1", "relative_position_bias_table", "attn.q_bias"],
    ),
    "DeiT III": (lambda: state("deit3_small_patch16_224"), ["blocks.0.ls1.gamma"]),
    "relative positions": (lambda: state("vit_relpos_small_patch16_224"), ["lack cls_token", "rel_pos.mlp"]),
    "EVA": (lambda: state("eva02_tiny_patch14_224", img_size=56), ["lack", "q_bias"]),
    "SigLIP": (lambda: state("vit_base_patch16_siglip_224"), ["lack cls_token"]),
    "pooled, with its norm after the pooling": (
        lambda: state(global_pool="avg"),
        ["lack norm.weight, norm.bias"],
    ),
    "a ViT without class token": (lambda: state("vit_base_patch16_gap_224"), ["lack cls_token"]),
    "transformers' names": (
        lambda: {"vit.embeddings.cls_token": torch.ones(1, 1, 32)},
        ["plain ViT in timm's names", "vit.embeddings.cls_token"],
    ),
    "mmsegmentation's names": (
        lambda: {"state_dict": {"backbone.patch_embed.projection.weight": torch.ones(32, 3, 16, 16)}},
        ["state_dict.backbone.patch_embed.projection.weight"],
    ),
    "a ResNet": (lambda: timm.create_model("resnet10t").state_dict(), ["plain ViT"]),
    "a Swin": (
        lambda: {"patch_embed.proj.weight": torch.ones(8, 3, 4, 4), "layers.0.weight": torch.ones(1)},
        ["layers.0"],
    ),
    "more blocks": (lambda: state(depth=4), ["blocks.3.norm1.weight", "would change"]),
    "fewer blocks": (lambda: state(depth=2), ["lack blocks.2.norm1.weight"]),
    "another width": (lambda: state(embed_dim=48), ["(1, 1, 48)", "(1, 1, 32)"]),
    "another patch": (lambda: state(patch_size=8, img_size=32), ["(32, 3, 8, 8)", "(32, 3, 16, 16)"]),
    "a table without the class token, or of 3 x 5 patches with it": (
        lambda: with_table(state(), state()["pos_embed"][:, 1:]),
        ["pos_embed (1, 16, 32)", "1 before the patches of a square grid"],
    ),
    "4 x 6 patches": (lambda: state(img_size=(64, 96)), ["pos_embed (1, 25, 32)", "square grid"]),
    "4 x 5 patches": (lambda: state(img_size=(64, 80)), ["pos_embed (1, 21, 32)"]),
    "distilled, 4 x 5 patches": (
        lambda: state("deit_tiny_distilled_patch16_224", img_size=(64, 80)),
        ["pos_embed (1, 22, 32)", "2 before the patches"],
    ),
    "a table without a first axis": (lambda: with_table(state(), torch.randn(17, 32)), ["pos_embed (17, 32)"]),
    "an empty table": (lambda: with_table(state(), torch.randn(1, 0, 32)), ["pos_embed (1, 0, 32)"]),
    "a table of the class token alone": (lambda: with_table(state(), torch.randn(1, 1, 64)), ["pos_embed"]),
    "no position": (lambda: without(state(), "pos_embed"), ["lack pos_embed"]),
    "no bias of queries": (lambda: state(qkv_bias=False), ["lack blocks.0.attn.qkv.bias (and 2 like it)"]),
    "an unknown tensor": (lambda: state() | {"blocks.1.adapter.weight": torch.ones(1)}, ["blocks.1.adapter.weight"]),
    "NaN": (lambda: state() | {"norm.bias": torch.full((32,), torch.nan)}, ["NaN", "norm.bias"]),
    "integers": (lambda: state() | {"norm.bias": torch.ones(32, dtype=torch.int8)}, ["no numbers in norm.bias"]),
    "two networks": (lambda: {"a": state(), "b": state()}, ["several networks (a, b)"]),
    "two names of one tensor": (lambda: state() | prefixed("module.", state()), ["there is cls_token twice"]),
    "no tensors": (lambda: {"epoch": 3}, ["holds no tensors"]),
    "one tensor": (lambda: torch.ones(3), ["holds no tensors"]),
    "a list of tensors": (lambda: [torch.ones(3)], ["holds no tensors"]),
    "a whole network": (lambda: nn.Linear(2, 2), ["an object of torch.nn.modules.linear.Linear", "state_dict()"]),
}  # fmt: skip


def load(content, tmp_path, backbone="vit_tiny_patch16_224", **changes):
    """An encoder with the content of a file as pretrained weights."""
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    return of_file(file, backbone, **changes)


def of_file(file, backbone="vit_tiny_patch16_224", **changes):
    config = dataclasses.replace(CONFIG, pretrained=str(file), backbone=backbone, **changes)
    encoder = Encoder(config).eval()
    pretrained.load_pretrained(encoder, config)
    return encoder


def timms_own(model, image):
    """Features [B, n, D] of timm's own forward, in whose blocks are only patches, as in this method's."""
    model.pos_embed = nn.Parameter(model.pos_embed[:, -16:])
    model.cls_token = model.dist_token = None
    model.num_prefix_tokens = 0
    model._pos_embed = lambda x: x + model.pos_embed
    return model.forward_features(image)


@torch.no_grad()
def assert_alike(encoder, model):
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    features = encoder(image).top.flatten(2).transpose(1, 2)
    assert F.cosine_similarity(features, timms_own(model, image), dim=2).min() > 0.9999


@pytest.mark.parametrize("situation", LOADS)
def test_what_is_accepted_computes_what_timm_does(situation, tmp_path, capsys):
    model = vit("deit_tiny_distilled_patch16_224") if situation.startswith("distilled") else vit()
    if situation.startswith("distilled"):
        model.forward_features = lambda x: model.norm(model.blocks(model._pos_embed(model.patch_embed(x))))
    encoder = load(LOADS[situation](), tmp_path)
    assert_alike(encoder, model)
    assert encoder.mask_token.abs().max() == 0  # no file of another program has one of this method
    print(f"{situation}: loads; {capsys.readouterr().err}")


@pytest.mark.parametrize("situation", REFUSED)
def test_what_would_compute_something_else_is_refused_in_one_sentence(situation, tmp_path):
    make, words = REFUSED[situation]
    with pytest.raises(UserError) as error:
        load(make(), tmp_path)
    told = str(error.value)
    assert str(tmp_path / "weights.pth") in told and "\n" not in told
    assert [word for word in words if word not in told] == [], told
    print(f"{situation}: {told}")


def test_layer_scale_loads_into_the_backbone_that_has_it(tmp_path):
    name = "vit_small_patch14_dinov2"
    content = state(name, patch_size=16) | {"mask_token": torch.ones(1, 32)}
    encoder = load(content, tmp_path, backbone=name)
    assert_alike(encoder, vit(name, patch_size=16))
    assert encoder.mask_token.abs().max() == 0


def test_tensors_of_no_use_are_listed_once(tmp_path, capsys):
    load(dino(), tmp_path)
    load(dino(), tmp_path)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"note: of pretrained weights {tmp_path / 'weights.pth'} these have no use here: ")
    for part in ("student (", "teacher.head (3 tensors)", "optimizer (", "dino_loss (1 tensor)"):
        assert part in told
    load(mae(), tmp_path)
    told = capsys.readouterr().err
    for name in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.attn.qkv.weight", "decoder_pred.bias"):
        assert name in told


def test_each_tensor_of_a_file_is_used_or_named(tmp_path):
    content = state() | {"decoder_pred.bias": torch.ones(3), "mask_token": torch.ones(1)}
    weights, notes = encoder_weights(content, Encoder(CONFIG), tmp_path, "vit")
    assert set(content) - set(weights) == set(notes.split(", "))


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("side", [2, 3, 6])
def test_a_table_of_another_grid_is_interpolated_as_the_method_says(others, side, tmp_path):
    table = torch.randn(1, others + side**2, 32)
    token = {"dist_token": torch.ones(1, 1, 32)} if others == 2 else {}
    backbone = "vit_tiny_patch16_224" if others else "flexivit_small"  # its class token has no position
    encoder = load(with_table(state(), table) | token, tmp_path, backbone)
    grid = table[:, others:].reshape(1, side, side, 32).permute(0, 3, 1, 2)
    wanted = F.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    assert torch.equal(encoder.pos_embed[:, 1:], wanted)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights"])
def test_safetensors_under_any_name(name, tmp_path):
    save_file(state(), tmp_path / name)
    assert_alike(of_file(tmp_path / name), vit())


def test_torchs_old_format(tmp_path):
    torch.save(dino(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_alike(of_file(tmp_path / "old.pth"), vit())


class _Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_payload_among_harmless_types_is_not_run(new_format, tmp_path):
    content = dino() | {"args": argparse.Namespace(output_dir=_Payload(tmp_path / "executed"))}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=r"evil\.pth cannot be read: it holds an object of "):
        of_file(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4 torn",
        b"<html>404</html>",
        b"version https://git-lfs.github.com/spec/v1",
        b"\x40" + b"\0" * 7 + b"{torn",
    ],
)
def test_a_damaged_file_is_said_in_one_sentence(content, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth cannot be read: .") as error:
        of_file(tmp_path / "weights.pth")
    assert "\n" not in str(error.value) and "weights_only=False" not in str(error.value)


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        of_file(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        of_file(tmp_path / "weights.pth")


@pytest.mark.parametrize("wrapped", [lambda s, t: {"student": s, "teacher": t, "step": 3}, lambda s, t: s])
def test_a_run_of_this_program_gives_its_whole_encoder(wrapped, tmp_path):
    torch.manual_seed(1)
    student, teacher = Network(CONFIG), Network(CONFIG)
    encoder = load(wrapped(student.state_dict(), teacher.state_dict()), tmp_path)
    for name, tensor in student.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "name", ["vit_wee_patch16_reg1_gap_256", "vit_dwee_patch16_reg1_gap_256", "beit_base_patch16_224"]
)
def test_a_backbone_that_is_no_plain_vit_is_refused(name):
    with pytest.raises(UserError, match=f"plain ViT of timm .*{name}"):
        Encoder(dataclasses.replace(CONFIG, backbone=name))
