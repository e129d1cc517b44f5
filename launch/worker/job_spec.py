"""What a worker has to do, as a file that it reads: nothing depends on who started it, and nobody changes it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import write_json
from fsr.inference.config import InferConfig
from fsr.json_file import read_json
from launch.state.code_snapshot import running_version
from launch.state.paths import EvaluationFolder, LaunchFolder, ResultsFolder, RunFolder, StudyFolder
from launch.study import load
from launch.worker.inference import InferenceWorker
from launch.worker.protocol import Worker
from launch.worker.single_run import SingleRunWorker
from launch.worker.study import StudyWorker

Kind = Literal["study", "run", "inference", "evaluation"]
FOLDERS: dict[str, type[LaunchFolder]] = {
    "study": StudyFolder,
    "run": RunFolder,
    "inference": ResultsFolder,
    "evaluation": EvaluationFolder,
}


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The trials of a study, one run on its own, an inference, or those of a study's checkpoints."""

    kind: Kind
    folder: str
    """The folder of the study, the run, the results or the evaluation."""
    config: dict[str, Any]
    """The configuration that every trial starts from, or that of the run or the inference, or of the first of these."""
    inferences: list[dict[str, Any]] = field(default_factory=list)
    """The configurations of an evaluation's inferences."""
    code: str | None = None
    """The code version that the worker has to run; None runs whatever it is started from."""
    database: bool = False
    """Whether a study's storage is the database that FSR_STORAGE names, rather than the journal."""
    sweep_pid: int | None = None
    """The local sweep that a local worker works for; it ends with it."""

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        """The job spec in a file. What a newer submitter added to it, this version of the code does not need.

        Raises FileNotFoundError, DamagedError.
        """
        return read_json(path, cls, newer=True)

    def launch_folder(self) -> LaunchFolder:
        """The folder of the study, the run, the results or the evaluation."""
        return FOLDERS[self.kind](Path(self.folder))

    def worker(self) -> Worker:
        """The worker that does it. Raises UserError if its code is not the wanted one, or does not know the config."""
        folder = self.launch_folder()
        if self.code is not None:
            folder.code.verify(self.code)
        if isinstance(folder, ResultsFolder):
            return InferenceWorker(inferences=(InferConfig.from_json(self.config),), folder=folder)
        if isinstance(folder, EvaluationFolder):
            return InferenceWorker(inferences=tuple(map(InferConfig.from_json, self.inferences)), folder=folder)
        config = TrainConfig.from_json(self.config)
        if isinstance(folder, RunFolder):
            return SingleRunWorker(config=config, folder=folder)
        if isinstance(folder, StudyFolder):
            study = load(folder.name)
            return StudyWorker(
                study=study, base=config, folder=folder, database=self.database, code=self.code or running_version()
            )
        raise UserError(f"a job spec is of a study, a run, an inference or an evaluation, got {self.kind}")
