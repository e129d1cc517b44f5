"""On a real Slurm: locks between nodes, a database whose URL the environment keeps back, and what is left of trials."""

import subprocess
import sys

import pytest
from slurm_cluster import MISSING, ROOT, Cluster, available

pytestmark = [pytest.mark.skipif(not available(), reason=MISSING), pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.down()


def python(sweep, program, *options):
    command = [sys.executable, ROOT / "launch" / program, *options]
    answer = subprocess.run(command, capture_output=True, text=True, env=sweep.cluster.environment)
    assert "Traceback" not in answer.stderr, answer.stderr
    return answer.returncode, answer.stdout + answer.stderr


def test_the_doctor_takes_a_lock_from_two_nodes(sweep):
    sweep.runs.mkdir()
    code, output = python(sweep, "doctor.py", "--runs", sweep.runs, "--partition", "low")
    assert code == 0, output
    assert "a second process of this machine was kept out" in output
    assert "locks: node n" in output and output.count("was kept out of a lock") == 3
    for what in ("names", "status", "content", "rename", "O_EXCL", "fsync", "clocks"):
        assert f"\n{what}: " in output, output
    assert list(sweep.runs.iterdir()) == []


def test_where_no_two_nodes_are_free_the_doctor_says_so(sweep):
    sweep.runs.mkdir()
    cluster = sweep.cluster
    cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 120")
    code, output = python(sweep, "doctor.py", "--runs", sweep.runs, "--partition", "main")
    assert code == 0, output
    assert "locks: not tried between two nodes" in output
    cluster.ask("scancel", "--me")


def test_workers_find_their_database_though_the_environment_is_not_to_be_exported(sweep, monkeypatch):
    url = f"sqlite:///{sweep.folder}/study.db"
    for name in ("SBATCH_EXPORT", "SLURM_EXPORT_ENV"):
        monkeypatch.setitem(sweep.cluster.environment, name, "NONE")
    sweep.submit("--storage", url, trials=2, parallel=2, iterations=5)
    sweep.wait_for_no_jobs()
    trials = sweep.status()["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 2


def test_finished_trials_keep_no_checkpoints_and_status_knows_their_bytes(sweep):
    sweep.submit(trials=2, parallel=2, iterations=5)
    sweep.wait_for_no_jobs()
    status = sweep.status()
    assert [trial["state"] for trial in status["trials"]] == ["complete"] * 2
    assert not list(sweep.study.glob("trial_*/checkpoint*"))
    assert status["bytes"] == sum(trial["bytes"] for trial in status["trials"]) > 0
