"""What a campaign is asked for: a cluster, what it does to jobs, and the work."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fsr.bounds import COUNT, FRACTION, POSITIVE_FRACTION, SEED, STEPS, Bounded, Bounds
from fsr.errors import UserError

SECONDS = Bounds(0.0, 1e5)
MINUTES = Bounds(0.0, 1e6)
HOURS = Bounds(0.0, 1e5)
NODES = Bounds(1, 10_000)
GPUS = Bounds(1, 64)


@dataclass(frozen=True, kw_only=True)
class Campaign(Bounded):
    """One campaign. Where something happens every so often, the time between is exponential, and 0 means never."""

    trials: Annotated[int, COUNT] = 400
    """Trials that are to finish or be pruned."""
    nodes: Annotated[int, NODES] = 20
    """Nodes of the cluster."""
    gpus_per_node: Annotated[int, GPUS] = 4
    """GPUs of a node."""
    gpus: Annotated[int, GPUS] = 4
    """GPUs of a job, all on one node."""
    parallel: Annotated[int | None, COUNT] = None
    """Jobs (array tasks); by default as many as the cluster has room for."""
    days: Annotated[float, Bounds(0.01, 365.0)] = 7.0
    """Simulated time after which the campaign is left unfinished."""
    seed: Annotated[int, SEED] = 0
    """Of all that happens by chance. What happens to a node happens at the same times whatever the work is."""

    preempt_every: Annotated[float, MINUTES] = 40.0
    """Minutes until a node is taken by jobs of higher priority, on average."""
    taken_min: Annotated[float, MINUTES] = 10.0
    """Minutes for which it is taken, on average."""
    notice_s: Annotated[float, SECONDS] = 30.0
    """Seconds from SIGTERM to SIGKILL at a preemption; 0 kills at once."""
    preemption: Literal["requeue", "cancel"] = "requeue"
    """Slurm's PreemptMode."""
    queue_min: Annotated[float, MINUTES] = 5.0
    """Minutes that a job waits in the queue each time, on average, even where nodes are free."""
    node_fails_every: Annotated[float, HOURS] = 1000.0
    """Hours until a node fails without a word, on average."""
    node_down_min: Annotated[float, MINUTES] = 60.0
    """Minutes for which it is down, on average."""
    breaks_every: Annotated[float, HOURS] = 200.0
    """Hours until something ends the ranks on a node, on average: an exception, its memory, a signal, a hang."""
    bad_nodes: Annotated[int, Bounds(0, 10_000)] = 0
    """Nodes whose GPUs fail whatever trains on them, after some minutes."""
    away_every: Annotated[float, HOURS] = 0.0
    """Hours until Slurm's controller is away for two minutes, on average."""
    accounts: bool = True
    """Whether Slurm keeps accounts, which know how jobs ended."""
    time_limit: Annotated[float, HOURS] = 12.0
    """Hours of a job's time limit; 0 is none. Its notice comes two minutes before."""

    iterations: Annotated[int, STEPS] = 2000
    """Steps of a trial."""
    step_s: Annotated[float, SECONDS] = 1.2
    """Seconds of a step on one GPU."""
    scaling: Annotated[float, POSITIVE_FRACTION] = 0.9
    """A job of G GPUs takes a step in STEP_S / G ** SCALING seconds; 1 is perfect."""
    checkpoint_every: Annotated[int, STEPS] = 200
    """Steps between two checkpoints."""
    stall_s: Annotated[float, SECONDS] = 2.0
    """Seconds that steps stand still for a checkpoint."""
    eval_every: Annotated[int, STEPS] = 400
    """Steps between two evaluations."""
    eval_s: Annotated[float, SECONDS] = 20.0
    """Seconds of an evaluation."""
    start_s: Annotated[float, SECONDS] = 60.0
    """Seconds from the start of a process to its first step."""
    broken_settings: Annotated[float, FRACTION] = 0.01
    """Share of settings that fail whenever they are trained: of memory, or of a loss that is not finite."""
    pruner: Literal["median", "none"] = "median"
    """Whether the study stops trials below the median from the middle of a run on."""
    sampler: Literal["random", "tpe"] = "random"
    """Who suggests settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for gpus in as_tuple(self.gpus):
            if gpus > self.gpus_per_node:
                raise UserError(f"--gpus must be at most --gpus_per_node, which is {self.gpus_per_node}, got {gpus}")
        for nodes in as_tuple(self.nodes):
            if self.bad_nodes > nodes:
                raise UserError(f"--bad_nodes must be at most --nodes, which is {nodes}, got {self.bad_nodes}")


def as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """One value, or the several that a comparison has in its place."""
    return value if isinstance(value, tuple) else (value,)
