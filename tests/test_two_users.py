"""Two people on one study: it works, or one sentence says at the start whose folder it is and what helps."""

import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from method_checkout import overlaid, private_checkout

from fsr.errors import UserError
from launch.state import rights
from launch.state.paths import StudyFolder

METHOD = Path(__file__).parent / "launch_stub.py"
ANNA, BERT, CARLA = 4001, 4002, 4003
GROUP = 4242  # of Anna and Bert
AS_ROOT = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can be several users (with setpriv)"
)
ALL = 2**32 - 1


# Where Python itself lies in a folder that only root may enter, a user's processes get another view of that folder.
OPENED = """set -e
umask=$(umask); umask 022
mount --bind "$1" "$3"; mount -t tmpfs -o mode=755 none "$2"; mkdir -p "$1"; mount --move "$3" "$1"
shift 3; umask "$umask"; exec "$@"
"""


def visible_to_all(aside):
    """The beginning of a command whose processes, of whatever user, can start this Python."""
    base = Path(sys.base_prefix).resolve()
    closed = [folder for folder in (*base.parents, base) if not folder.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return []
    aside.mkdir(exist_ok=True)
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        OPENED,
        "sh",
        base,
        min(closed, key=lambda path: len(path.parts)),
        aside,
    ]
    if subprocess.run([*command, "true"]).returncode:
        pytest.skip(f"other users cannot start Python, which lies in {closed[0]}")
    return command


class Place:
    """A runs folder, data, and a checkout that all users may read."""

    def __init__(self, folder):
        self.folder = folder
        folder.chmod(0o755)
        self.checkout = private_checkout(folder / "checkout", METHOD)
        shutil.copytree(METHOD.parent.parent / "analysis", self.checkout / "analysis")
        self.data, self.runs = folder / "data", folder / "runs"
        self.data.mkdir()
        (self.data / "step_s").write_text("0.02")
        self.runs.mkdir()
        self.study = self.runs / "smoke"
        self.visible = visible_to_all(folder / "python")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)

    def share(self, mode, owner=ANNA, group=GROUP):
        os.chown(self.runs, owner, group)
        self.runs.chmod(mode)

    def start(self, user, umask, program, *options):
        groups = f"--groups={GROUP}" if user != CARLA else "--clear-groups"
        alone = ["setpriv", f"--reuid={user}", f"--regid={user}", groups]
        home = self.folder / f"home_{user}"
        home.mkdir(exist_ok=True)
        os.chown(home, user, user)
        return subprocess.Popen(
            [*self.visible, *alone, sys.executable, self.checkout / program, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=umask,
            cwd="/",
            env=os.environ
            | {
                "PYTHONPATH": str(self.checkout),
                "HOME": str(home),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def run(self, user, umask, program, *options):
        process = self.start(user, umask, program, *options)
        output, _ = process.communicate(timeout=120)
        assert "Traceback" not in output, output
        return process.returncode, output

    def sweep_options(self, *options):
        places = ["--data_folder", self.data, "--runs", self.runs, "--cluster", "local"]
        return overlaid(["--study", "smoke", "--iterations", "30", *places], options)

    def sweep(self, user, umask, *options):
        return self.run(user, umask, "launch/sweep.py", *self.sweep_options(*options))

    def status(self, user, umask=0o022):
        code, output = self.run(user, umask, "launch/status.py", "--study", "smoke", "--runs", self.runs, "--json")
        assert code == 0, output
        return json.loads(output)

    def step(self, number):
        file = self.study / f"trial_{number:04d}" / "checkpoint.pt"
        return int(file.read_text()) if file.exists() else 0


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="fsr_two_users_") as folder:
        yield Place(Path(folder))


def interrupted_and_resumed(place, umask):
    """Anna's sweep is stopped in mid-trial, and Bert's resumes it, and trains more; then Anna trains more again."""
    (place.data / "step_s").write_text("0.1")
    first = place.start(ANNA, umask, "launch/sweep.py", *place.sweep_options("--trials", "2", "--parallel", "2"))
    deadline = time.monotonic() + 60
    while place.step(0) < 5:
        assert first.poll() is None, first.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    (place.data / "step_s").write_text("0.01")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 130, output
    for user, trials in ((BERT, 3), (ANNA, 4)):
        code, output = place.sweep(user, umask, "--trials", str(trials), "--parallel", "2")
        assert code == 0, output
    for user in (ANNA, BERT):
        found = place.status(user)
        assert [trial["state"] for trial in found["trials"]] == ["complete"] * 4
        assert found["trials"][0]["causes"] == ["cancelled", "finished"]


@AS_ROOT
@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("mode", [0o2770, 0o770, 0o2775])
def test_two_users_sweep_one_study_in_a_folder_of_their_group(place, umask, mode):
    place.share(mode)
    interrupted_and_resumed(place, umask)
    for path in place.study.rglob("*"):
        found = path.stat()
        assert found.st_gid == GROUP, path
        assert found.st_mode & 0o060 == 0o060, (path, oct(found.st_mode))


@AS_ROOT
@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_sweep_one_study_in_a_folder_with_an_acl(place, umask):
    place.share(0o700, ANNA, ANNA)
    entries = [(1, 7, ALL), (2, 7, ANNA), (2, 7, BERT), (4, 0, ALL), (0x10, 7, ALL), (0x20, 0, ALL)]
    content = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        for kind in ("access", "default"):
            os.setxattr(place.runs, f"system.posix_acl_{kind}", content)
    except OSError:
        pytest.skip("this file system has no ACLs")
    interrupted_and_resumed(place, umask)


@AS_ROOT
@pytest.mark.slow
def test_who_may_only_read_a_study_reads_it_and_changes_nothing(place):
    place.share(0o755)
    assert place.sweep(ANNA, 0o022, "--trials", "2")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in place.runs.rglob("*")}
    assert [trial["state"] for trial in place.status(BERT)["trials"]] == ["complete"] * 2
    code, output = place.run(BERT, 0o022, "launch/doctor.py", "--study", "smoke", "--runs", place.runs)
    assert code == 0 and "may only read" in output, output
    out = place.folder / f"home_{BERT}" / "tables"
    code, output = place.run(BERT, 0o022, "analysis/load.py", "--study", "smoke", "--runs", place.runs, "--out", out)
    assert code == 0 and "trials.csv (2 rows)" in output, output
    assert {path: path.stat().st_mtime_ns for path in place.runs.rglob("*")} == before

    started = time.monotonic()
    code, output = place.sweep(BERT, 0o022, "--trials", "3")
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith(
        f"error: {BERT} has no right to use {place.study}, which belongs to {ANNA}:{GROUP} with mode 0755"
    )
    assert "take another --runs folder" in line
    assert time.monotonic() - started < 30
    for lock in (place.study / "locks").iterdir():
        assert stat.S_IMODE(lock.stat().st_mode) in (0o600, 0o755), lock  # nobody who only reads can take a lock


@AS_ROOT
@pytest.mark.slow
def test_a_private_study_is_one_sentence_for_all_others(place):
    place.share(0o700)
    assert place.sweep(ANNA, 0o022, "--trials", "1")[0] == 0
    for program in ("launch/status.py", "launch/doctor.py"):
        code, output = place.run(CARLA, 0o022, program, "--study", "smoke", "--runs", place.runs)
        assert code == 2, output
        assert f"{CARLA} has no right to use" in output and f"belongs to {ANNA}:{GROUP} with mode 0700" in output
    code, output = place.sweep(CARLA, 0o022)
    assert code == 2 and "has no right to use" in output


@AS_ROOT
@pytest.mark.slow
def test_a_study_from_before_that_was_not_shared_is_one_sentence_with_the_remedy(place):
    place.share(0o2770)
    assert place.sweep(ANNA, 0o022, "--trials", "1")[0] == 0
    (place.study / "journal.log").chmod(0o640)
    code, output = place.sweep(BERT, 0o022, "--trials", "2")
    assert code == 2
    assert f"journal.log, which belongs to {ANNA}:{GROUP} with mode 0640" in output and "chmod -R g+rwX" in output


@AS_ROOT
def test_rights_are_asked_before_anything_is_touched(place):
    """In a process of its own, since a test run is root's."""
    script = (
        "import sys; from pathlib import Path; from launch.state.paths import StudyFolder\n"
        "from launch.state.rights import check_rights, check_rights_to_trials, may_write\n"
        "from fsr.errors import UserError\n"
        "folder = StudyFolder(Path(sys.argv[1]))\n"
        "try: check_rights(folder); check_rights_to_trials(folder, [3]); print('may', may_write(folder))\n"
        "except UserError as error: print(error)\n"
    )

    def asked(user):
        groups = f"--groups={GROUP}"
        alone = ["setpriv", f"--reuid={user}", f"--regid={user}", groups]
        environment = os.environ | {"PYTHONPATH": str(place.checkout), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*place.visible, *alone, sys.executable, "-c", script, place.study]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=True).stdout

    place.share(0o755)
    assert f"{BERT} has no right to use {place.runs}, which belongs to {ANNA}:{GROUP} with mode 0755" in asked(BERT)
    assert asked(ANNA) == "may True\n"
    place.share(0o2770)
    assert asked(BERT) == "may True\n"
    for path in (place.study, place.study / "locks", place.study / "trial_0003"):
        path.mkdir()
        os.chown(path, ANNA, GROUP)
        path.chmod(0o2770)
    assert asked(BERT) == "may True\n"
    (place.study / "trial_0003").chmod(0o2750)
    assert "trial_0003, which belongs to" in asked(BERT)
    (place.study / "trial_0003").chmod(0o3770)
    assert asked(BERT) == "may True\n"
    (place.study / "trial_0003" / "attempts.json").touch()
    os.chown(place.study / "trial_0003" / "attempts.json", ANNA, GROUP)
    assert "trial_0003, which belongs to" in asked(BERT)  # in a sticky folder, he could not replace it
    assert not list(place.study.glob("*.*"))


def test_a_folder_without_rights_names_the_flag_that_takes_another(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(UserError, match="take another --runs folder"):
        rights.check_rights(StudyFolder(tmp_path / "smoke"))
    assert not rights.may_write(StudyFolder(tmp_path / "smoke"))
