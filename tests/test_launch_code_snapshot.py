"""Code versions: snapshots that are known by their content, verified by every worker, and renewed only on request."""

import os
import shutil
import subprocess
import sys

import pytest

from fsr.errors import UserError
from launch.state import code_snapshot
from launch.state.code_snapshot import CodeFolder, manifest_of, version_of


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of our own, which may be changed."""
    root = tmp_path / "checkout"
    for package in code_snapshot.PACKAGES:
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(code_snapshot.ROOT / package, root / package, ignore=hidden)
    monkeypatch.setattr(code_snapshot, "ROOT", root)
    return root


@pytest.fixture
def code(tmp_path):
    return CodeFolder(tmp_path / "study" / "code")


def import_from(snapshot, *modules):
    script = f"import {', '.join(modules)}; print({', '.join(f'{module}.__file__' for module in modules)})"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=snapshot, capture_output=True, text=True, env={"PYTHONPATH": str(snapshot)}
    )


def test_a_worker_can_import_all_of_it_from_the_snapshot_alone(code):
    snapshot = code.snapshot(code.take())
    modules = ("launch.worker.main", "launch.worker.after_crash", "fsr.train", "fsr.infer", "fsr.ops", "sweeps.joint")
    answer = import_from(snapshot, *modules)
    assert answer.returncode == 0, answer.stderr
    assert all(str(snapshot) in file for file in answer.stdout.split())


def test_it_holds_every_room_and_the_native_op_and_no_bytecode(code):
    version = code.take()
    assert manifest_of(code.snapshot(version)) == manifest_of(code_snapshot.ROOT)
    assert not list(code.folder.rglob("*.pyc"))
    names = set(manifest_of(code_snapshot.ROOT))
    assert {"launch/worker/main.py", "fsr/inference/report.html", "sweeps/joint.py"} <= names
    assert any(name.startswith("fsr/_C") for name in names)


def test_it_is_taken_once_and_the_checkout_may_change(code, checkout):
    version = code.take()
    assert code.differences() == []
    (checkout / "fsr" / "train.py").write_text("changed = True")
    (checkout / "sweeps" / "mine.py").write_text("new = True")
    (checkout / "fsr" / "cam.py").unlink()
    assert code.take() == version
    assert code.versions() == [version]
    assert code.differences() == ["fsr/cam.py", "fsr/train.py", "sweeps/mine.py"]


def test_the_checkouts_code_is_a_new_version_on_request(code, checkout):
    first = code.take()
    (checkout / "fsr" / "train.py").write_text("changed = True")
    second = code.take(renew=True)
    assert second != first
    assert code.versions() == [first, second]
    assert code.differences() == []
    assert (code.snapshot(second) / "fsr" / "train.py").read_text() == "changed = True"
    assert (code.snapshot(first) / "fsr" / "train.py").read_text() != "changed = True"
    assert code.take(renew=True) == second
    assert code.versions() == [first, second]


def test_going_back_is_a_version_too(code, checkout):
    before = (checkout / "fsr" / "train.py").read_text()
    first = code.take()
    (checkout / "fsr" / "train.py").write_text("changed = True")
    second = code.take(renew=True)
    (checkout / "fsr" / "train.py").write_text(before)
    assert code.take(renew=True) == first
    assert code.versions() == [first, second, first]


def verify(code, version, monkeypatch):
    """As a worker that runs this snapshot."""
    monkeypatch.setattr(code_snapshot, "ROOT", code.snapshot(version).resolve())
    code.verify(version)


def test_a_whole_snapshot_is_verified(code, monkeypatch):
    verify(code, code.take(), monkeypatch)


@pytest.mark.parametrize(
    "harm, named",
    [
        (lambda snapshot: (snapshot / "fsr" / "cam.py").write_text("x = 1"), "fsr/cam.py"),
        (lambda snapshot: (snapshot / "launch" / "plan.py").unlink(), "launch/plan.py"),
        (lambda snapshot: (snapshot / "sweeps" / "evil.py").touch(), "sweeps/evil.py"),
        (lambda snapshot: shutil.rmtree(snapshot / "fsr" / "losses"), "fsr/losses/"),
    ],
)
def test_a_snapshot_that_was_changed_is_refused_by_the_files_name(code, monkeypatch, harm, named):
    version = code.take()
    harm(code.snapshot(version))
    with pytest.raises(UserError, match=f"was changed after it was taken: {named}"):
        verify(code, version, monkeypatch)


def test_a_list_of_files_that_was_changed_with_the_files_is_refused(code, monkeypatch):
    version = code.take()
    snapshot = code.snapshot(version)
    (snapshot / "fsr" / "cam.py").write_text("x = 1")
    code_snapshot.write_json(code.folder / f"{version}.json", manifest_of(snapshot))
    with pytest.raises(UserError, match="was changed after it was taken: the list of its files"):
        verify(code, version, monkeypatch)


def test_a_worker_that_runs_other_code_than_the_snapshot_is_refused(code):
    with pytest.raises(UserError, match="this worker runs the code of"):
        code.verify(code.take())


def test_what_no_worker_imports_does_no_harm(code, checkout, tmp_path):
    version = version_of(manifest_of(checkout))
    data = tmp_path / "data"
    data.mkdir()
    (data / "large.bin").write_bytes(bytes(1000))
    (checkout / "fsr" / "data" / "voc2012").symlink_to(data)  # a link to a data folder
    (checkout / "fsr" / "gone.py").symlink_to(tmp_path / "nowhere.py")  # a dangling link
    (checkout / "sweeps" / "loop").symlink_to(checkout / "sweeps")  # a link back to where it lies
    (checkout / "fsr" / ".git").write_text("gitdir: ../.git/modules/fsr")  # a submodule
    (checkout / "launch" / "__pycache__").mkdir()
    (checkout / "launch" / "__pycache__" / "sweep.cpython-311.pyc").write_bytes(b"old")
    assert version_of(manifest_of(checkout)) == version
    assert code.take() == version


def test_a_linked_package_and_a_linked_file_are_taken_along(code, checkout, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "__init__.py").touch()
    (mine / "model.py").write_text("here = True")
    (checkout / "fsr" / "mine").symlink_to(mine)
    (checkout / "sweeps" / "linked.py").symlink_to(mine / "model.py")
    snapshot = code.snapshot(code.take())
    assert (snapshot / "fsr" / "mine" / "model.py").read_text() == "here = True"
    assert (snapshot / "sweeps" / "linked.py").read_text() == "here = True"
    assert not (snapshot / "sweeps" / "linked.py").is_symlink()


def test_one_that_was_interrupted_is_not_taken_for_whole(code, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", fail)
        with pytest.raises(KeyboardInterrupt):
            code.take()
    assert code.versions() == []
    version = code.take()
    assert (code.snapshot(version) / "fsr" / "train.py").exists()


def test_a_snapshot_says_what_it_was_taken_from_wherever_it_lies(code):
    snapshot = code.snapshot(code.take())
    script = "from fsr.run import git_state; import json; print(json.dumps(git_state()))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=snapshot,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(snapshot), "PATH": os.environ["PATH"]},
    )
    assert snapshot.name in answer.stdout
    assert "git_commit" in answer.stdout
