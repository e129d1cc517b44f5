"""What reading and writing do in a folder that other nodes change, as far as it shows without one."""

import errno
import os
import time

import pytest

from fsr import regular_file, tensor_file
from fsr.checkpoint import load_file
from fsr.errors import UserError
from fsr.files import look_again, write_json
from fsr.json_file import read_json
from fsr.regular_file import TRIES
from fsr.run import Run
from launch.state.attempts import AttemptLog


def stale(monkeypatch, module, times):
    """Let `open_regular` of a module meet a file that was replaced so often."""
    left, real = [None] * times, regular_file.open_regular

    def refuse(file):
        if left:
            left.pop()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(file)

    monkeypatch.setattr(module, "open_regular", refuse)


def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    write_json(tmp_path / "target.json", {"number": 1})
    stale(monkeypatch, regular_file, 3)
    assert read_json(tmp_path / "target.json", dict[str, int]) == {"number": 1}
    stale(monkeypatch, regular_file, TRIES)
    with pytest.raises(OSError) as found:
        read_json(tmp_path / "target.json", dict[str, int])
    assert found.value.errno == errno.ESTALE


def test_a_checkpoint_that_is_replaced_while_it_is_parsed_is_not_damaged(tmp_path, monkeypatch):
    import torch

    with open(tmp_path / "checkpoint.pt", "xb") as file:
        tensor_file.write_tensors({"step": 7}, file)
    real, left = torch.load, [None]

    def load(*arguments, **options):
        if left:
            left.pop()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "load", load)
    assert load_file(tmp_path / "checkpoint.pt")["step"] == 7
    stale(monkeypatch, tensor_file, TRIES)
    with pytest.raises(UserError, match="cannot be read: Stale file handle"):
        load_file(tmp_path / "checkpoint.pt")


def test_to_look_again_leaves_nothing_and_makes_no_folder(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "missing", tmp_path / "missing" / "too"):
        look_again(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_lost_attempt_ended_when_its_last_file_was_written_but_not_in_the_future(tmp_path):
    log = AttemptLog(Run(tmp_path))
    log.begin("1", 0, "n1", 1)
    (tmp_path / "metrics.jsonl").touch()
    os.utime(tmp_path / "metrics.jsonl", (time.time() + 3600, time.time() + 3600))
    (tmp_path / ".checkpoint.pt.n1.1.0.part").symlink_to("gone")  # is listed, and is not there
    log.close_lost(lambda attempt: ("node", "gone"))
    assert 0 <= log.attempts()[0].seconds < 60
