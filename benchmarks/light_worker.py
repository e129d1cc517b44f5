"""A worker of a study that trains nothing: real claims, attempts and tells, and sleep in the place of the steps.

For many_workers.py, which forks it. It keeps its own account of what it did (events, a mark a trained trial), so that
whether a trial was doubled does not rest on the locks that are on trial.
"""

import ctypes
import fcntl
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finished_study import FinishedStudy

from launch.state.storage import open_storage
from launch.worker.claim import Claim, claim

MARK = "trained"  # in the folder of a trial that was trained to its end
AT_WORK = "at_work"  # locked by flock, which knows nothing of the POSIX locks of claims
ENDING_S = 300.0  # for which a job waits for an earlier start of its own that is being killed


def give_back() -> None:
    """Give freed memory back to the system, which has a thousand workers to serve and not one."""
    ctypes.CDLL(None).malloc_trim(0)


def clocks() -> tuple[float, float]:
    """The time, and what this process has worked: seconds."""
    return time.monotonic(), time.process_time()


@dataclass(frozen=True, kw_only=True)
class LightWorker:
    """One start of a Slurm job that works on a study."""

    made: FinishedStudy
    job: str
    restart: int
    node: str
    train_s: float
    """Seconds that a trial takes, up to a fifth more or less."""
    evaluations: int
    """Scores reported of each trial."""
    events: Path
    """Where each call is written down, a line of JSON each."""
    sent: float
    """When its process was started (`time.monotonic`)."""

    def work(self) -> None:
        """Train trials until none is left for this worker."""
        made = self.made
        storage = open_storage(made.folder.folder, made.database)
        last = time.monotonic()
        since = self.sent, 0.0  # the first trial is waited for from the start of the process on
        while True:
            claimed = claim(made.study, made.base, made.folder, storage, self.job, made.code)
            if isinstance(claimed, Claim):
                self._tell("claim", claimed.trial.number, since)
                give_back()
                self._train(claimed)
                since = clocks()
                last = since[0]
                continue
            if claimed == "ending" and time.monotonic() < last + ENDING_S:
                time.sleep(0.2)
                continue
            self._tell(claimed, None, since)
            return

    def _train(self, claimed: Claim) -> None:
        number, run = claimed.trial.number, claimed.run
        claimed.attempt_log.begin(self.job, self.restart, self.node, 1)
        at_work = os.open(run.folder / AT_WORK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(at_work, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._tell("doubled", number, clocks())
        draw = random.Random(f"{number}/{self.job}/{self.restart}")
        score = 0.5 + 0.4 * random.Random(number).random()
        if not (run.folder / MARK).exists():  # else a worker was killed between the end of the training and its tell
            seconds = self.train_s * draw.uniform(0.8, 1.2)
            reported = claimed.trial.storage.get_trial(claimed.trial._trial_id).intermediate_values
            for step in range(1, self.evaluations + 1):
                time.sleep(seconds / self.evaluations)
                if step not in reported:
                    began = clocks()
                    claimed.trial.report(score * step / self.evaluations, step)
                    self._tell("report", number, began)
            try:
                os.close(os.open(run.folder / MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            except FileExistsError:
                self._tell("doubled", number, clocks())
        claimed.attempt_log.end("finished")
        began = clocks()
        claimed.tell(score)
        self._tell("tell", number, began)
        claimed.let_go()
        os.close(at_work)

    def _tell(self, what: str, number: int | None, began: tuple[float, float]) -> None:
        """Write an event down: one call of the system, so that lines of many processes do not mix."""
        now, cpu = clocks()
        event: dict[str, Any] = {"what": what, "number": number, "job": self.job, "restart": self.restart}
        event |= {"at": round(now, 4), "seconds": round(now - began[0], 4), "cpu_s": round(cpu - began[1], 4)}
        line = json.dumps(event) + "\n"
        file = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, line.encode())
        os.close(file)
