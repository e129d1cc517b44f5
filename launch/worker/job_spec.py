"""What a Slurm task has to do, as a file that it reads from its folder: nothing depends on the submitter."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsr.config import TrainConfig
from fsr.files import write_json
from fsr.inference.config import InferConfig
from launch.state.paths import ResultsFolder, RunFolder, StudyFolder
from launch.study import load
from launch.worker.inference import InferenceWorker
from launch.worker.single_run import SingleRun
from launch.worker.study import Worker


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The trials of a study, one run on its own, or an inference."""

    folder: str
    """The folder of the study, the run or the results."""
    config: dict[str, Any]
    """The configuration that every trial starts from, or that of the run or the inference."""
    train: str
    """The function that trains or infers, as `module:function`."""
    study: str | None = None
    """The study's name."""
    database: bool = False
    """Whether the storage is the database that FSR_STORAGE names, rather than the journal."""

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        """The spec in a file."""
        return cls(**json.loads(path.read_text()))

    def worker(self) -> Worker | SingleRun | InferenceWorker:
        """Who does it."""
        folder, work = Path(self.folder), self._function()
        if "checkpoint" in self.config:
            return InferenceWorker(config=InferConfig.from_json(self.config), folder=ResultsFolder(folder), infer=work)
        config = TrainConfig.from_json(self.config)
        if self.study is None:
            return SingleRun(config=config, folder=RunFolder(folder), train=work)
        study = load(self.study)
        return Worker(study=study, base=config, folder=StudyFolder(folder), database=self.database, train=work)

    def _function(self) -> Callable[..., str]:
        module, _, function = self.train.partition(":")
        return getattr(importlib.import_module(module), function)
