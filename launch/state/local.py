"""Which workers of this machine are alive: each holds a lock for as long as it lives, and so does the sweep."""

import re
from dataclasses import dataclass

from launch.state.paths import LaunchFolder

LOCK = re.compile(r"local_\d+\.lock")


@dataclass(frozen=True)
class LocalWorkers:
    """Who works on a folder without Slurm."""

    alive: int
    """Workers whose locks are held."""
    host: str
    """Where one of them is; the sweep's machine if there is none."""
    swept: bool
    """Whether a sweep, or a submission, is at work."""

    @property
    def works(self) -> bool:
        """Whether anybody works, or will: a sweep starts its workers."""
        return self.alive > 0 or self.swept

    def __str__(self) -> str:
        if not self.works:
            return "none is alive"
        workers = f"{self.alive} alive on {self.host}" if self.alive else "none is alive yet"
        return workers if self.swept else f"{workers}, whose sweep has ended: they save and end"

    @classmethod
    def of(cls, folder: LaunchFolder) -> "LocalWorkers":
        """The workers of a folder, by the kernel. Not to be asked by a process that holds one of these locks."""
        names = [file.name for file in folder.locks.glob("local_*.lock") if LOCK.fullmatch(file.name)]
        locks = [folder.worker_lock(int(name[6:-5])) for name in names]
        held = [lock for lock in locks if lock.is_held()]
        sweep = folder.sweep_lock()
        return cls(len(held), held[0].host() if held else sweep.host(), sweep.is_held())


def forget_dead_workers(folder: LaunchFolder) -> None:
    """Remove the lock files of local workers that were killed. The sweep lock must be held."""
    for file in folder.locks.glob("local_*.lock"):
        if LOCK.fullmatch(file.name) and not folder.worker_lock(int(file.name[6:-5])).is_held():
            file.unlink(missing_ok=True)
