"""The snapshot of the code: everything that a job imports, once, and nothing of what changes later."""

import subprocess
import sys

import pytest

from launch import code_snapshot


def test_a_job_can_import_all_of_it_from_the_snapshot_alone(tmp_path):
    code_snapshot.take(tmp_path / "code")
    names = "launch.worker.main, launch.worker.after_crash, fsr.train, fsr.infer, fsr.ops, sweeps.joint"
    script = f"import fsr, launch, {names}; print(fsr.__file__, launch.worker.main.__file__, sweeps.joint.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "code", capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert answer.returncode == 0, answer.stderr
    assert all(str(tmp_path / "code") in file for file in answer.stdout.split())


def test_it_holds_every_room_and_the_native_op_and_no_bytecode(tmp_path):
    code_snapshot.take(tmp_path / "code")
    for package in code_snapshot.PACKAGES:
        ours = {file.relative_to(code_snapshot.ROOT) for file in (code_snapshot.ROOT / package).rglob("*")}
        kept = {file.relative_to(tmp_path / "code") for file in (tmp_path / "code" / package).rglob("*")}
        assert kept == {file for file in ours if "__pycache__" not in file.parts}


def test_it_is_taken_once(tmp_path):
    code_snapshot.take(tmp_path / "code")
    (tmp_path / "code" / "launch" / "worker" / "method.py").write_text("changed = True")
    code_snapshot.take(tmp_path / "code")
    assert (tmp_path / "code" / "launch" / "worker" / "method.py").read_text() == "changed = True"
    assert [entry.name for entry in tmp_path.iterdir()] == ["code"]


def test_one_that_was_interrupted_is_not_taken_for_whole(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copytree", fail)
        with pytest.raises(KeyboardInterrupt):
            code_snapshot.take(tmp_path / "code")
    assert not (tmp_path / "code").exists()
    code_snapshot.take(tmp_path / "code")
    assert (tmp_path / "code" / "fsr" / "train.py").exists()
