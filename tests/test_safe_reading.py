"""Reading a study never runs what stands in its folder, and what ranks tell each other is data."""

import ast
import hashlib
import pickle
from pathlib import Path

import pytest

import launch.doctor
import launch.status
from analysis.load import load
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.target import Target

ROOT = Path(__file__).parent.parent


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def doctor(runs):
    with pytest.raises(SystemExit):
        launch.doctor.main(["--study", "smoke", "--runs", str(runs)])


@pytest.mark.parametrize(
    "look",
    [
        lambda runs: open_storage(runs / "smoke"),
        lambda runs: load("smoke", runs=runs),
        lambda runs: launch.status.main(["--study", "smoke", "--runs", str(runs)]),
        doctor,
    ],
    ids=["open", "load", "status", "doctor"],
)
def test_a_pickle_beside_the_journal_is_not_run(all_states, look):
    ran, folder = all_states / "ran", all_states / "smoke"
    Target(7, 7).write(StudyFolder(folder))
    first = (folder / "journal.log").read_bytes().splitlines(keepends=True)[0]
    snapshot = pickle.dumps(Payload(ran))
    (folder / "journal.snapshot").write_bytes(hashlib.sha256(first + snapshot).digest() + snapshot)
    look(all_states)
    assert not ran.exists()
    pickle.loads(snapshot)
    assert ran.exists()  # otherwise nothing was tested


def calls(file):
    """Names of the functions that a file calls, with the keywords that it gives them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


RUNNING = (
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.loads", "marshal.loads", "shelve.open"),
    *("pd.read_pickle", "joblib.load", "yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system"),
    *("dist.broadcast_object_list", "dist.all_gather_object", "dist.gather_object", "dist.scatter_object_list"),
)


def test_nothing_in_the_project_loads_what_can_run():
    for package in ("fsr", "launch", "sweeps", "analysis", "benchmarks"):
        for file in (ROOT / package).rglob("*.py"):
            for name, keywords in calls(file):
                assert name not in RUNNING, f"{file}: {name}"
                if name == "torch.load":
                    assert keywords.get("weights_only") == "True", file
                assert keywords.get("allow_pickle", "False") == "False", file
                assert keywords.get("shell", "False") == "False", file
