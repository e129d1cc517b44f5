"""Runs commands of the project in processes that have their imports behind them, because they are forked from one.

`python starter.py FOLDER N` serves N clients: each writes one JSON object a line (see `become`) to the pipe
FOLDER/to_i, and reads the id of the process and then its status from FOLDER/from_i. A child becomes the command as if
Python had just been started with it: same arguments, environment, folder, rights.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable

# What commands import, and each forked process then finds done.
IMPORTED = (
    *("torch", "torchvision.transforms.v2", "timm", "optuna", "pandas", "pyarrow.parquet", "scipy.stats", "tyro"),
    *("matplotlib.pyplot", "pycocotools.mask", "rich.live", "submitit", "fsr.train", "fsr.infer", "fsr.export"),
    *("fsr.data.prepare", "fsr.data.synthetic", "launch.sweep", "launch.status", "launch.doctor", "launch.train"),
    *("launch.infer", "analysis.load", "analysis.compare", "analysis.figures", "analysis.gallery"),
)


def next_command(folder: str, number: int) -> dict | None:
    """Fork for each command that a client names: the command in a child, None in the parent at the client's end."""
    with open(f"{folder}/to_{number}") as commands, open(f"{folder}/from_{number}", "w", 1) as answers:
        for line in commands:
            child = os.fork()
            if not child:
                return json.loads(line)
            print(child, file=answers)
            print(os.waitpid(child, 0)[1], file=answers)
    return None


def end_with_parent() -> None:
    """Let this process be killed when its parent ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become(command: dict) -> None:
    """Take a command's `folder`, `environment`, `limits`, `user` and `groups`, and its files for output."""
    os.setsid()
    end_with_parent()
    for number, name, mode in ((0, "/dev/null", os.O_RDONLY), (1, command["out"], os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(name, mode, 0o666), number)
    os.dup2(os.open(command["err"], os.O_WRONLY | os.O_CREAT, 0o666), 2)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    os.umask(command["umask"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs behind it ignore Ctrl-C
    for name, limit in command["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if command["user"] is not None:
        os.setgroups(command["groups"])
        os.setresgid(*[command["user"]] * 3)
        os.setresuid(*[command["user"]] * 3)


def run(program: str, *words: str) -> None:
    """Run a file, or the module after -m, as Python does."""
    if program == "-m":
        module, *words = words
        sys.argv = [module, *words]
        sys.modules.pop(module, None)
        sys.path[0] = os.getcwd()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *words]
        sys.path[0] = os.path.dirname(program)
        runpy.run_path(program, run_name="__main__")


def code_of(work: Callable[..., None], *words: str) -> int:
    """The exit code with which Python would end after this work; what it would print is printed."""
    code: object = 0
    try:
        work(*words)
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0) & 255


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # or each child would copy all that it looks through
    servers = []
    for number in range(int(sys.argv[2])):
        servers.append(os.fork())
        if not servers[-1]:
            end_with_parent()
            command = next_command(sys.argv[1], number)
            if command is None:
                os._exit(0)
            become(command)
            os._exit(code_of(run, *command["words"]))  # to take down all that was imported would take a second
    for server in servers:
        os.waitpid(server, 0)
    os._exit(0)
