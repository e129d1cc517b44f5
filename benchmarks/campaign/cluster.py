"""A cluster as the scheduler sees it: nodes, jobs in a queue, and what happens to them by chance.

What happens to a node (preemption, failure, something that breaks the ranks on it) comes at times that are drawn for
the node and the seed alone. So two campaigns of one seed, with other checkpoints or jobs say, meet the same.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from benchmarks.campaign.clock import START, Clock, Killed, Process
from benchmarks.campaign.locks import Locks
from benchmarks.campaign.options import Campaign

ARRAY = 7000  # Slurm's number of the first job array
HOLD_S = 120.0  # for which Slurm keeps a requeued job from starting
KILL_S = 5.0  # from SIGTERM to the end of a job that is requeued or cancelled by a command
KILL_WAIT_S = 30.0  # the same at the time limit
NOTICE_S = 120.0  # before the time limit comes SIGUSR2
LOST_S = 100.0  # until the controller gives a node up
AWAY_S = 120.0  # for which the controller does not answer
FORGOTTEN_S = 300.0  # after which the controller forgets a job that has ended (MinJobAge)
Trouble = Literal["exception", "memory", "signal", "hang", "gpu"]
TROUBLES: dict[Trouble, float] = {"exception": 0.3, "memory": 0.2, "signal": 0.3, "hang": 0.15, "gpu": 0.05}


class Script(Protocol):
    """The batch script of a job, as it runs."""

    def live(self) -> int:
        """Run; the exit code."""

    def signal(self, name: str) -> None:
        """A signal comes (an event): TERM to the script and its ranks, USR2 to the script, which passes it on."""

    def trouble(self, kind: Trouble) -> None:
        """Something ends the ranks (an event)."""


@dataclass(eq=False)
class Node:
    """A node."""

    name: str
    free: int
    """GPUs that no job has."""
    is_up: bool = True
    taken: bool = False
    """By jobs of higher priority."""
    jobs: list["Job"] = field(default_factory=list)


@dataclass(eq=False)
class Job:
    """A task of a job array. Times are Unix seconds."""

    array: int
    index: int
    state: str = "PENDING"
    restarts: int = 0
    node: Node | None = None
    since: float = 0.0
    """When its state began: it was submitted or requeued, or it started."""
    preempted_at: float | None = None
    excluded: tuple[str, ...] = ()
    past: list[str] = field(default_factory=list)
    """How each earlier start ended, as the accounts have it."""
    step_states: dict[str, str] = field(default_factory=dict)
    script: Script | None = None
    process: Process | None = None

    @property
    def id(self) -> str:
        """As Slurm writes it."""
        return f"{self.array}_{self.index}"

    @property
    def number(self) -> str:
        """Slurm's number of this task alone."""
        return str(self.array + 1 + self.index)

    @property
    def in_queue(self) -> bool:
        """Whether it waits, runs or is ending."""
        return self.state in ("PENDING", "RUNNING", "COMPLETING")

    @property
    def preempted(self) -> bool:
        """Whether it was told to go since it started."""
        return self.state != "PENDING" and self.preempted_at is not None and self.preempted_at >= self.since


class Cluster:
    """The scheduler."""

    def __init__(self, options: Campaign, clock: Clock, locks: Locks, new_script: Callable[[Job], Script]) -> None:
        self.jobs: dict[str, Job] = {}
        """All that the controller knows, by id."""
        self.accounts: dict[str, Job] = {}
        """All jobs that ever were, by id and by number."""
        self.occupied = 0.0
        """GPU-seconds that jobs had, as far as they have ended."""
        self.waited = 0.0
        """Seconds times GPUs that jobs waited in the queue."""
        self.queued = 0
        """How many jobs wait, run or are ending."""
        self.is_away = False
        """The controller does not answer."""
        self.left: list[tuple[Job, int]] = []
        """Jobs that ended by themselves, with their exit codes."""
        self._options, self._clock, self._locks, self._new_script = options, clock, locks, new_script
        self._arrays = ARRAY
        self._ready: list[Job] = []  # to start as soon as there is room
        self.nodes = [Node(f"n{number:04d}", options.gpus_per_node) for number in range(options.nodes)]
        self.bad = {node.name for node in self._random("bad").sample(self.nodes, options.bad_nodes)}
        """Names of the nodes whose GPUs fail."""
        for node in self.nodes:
            self._every(options.preempt_every * 60, f"preempt {node.name}", self._preempt, node)
            self._every(options.node_fails_every * 3600, f"fail {node.name}", self._fail, node)
            self._every(options.breaks_every * 3600, f"break {node.name}", self._break, node)
        self._every(options.away_every * 3600, "away", self._go_away)

    def submit(self, count: int) -> None:
        """A job array of so many tasks."""
        array, self._arrays = self._arrays, self._arrays + count + 1
        self.queued += count
        for index in range(count):
            job = Job(array, index, since=self._clock.now)
            self.jobs[job.id] = self.accounts[job.id] = self.accounts[job.number] = job
            self._wait(job, 0.0)

    def in_queue(self) -> list[Job]:
        """Jobs that wait, run or are ending."""
        return [job for job in self.jobs.values() if job.in_queue]

    def occupied_until_now(self) -> float:
        """GPU-seconds that jobs had, those that run included."""
        running = [self._clock.now - job.since for job in self.jobs.values() if job.node is not None]
        return self.occupied + self._options.gpus * sum(running)

    def requeue(self, job: Job) -> bool:
        """`scontrol requeue`, of a job that runs."""
        if job.state != "RUNNING":
            return False
        job.state = "COMPLETING"
        self._signal(job, "TERM")
        self._clock.at(self._clock.now + KILL_S, self._of_this_start(job, self._requeue), "REQUEUED")
        return True

    def cancel(self, job: Job) -> None:
        """`scancel`, of a job that waits."""
        if job.state == "PENDING":
            self._ready = [other for other in self._ready if other is not job]
            self._ended(job, "CANCELLED")

    # Waiting and starting

    def _wait(self, job: Job, hold_s: float) -> None:
        drawn = self._random(f"queue {job.id} {job.restarts}")
        delay = drawn.expovariate(1 / (60 * self._options.queue_min)) if self._options.queue_min else 0.0
        self._clock.at(self._clock.now + hold_s + delay, self._is_ready, job, job.restarts)

    def _is_ready(self, job: Job, restarts: int) -> None:
        if job.state == "PENDING" and job.restarts == restarts:
            self._ready.append(job)
            self._fill()

    def _fill(self) -> None:
        """Start jobs where there is room."""
        room = [node for node in self.nodes if self._has_room(node)] if self._ready else []
        for job in list(self._ready):
            node = next((node for node in room if node.name not in job.excluded), None)
            if node is not None:
                self._ready.remove(job)
                self._start(job, node)
                if not self._has_room(node):
                    room.remove(node)
            if not room:
                return

    def _has_room(self, node: Node) -> bool:
        return node.is_up and not node.taken and node.free >= self._options.gpus

    def _start(self, job: Job, node: Node) -> None:
        now, limit_s = self._clock.now, 3600 * self._options.time_limit
        self.waited += (now - job.since) * self._options.gpus
        job.state, job.node, job.since = "RUNNING", node, now
        node.free -= self._options.gpus
        node.jobs.append(job)
        script = job.script = self._new_script(job)
        variables = {
            "SLURM_JOB_ID": job.number,
            "SLURM_ARRAY_JOB_ID": str(job.array),
            "SLURM_ARRAY_TASK_ID": str(job.index),
            "SLURM_RESTART_COUNT": str(job.restarts),
            "SLURMD_NODENAME": node.name,
            "SLURM_JOB_PARTITION": "gpu",
            "SLURM_STEP_NUM_TASKS": str(self._options.gpus),
        }

        def live() -> None:
            code = script.live()
            self._clock.at(self._clock.now, self._of_this_start(job, self._exit), code)

        job.process = Process(self._clock, variables, live)
        self._clock.at(now, job.process.start)
        if limit_s:
            self._clock.at(now + limit_s - NOTICE_S, self._of_this_start(job, self._signal), "USR2")
            self._clock.at(now + limit_s, self._of_this_start(job, self._time_out))

    # Ends

    def _exit(self, job: Job, code: int) -> None:
        """The batch script ended by itself. Slurm requeues no such job, unless it was asked to before."""
        if job.state == "COMPLETING":
            return
        self.left.append((job, code))
        self._leave_node(job)
        self._ended(job, "COMPLETED" if code == 0 else "FAILED")

    def _requeue(self, job: Job, state: str) -> None:
        self._leave_node(job)
        job.past.append(state)
        job.state, job.since, job.restarts = "PENDING", self._clock.now, job.restarts + 1
        self._wait(job, HOLD_S)

    def _end(self, job: Job, state: str) -> None:
        """Slurm ends it for good, unless it was asked to requeue it before."""
        if job.state == "COMPLETING":
            self._requeue(job, "REQUEUED")
            return
        self._leave_node(job)
        self._ended(job, state)

    def _ended(self, job: Job, state: str) -> None:
        job.state = state
        self.queued -= 1
        job.past.append(state)
        self._clock.at(self._clock.now + FORGOTTEN_S, self.jobs.pop, job.id)

    def _leave_node(self, job: Job) -> None:
        node, process = job.node, job.process
        assert node is not None and process is not None
        self.occupied += (self._clock.now - job.since) * self._options.gpus
        process.throw(Killed())
        self._locks.free(process)
        node.free += self._options.gpus
        node.jobs.remove(job)
        job.node = job.script = job.process = None
        self._clock.at(self._clock.now, self._fill)

    # What happens by chance

    def _preempt(self, node: Node, drawn: random.Random) -> None:
        taken_s, notice_s = _exponential(drawn, 60 * self._options.taken_min), self._options.notice_s
        if node.taken or not node.is_up:
            return
        node.taken = True
        end = self._requeue if self._options.preemption == "requeue" else self._end
        for job in list(node.jobs):
            if job.state == "RUNNING":
                job.preempted_at = self._clock.now
                if notice_s:
                    self._signal(job, "TERM")
            self._clock.at(self._clock.now + notice_s, self._of_this_start(job, end), "PREEMPTED")
        self._clock.at(self._clock.now + notice_s + taken_s, self._give_back, node)

    def _give_back(self, node: Node) -> None:
        node.taken = False
        self._fill()

    def _fail(self, node: Node, drawn: random.Random) -> None:
        down_s = _exponential(drawn, 60 * self._options.node_down_min)
        if not node.is_up:
            return
        node.is_up = False
        for job in node.jobs:  # dead at once, which the controller does not know yet
            assert job.process is not None
            job.process.throw(Killed())
            self._locks.free(job.process)
            self._clock.at(self._clock.now + LOST_S, self._of_this_start(job, self._requeue), "NODE_FAIL")
        self._clock.at(self._clock.now + max(LOST_S, down_s), self._repair, node)

    def _repair(self, node: Node) -> None:
        node.is_up = True
        self._fill()

    def _break(self, node: Node, drawn: random.Random) -> None:
        kind, which = drawn.choices([*TROUBLES], [*TROUBLES.values()])[0], drawn.random()
        working = [job for job in node.jobs if job.script is not None and job.state == "RUNNING"]
        if working and node.is_up:
            script = working[int(which * len(working))].script
            assert script is not None
            script.trouble(kind)

    def _go_away(self, drawn: random.Random) -> None:
        self.is_away = True
        self._clock.at(self._clock.now + AWAY_S, self._come_back)

    def _come_back(self) -> None:
        self.queued = 0
        """How many jobs wait, run or are ending."""
        self.is_away = False

    def _time_out(self, job: Job) -> None:
        self._signal(job, "TERM")
        self._clock.at(self._clock.now + KILL_WAIT_S, self._of_this_start(job, self._end), "TIMEOUT")

    def _signal(self, job: Job, name: str) -> None:
        if job.script is not None:
            self._clock.at(self._clock.now, self._of_this_start(job, _deliver), name)

    def _of_this_start(self, job: Job, action: Callable[..., None]) -> Callable[..., None]:
        """The action on a job, unless it has ended or was requeued by then."""
        restarts = job.restarts

        def act(*arguments: object) -> None:
            if job.restarts == restarts and job.node is not None:
                action(job, *arguments)

        return act

    def _every(self, mean_s: float, name: str, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen at times of its own."""
        drawn = self._random(name)

        def happen() -> None:
            self._clock.at(self._clock.now + drawn.expovariate(1 / mean_s), happen)
            action(*arguments, drawn)

        if mean_s:
            self._clock.at(START + drawn.expovariate(1 / mean_s), happen)

    def _random(self, name: str) -> random.Random:
        return random.Random(f"{self._options.seed} {name}")


def _exponential(drawn: random.Random, mean: float) -> float:
    return drawn.expovariate(1 / mean) if mean else 0.0


def _deliver(job: Job, name: str) -> None:
    assert job.script is not None
    job.script.signal(name)
