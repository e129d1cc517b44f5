"""Ends that are not ends, on a real Slurm: signals before there is anybody to see them, and nodes that lack things."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import MISSING, Cluster, Sweep, available, kill, wait_for

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)

# Python imports this before all else. A process whose moment it is says that it is there, and stays for a while.
SITE = """
import builtins, os, pathlib, sys, time
moments = pathlib.Path({moments!r})
command = pathlib.Path("/proc/self/cmdline").read_bytes()
def pause(name):
    if (moments / name).exists():
        (moments / name).rename(moments / (name + ".reached"))
        time.sleep(8)
if b"launch.worker.main" in command:
    pause("python starts")
    before = builtins.__import__
    def importing(name, *others, **named):
        if name == "launch.worker.job_spec":
            pause("imports")
        return before(name, *others, **named)
    builtins.__import__ = importing
if b"launch.worker.after_crash" in command:
    pause("rules are asked")
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm_ends"))
    yield started
    started.down()


class Moments:
    """Lets a process of a job stay at a moment until a test has done something."""

    def __init__(self, sweep):
        self.folder = sweep.folder / "moments"
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(SITE.format(moments=str(self.folder)))
        sweep.path = str(self.folder)
        sweep.set("step_s", 0.4)  # so that no run is finished before it is looked at

    def wait(self, name):
        wait_for((self.folder / f"{name}.reached").exists, 60)

    def set(self, name):
        (self.folder / name).touch()


class PathSweep(Sweep):
    """A sweep whose user has another folder in PYTHONPATH, as of a loaded module."""

    path = ""

    @property
    def surroundings(self):
        options = super().surroundings
        options["env"] |= {"PYTHONPATH": f"{options['env']['PYTHONPATH']}:{self.path}"}
        return options


@pytest.fixture
def sweep(cluster, tmp_path):
    cluster.clear()
    yield PathSweep(cluster, tmp_path)
    cluster.ask("scontrol", "update", "partitionname=low", "preemptmode=requeue", "gracetime=5")
    cluster.clear()


def jobs(sweep):
    return sweep.cluster.ask("squeue", "--noheader", "--array", "--partition=low", "--format=%i").split()


def preempt(sweep):
    sweep.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 3")


def requeue(sweep):
    sweep.cluster.ask("scontrol", "requeue", jobs(sweep)[0])


def notice(sweep):
    """What Slurm sends some time before the time limit."""
    sweep.cluster.ask("scancel", "--batch", "--signal=USR2", jobs(sweep)[0])


def restarts(sweep, job):
    words = sweep.cluster.ask("scontrol", "show", "job", "-o", job).split()
    return next(int(word.split("=")[1]) for word in words if word.startswith("Restarts="))


ENDS = {"preempted": preempt, "requeued": requeue, "time limit near": notice}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("moment", ["python starts", "imports", "rules are asked"])
@pytest.mark.parametrize("mode", ["requeue", "cancel"])
def test_a_job_comes_back_whenever_it_is_told_to_go(sweep, moment, end, mode):
    if mode == "cancel" and end != "preempted":
        pytest.skip("only preemption knows this mode")
    sweep.cluster.ask("scontrol", "update", "partitionname=low", f"preemptmode={mode}")
    moments = Moments(sweep)
    moments.set(moment)
    sweep.submit(trials=1, parallel=1)
    (job,) = jobs(sweep)
    if moment == "rules are asked":
        sweep.wait_for_step(0, 6)
        kill(sweep.pids(0)[0])
    moments.wait(moment)
    ENDS[end](sweep)
    wait_for(lambda: restarts(sweep, job) == 1, 60)
    sweep.finish(1)
    assert sweep.causes(0)[-1] == "finished"
    if moment == "rules are asked":
        assert sweep.attempts(0)[-1]["first_step"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["python starts", "imports", "rules are asked"])
def test_scancel_ends_a_job_at_any_moment_for_good(sweep, moment):
    moments = Moments(sweep)
    moments.set(moment)
    sweep.submit(trials=1, parallel=1)
    (job,) = jobs(sweep)
    if moment == "rules are asked":
        sweep.wait_for_step(0, 6)
        kill(sweep.pids(0)[0])
    moments.wait(moment)
    sweep.cluster.ask("scancel", job)
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"), 60)
    assert restarts(sweep, job) == 0
    sweep.submit(trials=1, parallel=1)
    sweep.finish(1)


@pytest.fixture
def node_without(cluster):
    """Takes folders away from node n1 alone: a daemon that sees something empty in their place."""

    def restart(*folders):
        os.kill(cluster.daemon("slurmd-n1"), signal.SIGTERM)
        file = cluster.folder / "run" / "slurmd-n1.pid"
        wait_for(lambda: not file.exists())
        mounts = "".join(f"mount -t tmpfs tmpfs '{folder}' && " for folder in folders)
        command = ["unshare", "--mount", "sh", "-c", f"{mounts} exec slurmd -N n1"]
        subprocess.run(command, check=True, env=cluster.environment)
        wait_for(file.exists)
        time.sleep(1)

    yield restart
    restart()


def python_of(sweep):
    """A Python of the study's own, in a folder that a node may lack."""
    folder = sweep.folder / "python"
    folder.mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "optuna.py").write_text(
        "raise ImportError('libstdc++.so.6: version GLIBCXX_3.4.29 not found')"
    )
    broken = 'case $SLURMD_NODENAME in "$BROKEN_ON") export PYTHONPATH=${0%/*}/broken:$PYTHONPATH ;; esac'
    (folder / "python").write_text(f'#!/bin/sh\n{broken}\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    code = "import sys; from launch.sweep import main; sys.executable = sys.argv[1]; main(sys.argv[2:])"
    return [sys.executable, "-c", code, str(folder / "python"), *sweep.command("--detach", trials=4, parallel=4)[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["data", "python", "runs", "packages"])
def test_a_node_that_lacks_something_takes_no_worker_with_it(sweep, node_without, lacking, monkeypatch):
    command = python_of(sweep)
    sweep.runs.mkdir()
    if lacking == "packages":
        monkeypatch.setitem(sweep.cluster.environment, "BROKEN_ON", "n1")
    else:
        node_without(sweep.folder / lacking)
    # So many cores that each worker has a node of its own, n1 among them.
    answer = sweep.run([*command, "--sbatch", "cpus-per-task=4"])
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(jobs(sweep)) == 4
    wait_for(lambda: "ExcNodeList=n1 " in sweep.cluster.ask("scontrol", "show", "job", "-o"), 60)
    sweep.finish(4)
    assert {sweep.attempts(number)[-1]["node"] for number in range(4)} <= {"n2", "n3", "n4"}
    assert all(sweep.causes(number)[-1] == "finished" for number in range(4))
    assert not list((sweep.study / "mistakes").glob("*"))
    states = sweep.cluster.ask("scontrol", "show", "job", "-o").splitlines()
    assert not [line for line in states if "JobState=FAILED" in line]


@pytest.mark.slow
def test_what_all_nodes_lack_is_the_users_mistake_after_two(sweep):
    (sweep.data / "step_s").unlink()
    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_no_jobs(60)
    (mistake,) = (sweep.study / "mistakes").iterdir()
    assert mistake.read_text() == f"data folder {sweep.data} must hold step_s, which is missing"
    assert not list((sweep.study / "locks" / "bad_nodes").glob("*/*"))
    sweep.set("step_s", 0.05)
    sweep.submit(trials=1, parallel=1)
    sweep.finish(1)


@pytest.fixture(scope="module")
def qos_cluster(tmp_path_factory):
    """One whose QOS say who preempts whom, and that the preempted are cancelled."""
    if not shutil.which("slurmdbd") or not shutil.which("mariadbd"):
        pytest.skip("Slurm's accounts are not installed (Debian: apt-get install slurmdbd mariadb-server)")
    started = Cluster(tmp_path_factory.mktemp("slurm_qos"), accounts=True, MINISLURM_PREEMPT="qos")
    for words in (
        ("add", "qos", "scavenger", "PreemptMode=cancel", "GraceTime=5"),
        ("add", "qos", "urgent", "Preempt=scavenger"),
        ("add", "account", "vision"),
        ("add", "user", "root", "account=vision", "qos=normal,scavenger,urgent"),
    ):
        started.ask("sacctmgr", "-i", *words)
    yield started
    started.down()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "python starts", "rules are asked"])
def test_a_job_whose_qos_is_cancelled_comes_back(qos_cluster, tmp_path, moment):
    qos_cluster.clear()
    sweep = PathSweep(qos_cluster, tmp_path)
    moments = Moments(sweep)
    moments.set(moment)
    sweep.submit("--account", "vision", "--qos", "scavenger", trials=1, parallel=1)
    (job,) = jobs(sweep)
    if moment != "python starts":
        sweep.wait_for_step(0, 6)
    if moment == "rules are asked":
        kill(sweep.pids(0)[0])
    if moment != "training":
        moments.wait(moment)
    urgent = ("--account=vision", "--qos=urgent", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 3")
    qos_cluster.ask("sbatch", "--partition=low", *urgent)
    wait_for(lambda: restarts(sweep, job) == 1, 60)
    sweep.finish(1)
    assert sweep.causes(0)[-1] == "finished"
    if moment != "python starts":
        assert sweep.attempts(0)[-1]["first_step"] >= 5
