"""The pretrained start of the synthetic set: a tiny pretraining, its file, and the word that names the released one."""

import dataclasses
import json
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import TINY, tiny_config

from fsr import pretrain, pretrained, train
from fsr.config import synthetic
from fsr.errors import UserError
from fsr.models.encoder import Encoder
from fsr.models.network import Network
from fsr.models.pretrained import load_pretrained
from fsr.pretrained import SYNTHETIC, require_weights
from launch.state.code_snapshot import ROOT, manifest_of

SHORT = {name: value for name, value in TINY.items() if name != "fsr_from"} | {"iterations": 3, "eval_every": 3}
WIDTHS = {"crop_size": 32, "block_size": 8, "embed_dim": 16, "depth": 3, "heads": 2}
KEPT = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")


def main(folder, data, *more):
    flags = [word for name, value in SHORT.items() for word in (f"--{name}", str(value))]
    where = ["--run_folder", str(folder), "--data_folder", str(data), "--images", "8"]
    pretrain.main(["synthetic", *where, *flags, *more])
    return folder / "encoder.safetensors"


def told(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "pretraining"


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    return main(tmp_path_factory.mktemp("pretrained") / "run", data)


def test_the_encoder_is_small_and_tells_how_it_was_made(file):
    tensors = load_file(file)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert all(name.startswith(KEPT) for name in tensors)  # nothing that this objective does not train
    said = told(file)
    assert said["command"].startswith("fsr pretrain") and said["seed"] == "0" and said["heads"] == "2"
    assert said["data"] == "pretraining split, 8 images, seed 0"
    assert "torch" in said["versions"] and "CPU" in said["machine"] and said["date"].startswith("20")
    assert json.loads(said["config"])["num_classes"] == 21
    assert 0 <= json.loads(said["result"])["val/class_f1"] <= 1


def test_the_presets_encoder_takes_at_most_3_mb():
    config = dataclasses.replace(pretrain.pretraining(), data_folder=ROOT)
    state = Network(config).encoder.state_dict()
    assert 2 * sum(tensor.numel() for tensor in state.values()) < 2.9e6  # with all that self-reinforcement trains


def test_a_pretraining_repeats_resumes_and_is_left_alone_when_finished(file, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(train, "received_signals", lambda: [signal.SIGTERM])
        main(tmp_path / "run", data)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "run/encoder.safetensors").exists()
    again, once = load_file(main(tmp_path / "run", data)), load_file(file)
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)
    weights = (tmp_path / "run/checkpoint.pt").stat()
    (tmp_path / "run/encoder.safetensors").unlink()
    assert load_file(main(tmp_path / "run", data)).keys() == once.keys()
    assert (tmp_path / "run/checkpoint.pt").stat().st_mtime_ns == weights.st_mtime_ns


def test_with_self_reinforcement_the_file_holds_what_that_trains(data, tmp_path):
    file = main(tmp_path, data, "--w_class", "0.1", "--w_patch", "0.1", "--use_mim", "--fsr_from", "0")
    encoder = Encoder(dataclasses.replace(synthetic(), **WIDTHS))
    assert load_file(file).keys() == encoder.state_dict().keys()


def loaded(file, **changes):
    config = dataclasses.replace(synthetic(), **(WIDTHS | {"pretrained": str(file)} | changes))
    encoder = Encoder(config)
    load_pretrained(encoder, config)
    return encoder.state_dict()


def test_a_run_starts_from_the_file(file):
    own = loaded(file)
    assert all(torch.equal(own[name], tensor.float()) for name, tensor in load_file(file).items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"embed_dim": 32}, r"have \S+ \(.*\), but backbone vit_tiny_patch16_224 wants \(.*\)"),
        ({"patch_size": 4}, r"have patch_embed.proj.weight \(16, 3, 8, 8\), but .* wants \(16, 3, 4, 4\)"),
        ({"depth": 4}, r"lack blocks.3.norm1.weight"),
        ({"heads": 4}, "have 2 heads, but backbone vit_tiny_patch16_224 wants 4"),
    ],
)
def test_another_architecture_is_refused_in_one_sentence(file, changes, sentence):
    with pytest.raises(UserError, match=rf"^pretrained weights {file} .*{sentence}") as error:
        loaded(file, **changes)
    assert "\n" not in str(error.value)


def test_the_word_synthetic_names_the_file_of_this_program(file, monkeypatch, tmp_path):
    config = dataclasses.replace(synthetic(), pretrained="synthetic")
    assert config.from_anywhere().pretrained == "synthetic"
    monkeypatch.setattr(pretrained, "SYNTHETIC", tmp_path / "none.safetensors")
    with pytest.raises(
        UserError, match=r"must be timm, none, synthetic or a file, and .*none.safetensors does not exi"
    ):
        require_weights(config)
    monkeypatch.setattr(pretrained, "SYNTHETIC", file)
    require_weights(config)
    assert torch.equal(loaded("synthetic")["norm.weight"], load_file(file)["norm.weight"].float())


def test_a_run_from_the_file_is_not_one_from_scratch(file, synthetic_folder):
    config = tiny_config(synthetic_folder, drop_path=0.0)
    scratch, started = (Network(dataclasses.replace(config, pretrained=name)) for name in ("none", str(file)))
    assert not torch.equal(scratch.encoder.norm.weight, started.encoder.norm.weight)


def test_other_data_than_the_split_is_refused(synthetic_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(tmp_path / "run", synthetic_folder)
    assert ended.value.code == 2
    assert "split pretraining; choose another folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_released_start_fits_the_preset_and_goes_with_the_code():
    assert SYNTHETIC.stat().st_size <= 3_000_000
    said = told(SYNTHETIC)
    assert said["command"].startswith("fsr pretrain synthetic") and "pretraining split" in said["data"]
    config = dataclasses.replace(synthetic(), pretrained="synthetic")
    encoder = Encoder(config)
    load_pretrained(encoder, config)
    assert all(torch.equal(encoder.state_dict()[name], tensor.float()) for name, tensor in load_file(SYNTHETIC).items())
    assert str(SYNTHETIC.relative_to(ROOT)) in manifest_of(ROOT)
