"""A full disk is waited out; any other error is not."""

import errno
import time
from pathlib import Path

import pytest

from launch.state.full_disk import disk_is_full, wait_for_space


@pytest.fixture
def seconds(monkeypatch):
    """Seconds that were slept, without sleeping."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def failing(monkeypatch, *errors):
    """Writing fails with each of these errors, then works."""
    left = list(errors)
    write = Path.write_bytes

    def write_bytes(path, content):
        if left:
            raise OSError(left.pop(0), "failed")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("number, full", [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_no_room_and_no_quota_are_a_full_disk(number, full):
    assert disk_is_full(OSError(number, "failed")) is full
    assert not disk_is_full(ValueError())


def test_it_tries_every_ten_seconds_until_there_is_room(tmp_path, monkeypatch, seconds, capsys):
    failing(monkeypatch, errno.ENOSPC, errno.EDQUOT)
    assert wait_for_space(tmp_path)
    assert sum(seconds) == 20
    assert f"no space is left in {tmp_path}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_the_waiting(tmp_path, monkeypatch, seconds):
    failing(monkeypatch, *[errno.ENOSPC] * 99)
    assert not wait_for_space(tmp_path, lambda: len(seconds) >= 3)
    assert len(seconds) == 3


def test_another_error_is_raised(tmp_path, monkeypatch, seconds):
    failing(monkeypatch, errno.EACCES)
    with pytest.raises(OSError, match="failed"):
        wait_for_space(tmp_path)
