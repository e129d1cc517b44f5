"""What a Slurm task has to do, as a file that it reads from its folder: nothing depends on the submitter."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsr.config import TrainConfig
from fsr.files import write_json
from launch.folder import RunFolder, StudyFolder
from launch.single import SingleRun
from launch.study import load
from launch.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The trials of a study, or one run on its own."""

    folder: str
    """The study's folder, or the run's."""
    config: dict[str, Any]
    """The configuration that every trial starts from, or the run's."""
    train: str
    """The function that trains, as `module:function`."""
    study: str | None = None
    """The study's name."""
    database: bool = False
    """Whether the storage is the database that FSR_STORAGE names, rather than the journal."""

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Assignment":
        """The assignment in a file."""
        return cls(**json.loads(path.read_text()))

    def worker(self) -> Worker | SingleRun:
        """Who does it."""
        config, folder, train = TrainConfig.from_json(self.config), Path(self.folder), self._train_function()
        if self.study is None:
            return SingleRun(config=config, folder=RunFolder(folder), train=train)
        study = load(self.study)
        return Worker(study=study, base=config, folder=StudyFolder(folder), database=self.database, train=train)

    def _train_function(self) -> Callable[..., str]:
        module, _, function = self.train.partition(":")
        return getattr(importlib.import_module(module), function)
