"""Tries whether a lock that one process holds keeps out another of this machine."""

import os
import subprocess
from pathlib import Path

from fsr.errors import UserError
from fsr.files import unfinished
from fsr.lock import FileLock
from launch import node_probe
from launch.file_probe import answer_in, line_of, lock_verdict, try_files, work_in


def try_here(folder: Path) -> str:
    """What comes of taking a lock in this folder that this process holds, from another process of this machine.

    KEPT_OUT, GOT_IN, or what the system says. Raises UserError where no lock can be taken at all.
    """
    path = unfinished(folder / "lock")
    lock = FileLock(path)
    call, environment = line_of(0, node_probe.try_lock, path.name), os.environ | {"SLURM_PROCID": "0"}
    try:
        with lock:
            answer = subprocess.run(work_in(folder), input=call, capture_output=True, text=True, env=environment)
        said = [str(value) for line in answer.stdout.splitlines() for _, value in answer_in(line)]
        return said[0] if said else answer.stderr.strip()[-200:]
    finally:
        path.unlink(missing_ok=True)


def try_folder(folder: Path, on_slurm: bool, partition: str | None) -> tuple[bool, list[str]]:
    """Whether locks and files in a folder are as workers need them, as far as it can be tried, and a sentence each."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return True, [f"locks: not tried, as you have no right to write to {folder}"]
    try:
        sound, sentence = lock_verdict(folder, "a second process of this machine", try_here(folder))
    except UserError as error:
        return False, [f"LOCKS: {error}"]
    if not sound:
        return False, [sentence]
    sound, sentences = try_files(folder, on_slurm, partition)
    return sound, [sentence, *sentences]
