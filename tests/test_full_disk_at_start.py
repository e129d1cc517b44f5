"""A disk that is full when a command starts is one sentence with exit code 2, and nothing half-made stays."""

import os
import shutil
import subprocess

import pytest
from method_checkout import overlaid

from fsr.exit_codes import ExitCode
from launch import sweep as sweep_module
from launch.sweep import main


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder]
        if os.getuid() != 0 or shutil.which("mount") is None or subprocess.run(command).returncode:
            pytest.skip("only root can mount a small disk")
        return folder

    yield mount
    subprocess.run(["umount", folder], check=False)


def sweep(tmp_path, runs, capsys, *more):
    """Exit code and standard error of a sweep."""
    (tmp_path / "data").mkdir(exist_ok=True)
    places = ["--data_folder", str(tmp_path / "data"), "--runs", str(runs), "--cluster", "debug"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(overlaid(["--study", "smoke", "--iterations", "12", "--trials", "1", *places], more))
    return end.value.code, capsys.readouterr().err


def content(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Full at once; in mid-snapshot; behind the snapshot, at what comes next.
@pytest.mark.parametrize("kilobytes", [4, 8, 64, 400, 800])
def test_a_sweep_on_a_full_disk_says_so_and_leaves_nothing(tmp_path, small_disk, capsys, monkeypatch, kilobytes):
    monkeypatch.setattr(sweep_module, "check_space_for", lambda planned: None)
    disk = small_disk(kilobytes)
    code, said = sweep(tmp_path, disk, capsys)
    assert code == ExitCode.MISTAKE, said
    (line,) = said.splitlines()
    assert "cannot be written: no space is left in" in line and "MB are free" in line
    assert content(disk) == []


def test_a_sweep_without_room_for_one_checkpoint_is_refused_with_numbers(tmp_path, small_disk, capsys):
    disk = small_disk(8000)
    code, said = sweep(tmp_path, disk, capsys)
    assert code == ExitCode.MISTAKE
    assert "a checkpoint of this study has" in said and f"no room for one in {disk}" in said
    assert content(disk) == []


def test_a_study_that_is_there_stays_as_it_was(tmp_path, small_disk, capsys, monkeypatch, stub_method):
    disk = small_disk(6000)
    monkeypatch.setattr(sweep_module, "check_space_for", lambda planned: None)
    assert sweep(tmp_path, disk, capsys)[0] == ExitCode.DONE
    before = content(disk)
    folder = disk / "smoke"
    target = (folder / "target.json").read_bytes()
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
    code, said = sweep(tmp_path, disk, capsys, "--trials", "3")
    assert code == ExitCode.MISTAKE and "no space is left in" in said
    (disk / "filler").unlink()
    assert content(disk) == before
    assert (folder / "target.json").read_bytes() == target
    assert sweep(tmp_path, disk, capsys, "--trials", "3")[0] == ExitCode.DONE
