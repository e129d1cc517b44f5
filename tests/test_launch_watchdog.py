"""The watchdog: whom it takes to be hung, whom not, and what it then does."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import wait_for

from fsr.config import synthetic
from fsr.heartbeat import FSR_SILENCE_S, Heartbeat, Sign
from fsr.run import Run
from launch.slurm import bad_nodes
from launch.slurm.answers import Job
from launch.slurm.environment import LocalEnvironment, SlurmEnvironment
from launch.slurm.error_causes import cause_of_error
from launch.state.attempts import Attempt
from launch.state.paths import StudyFolder
from launch.state.stop import StopRequest
from launch.worker import training, watchdog
from launch.worker.rendezvous import Rendezvous
from launch.worker.watchdog import Silence, Watch, describe

ROOT = Path(__file__).parent.parent


def content(count, patience_s=100.0, doing="step 5 since its start", place="n1"):
    return json.dumps({"count": count, "doing": doing, "patience_s": patience_s, "place": place}).encode()


def hung_after(signs, interval_s=5.0, elapsed_s=5.0, looks=100):
    """After how many looks a rank counts as hung; None: never. `signs` gives its file at a look."""
    watch = Watch(interval_s)
    for look in range(looks):
        if watch.look({0: signs(look)}, elapsed_s):
            return look
    return None


def test_who_changes_nothing_for_longer_than_its_patience_hangs():
    assert hung_after(lambda look: content(1)) == 21
    assert hung_after(lambda look: content(min(look, 30))) == 51


def test_who_gives_signs_waits_or_starts_slowly_does_not():
    assert hung_after(lambda look: content(look // 19)) is None  # a step of 95 s
    assert hung_after(lambda look: content(1, None)) is None  # the claim, a full disk, waiting to be killed
    assert hung_after(lambda look: content(1, 300.0), looks=60) is None
    assert hung_after(lambda look: content(1, 300.0), looks=62) == 61


def test_only_time_that_was_seen_to_pass_counts():
    """A closed lid or a suspended job: hours between two looks, and the rank goes on a little after the watchdog."""

    def lid(look):
        return content(1 if look == 10 else look // 5)

    watch = Watch(5.0)
    for look in range(100):
        assert not watch.look({0: lid(look)}, 8 * 3600.0 if look in (10, 50) else 5.0)
    assert hung_after(lambda look: content(1), elapsed_s=8 * 3600.0) == 11  # each look adds two intervals at most


def test_a_rank_that_has_left_no_file_yet_is_not_watched_and_a_torn_sign_is_no_change():
    watch = Watch(5.0)
    for _ in range(100):
        assert watch.look({}, 5.0) == []
    assert watch.look({0: b'{"cou'}, 5.0) == []
    watch.look({0: content(1)}, 5.0)
    assert [silence.rank for _ in range(21) for silence in watch.look({0: b""}, 5.0)] == [0]


def silence(rank, node, seconds=612.0):
    return Silence(rank, Sign(count=9, doing="step 40 since its start", patience_s=600.0, place=node), seconds)


def test_the_report_names_the_node_where_it_is_only_one(tmp_path):
    one = describe([silence(1, "n2")])
    assert one == "hung on node n2: no sign of life of rank 1 for 612 s after step 40 since its start"
    several = describe([silence(0, "n1"), silence(1, "n2", 615.0)])
    assert several.startswith("hung on one of the nodes n1, n2: no sign of life of ranks 0, 1 for 615 s")
    folder = StudyFolder(tmp_path)
    for number, detail in enumerate([several, several, f"rank1: {one}"]):
        bad_nodes.report(folder, number, attempt(detail))
    assert bad_nodes.bad_nodes(folder) == []
    bad_nodes.report(folder, 7, attempt(f"rank1: {one}"))
    assert bad_nodes.bad_nodes(folder) == ["n2"]  # where the silent rank was, not rank 0


def attempt(detail):
    return Attempt(job="7_0", restart=0, node="n1", pid=1, ranks=2, started=0.0, cause="hung", detail=detail)


def test_loaders_that_give_nothing_are_hung_as_well():
    class SilentLoaderError(RuntimeError):
        pass

    assert cause_of_error(SilentLoaderError("the 2 loader workers gave nothing for 600 s"))[0] == "hung"


def test_heartbeats_and_reports_lie_beside_the_announcements(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for rank in (0, 1):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        monkeypatch.setenv("SLURM_STEP_ID", "3")
        own = Heartbeat()
        own.write_to(Rendezvous(tmp_path).heartbeat_file(), f"n{rank}")
        own.start("starting")
    monkeypatch.delenv("SLURM_PROCID")
    watching = Rendezvous(tmp_path, 3)
    assert watching.step == "12.3"
    assert {rank: Sign.of(text).place for rank, text in watching.heartbeats().items()} == {0: "n0", 1: "n1"}
    assert Rendezvous(tmp_path, 4).heartbeats() == {}
    watching.report_failure("hung", "hung on node n1: …", rank=1)
    assert watching.reported_failure(0) == ("hung", "rank1: hung on node n1: …")


@pytest.mark.slow
def test_it_prints_stacks_reports_and_kills_the_step_and_no_stop_signal_ends_it(tmp_path):
    """The process, with a scancel that writes down what it is asked for."""
    folder, calls = tmp_path / "locks", tmp_path / "calls"
    folder.mkdir()
    scancel = tmp_path / "bin" / "scancel"
    scancel.parent.mkdir()
    scancel.write_text(f'#!/bin/sh\necho "$*" >>{calls}\n')
    scancel.chmod(0o755)
    ranks = folder / f"ranks_{os.geteuid()}"
    ranks.mkdir()
    (ranks / "12.0.0.heartbeat0").write_bytes(content(1, None))
    (ranks / "12.0.0.heartbeat1").write_bytes(content(1, 1.0, place="n2"))
    script = (
        f"(trap '' TERM INT HUP USR1 USR2; exec {sys.executable} -m launch.worker.watchdog {folder} 0) & echo $!; wait"
    )
    variables = {"SLURM_JOB_ID": "12", FSR_SILENCE_S: "1", "PATH": f"{scancel.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = int(process.stdout.readline())
    wait_for(lambda: not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bash"))  # its signals are ignored now
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    _, told = process.communicate(timeout=60)
    assert calls.read_text().splitlines() == ["--signal=USR1 12.0", "--signal=KILL 12.0"]
    assert re.search(r"error: hung on node n2: no sign of life of rank 1 for [12] s after step 5", told), told
    assert json.loads((ranks / "12.0.0.rank1.json").read_text())["cause"] == "hung"


@pytest.mark.slow
def test_it_ends_with_the_batch_script_and_costs_little(tmp_path):
    script = f"{sys.executable} -m launch.worker.watchdog {tmp_path} 0 & echo $!; sleep 2"
    process = subprocess.Popen(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    time.sleep(1.5)
    status = Path(f"/proc/{pid}/status").read_text()
    memory_mb = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    process.kill()
    process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\nthe watchdog: {memory_mb:.0f} MB, {used.ru_utime + used.ru_stime:.2f} s of CPU to start")
    assert memory_mb < 40
    deadline = time.monotonic() + 12
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("end", ["stopped", "disk full"])
def test_a_rank_is_watched_in_an_attempt_and_idle_where_it_waits_after_it(tmp_path, monkeypatch, end):
    """Waiting to be killed by Slurm, or for space, may take any time."""
    seen = {}

    def note(place):
        seen[place] = Sign.of((tmp_path / "heartbeat").read_bytes())

    def train(config, run, *, stop_requested, prune):
        note("train")
        stop_requested()
        note("step")
        if end == "disk full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return "stopped"

    class Environment(LocalEnvironment):
        def leave(self, cause):
            note("leave")

    own = Heartbeat()
    own.write_to(tmp_path / "heartbeat", "n1")
    monkeypatch.setattr(training, "HEARTBEAT", own)
    monkeypatch.setattr(training.method, "train", train)
    monkeypatch.setattr(training, "wait_for_space", lambda *_: note("space"))
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    training.attempt(synthetic(), run, StopRequest(), Environment(), Rendezvous(tmp_path), training.never)
    assert (seen["train"].doing, seen["step"].doing) == ("starting", "step 1 since its start")
    assert seen["train"].patience_s > 0 and seen["step"].patience_s > 0
    assert seen["space" if end == "disk full" else "leave"].patience_s is None
    assert Sign.of((tmp_path / "heartbeat").read_bytes()).patience_s is None


def test_a_step_of_the_same_number_elsewhere_is_left_alone(tmp_path, monkeypatch):
    """The node was given up, and its watchdog lives on: the ranks that it misses are another start's by now."""
    told = []
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(watchdog.commands, "job", lambda *_: Job("RUNNING", restarts=1))
    monkeypatch.setattr(watchdog.commands, "run", lambda *words: told.append(words))
    watchdog.end(Rendezvous(tmp_path), SlurmEnvironment(), [])
    assert told == []
