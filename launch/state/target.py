"""The target of a study: how many trials are wanted, which all its workers go by."""

from dataclasses import asdict, dataclass

from fsr.files import write_json
from fsr.json_file import read_json
from launch.state.paths import StudyFolder


@dataclass(frozen=True)
class Target:
    """So many trials are to be finished or pruned, and none gets a number from `limit` on.

    `limit` allows for the trials that had failed before, so one that fails is not replaced until the next sweep.
    """

    trials: int
    limit: int
    since: float = 0.0
    """When the sweep that wants it began (Unix seconds): failures before it are none of its first."""

    def __post_init__(self) -> None:
        if not 0 <= self.trials <= self.limit:
            raise ValueError(
                f"limit must be at least trials, and trials at least 0, got {self.limit} and {self.trials}"
            )

    def write(self, folder: StudyFolder) -> None:
        """Make this the target that all workers of the study go by from their next claim on."""
        write_json(folder.target_file, asdict(self))

    @classmethod
    def of(cls, folder: StudyFolder) -> "Target":
        """The target that was written last. Raises FileNotFoundError before the first, DamagedError."""
        return read_json(folder.target_file, cls, newer=True)
