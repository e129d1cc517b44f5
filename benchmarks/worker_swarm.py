"""A thousand workers, and who starts and kills them: a model of Slurm, which requeues those that were killed."""

import heapq
import os
import random
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

from finished_study import FinishedStudy
from light_worker import LightWorker

from fsr.parent import end_with
from launch.slurm import commands
from launch.slurm.answers import Job

REQUEUE_S = (5.0, 15.0)  # between the death of a job and its next start
LEAST_GB = 2.0  # of the machine's memory that stay free, or the run ends
PENDING, RUNNING, ENDED = range(3)


@dataclass(frozen=True)
class Options:
    """Let many workers share a study."""

    workers: int = 1_000
    """Processes."""
    finished: int = 10_000
    """Trials that have ended before."""
    trials: int | None = None
    """Trials to be trained; by default three a worker."""
    start_s: float = 60.0
    """Within so many seconds all workers start."""
    every_s: float = 100.0
    """What a trial takes."""
    often: float = 0.01
    """Share of workers whose trials are short."""
    often_s: float = 5.0
    """What a short trial takes."""
    killed: float = 0.2
    """Share of workers that are killed once."""
    per_node: int = 50
    """Workers of a node."""
    lost_nodes: int = 1
    """Nodes whose workers are all killed at once."""
    evaluations: int = 2
    """Scores that are reported of each trial."""
    limit_s: float = 900.0
    """After which the run has failed."""
    seed: int = 0
    """Of the faults."""
    postgresql: bool = False
    """A private server of PostgreSQL instead of the journal (Debian's postgresql; as root)."""
    folder: Path | None = None
    """Where the study is written, and removed again; by default the system's temporary folder."""


def trials_of(options: Options) -> int:
    """Trials to be trained."""
    return options.trials or 3 * options.workers


class Slurm:
    """The model of Slurm that all processes share: the state of each job, and how often it was requeued."""

    def __init__(self, jobs: int) -> None:
        self.state, self.restarts = RawArray("i", jobs), RawArray("i", jobs)

    def answer(self) -> None:
        """Let this model answer what claims ask of Slurm, in this process and those that it forks."""
        commands.job = self.job  # type: ignore[assignment]
        commands.past_states = lambda job_id, identity=None: ["PREEMPTED"] * self.restarts[index_of(job_id)]
        commands.node_is_up = lambda name: True

    def job(self, job_id: str, identity: str | None = None) -> Job:
        """What `scontrol show job` says."""
        index = index_of(job_id)
        return Job(("PENDING", "RUNNING", "COMPLETED")[self.state[index]], self.restarts[index])


def index_of(job_id: str) -> int:
    """The place of an array task (`1_7`)."""
    return int(job_id.partition("_")[2])


class Swarm:
    """Starts workers, kills some, starts these again, until the target is reached or the time is up."""

    def __init__(self, made: FinishedStudy, options: Options, events: Path) -> None:
        self._made, self._options, self._events = made, options, events
        self._draw = random.Random(options.seed)
        self.slurm = Slurm(options.workers)
        self.slurm.answer()
        self._alive: dict[int, int] = {}  # worker by process
        self._due: list[tuple[float, str, int]] = []  # when, what, to which worker or node
        self._killed: set[int] = set()  # processes that are not to be missed
        self.kills = 0
        self.memory_mb: list[float] = []
        """Of each worker at half of the time: what it shares with no other."""

    def run(self) -> str | None:
        """Why it came to a bad end; None if it did not."""
        options, began = self._options, time.monotonic()
        trials = trials_of(options)
        rate = options.workers * ((1 - options.often) / options.every_s + options.often / options.often_s)
        length = options.start_s + trials / rate
        for worker in range(options.workers):
            self._plan(began + self._draw.uniform(0, options.start_s), "start", worker)
        for worker in self._draw.sample(range(options.workers), round(options.killed * options.workers)):
            self._plan(began + self._draw.uniform(0.1, 0.9) * length, "kill", worker)
        nodes = range(max(1, options.workers // options.per_node))
        for node in self._draw.sample(nodes, options.lost_nodes):
            self._plan(began + length / 2, "kill node", node)
        self._plan(began + length / 2 - 1, "weigh", 0)
        try:
            while self._alive or self._due:
                if time.monotonic() > began + options.limit_s:
                    return f"not done after {options.limit_s:.0f} s; {len(self._alive)} workers are alive"
                if free_gb() < LEAST_GB:
                    return f"less than {LEAST_GB} GB of memory are free, with {len(self._alive)} workers"
                wrong = self._reap()
                if wrong:
                    return wrong
                while self._due and self._due[0][0] <= time.monotonic():
                    self._do(*heapq.heappop(self._due)[1:])
                if not self._alive and all(what != "start" for _, what, _ in self._due):
                    return None  # the kills that are left would meet nobody
                time.sleep(0.005)
        finally:
            for process in self._alive:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        return None

    def _plan(self, when: float, what: str, which: int) -> None:
        heapq.heappush(self._due, (when, what, which))

    def _do(self, what: str, which: int) -> None:
        nodes = {process: worker // self._options.per_node for process, worker in self._alive.items()}
        if what == "start":
            self._start(which)
        elif what == "weigh":
            for process in list(self._alive)[-50:]:
                with suppress(OSError):  # it has just ended
                    self.memory_mb.append(private_mb(process))
        else:
            hit = [p for p, worker in self._alive.items() if (worker if what == "kill" else nodes[p]) == which]
            for process in hit:
                os.kill(process, signal.SIGKILL)
            self._killed |= set(hit)
            self.kills += len(hit)

    def _start(self, index: int) -> None:
        options, slurm = self._options, self.slurm
        slurm.state[index] = RUNNING
        sent, parent = time.monotonic(), os.getpid()
        process = os.fork()
        if process:
            self._alive[process] = index
            return
        try:
            end_with(parent)
            LightWorker(
                made=self._made,
                job=f"1_{index}",
                restart=slurm.restarts[index],
                node=f"n{index // options.per_node}",
                train_s=options.often_s if index < options.often * options.workers else options.every_s,
                evaluations=options.evaluations,
                events=self._events,
                sent=sent,
            ).work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _reap(self) -> str | None:
        """Let the dead go; those that were killed are requeued. What is wrong where one died of itself."""
        while self._alive:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return None
            index = self._alive.pop(process)
            if process in self._killed:
                self.slurm.restarts[index] += 1
                self.slurm.state[index] = PENDING
                pause_s = self._draw.uniform(*REQUEUE_S) * min(1.0, self._options.every_s / 100)
                self._plan(time.monotonic() + pause_s, "start", index)
            elif status:
                return f"worker {index} ended with {status}"
            else:
                self.slurm.state[index] = ENDED
        return None


def free_gb() -> float:
    """Memory of this machine that is to be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def private_mb(process: int) -> float:
    """Memory of a process that it shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
