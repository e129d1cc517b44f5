"""The folder of one study: every path in it, named once."""

from pathlib import Path

from fsr.run import Run
from launch.lock import FileLock


class StudyFolder:
    """Everything that a study leaves behind lies here: its definition, Optuna's journal, one run folder a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.study_file = self.folder / "study.json"
        self.slots = self.folder / "slots"

    @property
    def name(self) -> str:
        """The study's name, which is its identity."""
        return self.folder.name

    def run(self, number: int) -> Run:
        """The run folder of a trial."""
        return Run(self.folder / f"trial_{number:04d}")

    def error_file(self, number: int) -> Path:
        """Traceback of a trial that failed."""
        return self.run(number).folder / "error.txt"

    def submissions(self, cluster: str) -> Path:
        """Submission files and logs of the workers."""
        return self.folder / cluster

    def sweep_lock(self) -> FileLock:
        """Held by the one process that sweeps this study on this machine, for as long as it lives."""
        return FileLock(self.slots / "sweep.lock")

    def claim_lock(self) -> FileLock:
        """Held while a worker chooses its trial."""
        return FileLock(self.slots / "claim.lock")

    def trial_lock(self, number: int) -> FileLock:
        """Held by the worker that trains this trial; a running trial whose lock is free was interrupted."""
        return FileLock(self.slots / f"{number:04d}.lock")
