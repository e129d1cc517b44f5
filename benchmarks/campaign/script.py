"""The life of one start of a job: the batch script's loop, its ranks, and what follows their end.

The loop is that of `launch/slurm/batch_script.py` in Python. All that it starts is the real code: rank 0's
`launch.worker.main.lead`, and `launch.worker.after_crash` when the ranks are gone.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks.campaign.clock import Clock, Process
from benchmarks.campaign.cluster import Job, Trouble
from benchmarks.campaign.locks import Locks
from benchmarks.campaign.options import Campaign
from benchmarks.campaign.training import SILENCE_S, RankKilled, Training
from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from fsr.heartbeat import Sign
from fsr.run import Run
from launch.slurm.environment import SlurmEnvironment
from launch.state.paths import StudyFolder
from launch.state.stop import StopRequest
from launch.worker import after_crash
from launch.worker import main as worker_main
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import StudyWorker
from launch.worker.watchdog import Silence, describe

IMPORT_S = 10.0  # until Python has imported everything
AGAIN_S = 10.0  # between two tries of the script to pass SIGUSR2 on
SPEC = JobSpec(kind="study", folder="", config={})


class BatchScript:
    """The batch script of one start of a job."""

    def __init__(
        self,
        job: Job,
        options: Campaign,
        clock: Clock,
        locks: Locks,
        new_worker: Callable[[], StudyWorker],
        bad: bool,
        watch: Callable[[Training, Callable[[], str]], str],
    ) -> None:
        self.training: Training | None = None
        """What its ranks train just now."""
        self._job, self._options, self._clock, self._locks = job, options, clock, locks
        self._new_worker, self._bad, self._watch = new_worker, bad, watch
        self._signals: list[str] = []  # as the script remembers them
        self._pending: list[int] = []  # for ranks that cannot catch them yet
        self._stop: StopRequest | None = None  # of the ranks that are at work
        self._has_ranks = False
        self._trouble: list[Trouble] = []

    # What happens to it

    def signal(self, name: str) -> None:
        """A signal comes (an event): TERM to the script and its ranks, USR2 to the script, which passes it on."""
        self._signals.append(name)
        if name == "TERM" and self._has_ranks:
            self._tell_ranks(signal.SIGTERM)
        elif name == "USR2":
            self._pass_on(self._job.restarts)

    def trouble(self, kind: Trouble) -> None:
        """Something ends the ranks, if they train (an event)."""
        if self.training is not None:
            self._trouble.append(kind)
            self._process.interrupt()

    def _pass_on(self, restarts: int) -> None:
        if self._job.script is self and self._job.restarts == restarts and self._process.alive:
            if self._has_ranks:
                self._tell_ranks(signal.SIGUSR2)
            self._clock.at(self._clock.now + AGAIN_S, self._pass_on, restarts)

    def _tell_ranks(self, number: int) -> None:
        if self._stop is None:
            self._pending.append(number)
        else:
            self._stop._count(number, None)
            self._process.interrupt()

    # What it does

    def live(self) -> int:
        """Run; the exit code."""
        self._log.parent.mkdir(exist_ok=True)
        self._log.touch()
        start = 1
        while True:
            code, started, known = 0, int(self._clock.now), len(self._signals)
            if not self._signals:
                code = self._run_ranks(start)
                known = len(self._signals)
                if code == ExitCode.DONE:
                    return 0
            follows = self._after_crash(code, started, start, self._signals[:known])
            if follows != ExitCode.BROKEN:
                return 1 if follows == ExitCode.DONE else follows
            self._signals = self._signals[known:]
            start += code != ExitCode.DONE

    def _run_ranks(self, start: int) -> int:
        """One start of the ranks; the exit code of srun."""
        self._has_ranks, self._pending = True, []
        self._process.renew()
        self._process.variables["SLURM_STEP_ID"] = str(start - 1)
        try:
            self._clock.sleep(IMPORT_S)
            worker, stop = self._new_worker(), StopRequest(self._folder.stop_file)
            for number in self._pending:
                stop._count(number, None)
            self._stop = stop
            environment, rendezvous = SlurmEnvironment(), Rendezvous(worker.folder.locks)
            outcome = worker_main.lead(worker, stop, environment, rendezvous)
            return int(worker_main.exit_code(outcome, SPEC))
        except RankKilled as end:
            return self._killed(end, start)
        except UserError:
            return int(ExitCode.MISTAKE)
        finally:
            self._has_ranks, self._stop, self.training = False, None, None
            self._trouble.clear()
            self._locks.free(self._process)

    def train(self, config: TrainConfig, run: Run, **hooks: Any) -> Literal["finished", "stopped", "pruned"]:
        """Stands in for `launch.worker.method.train`, in the process of these ranks."""
        training = self.training = Training(self._options, self._clock, config, run, self._trouble, self._bad)
        try:
            return self._watch(training, lambda: training.train(**hooks))  # type: ignore[return-value]
        finally:
            self.training = None

    def _killed(self, end: RankKilled, start: int) -> int:
        """Leave what such an end leaves, and say it as srun does."""
        if end.memory:
            step = f"{self._job.number}.{start - 1}"
            self._job.step_states[str(start - 1)] = "OUT_OF_MEMORY"
            self._log.write_text(f"slurmstepd: error: Detected 1 oom-kill event(s) in StepId={step}. Some of ...\n")
        if end.hung:  # the watchdog's work
            node = self._process.variables["SLURMD_NODENAME"]
            sign = Sign(count=1, doing="step 1 since its start", patience_s=SILENCE_S, place=node)
            rendezvous = Rendezvous(self._folder.locks, start - 1)
            rendezvous.report_failure("hung", describe([Silence(0, sign, SILENCE_S)]), 0)
        return 128 + end.number

    def _after_crash(self, code: int, started: int, start: int, signals: list[str]) -> int:
        """What the script is told to do next, as an exit code."""
        self._process.renew()
        sys.argv = ["after_crash", "spec.json", str(code), str(started), str(start), *signals]
        try:
            after_crash.main()
        except SystemExit as end:
            return int(end.code or 0)
        raise AssertionError("after_crash ends with an exit code")

    @property
    def _log(self) -> Path:
        return self._folder.job_log(self._job.id)

    @property
    def _folder(self) -> StudyFolder:
        return self._new_worker().folder

    @property
    def _process(self) -> Process:
        assert self._job.process is not None
        return self._job.process


def spec_of(worker: StudyWorker) -> Any:
    """Stands in for the job spec's file, which says who works."""

    class Spec:
        @staticmethod
        def read(path: Path) -> Any:
            return Spec

        @staticmethod
        def worker() -> StudyWorker:
            return worker

    return Spec
