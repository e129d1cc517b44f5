"""TensorBoard shows one whole curve of a run's attempts, whatever their nodes' clocks say."""

import os
import stat
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fsr.event_file import EventFile, last_time

HOUR = 3600.0


def attempt(folder, first, last, monkeypatch, clock_s):
    """An attempt from one step to another, on a node whose clock is wrong by so much."""
    with monkeypatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() + clock_s)
        events = EventFile(folder, first)
        for step in range(first, last + 1):
            events.scalars({"train/loss": step / 10, "train/lr": 1.0}, step)
        events.close()


def curve(folder, name="train/loss"):
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read.Scalars(name)


@pytest.mark.parametrize("clocks", [(0, -HOUR, 0), (HOUR, 0, -HOUR), (0, 0, 0), (-HOUR, 0, HOUR)])
def test_a_curve_is_whole_and_in_order_whatever_the_clocks_say(tmp_path, monkeypatch, clocks):
    for (first, last), clock_s in zip([(1, 8), (5, 12), (11, 20)], clocks, strict=True):
        attempt(tmp_path, first, last, monkeypatch, clock_s)
    points = curve(tmp_path)
    assert [point.step for point in points] == list(range(1, 21))
    assert [point.value for point in points] == pytest.approx([step / 10 for step in range(1, 21)])
    times = [point.wall_time for point in points]
    assert times == sorted(times)
    assert [point.step for point in curve(tmp_path, "train/lr")] == list(range(1, 21))


def test_a_torn_event_of_a_killed_attempt_is_passed_over(tmp_path, monkeypatch):
    attempt(tmp_path, 1, 8, monkeypatch, HOUR)
    (torn,) = tmp_path.iterdir()
    os.truncate(torn, torn.stat().st_size - 3)
    assert last_time(torn) > time.time() + HOUR / 2
    attempt(tmp_path, 8, 9, monkeypatch, 0)
    assert [point.step for point in curve(tmp_path)] == list(range(1, 10))
    (tmp_path / "events.out.tfevents.0000000001.n.1.0").touch()
    assert last_time(tmp_path / "events.out.tfevents.0000000001.n.1.0") == 0


def test_pictures_come_back(tmp_path):
    events = EventFile(tmp_path, 1)
    events.image("validation/a", torch.rand(3, 4, 5), 7)
    events.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    (picture,) = read.Images("validation/a")
    assert (picture.step, picture.width, picture.height) == (7, 5, 4)


def test_its_file_has_the_folders_mode(tmp_path):
    tmp_path.chmod(0o770)
    EventFile(tmp_path, 1).close()
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
