"""Sweeps on a Slurm that keeps accounts (MariaDB) and holds jobs to their memory (cgroups)."""

import shutil

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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm_with_accounts"), accounts=True)
    yield started
    started.down()


def test_a_trial_that_takes_too_much_memory_is_given_up_and_the_others_finish(sweep):
    sweep.set("hungry", "")
    sweep.submit(trials=2)
    sweep.wait_for_no_jobs()
    trials = sweep.status()["trials"]
    assert [trial["state"] for trial in trials] == ["fail", "complete"]
    assert sweep.causes(0) == ["out of memory", "out of memory"]
    assert "out of memory 2 times" in trials[0]["error"]


def test_the_accounts_tell_why_a_trial_died_that_left_no_word(sweep):
    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_step(0, 8)
    node = sweep.attempts(0)[0]["node"]
    dying = [*sweep.batch_scripts(0), *sweep.pids(0)]
    for pid in [sweep.cluster.daemon(f"slurmd-{node}"), *sweep.stepds(0), *dying]:
        kill(pid)
    sweep.finish(1)
    assert sweep.causes(0) == ["node", "finished"]
    assert "accounts say NODE_FAIL" in sweep.attempts(0)[0]["detail"]


def test_a_cancelled_trial_without_a_word_is_cancelled_in_the_attempt_log(sweep):
    sweep.set("save_s", 30)  # killed before it can say so
    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_step(0, 8)
    sweep.cluster.ask("scancel", "--me")
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"), 60)
    assert sweep.causes(0) == [None]
    sweep.set("save_s", 0)
    sweep.submit(trials=1, parallel=1)
    sweep.finish(1)
    assert sweep.causes(0) == ["cancelled", "finished"]
    assert "accounts say CANCELLED" in sweep.attempts(0)[0]["detail"]


def test_no_more_workers_are_submitted_than_the_account_may_have_in_the_queue(sweep):
    sweep.cluster.ask("sacctmgr", "-i", "add", "account", "vision")
    sweep.cluster.ask("sacctmgr", "-i", "add", "user", "root", "account=vision", "MaxSubmitJobs=3")
    try:
        assert "3 workers are started, not 4" in sweep.submit("--account", "vision", trials=4, parallel=4)
        assert "0 workers are started, not 3" in sweep.submit("--account", "vision", trials=6, parallel=6)
        sweep.finish(6)
    finally:
        sweep.cluster.ask("sacctmgr", "-i", "delete", "user", "root")


def test_the_limits_that_count_are_those_of_the_account_and_the_qos_that_are_used(sweep):
    add = ("sacctmgr", "-i", "add")
    for words in (
        ("account", "vision"),
        ("account", "speech"),
        ("qos", "narrow", "MaxSubmitJobsPerUser=1"),
        ("user", "root", "account=vision", "MaxSubmitJobs=2", "qos=normal,narrow"),
        ("user", "root", "account=speech", "qos=normal,narrow", "DefaultQOS=normal"),
    ):
        sweep.cluster.ask(*add, *words)
    later = ("--sbatch", "begin=now+1hour")
    try:
        assert "1 workers are started, not 4" in sweep.submit(
            *later, "--account", "speech", "--qos", "narrow", parallel=4
        )
        output = sweep.submit(*later, "--account", "vision", "--qos", "normal", parallel=4)
        assert "your account vision may have 2 jobs in the queue: 2 workers are started, not 3" in output
        assert "submitted array" in sweep.submit(*later, "--account", "speech", "--qos", "normal", parallel=4)
        assert sweep.status()["queue"] == {"PENDING": 4}  # what counts for one account does not count for another
    finally:
        sweep.cluster.ask("scancel", "--me")
        sweep.cluster.ask("sacctmgr", "-i", "delete", "user", "root")
        sweep.cluster.ask("sacctmgr", "-i", "delete", "qos", "narrow")


def test_without_accounts_srun_tells_of_the_memory(cluster, tmp_path):
    cluster.clear()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sacct").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "sacct").chmod(0o755)
    environment = cluster.environment
    try:
        cluster.environment = environment | {"PATH": f"{tmp_path / 'bin'}:{environment['PATH']}"}
        sweep = Sweep(cluster, tmp_path / "sweep")
        sweep.set("hungry", "")
        sweep.submit(trials=1, parallel=1)
        sweep.wait_for_no_jobs()
        assert sweep.causes(0) == ["out of memory", "out of memory"]
    finally:
        cluster.environment = environment
