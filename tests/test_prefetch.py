"""Batches on the device, and the time that it waits for them."""

import time
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch

from fsr.data.device_views import Drawn
from fsr.data.transforms import denormalise
from fsr.errors import UserError
from fsr.prefetch import Prefetcher, as_batch

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def loaded(step: int) -> dict:
    """What the loader gives for a step: two images, the second with two classes."""
    views = {name: torch.full((2, 3, 8, 8), float(step)) for name in ("view1", "view2")}
    return views | {"labels": torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]), "local_crops": [torch.ones(2, 3, 4, 4)]}


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_batches_come_in_order_on_the_device_with_their_classes_counted(device):
    prefetcher = Prefetcher(map(loaded, range(3)), torch.device(device))
    for step in range(3):
        batch = prefetcher.next()
        assert batch.view1.device.type == batch.labels.device.type == batch.local_crops[0].device.type == device
        assert (batch.view1 == step).all()
        assert batch.most_classes == 2
    with pytest.raises(StopIteration):
        prefetcher.next()


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_views_that_workers_have_only_drawn_are_finished(device):
    pictures = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    as_they_are = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4)
    flips = torch.tensor([False, False]), torch.tensor([True, True])
    views = {f"view{n + 1}": Drawn(pictures, flips[n], *as_they_are, flips[0]) for n in range(2)}
    batch = Prefetcher(iter([loaded(0) | views]), torch.device(device)).next()
    assert batch.view1.dtype == torch.float32
    assert torch.equal(batch.view1, batch.view2.flip(-1))
    assert torch.equal(denormalise(batch.view1).round().cpu(), pictures.float())


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_time_without_a_batch_is_counted_once(device):
    def slowly():
        for step in range(2):
            time.sleep(0.1)
            yield loaded(step)

    prefetcher = Prefetcher(slowly(), torch.device(device))
    prefetcher.next()
    time.sleep(0.3)  # not the loader's fault
    prefetcher.next()
    assert 0.19 < prefetcher.waited_s() < 0.29
    assert prefetcher.waited_s() == 0


class Clock:
    """A GPU of which the host only sees how far it is: as many events have passed as `passed` says."""

    def __init__(self):
        self.recorded, self.passed = 0, 0

    def event(self):
        return ClockEvent(self)


class ClockEvent:
    def __init__(self, clock):
        self.clock = clock

    def record(self, stream=None):
        self.number = self.clock.recorded
        self.clock.recorded += 1

    def query(self):
        return self.number < self.clock.passed

    def elapsed_time(self, other):
        assert self.query() and other.query(), "this would make the host wait, or raise"
        return 1000.0 * (other.number - self.number)


def test_a_rank_that_nobody_asks_for_its_waits_keeps_only_those_of_the_steps_in_flight(monkeypatch):
    clock, nothing = Clock(), Mock()
    monkeypatch.setattr("fsr.prefetch._timer", clock.event)
    monkeypatch.setattr("fsr.prefetch.as_batch", lambda loaded, device: as_batch(loaded, torch.device("cpu")))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda device: nothing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: setattr(clock, "passed", clock.recorded))
    prefetcher = Prefetcher(map(loaded, range(100)), torch.device("cuda"))
    for _ in range(100):
        prefetcher.next()
        clock.passed = max(0, clock.recorded - 5)  # the host is two steps and a half ahead
        assert len(prefetcher._waits) <= 4
    assert prefetcher.waited_s() == 100
    assert prefetcher.waited_s() == 0 and not prefetcher._waits


def test_what_is_wrong_with_an_image_comes_through():
    def broken():
        raise UserError("image a.jpg cannot be read")
        yield

    with pytest.raises(UserError, match=r"a\.jpg"):
        Prefetcher(broken(), torch.device("cpu")).next()
