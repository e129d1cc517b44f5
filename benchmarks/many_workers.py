"""A thousand workers on one study: what waiting for the shared locks costs them, and whether any trial suffers.

    python benchmarks/many_workers.py
    python benchmarks/many_workers.py --workers 100 --finished 0 --every_s 10 --postgresql

The workers are forked processes that claim, log and tell as those of a job do, and sleep instead of training
(light_worker.py). They start within a minute and train trials of 100 s; a few train trials of 5 s. One in five is
killed (SIGKILL) at a random moment, as is every process of one node at once; each comes back as a requeued job does:
the same id, started once more. Slurm's answers are those of the model here.

At the end every number must be there once, each trial finished and trained to its end once, and no more than wanted;
the command fails otherwise. The last line is JSON.
"""

import gc
import heapq
import json
import os
import random
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import optuna
import tyro
from finished_study import NAME, FinishedStudy, write_study
from light_worker import MARK, LightWorker
from optuna.trial import TrialState
from postgresql import Server

from fsr.parent import end_with
from launch.slurm import commands
from launch.slurm.answers import Job
from launch.state.paths import StudyFolder
from launch.state.storage import STORAGE_VARIABLE, open_storage
from launch.state.target import Target
from launch.worker.claim import Claim, claim

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
            self.memory_mb = [private_mb(process) for process in list(self._alive)[-50:]]
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


def trials_of(options: Options) -> int:
    """Trials to be trained."""
    return options.trials or 3 * options.workers


def free_gb() -> float:
    """Memory of this machine that is to be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def private_mb(process: int) -> float:
    """Memory of a process that it shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def in_another_process(work: Any) -> None:
    """Do something whose memory is not to stay in this process."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        sys.exit("the study could not be written")


def warm_up(folder: Path, database: bool) -> None:
    """Claim and tell once in a study of its own, so that workers share all imports."""
    url = f"sqlite:///{folder}/warm.db" if database else None
    before = os.environ.pop(STORAGE_VARIABLE, None)
    if url:
        os.environ[STORAGE_VARIABLE] = url
    made = write_study(folder / "warm", 20, storage=url)
    storage = open_storage(made.folder.folder, database)
    claimed = claim(made.study, made.base, made.folder, storage, "local", made.code)
    assert isinstance(claimed, Claim)
    claimed.attempt_log.begin("local", 0, "n1", 1)
    claimed.attempt_log.end("finished")
    claimed.tell(0.5)
    claimed.let_go()
    if before is not None:
        os.environ[STORAGE_VARIABLE] = before


def faults(made: FinishedStudy, options: Options, events: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the study at the end."""
    wanted = range(options.finished, options.finished + trials_of(options))
    storage = open_storage(made.folder.folder, made.database)
    trials = optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)
    numbers = Counter(trial.number for trial in trials)
    new = trials[options.finished :]
    told = Counter(event["number"] for event in events if event["what"] == "tell")
    marked = {number for number in wanted if (made.folder.run(number).folder / MARK).exists()}
    logs = {number: made.folder.attempt_log(number).attempts() for number in wanted}
    wrong = {
        "numbers that are not there once": [n for n in range(options.finished + len(wanted)) if numbers[n] != 1],
        "trials more than wanted": [n for n in numbers if n >= wanted.stop],
        "trials that have not finished": [t.number for t in new if t.state != TrialState.COMPLETE],
        "trials that were not trained to their end": [n for n in wanted if n not in marked],
        "trials that two workers trained": [e["number"] for e in events if e["what"] == "doubled"],
        "trials that were told twice": [n for n, times in told.items() if times > 1],
        "trials whose last attempt has not finished": [
            n for n in wanted if [a.cause for a in logs[n]][-1:] != ["finished"]
        ],
        "attempts that nobody closed": [n for n, log in logs.items() if any(a.cause is None for a in log)],
    }
    return [f"{what}: {numbers[:10]} ({len(numbers)})" for what, numbers in wrong.items() if numbers]


def latencies(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that workers waited: for their first trial; later, for tell and the claim after it together."""
    first: dict[tuple[str, int], float] = {}
    pairs, told, reports, starts = [], {}, [], []
    for event in sorted(events, key=lambda event: event["at"]):
        start = event["job"], event["restart"]
        if event["what"] == "report":
            reports.append(event["seconds"])
        elif event["what"] == "tell":
            told[start] = event["seconds"]
        elif event["what"] == "claim" and start not in first:
            first[start] = event["seconds"]
            starts += [event["at"]] if event["restart"] == 0 else []
        elif event["what"] == "claim":
            pairs.append((event["at"], told.pop(start) + event["seconds"]))
    steady = sorted(seconds for at, seconds in pairs if at > max(starts))
    return {
        "last_starter_s": max(s for (_, restart), s in first.items() if restart == 0),
        "median_starter_s": statistics.median(s for (_, restart), s in first.items() if restart == 0),
        "restarted_p99_s": quantile([s for (_, restart), s in first.items() if restart], 0.99),
        "claim_and_tell_p50_s": quantile(steady, 0.5),
        "claim_and_tell_p99_s": quantile(steady, 0.99),
        "claim_and_tell_max_s": quantile(steady, 1.0),
        "calls": len(steady),
        "report_p50_s": quantile(reports, 0.5),
        "report_p99_s": quantile(reports, 0.99),
    }


def quantile(values: list[float], share: float) -> float:
    """The value below which this share of them lies; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def main() -> None:
    """Let them work, and print what came of it."""
    options = tyro.cli(Options)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="many_workers_", dir=options.folder))
    try:
        with Server() if options.postgresql else nullcontext() as server:
            result, wrong = measured(folder, options, server)
    finally:
        shutil.rmtree(folder)
    from machine import machine  # imports torch, which no worker may

    print(json.dumps(result | machine()))
    sys.exit("; ".join(wrong) if wrong else 0)


def measured(folder: Path, options: Options, server: Server | None) -> tuple[dict[str, Any], list[str]]:
    """The figures of a run, and what went wrong."""
    url = server.new_database() if server else None
    os.environ.pop(STORAGE_VARIABLE, None)
    if url:
        os.environ[STORAGE_VARIABLE] = url
    runs, events_file, total = folder / "runs", folder / "events.jsonl", options.finished + trials_of(options)
    in_another_process(lambda: write_study(runs, options.finished, storage=url))
    made = FinishedStudy.of(StudyFolder(runs / NAME), url is not None)
    Target(total, total, time.time()).write(made.folder)
    warm_up(folder, url is not None)
    assert "torch" not in sys.modules
    gc.collect()
    gc.freeze()  # else each collection of a worker would write to, and so copy, all that it shares with the others
    swarm, began = Swarm(made, options, events_file), time.monotonic()
    end = swarm.run()
    took_s, cpu = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in events_file.read_text().splitlines()]
    wrong = [end] if end else faults(made, options, events)
    told = sum(event["what"] == "tell" for event in events)
    return {
        "storage": "postgresql" if server else "journal",
        "workers": options.workers,
        "finished_before": options.finished,
        "trained": told,
        "killed": swarm.kills,
        "seconds": round(took_s, 1),
        "trials_per_s": round(told / took_s, 2),
        "cpu_s": round(cpu.ru_utime + cpu.ru_stime, 1),
        "private_mb": round(statistics.median(swarm.memory_mb), 1) if swarm.memory_mb else None,
        **latencies(events),
        "faults": wrong,
    }, wrong


if __name__ == "__main__":
    main()
