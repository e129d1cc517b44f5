"""What is done when an attempt ends: one table of causes, and pure functions that decide from facts.

Nothing here asks Slurm or touches a file; the callers bring the facts. README's table is checked against `RULES`.
"""

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from fsr.exit_codes import ExitCode
from launch.slurm.answers import Job
from launch.slurm.job_states import GONE, may_work
from launch.state.attempts import Attempt, Cause, followed


class Action(Enum):
    """What follows the end of an attempt."""

    DONE = "done"
    """Nothing: the run has its result."""
    WAIT_TO_BE_KILLED = "wait to be killed"
    """The job stays until Slurm kills it, and Slurm requeues it. A job that exits when it is preempted ends as FAILED
    and never comes back (measured on Slurm 22.05)."""
    REQUEUE = "requeue"
    """The job asks Slurm to requeue it, and stays until Slurm kills it."""
    RESTART = "restart"
    """The batch script starts the ranks again in the same job; a local worker claims its next trial."""
    GIVE_UP = "give up"
    """The run is not tried again: its trial has failed."""
    STAY_ENDED = "stay ended"
    """The job ends. The next worker of the same command resumes the run."""


@dataclass(frozen=True)
class Rule:
    """What one cause leads to."""

    action: Action
    budget: int | None = None
    """Attempts that may end this way before the run is given up; None: as many as it takes."""
    blames_run: bool = True
    """Whether an attempt that ended this way, without a checkpoint behind its first step, speaks against the run."""
    blames_setting: bool = True
    """Whether a trial that failed after such an attempt would fail again: its setting counts as tried."""


RULES: dict[Cause, Rule] = {
    "finished": Rule(Action.DONE),
    "pruned": Rule(Action.DONE),
    "preempted": Rule(Action.WAIT_TO_BE_KILLED, blames_run=False, blames_setting=False),
    "time limit": Rule(Action.REQUEUE),
    "node": Rule(Action.RESTART, budget=8, blames_run=False, blames_setting=False),
    "out of memory": Rule(Action.RESTART, budget=2),
    "killed": Rule(Action.RESTART, budget=8, blames_setting=False),
    "exception": Rule(Action.RESTART, budget=2),
    "hung": Rule(Action.RESTART, budget=3, blames_run=False, blames_setting=False),
    "disk full": Rule(Action.RESTART, budget=8, blames_setting=False),
    "not finite": Rule(Action.GIVE_UP, budget=1),
    "cancelled": Rule(Action.STAY_ENDED, blames_run=False, blames_setting=False),
}
EARLY_S = 60.0  # who is killed this early had no time to save a checkpoint, which speaks against nobody
DIED_OF = 128  # with a signal's number: the exit code of who died of it
# What the exit codes of shells and of srun say; a rank's own mistake is the exit code of its worker.
EXITS: dict[int, tuple[Cause, str]] = {
    126: ("node", "a rank could not be started: its program cannot be run there (exit code 126)"),
    127: ("node", "a rank could not be started: its program is not there (exit code 127)"),
    255: ("killed", "srun lost its ranks (exit code 255)"),
}
STARTS = 3  # of the ranks in one job that may die by a signal before they have claimed anything
# How Slurm's states for an end read in the attempt log.
CAUSE_OF_STATE: dict[str, Cause] = {
    "PREEMPTED": "preempted",
    "REQUEUED": "preempted",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled",
}


def cause_of_stop(near_time_limit: bool, by_file: bool, job: Job | None, restarts: int) -> Cause:
    """Why a Slurm job was asked to stop; SIGTERM is preemption or scancel, and only Slurm can tell which.

    Args:
        near_time_limit: SIGUSR2 came.
        by_file: the study's stop file is there.
        job: what Slurm says of the job; None if it does not answer.
        restarts: how often Slurm had requeued the job when this attempt began.
    """
    if near_time_limit:
        return "time limit"
    if by_file:
        return "cancelled"
    # Where there is no answer, the job may be meant to be requeued, so it must not end by itself.
    if job is None or job.preempted or job.waits_or_runs or job.restarts > restarts:
        return "preempted"
    return "cancelled"


def after_stop(cause: Cause, preemption_cancels: bool) -> Action:
    """What a Slurm job does once it has saved; some clusters cancel a preempted job, which then requeues itself."""
    action = RULES[cause].action
    return Action.REQUEUE if action is Action.WAIT_TO_BE_KILLED and preemption_cancels else action


def nobody_will_kill(job: Job | None) -> bool:
    """Whether a job waits to be killed in vain: its SIGTERM came from somebody else than Slurm."""
    return job is not None and job.waits_or_runs and not job.preempted


def cause_of_exit(exit_code: int, out_of_memory: bool) -> tuple[Cause, str]:
    """Cause and detail where the ranks died and none of them could say why."""
    if out_of_memory:
        return "out of memory", "Slurm's limit on the job's memory (--sbatch mem=…)"
    if exit_code in EXITS:
        return EXITS[exit_code]
    if exit_code > DIED_OF:
        return "killed", f"a rank was ended by signal {exit_code - DIED_OF}{_name_of_signal(exit_code - DIED_OF)}"
    return "exception", f"a rank ended with exit code {exit_code}"


def _name_of_signal(number: int) -> str:
    return f" ({signal.Signals(number).name})" if number in {int(each) for each in signal.Signals} else ""


def cause_of_lost_attempt(
    attempt: Attempt, past_states: Sequence[str] | None, job: Job | None, node_is_up: bool | None
) -> tuple[Cause, str]:
    """Cause and detail of an attempt whose process is gone and that has no cause in its log.

    Args:
        attempt: the attempt.
        past_states: how each start of its job ended, oldest first, from Slurm's accounts.
        job: what Slurm says of its job now.
        node_is_up: whether its node can work.

    The last three are None where Slurm does not answer, and for a local attempt.
    """
    if attempt.job == "local":
        return "killed", "the process is gone"
    if past_states and attempt.restart < len(past_states) and past_states[attempt.restart] in CAUSE_OF_STATE:
        state = past_states[attempt.restart]
        return CAUSE_OF_STATE[state], f"Slurm's accounts say {state}"
    if job is None or job.state == GONE:
        return "killed", "Slurm knows nothing of it"
    if job.restarts <= attempt.restart:
        return CAUSE_OF_STATE.get(job.state, "killed"), f"Slurm says {job.state}"
    if node_is_up is False:
        return "node", f"node {attempt.node} is down"
    return "preempted", "Slurm requeued the job"


def still_runs(attempt: Attempt, job: Job | None) -> bool:
    """Whether Slurm says that the job of an attempt without a cause works on, although its lock is free.

    Some file systems keep locks to the node that took them; and if it died, its own batch script knows best of what.
    """
    return job is not None and may_work(job.state) and job.restarts == attempt.restart


def cause_of_end(
    exit_code: int, signals: Collection[str], by_file: bool, job: Job | None, restarts: int
) -> Cause | None:
    """Why a job is to end where its ranks have ended, or could not be started; None where it is to work on.

    Ranks may be asked to stop before they can catch a signal, or while there are none.

    Args:
        exit_code: of the ranks; 0 if they were not started.
        signals: what the batch script got, as `USR2`.
        by_file: the stop file is there.
        job: what Slurm says of the job; None if it does not answer.
        restarts: how often Slurm had requeued the job when this start began.
    """
    near_time_limit = "USR2" in signals or exit_code == DIED_OF + signal.SIGUSR2
    asked = bool(signals) or exit_code - DIED_OF in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    ends = asked if job is None else not job.waits_or_runs or job.preempted or job.restarts > restarts
    if near_time_limit or by_file or ends:
        return cause_of_stop(near_time_limit, by_file, job, restarts)
    return None


def after_crash(exit_code: int, start: int, had_attempt: bool) -> Action:
    """What the batch script does after its ranks died in a job that is to work on.

    A restart is bound to an attempt that ended in this start, and attempts have budgets; ranks that a signal killed
    before they had one get a few more starts. So a job cannot restart its ranks for ever.

    Args:
        exit_code: of the ranks; 0 if they were not started.
        start: number of this start of the ranks in the job, from 1.
        had_attempt: whether they had begun an attempt.
    """
    if exit_code == ExitCode.MISTAKE:
        return Action.STAY_ENDED
    again = exit_code == ExitCode.DONE or had_attempt or (exit_code > DIED_OF and start <= STARTS)
    return Action.RESTART if again else Action.STAY_ENDED


def given_up(attempts: Sequence[Attempt]) -> str | None:
    """Why a run is not to be tried again, or None.

    A cause's budget is used up, or two attempts in a row left no checkpoint behind their first step.
    """
    for cause, rule in RULES.items():
        details = [attempt.detail for attempt in attempts if attempt.cause == cause]
        if rule.budget is not None and len(details) >= rule.budget:
            times = f" {len(details)} times" if len(details) > 1 else ""
            return f"{cause}{times}: {details[-1]}" if details[-1] else f"{cause}{times}"
    idle = [attempt for attempt, following in followed(attempts) if not _progressed(attempt, following)]
    last = list(attempts[-2:])
    if len(last) == 2 and idle[-2:] == last and all(_blames_run(attempt) for attempt in last):
        causes = ", ".join(str(attempt.cause) for attempt in last)
        return f"no progress twice in a row ({causes}): {last[1].detail}".removesuffix(": ")
    return None


def blames_setting(causes: Sequence[Cause | None]) -> bool:
    """Whether a failed trial with attempts of these causes failed of its setting, and would again.

    Without an attempt, the setting made no configuration.
    """
    return not causes or (causes[-1] is not None and RULES[causes[-1]].blames_setting)


def _blames_run(attempt: Attempt) -> bool:
    if attempt.cause is not None and not RULES[attempt.cause].blames_run:
        return False
    return attempt.cause != "killed" or attempt.seconds >= EARLY_S


def _progressed(attempt: Attempt, following: Attempt | None) -> bool:
    """Whether an attempt left a checkpoint behind its first step. The last one gets the benefit of the doubt."""
    if attempt.first_step is None:
        return False
    after = following.first_step if following and following.first_step is not None else attempt.reached
    return (after or 0) > attempt.first_step
