"""Workers on two nodes whose caches of the shared folder are old: nothing is lost, doubled or shown for long."""

import json
import subprocess
import sys

import optuna
import pytest
import two_nodes
from method_checkout import surroundings
from optuna.trial import TrialState
from slurm_cluster import ROOT, TESTS

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


def test_workers_of_both_nodes_train_each_trial_once(nodes):
    shared = Shared(nodes, 24)
    workers = [shared.worker(node) for node in "abab"]
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors
    trials = shared.trials()
    assert [trial.number for trial in trials] == list(range(24))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(shared.attempts(number) == ["0"] for number in range(24))
