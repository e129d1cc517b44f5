"""Proves that a stopped run loses nothing: kills one at random steps and compares it with an uninterrupted one."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from fsr.files import open_file
from fsr.run import Run
from launch.plan import Plan
from launch.slurm import commands
from launch.state import code_snapshot
from launch.worker.job_spec import JobSpec

STEPS = 24
RUNS = ("uninterrupted", "interrupted")
KILLS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL)


def verify_resume(planned: Plan, console: Console) -> ExitCode:
    """Compare a run that is killed by each signal, at random steps, with one that is not; INCOMPLETE if they differ."""
    config = short(planned)
    folder = planned.folder.folder / "verify"
    remove_earlier(folder)
    console.print(f"{config.iterations} steps of trial 0 of study {planned.study.name}, on this machine, in {folder}")
    finish(folder / "uninterrupted", config, [])
    draw = random.Random()
    stops = sorted(draw.sample(range(1, config.iterations), len(KILLS)))
    kills = list(zip(stops, draw.sample(KILLS, len(KILLS)), strict=True))
    finish(folder / "interrupted", config, kills)
    console.print("killed by " + ", ".join(f"{signal.Signals(k).name} after step {s}" for s, k in kills))
    from fsr.compare import first_difference  # needs torch, as training does

    difference = first_difference(Run(folder / "interrupted"), Run(folder / "uninterrupted"))
    if difference:
        console.print(f"NOT EQUAL: {difference}")
        return ExitCode.INCOMPLETE
    for name in RUNS:
        Run(folder / name).remove_weights(best=True, why="--verify_resume found them equal")
    console.print("BIT-IDENTICAL: weights, teacher, optimizer, centres, best weights, metrics and scores")
    return ExitCode.DONE


def remove_earlier(folder: Path) -> None:
    """Remove the runs of an earlier call. Raises UserError if something else lies there."""
    for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        if path.is_symlink():
            raise UserError(f"{path} is a link, and --verify_resume removes only what it made there; move it")
        if path != folder and path.name not in RUNS:
            raise UserError(f"{folder} holds {path.name}, and --verify_resume removes only what it made there; move it")
    if folder.exists():
        shutil.rmtree(folder)


def short(planned: Plan) -> TrainConfig:
    """A run of a few steps with the study's settings, all schedules scaled to it."""
    settings = planned.study.first_settings(planned.base)
    few = {"iterations": STEPS, "eval_every": STEPS // 2, "save_every": STEPS // 6, "log_every": 1, "pictures": 1}
    return dataclasses.replace(planned.base, **(settings | few))


def finish(folder: Path, config: TrainConfig, kills: Sequence[tuple[int, signal.Signals]]) -> None:
    """Train a run to its end in processes of their own, each but the last killed by a signal after some step."""
    spec = folder / "slurm" / "job_spec.json"
    code = code_snapshot.ROOT
    JobSpec(kind="run", folder=str(folder), config=config.to_json()).write(spec)
    for kill in [*kills, None]:
        command = [sys.executable, "-m", "launch.worker.main", str(spec)]
        log = open_file(folder / "log.txt", "a")  # the process writes to it
        alone = commands.without_job(os.environ)
        process = subprocess.Popen(command, cwd=code, stdout=log, stderr=subprocess.STDOUT, env=alone)
        log.close()
        if kill is not None:
            step, number = kill
            wait_for_step(Run(folder), step, process)
            process.send_signal(number)
        process.wait()
    if Run(folder).result() is None:
        raise UserError(f"the run did not reach its end; {folder / 'log.txt'} tells why")


def wait_for_step(run: Run, step: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process trains a run that has recorded a step, or has ended."""
    while process.poll() is None:
        trains = any(start["pid"] == process.pid for start in run.starts())
        if trains and any(record["step"] >= step for record in run.metrics()):
            return
        time.sleep(0.01)
