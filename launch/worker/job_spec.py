"""What a Slurm job has to do, as a file that it reads from its folder: nothing depends on the submitter."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fsr.config import TrainConfig
from fsr.files import write_json
from fsr.inference.config import InferConfig
from launch.state.paths import ResultsFolder, RunFolder, StudyFolder
from launch.study import load
from launch.worker.inference import InferenceWorker
from launch.worker.protocol import Worker
from launch.worker.single_run import SingleRunWorker
from launch.worker.study import StudyWorker


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The trials of a study, one run on its own, or an inference."""

    kind: Literal["study", "run", "inference"]
    folder: str
    """The folder of the study, the run or the results."""
    config: dict[str, Any]
    """The configuration that every trial starts from, or that of the run or the inference."""
    database: bool = False
    """Whether a study's storage is the database that FSR_STORAGE names, rather than the journal."""

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        """The job spec in a file."""
        return cls(**json.loads(path.read_text()))

    def worker(self) -> Worker:
        """The worker that does it."""
        folder = Path(self.folder)
        if self.kind == "inference":
            return InferenceWorker(config=InferConfig.from_json(self.config), folder=ResultsFolder(folder))
        config = TrainConfig.from_json(self.config)
        if self.kind == "run":
            return SingleRunWorker(config=config, folder=RunFolder(folder))
        study = StudyFolder(folder)
        return StudyWorker(study=load(study.name), base=config, folder=study, database=self.database)
