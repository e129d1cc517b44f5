"""timm's weights where there is no network: fetched beforehand, or one sentence says how, in seconds."""

import dataclasses
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from fsr import pretrained
from fsr.config import voc
from fsr.data.synthetic import main as make_synthetic
from fsr.errors import UserError
from fsr.models.encoder import Encoder
from fsr.models.pretrained import load_pretrained
from fsr.pretrained import cached_file, fetch_weights, main, require_weights
from fsr.run import Run
from fsr.train import open_run
from launch.plan import Options
from launch.sweep import sweep

CONFIG = dataclasses.replace(voc(), backbone="test_vit", crop_size=64)  # a ViT of a megabyte
REPOSITORY = "models--timm--test_vit.r160_in1k"
NOWHERE = "http://127.0.0.1:9"  # the port of discard, where nobody listens


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    point_to(NOWHERE, monkeypatch)
    return tmp_path / "hub" / REPOSITORY


def point_to(address, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return timm.create_model("test_vit").state_dict()


@pytest.fixture
def hub(weights, monkeypatch):
    """A hub that knows one file; `sent` may be replaced by what it sends instead."""
    content = save(weights)

    class Hub(BaseHTTPRequestHandler):
        sent, asked = content, []

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()
            self.wfile.write(Hub.sent)

        def answer(self):
            Hub.asked.append(self.command)
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(Hub.sent)))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield Hub
    server.shutdown()
    server.server_close()


def refusal(config=CONFIG):
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        require_weights(config)
    assert time.monotonic() - started < 10
    told = str(error.value)
    assert constants.HF_HUB_CACHE in told and "--pretrained FILE" in told and "\n" not in told
    return told


def loaded(config=CONFIG):
    encoder = Encoder(config)
    load_pretrained(encoder, config)
    return encoder.state_dict()


def test_without_network_one_sentence_says_what_to_fetch():
    assert "fsr pretrained fetch voc`" in refusal(voc())
    assert "fsr pretrained fetch test_vit`" in refusal()
    with pytest.raises(UserError, match=r"must lie in .*fetch test_vit"):
        loaded()


def test_hugging_faces_offline_mode(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refusal()


def test_a_network_that_is_silent(monkeypatch):
    monkeypatch.setattr(pretrained, "QUICK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        told = refusal()
    assert "does not answer within 0.3 s" in told or "timed out" in told  # whichever of the two clocks comes first


def test_a_name_server_that_is_silent(monkeypatch):
    monkeypatch.setattr(pretrained, "QUICK_S", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    point_to("http://hub.invalid", monkeypatch)
    assert "http://hub.invalid does not answer within 0.3 s" in refusal()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>"]
)
def test_a_portal_or_proxy_in_place_of_the_hub(answer, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(10_000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        point_to(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
        refusal()


def test_what_was_fetched_is_loaded_without_network(hub, weights, monkeypatch, capsys):
    main(["fetch", "test_vit"])
    path = Path(capsys.readouterr().out.strip())
    assert path == cached_file("test_vit") and path.is_file()
    asked = len(hub.asked)
    main(["fetch", "test_vit"])
    require_weights(CONFIG)
    assert len(hub.asked) == asked
    point_to(NOWHERE, monkeypatch)
    require_weights(CONFIG)
    state = loaded()
    assert all(torch.equal(state[name], weights[name]) for name in state if name.startswith("blocks."))


def test_a_run_fetches_where_there_is_a_network(hub):
    require_weights(CONFIG)
    assert cached_file("test_vit") is not None


def test_a_download_that_was_cut_off_is_begun_again(hub, cache):
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / f"{'0' * 64}.incomplete").write_bytes(b"half")
    (cache / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cache / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to("../../blobs/gone")
    assert cached_file("test_vit") is None
    require_weights(CONFIG)
    loaded()


def test_a_damaged_file_is_named_and_fetched_again(hub):
    path = fetch_weights("test_vit")
    whole = path.read_bytes()
    path.resolve().write_bytes(whole[:5000])
    with pytest.raises(UserError, match=r"cannot be read: .*`.*fsr pretrained fetch test_vit` fetches it again"):
        loaded()
    assert fetch_weights("test_vit").read_bytes() == whole


def test_what_does_not_have_the_hubs_checksum_is_not_kept(hub, weights):
    hub.sent = save({name: tensor + 1 for name, tensor in weights.items()})
    with pytest.raises(UserError, match="SHA-256"):
        fetch_weights("test_vit")
    assert cached_file("test_vit") is None


def test_a_cache_that_cannot_be_written(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refusal()


@pytest.mark.parametrize("backbone", ["nonsense", "vit_base_patch16_224.nonsense", "test_vit4"])
def test_a_backbone_without_weights(backbone):
    with pytest.raises(UserError, match=backbone):
        fetch_weights(backbone)


def test_a_missing_file_is_found_at_once():
    with pytest.raises(UserError, match=r"/nowhere\.pth does not exist"):
        require_weights(dataclasses.replace(CONFIG, pretrained="/nowhere.pth"))
    require_weights(dataclasses.replace(CONFIG, pretrained="none"))


def test_a_run_says_so_before_it_looks_at_any_picture(tmp_path):
    make_synthetic([str(tmp_path / "data"), "--images", "24"])
    own = {"dataset": "synthetic", "data_folder": tmp_path / "data", "num_classes": 9, "train_set": "train"}
    with pytest.raises(UserError, match="fetch test_vit"):
        open_run(dataclasses.replace(CONFIG, **own), Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_sweep_says_so_before_it_submits(tmp_path):
    (tmp_path / "data").mkdir()
    options = Options(study="mask_ratio", dataset="voc", data_folder=tmp_path / "data", runs=tmp_path / "runs")
    with pytest.raises(UserError, match=r"fsr pretrained fetch voc`"):
        sweep(options)
    assert not (tmp_path / "runs" / "mask_ratio").exists()
