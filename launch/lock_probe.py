"""Tries whether a lock that one process holds keeps out another: of this machine, and of another node."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fsr.errors import UserError
from fsr.files import unfinished
from fsr.lock import FileLock
from launch.slurm import commands

PATIENCE_S = 60
# One word each: what came of taking a lock that another process holds.
KEPT_OUT, GOT_IN, UNSEEN = "kept-out", "got-in", "unseen"

# What a second process runs, with nothing but Python: tries the lock of a file, and says what came of it.
TRY = f"""
def tried(path):
    import fcntl
    try:
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "{GOT_IN}"
    except (BlockingIOError, PermissionError):
        return "{KEPT_OUT}"
    except FileNotFoundError:
        return "{UNSEEN}"
    except OSError as error:
        return str(error)
"""
TRY_HERE = f"{TRY}\nimport sys\nprint(tried(sys.argv[1]))"
# Two ranks, one a node: the first holds the lock until the second has tried it.
TRY_ON_NODES = f"""{TRY}
import fcntl, os, sys, time
path, second = sys.argv[1], os.environ["SLURM_PROCID"] == "1"
deadline = time.monotonic() + 20
def wait_for(name):
    while not os.path.exists(path + name) and time.monotonic() < deadline:
        os.listdir(os.path.dirname(path))  # lets NFS look again
        time.sleep(0.1)
if second:
    wait_for(".held")
    answer = tried(path) if os.path.exists(path + ".held") else "{UNSEEN}"
    print("tried:", os.environ.get("SLURMD_NODENAME"), answer, flush=True)
    open(path + ".tried", "w").close()
else:
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        open(path + ".held", "w").close()
        wait_for(".tried")
"""


def try_here(folder: Path) -> str:
    """What comes of taking a lock in this folder that this process holds, from another process of this machine.

    KEPT_OUT, GOT_IN, or what the system says. Raises UserError where no lock can be taken at all.
    """
    path = unfinished(folder / "lock")
    lock = FileLock(path)
    try:
        with lock:
            answer = subprocess.run([sys.executable, "-c", TRY_HERE, path], capture_output=True, text=True)
            return answer.stdout.strip() or answer.stderr.strip()[-200:]
    finally:
        path.unlink(missing_ok=True)


def try_on_nodes(folder: Path, partition: str | None) -> tuple[str | None, str]:
    """The same between two nodes of the cluster: the second's name, and what came of it; no name, and why, if it was
    not tried."""
    path = unfinished(folder / "lock")
    try:
        with FileLock(path):  # which makes the file
            pass
        where = ["--partition", partition] if partition else []
        size = ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=2"]
        command = ["srun", f"--immediate={PATIENCE_S // 2}", "--job-name=fsr-doctor", *size, *where]
        answer = commands.run(*command, sys.executable, "-c", TRY_ON_NODES, str(path), patience_s=PATIENCE_S)
    finally:
        for file in (path, Path(f"{path}.held"), Path(f"{path}.tried")):
            file.unlink(missing_ok=True)
    if answer is None:
        return None, f"no two nodes were free within {PATIENCE_S} s"
    return outcome(answer.stdout.splitlines(), answer.stderr)


def outcome(lines: Sequence[str], errors: str) -> tuple[str | None, str]:
    """What srun's output tells of the second rank."""
    for line in lines:
        if line.startswith("tried: "):
            _, node, said = line.split(" ", 2)
            return node, said
    return None, f"srun says: {' '.join(errors.split())[-200:] or 'nothing'}"


def verdict(folder: Path, place: str, said: str) -> tuple[bool, str]:
    """Whether locks hold there, and the sentence for it."""
    if said == KEPT_OUT:
        return True, f"locks: {place} was kept out of a lock in {folder} that another process holds"
    if said == GOT_IN:
        return False, (
            f"LOCKS: {place} took a lock in {folder} that another process holds, so two workers would train one trial; "
            "mount it with locks that all nodes see, or take a --runs folder elsewhere"
        )
    if said == UNSEEN:
        return False, f"LOCKS: {place} does not see the files of {folder}; take a --runs folder that all nodes share"
    return False, f"LOCKS: {place} could not try a lock in {folder}: {said}"


def try_locks(folder: Path, on_slurm: bool, partition: str | None) -> tuple[bool, list[str]]:
    """Whether locks hold in a folder as far as it can be tried, and a sentence on each try."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return True, [f"locks: not tried, as you have no right to write to {folder}"]
    try:
        sound, sentence = verdict(folder, "a second process of this machine", try_here(folder))
    except UserError as error:
        return False, [f"LOCKS: {error}"]
    sentences = [sentence]
    if on_slurm and sound:
        node, said = try_on_nodes(folder, partition)
        if node is None:
            sentences.append(f"locks: not tried between two nodes: {said}")
        else:
            sound, sentence = verdict(folder, f"node {node}", said)
            sentences.append(sentence)
    return sound, sentences
