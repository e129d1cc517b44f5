"""Ends ranks that hang: `python -m launch.worker.watchdog LOCKS_FOLDER STEP`, beside each start of the ranks.

The batch script starts it and ends it. Where a rank gives no sign of life for longer than it said it might, all ranks
print their stacks to their logs, a report says which of them hung, and Slurm kills the step. The batch script then
closes the attempt and starts the ranks again.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fsr.errors import reports_user_errors
from fsr.heartbeat import Sign, silence_s
from fsr.parent import end_with
from launch.slurm import commands
from launch.slurm.environment import SlurmEnvironment
from launch.worker.rendezvous import Rendezvous

STACKS_S = 5.0  # for the ranks to print their stacks
REPORT_S = 10.0  # for the report: it may be the file system that hangs
ROUNDS = 20  # of looking, at least, until patience is over
MOST_S = 5.0  # between two looks


@dataclass(frozen=True)
class Silence:
    """A rank that has been silent for longer than it said it might."""

    rank: int
    sign: Sign
    """The last that it gave."""
    seconds: float


class Watch:
    """How long each rank has been silent, counted in looks that are at most `interval_s` apart by right.

    A later look was late itself, as the job or the machine was suspended. So no look adds more than twice the interval.
    """

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._content: dict[int, bytes] = {}
        self._sign: dict[int, Sign] = {}
        self._silent_s: dict[int, float] = {}

    def look(self, heartbeats: dict[int, bytes], elapsed_s: float) -> list[Silence]:
        """The ranks that hang, by what their heartbeat files hold now, so many seconds after the last look."""
        for rank, content in heartbeats.items():
            sign = Sign.of(content)
            if content != self._content.get(rank) and sign is not None:
                self._content[rank], self._sign[rank], self._silent_s[rank] = content, sign, 0.0
            elif rank in self._sign:
                self._silent_s[rank] += min(elapsed_s, 2 * self.interval_s)
        return [
            Silence(rank, sign, self._silent_s[rank])
            for rank, sign in sorted(self._sign.items())
            if sign.patience_s is not None and self._silent_s[rank] > sign.patience_s
        ]


class Reader:
    """What the heartbeat files hold, read by a thread of its own: on a hung file system it never comes back."""

    def __init__(self, rendezvous: Rendezvous, interval_s: float) -> None:
        self.heartbeats: dict[int, bytes] = {}
        """As of the last reading that came back."""
        self._rendezvous, self._interval_s = rendezvous, interval_s
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.heartbeats = self._rendezvous.heartbeats()
            except OSError as error:  # no answer, which is silence
                print(f"the heartbeats cannot be read: {error}", file=sys.stderr, flush=True)
            time.sleep(self._interval_s)


def describe(silent: list[Silence]) -> str:
    """What is reported of ranks that hang. It says `hung on node NAME:` only where all of them are on one."""
    nodes = sorted({silence.sign.place for silence in silent})
    where = f"node {nodes[0]}" if len(nodes) == 1 else f"one of the nodes {', '.join(nodes)}"
    ranks = ", ".join(str(silence.rank) for silence in silent)
    whose = f"rank {ranks}" if len(silent) == 1 else f"ranks {ranks}"
    first = max(silent, key=lambda silence: silence.seconds)
    return f"hung on {where}: no sign of life of {whose} for {first.seconds:.0f} s after {first.sign.doing}"


def end(rendezvous: Rendezvous, environment: SlurmEnvironment, silent: list[Silence]) -> None:
    """Have the stacks printed, leave a report, and let Slurm kill the step. Returns when it has been asked to.

    Where Slurm has given the job's node up and requeued the job, it may be at work elsewhere, in a step of the same
    number.
    """
    if has_come_back(environment):
        return
    detail = describe(silent)
    print(f"error: {detail}; the ranks print their stacks and are killed", file=sys.stderr, flush=True)
    commands.run("scancel", "--signal=USR1", rendezvous.step)
    time.sleep(STACKS_S)
    report = threading.Thread(target=rendezvous.report_failure, args=("hung", detail, silent[0].rank), daemon=True)
    report.start()
    report.join(REPORT_S)
    while not has_come_back(environment):  # a controller that is away will answer again
        answer = commands.run("scancel", "--signal=KILL", rendezvous.step)
        if answer is not None and answer.returncode == 0:
            return
        time.sleep(MOST_S)


def has_come_back(environment: SlurmEnvironment) -> bool:
    """Whether Slurm has requeued the job since it started here."""
    job = commands.job(environment.job)
    return job is not None and job.restarts > environment.restarts


@reports_user_errors
def main() -> None:
    """Watch until the batch script ends this process, or is gone itself."""
    end_with(os.getppid())
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    interval_s = min(MOST_S, silence_s() / ROUNDS)
    rendezvous, watch = Rendezvous(folder, step), Watch(interval_s)
    reader, looked = Reader(rendezvous, interval_s), time.monotonic()
    while True:
        time.sleep(interval_s)
        now = time.monotonic()
        silent, looked = watch.look(reader.heartbeats, now - looked), now
        if silent:
            end(rendezvous, SlurmEnvironment(), silent)
            return


if __name__ == "__main__":
    main()
