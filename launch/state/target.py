"""How many trials of a study are wanted: what all its workers go by."""

import json
from dataclasses import asdict, dataclass

from fsr.files import write_json
from launch.state.paths import StudyFolder


@dataclass(frozen=True)
class Target:
    """What a sweep wants: `wanted` trials finished or pruned, and no number from `limit` on.

    `limit` allows for the trials that had failed before, so one that fails is not replaced until the next order.
    """

    wanted: int
    limit: int

    def place(self, folder: StudyFolder) -> None:
        """Make this the order that all workers of the study go by from their next claim on."""
        write_json(folder.target_file, asdict(self))

    @classmethod
    def of(cls, folder: StudyFolder) -> "Target":
        """The order that was placed last."""
        return cls(**json.loads(folder.target_file.read_text()))
