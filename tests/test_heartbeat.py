"""The heartbeat of a process: what it leaves in its file, when, and how long each sign may stay the last."""

import os
import time

import pytest

from fsr import heartbeat
from fsr.errors import UserError
from fsr.heartbeat import DEFAULT_SILENCE_S, MEDIANS, SLOW, SLOW_S, Heartbeat, Sign, silence_s


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    return clock


@pytest.fixture
def beating(tmp_path, clock):
    """A heartbeat, and what its file holds."""
    own, file = Heartbeat(), tmp_path / "7.0.0.heartbeat0"
    own.write_to(file, "n1")
    return own, lambda: Sign.of(file.read_bytes())


def test_without_a_file_it_is_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Heartbeat()
    own.start("starting")
    assert own.between_steps(lambda: True)() is True
    own.idle("waiting")
    assert list(tmp_path.iterdir()) == []


def test_starting_may_take_longer_and_waiting_for_ever(beating):
    own, last = beating
    own.start("starting")
    assert last() == Sign(count=1, doing="starting", patience_s=SLOW * DEFAULT_SILENCE_S, place="n1")
    own.beat("saving", slow=True)
    assert (last().doing, last().patience_s) == ("saving", SLOW * DEFAULT_SILENCE_S)
    own.idle("between attempts")
    assert (last().doing, last().patience_s) == ("between attempts", None)


def test_however_short_a_silence_is_allowed_torch_may_be_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("FSR_SILENCE_S", "2")
    own = Heartbeat()
    own.write_to(tmp_path / "heartbeat", "n1")
    own.start("starting")
    assert Sign.of((tmp_path / "heartbeat").read_bytes()).patience_s == SLOW_S


@pytest.mark.parametrize("step_s, patience_s", [(1.0, DEFAULT_SILENCE_S), (100.0, MEDIANS * 100.0)])
def test_a_step_may_take_twenty_of_the_last_ones_but_the_first_compile(beating, clock, step_s, patience_s):
    own, last = beating
    own.start("starting")
    stop = own.between_steps(lambda: False)
    told = []
    for step in range(110):
        assert stop() is False
        told.append(last())
        clock.now += step_s if step else 300.0  # the first compiles
    assert told[0].patience_s >= SLOW * DEFAULT_SILENCE_S and told[0].doing == "step 1 since its start"
    assert told[2].patience_s >= SLOW * DEFAULT_SILENCE_S
    assert told[3].patience_s == max(DEFAULT_SILENCE_S, MEDIANS * step_s)
    assert told[-1].patience_s == patience_s
    own.start("starting")  # another run, of which nothing is known
    assert last().patience_s == SLOW * DEFAULT_SILENCE_S


def test_it_is_written_now_and_then_only_and_at_once_where_the_patience_grows(beating, clock):
    own, last = beating
    own.start("starting")
    counts = []
    for _ in range(100):
        clock.now += 1.0
        own.beat("evaluating")
        counts.append(last().count)
    assert len(set(counts)) == 21
    own.beat("saving", slow=True)
    assert last().doing == "saving"


def test_a_full_disk_or_a_lost_folder_ends_nothing(tmp_path):
    own = Heartbeat()
    own.write_to(tmp_path / "gone" / "heartbeat", "n1")
    own.start("starting")


def test_a_sign_that_is_being_written_is_none_yet():
    assert Sign.of(b"") is None
    assert Sign.of(b'{"count": 3, "doi') is None


@pytest.mark.parametrize("value", ["", "soon", "0", "-3", "nan", "inf"])
def test_the_least_silence_is_a_number_of_seconds(monkeypatch, value):
    monkeypatch.setenv("FSR_SILENCE_S", value)
    with pytest.raises(UserError, match=f"FSR_SILENCE_S must be a number of seconds from 1, got '{value}'"):
        silence_s()


def test_a_sign_costs_less_than_a_thousandth_of_a_short_step(tmp_path):
    own = Heartbeat()
    own.write_to(tmp_path / "heartbeat", "n1")
    stop = own.between_steps(lambda: False)
    started = time.process_time()
    for _ in range(10_000):
        stop()
    asked_s = (time.process_time() - started) / 10_000
    print(f"\na question between two steps: {asked_s * 1e6:.1f} us of {os.cpu_count()} cores' time")
    assert asked_s < 1e-4
