"""Sweeps on a real Slurm, of whose nodes half see the shared folder through one mount, half through another."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import two_nodes
from slurm_cluster import MISSING, ROOT, TESTS, Cluster, Sweep, alive, available, kill, wait_for

from fsr.compare import first_difference
from fsr.run import Run
from launch.state.paths import StudyFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.skipif(two_nodes.missing() is not None, reason=str(two_nodes.missing())),
]
DELAY_S = 3.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The nodes and the cluster: n1 and n3 see what node a sees, n2 and n4 what node b does."""
    with two_nodes.two_nodes(tmp_path_factory.mktemp("nodes"), DELAY_S) as nodes:
        cluster = Cluster(tmp_path_factory.mktemp("slurm"))
        try:
            for number in range(1, 5):
                pid = cluster.daemon(f"slurmd-n{number}")
                os.kill(pid, 15)
                wait_for(lambda pid=pid: not alive(pid))
                # It keeps its host's name: Slurm knows its nodes by it.
                start = [word for word in nodes.on("ba"[number % 2]) if word != "--uts"]
                start[start.index("-c") + 1] = start[start.index("-c") + 1].removeprefix('hostname "$1" && ')
                subprocess.run([*start, "slurmd", "-N", f"n{number}"], check=True, env=cluster.environment)
            cluster.clear()
            yield nodes, cluster
        finally:
            cluster.down()


class SharedSweep(Sweep):
    """A sweep whose folder is seen by commands as by node b, and by this process at the server."""

    def __init__(self, nodes, cluster, **options):
        folder = Path(tempfile.mkdtemp(dir=nodes.server))
        super().__init__(cluster, folder, **options)
        self.nodes, self.seen = nodes, nodes.shared / folder.name

    def command(self, *options, **numbers):
        words = super().command(*options, **numbers)
        return [*self.nodes.on("b"), *(str(word).replace(str(self.folder), str(self.seen)) for word in words)]

    def status(self):
        command = [*self.nodes.on("b"), sys.executable, ROOT / "launch" / "status.py", "--json", "--study", self.name]
        answer = subprocess.run(
            [*command, "--runs", self.seen / "runs"], capture_output=True, text=True, env=self.cluster.environment
        )
        assert answer.returncode == 0, answer.stderr
        assert "Traceback" not in answer.stderr
        return json.loads(answer.stdout)


@pytest.fixture
def sweep(shared):
    yield SharedSweep(*shared)
    shared[1].clear()


def test_the_doctor_measures_how_late_one_node_sees_the_other(shared):
    nodes, cluster = shared
    (nodes.server / "empty").mkdir(exist_ok=True)
    command = [*nodes.on("b"), sys.executable, ROOT / "launch" / "doctor.py", "--runs", nodes.shared / "empty"]
    command += ["--partition", "low"]
    answer = subprocess.run(command, capture_output=True, text=True, env=cluster.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("was kept out of a lock") == 3
    for kind in ("names", "status"):
        (line,) = [line for line in answer.stdout.splitlines() if line.startswith(f"{kind}: ")]
        worst = float(line.split("(median), ")[1].split()[0])
        assert 1 < worst < DELAY_S + 2, line
    print(answer.stdout)
    assert list((nodes.server / "empty").iterdir()) == []


def test_trials_of_both_mounts_go_on_where_the_other_was_preempted(sweep):
    """Every trial comes to the digest of an undisturbed one, whichever nodes it was on."""
    sweep.submit(trials=8, parallel=4)
    for number in (0, 1, 2, 3):
        sweep.wait_for_step(number, 6, 90)
        sweep.status()
        if number % 2:
            sweep.cluster.ask("scontrol", "requeue", sweep.job_of(number))
        else:
            kill(sweep.pids(number)[0])
    sweep.finish(8, 300)
    folder = StudyFolder(sweep.study)
    attempts = [folder.attempt_log(number).attempts() for number in range(8)]
    assert all(attempt.cause for of_one in attempts for attempt in of_one)
    sides = [{attempt.node in ("n1", "n3") for attempt in of_one} for of_one in attempts]
    assert set().union(*sides) == {True, False}
    assert sum(len(of_one) for of_one in attempts) >= 12


def test_a_stop_file_of_the_login_node_ends_jobs_of_both_mounts(sweep):
    sweep.set("step_s", 0.5)
    sweep.submit(trials=4, parallel=4, iterations=200)
    for number in range(4):
        sweep.wait_for_step(number, 3, 90)
    subprocess.run([*sweep.nodes.on("b"), "touch", sweep.seen / "runs" / sweep.name / "stop"], check=True)
    sweep.wait_for_no_jobs(30)
    assert all(sweep.causes(number)[-1] for number in range(4))


def test_ranks_that_see_the_folder_through_two_mounts_come_to_the_same_bits_as_undisturbed(shared, synthetic_folder):
    """Of two ranks, one is on a node that sees what node a sees, the other on one of node b; the second is killed."""
    runs = []
    for disturbed in (False, True):
        sweep = SharedSweep(*shared, method=TESTS / "tiny.py", data=synthetic_folder, name="pair")
        sweep.submit("--nodes", "2", "--keep", "all", trials=1, iterations=60)
        if disturbed:
            sweep.wait_for_step(0, 6, 90)
            kill(sweep.pids(0)[1])
        sweep.wait_for_no_jobs(240)
        assert sweep.causes(0)[-1] == "finished", sweep.attempts(0)
        assert (len(sweep.attempts(0)) > 1) is disturbed, sweep.attempts(0)
        runs.append(Run(sweep.run_folder(0)))
        shared[1].clear()
    assert first_difference(*runs) is None
