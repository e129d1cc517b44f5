"""Workers on two nodes whose caches of the shared folder are old: nothing is lost, doubled or shown for long."""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace

import optuna
import pytest
import two_nodes
from method_checkout import surroundings, sweep_command
from optuna.trial import TrialState
from slurm_cluster import ROOT, TESTS, wait_for

from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import load
from launch.worker.job_spec import JobSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(two_nodes.missing() is not None, reason=str(two_nodes.missing())),
]
METHOD = TESTS / "launch_stub.py"
DELAY_S = 2.0


@pytest.fixture
def nodes(tmp_path):
    with two_nodes.two_nodes(tmp_path, DELAY_S) as nodes:
        yield nodes


class Shared:
    """The study smoke in the shared folder, with workers of both nodes."""

    def __init__(self, nodes, trials):
        self.nodes = nodes
        self.data = nodes.server / "data"
        self.data.mkdir()
        self.folder = StudyFolder(nodes.shared / "runs" / "smoke")
        self.truth = StudyFolder(nodes.server / "runs" / "smoke")
        self.truth.folder.mkdir(parents=True)
        base = load("smoke").base("synthetic", nodes.shared / "data", iterations=12, seed=None)
        definition = {"study": "smoke", "id": "01234567", "metric": "val/seg_miou", "base": base.to_json()}
        self.truth.study_file.write_text(json.dumps(definition | {"space": {}, "target": trials}))
        optuna.create_study(study_name="smoke", storage=open_storage(self.truth.folder), direction="maximize")
        Target(trials, trials).write(self.truth)
        JobSpec(kind="study", folder=str(self.folder.folder), config=base.to_json()).write(
            self.truth.folder / "workers" / "spec.json"
        )
        self.spec = self.folder.folder / "workers" / "spec.json"

    def worker(self, node):
        command = [*self.nodes.on(node), sys.executable, "-u", "-m", "launch.worker.main", self.spec]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **surroundings(METHOD))

    def status(self, node):
        """What status says on a node."""
        command = [*self.nodes.on(node), sys.executable, ROOT / "launch" / "status.py", "--json", "--study", "smoke"]
        answer = subprocess.run([*command, "--runs", self.folder.folder.parent], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        assert not answer.stderr
        return json.loads(answer.stdout)["trials"]

    def trials(self):
        return optuna.load_study(study_name="smoke", storage=open_storage(self.truth.folder)).trials

    def attempts(self, number):
        return (self.truth.run(number).folder / "attempts").read_text().split()

    def started(self):
        return sum(len(file.read_text().split()) for file in self.truth.folder.glob("trial_*/attempts"))


@pytest.fixture
def workers():
    """Processes that are killed at the end, whatever comes."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def finish(workers, seconds=200):
    for worker in workers:
        _, errors = worker.communicate(timeout=seconds)
        assert worker.returncode == 0, errors
        assert "Traceback" not in errors


def test_workers_of_both_nodes_train_each_trial_once(nodes, workers):
    shared = Shared(nodes, 24)
    (shared.data / "step_s").write_text("0.01")
    workers += [shared.worker(node) for node in "abab"]
    finish(workers)
    trials = shared.trials()
    assert [trial.number for trial in trials] == list(range(24))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(shared.attempts(number) == ["0"] for number in range(24))
    told = [shared.truth.attempt_log(number).attempts() for number in range(24)]
    assert [len(attempts) for attempts in told] == [1] * 24
    assert {attempts[0].node for attempts in told} == {"node-a", "node-b"}


def test_workers_killed_on_either_node_lose_nothing(nodes, workers):
    """Each trial goes on from its newest checkpoint, wherever it was saved, and its log has every attempt."""
    shared, rng = Shared(nodes, 10), random.Random(0)
    (shared.data / "step_s").write_text("0.05")
    for _ in range(5):
        before = shared.started()
        killed = [shared.worker(node) for node in "abb"]
        workers += killed
        wait_for(lambda before=before: shared.started() > before, 60)
        for worker in killed:
            time.sleep(rng.uniform(0, 0.4))
            worker.kill()
            worker.communicate()
    last = [shared.worker(node) for node in "ab"]
    workers += last
    finish(last)
    trials = shared.trials()
    assert [trial.number for trial in trials] == list(range(10))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    nodes_of_trials = []
    for number in range(10):
        attempts, steps = shared.truth.attempt_log(number).attempts(), list(map(int, shared.attempts(number)))
        assert steps == sorted(steps)
        assert len(steps) <= len(attempts)
        assert attempts[-1].cause in ("finished", "pruned")
        assert all(attempt.cause for attempt in attempts)
        nodes_of_trials.append({attempt.node for attempt in attempts})
    assert {"node-a", "node-b"} in nodes_of_trials


def test_status_on_one_node_shows_what_the_other_has_told_and_stop_files_reach_it(nodes, workers):
    shared = Shared(nodes, 400)
    (shared.data / "step_s").write_text("0.02")
    assert shared.status("b") == []
    workers += [shared.worker("a"), shared.worker("a")]
    finished, until = 0, time.monotonic() + 20
    while time.monotonic() < until:
        told = {trial.number for trial in shared.trials() if trial.state.is_finished()}
        shown = {trial["number"] for trial in shared.status("b") if trial["state"] in ("complete", "pruned")}
        assert told <= shown  # the journal is opened anew, so that nothing told is old
        finished = max(finished, len(told))
    assert finished > 3
    asked = time.monotonic()
    subprocess.run([*nodes.on("b"), "touch", shared.folder.stop_file], check=True)
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    assert time.monotonic() - asked < DELAY_S + 4


def test_a_local_sweep_beside_a_worker_of_another_node(nodes, workers, tmp_path):
    """The sweep's own workers and one of the other node share the trials; each sees what the other told."""
    (nodes.server / "data").mkdir()
    (nodes.server / "data" / "step_s").write_text("0.05")
    command = [*nodes.on("a"), *sweep_command(METHOD), "--study", "smoke", "--data_folder", nodes.shared / "data"]
    command += ["--runs", nodes.shared / "runs", "--iterations", "20", "--cluster", "local", "--trials", "12"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    sweep = subprocess.Popen(command, **pipes, **surroundings(METHOD))
    workers.append(sweep)
    truth, folder = (StudyFolder(place / "runs" / "smoke") for place in (nodes.server, nodes.shared))
    wait_for(lambda: (truth.folder / "trial_0000" / "attempts.json").exists(), 60)
    (spec,) = (truth.folder / "local").glob("submission_*.json")
    read = JobSpec.read(spec)
    replace(read, sweep_pid=None, code=None).write(truth.folder / "other.json")
    command = [*nodes.on("b"), sys.executable, "-u", "-m", "launch.worker.main", folder.folder / "other.json"]
    workers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **surroundings(METHOD)))
    output, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, output
    assert "Traceback" not in output
    finish(workers[1:])
    trials = optuna.load_study(study_name="smoke", storage=open_storage(truth.folder)).trials
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    used = {attempt.node for number in range(12) for attempt in truth.attempt_log(number).attempts()}
    assert used == {"node-a", "node-b"}
