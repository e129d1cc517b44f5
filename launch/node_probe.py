"""What one of two nodes does in a folder that they share, and what it sees there of the other's doing.

Its text is run on each, with nothing but Python: `python -c TEXT FOLDER`. A line that it reads is a call, as JSON:
`[rank, name, arguments]`. A line that it prints is an answer: `ANSWER [rank, what came of it]`.
"""

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

ANSWER = "fsr-answer"  # whatever else a cluster prints has another beginning
# One word each: what came of taking a lock that another process holds, or of reading on in a file that was replaced.
KEPT_OUT, GOT_IN, UNSEEN = "kept-out", "got-in", "unseen"
OLD, NEW = "old", "new"
POLL_S = 0.05
SYNCED = bytes(4096)
open_files: dict[str, Any] = {}


def where() -> dict[str, Any]:
    """This node's name, and its clock."""
    return {"node": os.environ.get("SLURMD_NODENAME") or platform.node(), "time": time.time()}


def make(names: list[str], text: str) -> None:
    """Make these files."""
    for name in names:
        with open(name, "x") as file:
            file.write(text)


def replace(names: list[str], text: str) -> None:
    """Put new files in the place of these."""
    for name in names:
        with open(name + ".new", "x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name + ".new", name)


def append(names: list[str], text: str) -> None:
    """Append to these files."""
    for name in names:
        with open(name, "a") as file:
            file.write(text)


def remove(names: list[str]) -> None:
    """Remove these files."""
    for name in names:
        os.unlink(name)


def look(names: list[str]) -> None:
    """Let this node know what is there, and what is not."""
    os.listdir()
    for name in names:
        _size(name)
        _content(name)


def watch(expected: dict[str, tuple[str, str | None]], patience_s: float) -> dict[str, float]:
    """After how many seconds each file is seen as it is, in one of the `VIEWS`: with this text, or (None) no more.

    What is not seen within the patience is missing. No file is looked at in two ways: to open one asks for its status.
    """
    began, seen = time.monotonic(), dict[str, float]()
    while True:
        listed, now = os.listdir(), time.monotonic() - began
        for name in expected.keys() - seen.keys():
            view, text = expected[name]
            if VIEWS[view](name, text, listed):
                seen[name] = now
        if now >= patience_s or len(seen) == len(expected):
            return seen
        time.sleep(POLL_S)


def hold(name: str) -> None:
    """Open a file, and read it."""
    open_files[name] = open(name)  # noqa: SIM115
    open_files[name].read(1)


def read_on(name: str, old: str) -> str:
    """What comes of reading on in a file that another has been put in the place of."""
    with open_files.pop(name) as file:
        text = os.pread(file.fileno(), 1 << 16, 0).decode()
    return OLD if text == old else NEW


def win(names: list[str], begin: float) -> list[str]:
    """Which of these files this node makes, while the other tries to, too; both begin at a time of their clocks."""
    won = []
    time.sleep(max(0.0, begin - time.time()))
    for name in names:
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won.append(name)
        except FileExistsError:
            pass
    return won


def lock(name: str) -> None:
    """Take a lock of each kind: the program's own, and that of torch's FileStore."""
    open_files[name] = open(name, "w")  # noqa: SIM115
    fcntl.lockf(open_files[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(open_files[name], fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(name: str) -> None:
    """Give them back."""
    open_files.pop(name).close()


def try_locks(name: str) -> list[str]:
    """What comes of taking each."""
    return [try_lock(name, take) for take in (fcntl.lockf, fcntl.flock)]


def try_lock(name: str, take: Callable[[Any, int], None] = fcntl.lockf) -> str:
    """What comes of taking a lock that another process may hold: one of the words, or what the system says."""
    try:
        with open(name, "r+b") as file:
            take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return GOT_IN
    except (BlockingIOError, PermissionError):
        return KEPT_OUT
    except FileNotFoundError:
        return UNSEEN
    except OSError as error:
        return str(error)


def sync(name: str, count: int) -> list[float]:
    """Seconds that each of so many fsyncs takes."""
    seconds = []
    with open(name, "xb") as file:
        for _ in range(count):
            file.write(SYNCED)
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            seconds.append(time.monotonic() - began)
    return seconds


def stamp(name: str) -> float:
    """By how many seconds the clock of the files is ahead of this node's."""
    with open(name, "x") as file:
        file.write("stamp")
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_mtime - time.time()


def _size(name: str) -> int | None:
    try:
        return os.stat(name).st_size
    except FileNotFoundError:
        return None


def _content(name: str) -> str | None:
    try:
        with open(name) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error)


VIEWS: dict[str, Callable[[str, str | None, list[str]], bool]] = {
    "names": lambda name, text, listed: (name in listed) == (text is not None),
    "status": lambda name, text, listed: _size(name) == (None if text is None else len(text)),
    "content": lambda name, text, listed: _content(name) == text,
}
DOING = (where, make, replace, append, remove, look, watch, hold, read_on, win, lock, unlock, try_locks, sync, stamp)
CALLS: dict[str, Callable[..., Any]] = {call.__name__: call for call in (*DOING, try_lock)}


def main() -> None:
    """Answer calls until there are no more."""
    own, place = int(os.environ["SLURM_PROCID"]), sys.argv[1]
    for line in sys.stdin:
        rank, name, arguments = json.loads(line)
        if rank != own:
            continue
        answer: Any
        try:
            os.chdir(place)
            answer = {"value": CALLS[name](*arguments)}
        except OSError as error:
            answer = {"error": error.strerror or str(error), "errno": error.errno}
        print(ANSWER, json.dumps([own, answer]), flush=True)


if __name__ == "__main__":
    main()
