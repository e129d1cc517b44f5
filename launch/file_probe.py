"""Measures what two nodes see of each other's files in a folder that they share, and says what the protocol tolerates.

docs/cluster.md tells what the protocol rests on.
"""

import errno
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsr.files import make_folder, unfinished
from launch import node_probe
from launch.node_probe import ANSWER, GOT_IN, KEPT_OUT, OLD, UNSEEN, VIEWS
from launch.slurm import commands

# What the protocol tolerates.
CONTENT_S = 1.0  # an opened file shows what was closed elsewhere: the journal, targets and announcements count on it
NAMES_S = 75.0  # names and sizes may be old for as long as NFS believes them; what is decided by them is asked anew
CLOCKS_S = 3600.0  # what a machine that is gone was writing is removed after a day
SYNC_S = 0.05  # a claim syncs several records while all other workers wait

CLAIM_SYNCS = 4  # records that a claim and its trial's end append, each of which is synced
START_S, ANSWER_S, MINUTES = 60.0, 20.0, 4
TRIES, NAMES, SYNCS = 5, 50, 20
TEXT, OTHER, MORE = "as it was\n", "as another file is\n", "and more\n"


class SilentError(Exception):
    """Why nothing could be tried."""


class Pair:
    """Two processes that run `node_probe`, mostly each on a node of its own."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._answers: dict[int, queue.Queue[Any]] = {0: queue.Queue(), 1: queue.Queue()}
        for process in processes:
            threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def ask(self, rank: int, call: Callable[..., Any], *arguments: Any, patience_s: float = ANSWER_S) -> Any:
        """What one of them answers. Raises the OSError that it met, and SilentError without an answer."""
        self.send(rank, call, *arguments)
        return self.answer(rank, patience_s)

    def send(self, rank: int, call: Callable[..., Any], *arguments: Any) -> None:
        """Let one of them begin with it."""
        for process in self._processes:
            assert process.stdin is not None
            try:
                print(line_of(rank, call, *arguments), file=process.stdin, flush=True)
            except OSError:  # it is gone, which `answer` tells
                continue

    def answer(self, rank: int, patience_s: float = ANSWER_S) -> Any:
        """Its answer to what was sent."""
        try:
            found = self._answers[rank].get(timeout=patience_s)
        except queue.Empty:
            raise SilentError(f"no answer within {patience_s:.0f} s") from None
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            for rank, answer in answer_in(line):
                self._answers[rank].put(answer)
        said = " ".join(process.stderr.read().split())[-200:]
        for answers in self._answers.values():
            answers.put(SilentError(f"srun says: {said or 'nothing'}"))


def line_of(rank: int, call: Callable[..., Any], *arguments: Any) -> str:
    """What makes `node_probe` call something."""
    return json.dumps([rank, call.__name__, arguments])


def answer_in(line: str) -> Iterator[tuple[int, Any]]:
    """The answer that a line holds, if it holds one: whose, and its value or the OSError that it tells of."""
    begin, _, said = line.partition(" ")
    if begin == ANSWER:
        rank, answer = json.loads(said)
        yield rank, OSError(answer["errno"], answer["error"]) if "error" in answer else answer["value"]


def work_in(folder: Path) -> list[str]:
    """The command that answers calls in a folder."""
    return [sys.executable, "-c", Path(node_probe.__file__).read_text(), str(folder)]


@contextmanager
def pair(starts: Sequence[Sequence[str]], place: Path) -> Iterator[Pair]:
    """Two processes at work in a folder, which one command starts, as srun, or two, each on its node."""
    processes = []
    try:
        for rank, start in enumerate(starts):
            environment = commands.environment() | ({"SLURM_PROCID": str(rank)} if len(starts) > 1 else {})
            processes.append(
                subprocess.Popen(
                    [*start, *work_in(place)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
        yield Pair(processes)
    finally:
        for process in processes:
            assert process.stdin is not None
            with suppress(OSError):  # it is gone already
                process.stdin.close()
        for process in processes:
            try:
                process.wait(ANSWER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def srun(partition: str | None) -> list[str]:
    """The command that runs something on two nodes."""
    where = ["--partition", partition] if partition else []
    size = ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--time={MINUTES}"]
    return ["srun", f"--immediate={START_S / 2:.0f}", "--job-name=fsr-doctor", *size, *where]


@dataclass(kw_only=True)
class Measured:
    """What was found; times in seconds."""

    nodes: tuple[str, str]
    locks: list[str] = field(default_factory=list)
    """What came of taking each kind of lock that the other node holds."""
    delays: dict[str, list[float | None]] = field(default_factory=dict)
    """Of `names`, `status` and `content`; None where it was not seen within NAMES_S."""
    read_on: str = ""
    """What came of reading on in a file that the other node replaced."""
    won: list[int] = field(default_factory=list)
    """How many of NAMES files each made, while both tried."""
    doubled: int = 0
    """How many both made, or none."""
    sync: list[float] = field(default_factory=list)
    clocks: float = 0.0
    """By how much the second node's clock is ahead of the first's."""
    stamps: list[float] = field(default_factory=list)
    """By how much the clock of the files is ahead of each node's."""


def measure(nodes: Pair) -> Measured:
    """Measure everything. Raises SilentError, and OSError of what could not be done."""
    clocks = []
    for rank in (0, 1):
        nodes.ask(rank, node_probe.where, patience_s=START_S)
        asked, told = time.time(), nodes.ask(rank, node_probe.where)
        clocks.append((told["node"], told["time"] - (asked + time.time()) / 2))
    found = Measured(nodes=(clocks[0][0], clocks[1][0]), clocks=clocks[1][1] - clocks[0][1])
    nodes.ask(0, node_probe.lock, "lock")
    found.locks = nodes.ask(1, node_probe.try_locks, "lock")
    if UNSEEN in found.locks:
        return found
    nodes.ask(0, node_probe.unlock, "lock")
    found.delays = _delays(nodes)
    nodes.ask(0, node_probe.make, ["open"], TEXT)
    nodes.ask(1, node_probe.hold, "open")
    nodes.ask(0, node_probe.replace, ["open"], OTHER)
    try:
        found.read_on = nodes.ask(1, node_probe.read_on, "open", TEXT)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        found.read_on = os.strerror(errno.ESTALE)
    names = [f"won{number}" for number in range(NAMES)]
    begin = time.time() + 0.5
    for rank in (0, 1):
        nodes.send(rank, node_probe.win, names, begin + clocks[rank][1])
    won = [set(nodes.answer(rank)) for rank in (0, 1)]
    found.won = [len(one) for one in won]
    found.doubled = len(won[0] & won[1]) + len(set(names) - won[0] - won[1])
    found.stamps = [nodes.ask(rank, node_probe.stamp, f"stamp{rank}") for rank in (0, 1)]
    found.sync = nodes.ask(0, node_probe.sync, "sync", SYNCS, patience_s=60)
    return found


def _delays(nodes: Pair) -> dict[str, list[float | None]]:
    """What the second node sees, and when, of what the first one does while the second knows what was there before."""
    texts = {"made": TEXT, "replaced": OTHER, "appended": TEXT + MORE, "removed": None}
    # Each file is looked at in one way. Where names come and go, what is read may be as old as the names are.
    views = {what: ("status", "content") if what in ("replaced", "appended") else tuple(VIEWS) for what in texts}
    names = {what: [f"{what}_{v}_{n}" for v in views[what] for n in range(TRIES)] for what in texts}
    nodes.ask(0, node_probe.make, [*names["replaced"], *names["appended"], *names["removed"]], TEXT)
    nodes.ask(1, node_probe.look, [name for all_of in names.values() for name in all_of])
    nodes.ask(0, node_probe.make, names["made"], TEXT)
    nodes.ask(0, node_probe.replace, names["replaced"], OTHER)
    nodes.ask(0, node_probe.append, names["appended"], MORE)
    nodes.ask(0, node_probe.remove, names["removed"])
    expected = {name: (name.split("_")[1], texts[what]) for what in texts for name in names[what]}
    seen = nodes.ask(1, node_probe.watch, expected, NAMES_S, patience_s=NAMES_S + ANSWER_S)
    delays: dict[str, list[float | None]] = {"names": [], "status": [], "content": []}
    for what, all_of in names.items():
        for name in all_of:
            kind = "names" if what in ("made", "removed") else expected[name][0]
            delays[kind].append(seen.get(name))
    return delays


def findings(found: Measured, folder: Path) -> list[tuple[bool, str]]:
    """Whether the protocol tolerates what was found, with a sentence on each thing that was measured."""
    first, second = found.nodes
    kinds = zip(("fcntl", "flock"), found.locks, strict=True)
    told = [_lock_finding(kind, said, second, folder) for kind, said in kinds]
    if UNSEEN in found.locks:
        return told[:1]
    what = {
        "content": (f"node {second} reads what node {first} wrote to a file that was there", CONTENT_S),
        "names": (f"node {second} finds files that node {first} made, and misses those it removed", NAMES_S),
        "status": (f"node {second} sees the size of a file that node {first} changed", NAMES_S),
    }
    told += [_delay_finding(name, *what[name], delays) for name, delays in found.delays.items()]
    kept = f"reads the old content in a file that node {first} replaces while it is open"
    stale = f"is refused to read on in a file that node {first} replaces while it is open ({found.read_on})"
    opened = found.read_on == OLD or found.read_on == os.strerror(errno.ESTALE)
    said = kept if found.read_on == OLD else stale if opened else f"reads a mixture where node {first} replaces a file"
    told.append((opened, f"{'rename' if opened else 'RENAME'}: node {second} {said}"))
    return [*told, *_together(found)]


def _together(found: Measured) -> list[tuple[bool, str]]:
    """What does not depend on which node is the first."""
    won = f"of {NAMES} files that two processes make at once, one makes {found.won[0]} and the other {found.won[1]}"
    if found.doubled:
        once = False, f"O_EXCL: {won}; {found.doubled} were made twice, or by none, so it does not hold"
    else:
        once = True, f"O_EXCL: {won}, none of them twice"
    median, worst = statistics.median(found.sync), max(found.sync)
    sync = f"fsync: {1000 * median:.1f} ms (median), {1000 * worst:.1f} ms (worst of {len(found.sync)})"
    if median > SYNC_S:
        sync += f"; more than {1 / (CLAIM_SYNCS * median):.1f} claims a second have to wait"
    files = max(map(abs, found.stamps))
    right = max(abs(found.clocks), files) <= CLOCKS_S
    apart = f"the nodes' differ by {abs(found.clocks):.1f} s, " if len(set(found.nodes)) > 1 else ""
    clocks = f"{'clocks' if right else 'CLOCKS'}: {apart}that of the files from theirs by {files:.1f} s"
    if not right:
        clocks += f"; more than {CLOCKS_S:.0f} s make attempts count wrongly: let them be set (NTP)"
    return [once, (True, sync), (right, clocks)]


def _delay_finding(name: str, what: str, limit_s: float, delays: list[float | None]) -> tuple[bool, str]:
    seen = [delay for delay in delays if delay is not None]
    missing = len(delays) - len(seen)
    right = not missing and max(seen) <= limit_s
    said = f"{name if right else name.upper()}: {what}"
    if seen:
        said += f" after {statistics.median(seen):.1f} s (median), {max(seen):.1f} s (worst of {len(seen)})"
    if missing:
        said += f"; {missing} of {len(delays)} not within {NAMES_S:.0f} s"
    if not right:
        said += f"; more than {limit_s:.0f} s lose records: mount the folder so that nodes ask the server"
    return right, said


def _lock_finding(kind: str, said: str, node: str, folder: Path) -> tuple[bool, str]:
    right, sentence = lock_verdict(folder, f"node {node}", said)
    return right, sentence.replace("a lock", f"a lock ({kind})", 1)


def lock_verdict(folder: Path, place: str, said: str) -> tuple[bool, str]:
    """Whether locks hold there, and the sentence for it."""
    if said == KEPT_OUT:
        return True, f"locks: {place} was kept out of a lock in {folder} that another process holds"
    if said == GOT_IN:
        return False, (
            f"LOCKS: {place} took a lock in {folder} that another process holds, so two workers would train one trial; "
            "mount it with locks that all nodes see, or take a --runs folder elsewhere"
        )
    if said == UNSEEN:
        return False, f"LOCKS: {place} does not see the files of {folder}; take a --runs folder that all nodes share"
    return False, f"LOCKS: {place} could not try a lock in {folder}: {said}"


def try_files(folder: Path, on_slurm: bool, partition: str | None) -> tuple[bool, list[str]]:
    """Whether two nodes can work in a folder, and a sentence on each thing that was tried; without Slurm, what two
    processes of this machine tell of it."""
    place = unfinished(folder / "probe")
    make_folder(place)
    try:
        with pair([srun(partition)] if on_slurm else [[], []], place) as nodes:
            found = measure(nodes)
    except SilentError as error:
        return True, [f"locks: not tried between two nodes: {error}"]
    except OSError as error:
        return False, [f"FILES: what a node does in {folder} failed: {error.strerror or error}"]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    told = findings(found, folder) if on_slurm else _together(found)
    return all(right for right, _ in told), [sentence for _, sentence in told]
