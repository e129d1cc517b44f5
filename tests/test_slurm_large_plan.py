"""A real Slurm that enforces its limits takes what a dry run said, and the same command later adds the rest."""

import os
import shutil
import subprocess

import pytest
from slurm_cluster import MISSING, Cluster, Sweep, available, kill, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.skipif(
        not shutil.which("slurmdbd") or not shutil.which("mariadbd"),
        reason="Slurm's accounts are not installed (Debian: apt-get install slurmdbd mariadb-server)",
    ),
]
MOST_JOBS = 60  # of the cluster
LATER = ("--sbatch", "begin=now+1hour")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm_with_limits"), accounts=True)
    for words in (
        ("account", "top"),
        ("account", "vision", "parent=top"),
        ("user", "root", "account=vision", "MaxSubmitJobs=7", "MaxJobs=3"),
        ("account", "free"),
        ("user", "root", "account=free"),
    ):
        started.ask("sacctmgr", "-i", "add", *words)
    config = started.folder / "slurm.conf"
    enforcing = f"AccountingStorageEnforce=associations,limits,qos\nMaxJobCount={MOST_JOBS}"
    config.write_text(config.read_text().replace("MaxJobCount=20000", enforcing))
    kill(started.daemon("slurmctld"))
    wait_for(lambda: "DOWN" in started.ask("scontrol", "ping"))
    subprocess.run(["slurmctld"], check=True, env=started.environment)
    wait_for(lambda: "UP" in started.ask("scontrol", "ping"))
    yield started
    started.down()


@pytest.fixture
def sweep(cluster, tmp_path):
    cluster.clear()
    return Sweep(cluster, tmp_path)


def dry_run(sweep, *options, **numbers):
    answer = sweep.run(sweep.command("--dry-run", *options, **numbers))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def queued(cluster):
    return len(cluster.ask("squeue", "--noheader", "--array").splitlines())


def test_what_a_dry_run_says_is_submitted_and_later_the_rest(sweep):
    vision, wanted = ("--account", "vision"), {"trials": 9, "parallel": 9}
    lines = dry_run(sweep, *vision, **wanted)
    assert "7 workers in 1 sbatch calls; 0 were there already" in lines
    assert "limit of the queue: 7 jobs of your account vision (MaxSubmitJobs), 0 are there" in lines
    assert "limit at once: 3 workers, by 3 jobs of your account vision (MaxJobs)" in lines
    assert "so of 7 workers at most 3 run at once, and the others wait in the queue" in lines
    output = sweep.submit(*vision, **wanted)
    assert "7 workers; 0 were there already" in output and "7 workers are started, not 9 (MaxSubmitJobs)" in output
    sweep.wait_for_step(0, 2)
    assert len(sweep.cluster.ask("squeue", "--noheader", "--states=RUNNING").splitlines()) <= 3
    assert "MaxJobs" in sweep.cluster.ask("squeue", "--noheader", "--format=%r")
    sweep.finish(9)


def test_a_limit_that_nobody_told_of_is_found_by_asking_for_less(sweep, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sacctmgr").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "sacctmgr").chmod(0o755)
    silent = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    environment, sweep.cluster.environment = sweep.cluster.environment, sweep.cluster.environment | silent
    try:
        output = sweep.submit(*LATER, "--account", "vision", trials=12, parallel=12)
    finally:
        sweep.cluster.environment = environment
    assert "7 workers are started, not 12, and the same command later starts the others: sbatch refuses" in output
    assert "AssocMaxSubmitJobLimit" in output and "7 workers; 0 were there already" in output
    assert queued(sweep.cluster) == 7


def test_a_cluster_that_is_full_takes_as_many_as_it_has_room_for_at_once(sweep):
    cluster = sweep.cluster
    wait_for(lambda: not cluster.ask("squeue", "--noheader", "--states=all"), 90)  # those that ended a moment ago count
    cluster.ask("sbatch", "--account=free", "--hold", "--output=/dev/null", "--array=0-39", "--wrap=true")
    lines = dry_run(sweep, "--account", "free", trials=100, parallel=100)
    assert "19 workers in 1 sbatch calls; 0 were there already" in lines
    assert (
        f"limit of the queue: {MOST_JOBS - 1} jobs of all users of the cluster together (MaxJobCount), 40 are there"
        in (lines)
    )
    output = sweep.submit(*LATER, "--account", "free", trials=100, parallel=100)
    assert "19 workers; 0 were there already" in output
    assert queued(cluster) == MOST_JOBS - 1
