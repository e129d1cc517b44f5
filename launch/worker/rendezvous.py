"""The ranks of one trial on Slurm: rank 0 chooses what to train, the others learn it from a file."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from fsr.config import TrainConfig
from fsr.files import write_json
from fsr.run import Run
from launch.state.attempts import Cause

POLL_S = 0.2
PATIENCE_S = 2.0


class Rendezvous:
    """One rank and its fellows, as Slurm's environment describes them; alone where there is no such environment."""

    def __init__(self, folder: Path, step_id: int | None = None) -> None:
        """Those of this process's step, or (to read what they left) of another step of this job."""
        get = os.environ.get
        # Of the step, not of the job: a worker in the shell of an allocation of many tasks is alone.
        self.rank, self.count = int(get("SLURM_PROCID", 0)), int(get("SLURM_STEP_NUM_TASKS", 1))
        self.local_rank = int(get("SLURM_LOCALID", 0))
        # A requeued job, or a step that follows a broken one in the same job, must not read what was said before.
        number = get("SLURM_STEP_ID", "0") if step_id is None else str(step_id)
        step = (get("SLURM_JOB_ID", "local"), get("SLURM_RESTART_COUNT") or "0", number)
        self._file = folder / f"{'.'.join(step)}.json"
        self._said = 0

    def lead(self, config: TrainConfig, run: Run) -> None:
        """Let all ranks train this, and join them (rank 0)."""
        if self.count > 1:
            host, port = socket.gethostname(), _free_port()
            self._say({"config": config.to_json(), "run": str(run.folder), "host": host, "port": port})
            self._join(host, port)

    def dismiss(self) -> None:
        """Tell the others that nothing more is to be trained (rank 0)."""
        if self.count > 1:
            self._say({"end": True})

    def follow(self) -> Iterator[tuple[TrainConfig, Run]]:
        """What rank 0 says is to be trained, until it says no more (other ranks)."""
        while True:
            said = self._hear()
            if "end" in said:
                return
            self._join(said["host"], said["port"])
            yield TrainConfig.from_json(said["config"]), Run(Path(said["run"]))

    def confess(self, cause: Cause, detail: str) -> None:
        """Leave word of why this rank dies (other ranks)."""
        write_json(self._file.with_suffix(f".rank{self.rank}.json"), {"cause": cause, "detail": detail})

    def cause_of_others(self, patience_s: float = PATIENCE_S) -> tuple[Cause, str] | None:
        """Why another rank died, if one leaves word of it within `patience_s` (rank 0, or who comes after all)."""
        deadline = time.monotonic() + patience_s
        while True:
            for file in sorted(self._file.parent.glob(f"{self._file.stem}.rank*.json")):
                said = json.loads(file.read_text())
                if said["cause"] != "killed":  # else it only saw the others go
                    return said["cause"], f"{file.suffixes[-2][1:]}: {said['detail']}"
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)

    def _say(self, what: dict) -> None:
        self._said += 1
        write_json(self._file, what | {"number": self._said})

    def _hear(self) -> dict:
        self._said += 1
        while True:
            if self._file.exists():
                said = json.loads(self._file.read_text())
                if said["number"] >= self._said:
                    return said
            time.sleep(POLL_S)

    def _join(self, host: str, port: int) -> None:
        """Describe the process group as torchrun would."""
        os.environ |= {
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.count),
        }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
