"""Writing in the background."""

import threading
import time

import pytest
import torch

from fsr.background_writer import BackgroundWriter, host_copy


@pytest.fixture
def writer():
    writer = BackgroundWriter()
    yield writer
    writer.close()


def test_writing_does_not_hold_up_the_caller_and_keeps_its_order(writer):
    go, done = threading.Event(), []
    writer.write(lambda: (go.wait(10), done.append(1)))
    assert done == []
    go.set()
    writer.write(lambda: done.append(2))
    writer.wait()
    assert done == [1, 2]


@pytest.mark.parametrize("call", ["write", "wait", "check"])
def test_what_the_writing_raises_comes_up_once_in_the_next_call(writer, call):
    failed = threading.Event()

    def fail():
        failed.set()
        raise OSError(28, "No space left on device")

    writer.write(fail)
    failed.wait(10)
    calls = {"write": lambda: writer.write(lambda: None), "wait": writer.wait, "check": writer.check}
    with pytest.raises(OSError, match="No space left"):
        for _ in range(1000):  # check does not wait, so it may have to ask again
            calls[call]()
            time.sleep(0.001)
    writer.wait()


def test_closing_lets_the_writing_end_and_raises_nothing():
    writer, done = BackgroundWriter(), []

    def fail():
        done.append(1)
        raise OSError

    writer.write(fail)
    writer.close()
    assert done == [1]


def test_a_host_copy_stays_as_it_was():
    state = {"weights": torch.ones(2, 3), "groups": [{"lr": 0.1, "params": [0, 1]}], "step": (torch.tensor(3.0), 4)}
    copy = host_copy(state)
    state["weights"].zero_()
    state["groups"][0]["lr"] = 0.2
    state["step"][0].zero_()
    assert torch.equal(copy["weights"], torch.ones(2, 3))
    assert copy["groups"] == [{"lr": 0.1, "params": [0, 1]}]
    assert copy["step"] == (torch.tensor(3.0), 4)
