"""Where the ranks of one trial meet on Slurm: rank 0 chooses what to train, the others learn it from a file.

They find each other through a second file (c10d's FileStore), for c10d's store on a port asks nobody who he is: any
user who reaches the port could join the run. Both files lie in a folder that nobody else can enter.
"""

import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import create, look_again, make_folder, write_json
from fsr.json_file import parse_json, read_json, read_whole
from fsr.run import Run
from launch.state.attempts import Cause

POLL_S = 0.2
PATIENCE_S = 2.0
JOBS = 1000  # whose files lie in one folder
DEAD_S = 7 * 86400.0  # without a sign of life: a job may have been suspended for long
END_S = 60.0  # in which rank 0 tells of a mistake


class Announcement(TypedDict):
    """What rank 0 wrote last: a run to train, or the end."""

    number: int
    """Of its announcements, from 1."""
    end: NotRequired[bool]
    config: NotRequired[dict[str, Any]]
    run: NotRequired[str]
    store: NotRequired[str]


class Failure(TypedDict):
    """Why a rank died."""

    cause: Cause
    detail: str


class Lack(TypedDict):
    """Where a rank could not read something."""

    node: str


class Rendezvous:
    """One rank and the others of its step, as Slurm's environment describes them; alone without such an environment."""

    def __init__(self, folder: Path, step_id: int | None = None) -> None:
        """That of this process's step, or (to read what its ranks left) of another step of this job."""
        get = os.environ.get
        # Of the step, not of the job: a worker in the shell of an allocation of many tasks is alone.
        self.rank, self.count = int(get("SLURM_PROCID", 0)), int(get("SLURM_STEP_NUM_TASKS", 1))
        self.local_rank = int(get("SLURM_LOCALID", 0))
        # A requeued job, or a step that follows a broken one in the same job, must not read older announcements.
        number = get("SLURM_STEP_ID", "0") if step_id is None else str(step_id)
        self._job = get("SLURM_JOB_ID", "local")
        step = (self._job, get("SLURM_RESTART_COUNT") or "0", number)
        self.step = f"{self._job}.{number}"
        """Slurm's id of the step."""
        # One a user: whoever shares a study with his group cannot share this.
        self._folder = ranks_folder(folder)
        self._private = [self._folder]
        if self._job.isdigit() and int(self._job) >= JOBS:  # a sweep may have 100 000 jobs, with some files each
            self._folder = self._folder / f"jobs_{int(self._job) // JOBS}"
            self._private.append(self._folder)
        self._file = self._folder / f"{'.'.join(step)}.json"
        self._announcements = 0  # written (rank 0) or read (others)

    def announce(self, config: TrainConfig, run: Run) -> None:
        """Tell all ranks to train this, and join them (rank 0)."""
        if self.count > 1:
            self._make_folder()
            store = self._new_store()
            self._write({"config": config.to_json(), "run": str(run.folder), "store": store.name})
            self._join(store)

    def announce_end(self) -> None:
        """Tell the other ranks that nothing more is to be trained (rank 0)."""
        if self.count > 1:
            self._make_folder()
            self._write({"end": True})

    def announced(self) -> Iterator[tuple[TrainConfig, Run]]:
        """What rank 0 announces, until it announces the end (other ranks)."""
        self._make_folder()
        # It is there from now on: a node that has not found it would believe so for a minute.
        os.close(create(self._file, os.O_RDWR | os.O_CREAT))
        while True:
            content = self._read_next()
            if "end" in content:
                return
            self._join(self._folder / content["store"])
            yield TrainConfig.from_json(content["config"]), Run(Path(content["run"]))

    def heartbeat_file(self) -> Path:
        """The file of this rank's heartbeat, whose folder is made. Rank 0 removes what earlier steps left."""
        self._make_folder()
        if self.rank == 0 and self._job.isdigit():
            for old in self._folder.glob(f"{self._job}.*"):
                if not old.name.startswith(f"{self._file.stem}."):
                    old.unlink(missing_ok=True)
        return self._file.with_suffix(f".heartbeat{self.rank}")

    def heartbeats(self) -> dict[int, bytes]:
        """What each rank's heartbeat file holds, by rank."""
        files = self._folder.glob(f"{self._file.stem}.heartbeat*")
        return {int(file.suffix.removeprefix(".heartbeat")): file.read_bytes() for file in files}

    def report_failure(self, cause: Cause, detail: str, rank: int | None = None) -> None:
        """Leave a file that says why this rank dies (other ranks), or why that one is killed (the watchdog)."""
        self._make_folder()
        file = self._file.with_suffix(f".rank{self.rank if rank is None else rank}.json")
        write_json(file, {"cause": cause, "detail": detail})

    def reported_failure(self, patience_s: float = PATIENCE_S) -> tuple[Cause, str] | None:
        """Why another rank died, if one reports it within `patience_s` (rank 0, or who comes after all)."""
        deadline = time.monotonic() + patience_s
        while True:
            look_again(self._folder)
            for file in sorted(self._folder.glob(f"{self._file.stem}.rank*.json")):
                content = read_json(file, Failure)
                if content["cause"] != "killed":  # else it only saw the others go
                    return content["cause"], f"{file.suffixes[-2][1:]}: {content['detail']}"
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)

    def report_lack(self) -> None:
        """Leave a file that says that this rank could not read something."""
        node = os.environ.get("SLURMD_NODENAME") or platform.node()
        self._make_folder()
        write_json(self._file.with_suffix(f".lack{self.rank}.json"), {"node": node})

    def nodes_that_lack(self) -> set[str]:
        """Nodes whose ranks could not read something (rank 0, whose own is not among them)."""
        if self.count > 1:
            time.sleep(PATIENCE_S)
            look_again(self._folder)
        files = self._folder.glob(f"{self._file.stem}.lack*.json")
        return {read_json(file, Lack)["node"] for file in files}

    def end_is_announced(self, patience_s: float = END_S) -> bool:
        """Whether rank 0 announces the end within `patience_s` (other ranks)."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if "end" in (self._announcement() or {}):
                return True
            time.sleep(POLL_S)
        return False

    def _make_folder(self) -> None:
        for folder in self._private:
            private_folder(folder)

    def _write(self, content: dict[str, Any]) -> None:
        self._announcements += 1
        write_json(self._file, content | {"number": self._announcements})

    def _read_next(self) -> Announcement:
        self._announcements += 1
        while True:
            content = self._announcement()
            if content and content["number"] >= self._announcements:
                return content
            time.sleep(POLL_S)

    def _announcement(self) -> Announcement | None:
        """What rank 0 announced last."""
        try:
            content = read_whole(self._file)
        except FileNotFoundError:
            return None
        return parse_json(content, Announcement, str(self._file)) if content else None

    def _new_store(self) -> Path:
        """An empty file for the ranks of the next process group. Those of this job's earlier ones are removed."""
        for old in self._folder.glob(f"{self._job}.*.store"):
            old.unlink(missing_ok=True)
        store = self._file.with_suffix(f".{secrets.token_hex(8)}.store")
        os.close(os.open(store, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return store

    def _join(self, store: Path) -> None:
        """Describe the process group as torchrun would, with a file in place of host and port."""
        os.environ |= {
            "FSR_STORE_FILE": str(store),
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.count),
        }


def ranks_folder(locks: Path) -> Path:
    """Where the ranks of this user's jobs meet."""
    return locks / f"ranks_{os.geteuid()}"


def forget_old_jobs(locks: Path) -> None:
    """Remove what this user's jobs left that have given no sign of life for a week. The sweep lock must be held."""
    top = ranks_folder(locks)
    if not top.is_dir():
        return
    for folder in (*top.glob("jobs_*"), top):
        files = [Path(entry) for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
        newest: dict[str, float] = {}
        for file in files:
            job = file.name.partition(".")[0]
            with suppress(FileNotFoundError):
                newest[job] = max(newest.get(job, 0.0), file.stat().st_mtime)
        dead = {job for job, written in newest.items() if written < time.time() - DEAD_S}
        for file in files:
            if file.name.partition(".")[0] in dead:
                file.unlink(missing_ok=True)
        if folder != top and dead:
            with suppress(OSError):  # a job that lives has something in it
                folder.rmdir()


def private_folder(folder: Path) -> None:
    """Make a folder that nobody else can enter; raises UserError if it is a link or somebody else's."""
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(file, 0o700)
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"{folder} must be a folder of your own, for the ranks of a job meet in it: {error}") from None
