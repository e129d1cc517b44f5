"""Runs a situation's command: in a process forked from one that has its imports behind it, or in one of its own."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from test_two_users import GROUP, visible_to_all

from situations.situation import Answer, Place, Situation, digest_of, judge
from situations.stock import Stock

STARTER = Path(__file__).parent / "starter.py"
MOST_MEMORY = 12 << 30  # bytes of a command, so that none takes the machine with it
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")  # of this process's environment


def start(stock: Stock, visible: list[Any], clients: int) -> subprocess.Popen[bytes]:
    """The process from which commands are forked, for so many clients."""
    program, pipes, cache = stock.folder / "starter.py", stock.folder / "pipes", stock.folder / "cache"
    shutil.copy(STARTER, program)
    for folder in (pipes, cache):
        folder.mkdir(exist_ok=True)
    for number in range(clients):
        os.mkfifo(pipes / f"to_{number}")
        os.mkfifo(pipes / f"from_{number}")
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PYTHONPATH": str(stock.paths["checkout"]), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"MPLCONFIGDIR": str(cache), "HOME": str(stock.folder), "MPLBACKEND": "agg"}
    command = [*map(str, visible), sys.executable, str(program), str(pipes), str(clients)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, cwd="/")


class Starter:
    """A client of that process, which has one command run at a time."""

    def __init__(self, stock: Stock, number: int) -> None:
        self.to = open(stock.folder / "pipes" / f"to_{number}", "w", 1)  # noqa: SIM115
        self.answers = open(stock.folder / "pipes" / f"from_{number}")  # noqa: SIM115

    def run(self, command: dict[str, Any], limit_s: float, interrupt_s: float | None) -> int | None:
        """Exit code of a command, negative for a signal; None where it had to be killed."""
        self.to.write(json.dumps(command) + "\n")
        child = int(self.answers.readline())
        ended, late = threading.Event(), threading.Event()

        def watch() -> None:
            if interrupt_s is not None and not ended.wait(interrupt_s):
                kill(child, signal.SIGINT)
            if not ended.wait(limit_s):
                late.set()
                kill(child, signal.SIGKILL)

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = int(self.answers.readline())
        ended.set()
        watcher.join()
        kill(child, signal.SIGKILL)  # what it left
        return None if late.is_set() else os.waitstatus_to_exitcode(status)

    def stop(self) -> None:
        """Leave."""
        self.to.close()
        self.answers.close()


def kill(group: int, number: int) -> None:
    """Send a signal to a process group, if it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class Commands:
    """Runs situations, each in a folder of its own."""

    def __init__(self, stock: Stock, folder: Path, starters: int) -> None:
        self.stock, self.folder = stock, folder
        self.visible = visible_to_all(stock.folder / "python")
        self.process = start(stock, self.visible, starters)
        self.starters: queue.Queue[Starter] = queue.Queue()
        self.all = [Starter(stock, number) for number in range(starters)]
        for starter in self.all:
            self.starters.put(starter)
        self._number = 0
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the starters."""
        for starter in self.all:
            starter.stop()
        self.process.wait(20)

    def meet(self, situation: Situation) -> tuple[Answer, str | None, list[str]]:
        """What came of a situation, the verdict on it, and its words.

        One that cannot even be made counts as not handled.
        """
        try:
            return self._met(situation)
        except Exception as error:
            return Answer(-1, "", "", 0.0), f"not met: {error!r}", list(situation.words)

    def _met(self, situation: Situation) -> tuple[Answer, str | None, list[str]]:
        place = self.place(situation)
        situation.prepare(place)
        self.give(place, situation.user)
        before = {name: digest_of(Path(place.fill(name))) for name in situation.untouched}
        words = [place.fill(word) for word in situation.words]
        started = time.monotonic()
        out, err = place.folder / ".out", place.folder / ".err"
        run = self.alone if situation.alone or situation.shell is not None else self.forked
        code = run(situation, place, words, out, err)
        said = [file.read_text(errors="backslashreplace") if file.exists() else "" for file in (out, err)]
        answer = Answer(code, *said, time.monotonic() - started)
        verdict = judge(situation, place, answer, before)
        self.clear(place)
        return answer, verdict, words

    def place(self, situation: Situation) -> Place:
        """A new folder with copies of what the situation needs."""
        with self._lock:
            self._number += 1
            folder = self.folder / f"{self._number:04d}"
        folder.mkdir()
        folder.chmod(0o755)
        paths = self.stock.paths | {"reference": self.stock.paths["run"], "here": folder}
        paths |= {"home": folder / "home", "out": folder / "results here"}
        paths["home"].mkdir()
        for name in situation.needs:
            paths[name] = folder / name
            shutil.copytree(self.stock.paths[name], paths[name], symlinks=True)
        return Place(folder, paths)

    def give(self, place: Place, user: int | None) -> None:
        """Let a folder belong to the user of its situation, but for what its set-up gave to others."""
        if user is None:
            return
        for path in (place.folder, *place.folder.rglob("*")):
            if path.lstat().st_uid == 0 and str(path) not in place.notes.get("of root", ()):
                os.lchown(path, user, user)

    def clear(self, place: Place) -> None:
        """Remove the folder, and what is mounted in it."""
        for mounted in place.notes.get("mounted", ()):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(place.folder, ignore_errors=True)

    def environment(self, situation: Situation, place: Place) -> dict[str, str]:
        """The environment of a command."""
        environment: dict[str, str | None] = {name: os.environ.get(name) for name in KEPT}
        environment |= {"PYTHONPATH": str(self.stock.paths["checkout"]), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"HOME": str(place["home"]), "OMP_NUM_THREADS": "1", "TMPDIR": str(place.folder)}
        environment |= {"MPLCONFIGDIR": str(self.stock.folder / "cache")}
        environment |= {name: value and place.fill(value) for name, value in situation.variables.items()}
        return {name: value for name, value in environment.items() if value is not None}

    def forked(self, situation: Situation, place: Place, words: list[str], out: Path, err: Path) -> int | None:
        """Exit code of the command in a forked process."""
        command = {
            "words": words,
            "folder": place.fill(situation.cwd),
            "environment": self.environment(situation, place),
            "umask": situation.umask,
            "limits": {"RLIMIT_AS": MOST_MEMORY} | situation.limits,
            "user": situation.user,
            "groups": [GROUP],
            "out": str(out),
            "err": str(err),
        }
        for file in (out, err):
            file.touch()
            file.chmod(0o666)
        starter = self.starters.get()
        try:
            return starter.run(command, situation.limit_s, situation.interrupt_s)
        finally:
            self.starters.put(starter)

    def alone(self, situation: Situation, place: Place, words: list[str], out: Path, err: Path) -> int | None:
        """Exit code of the command in a process of its own."""
        command = ["env", "--default-signal=INT", sys.executable, *words]
        if situation.shell is not None:
            command = ["bash", "-c", place.fill(situation.shell), "bash", *command]
        if situation.user is not None:
            user = [f"--reuid={situation.user}", f"--regid={situation.user}", f"--groups={GROUP}"]
            command = [*map(str, self.visible), "setpriv", *user, *command]
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self.environment(situation, place),
                cwd=place.fill(situation.cwd),
                umask=situation.umask,
                start_new_session=True,
            )
            limit_s = situation.limit_s
            try:
                if situation.interrupt_s is not None:
                    try:
                        return process.wait(situation.interrupt_s)
                    except subprocess.TimeoutExpired:
                        kill(process.pid, signal.SIGINT)
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                kill(process.pid, signal.SIGKILL)
                process.wait()
