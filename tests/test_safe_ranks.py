"""What ranks tell each other before they train: no other user of the machine can read it, join, or be rank 0."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from slurm_cluster import ROOT, wait_for

from fsr.config import synthetic
from fsr.errors import UserError
from fsr.run import Run
from launch.worker.rendezvous import Rendezvous

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
RANK = """
import sys
from pathlib import Path
import torch
from fsr import distributed
from fsr.config import synthetic
from fsr.run import Run
from launch.worker.rendezvous import Rendezvous
rendezvous = Rendezvous(Path(sys.argv[1]) / "locks")
if rendezvous.rank == 0:
    rendezvous.announce(synthetic(), Run(Path(sys.argv[1]) / "trial_0000"))
else:
    config, _ = next(rendezvous.announced())
    assert config == synthetic()
distributed.join()
value = {"path": "ä\\udcff", "numbers": [0.1, None, True]}
assert distributed.from_first(value if distributed.rank() == 0 else None) == value
assert distributed.any_rank(distributed.rank() == 1)
try:
    with distributed.shared_errors():
        if distributed.rank() == 1:
            raise distributed.UserError("mine")
except distributed.UserError as error:
    assert str(error) == "mine"
else:
    raise AssertionError
distributed.stop()
print("trained")
"""
INTRUDER = """
import json, os, signal, socket, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
study = Path(sys.argv[1])
for folder, _, names in os.walk(study):
    for name in names:
        try:
            told = json.loads((Path(folder) / name).read_text())
        except (OSError, ValueError):
            continue
        if "port" in told:
            address = f"tcp://{told['host']}:{told['port']}"
            dist.init_process_group("gloo", init_method=address, rank=1, world_size=2, timeout=timedelta(seconds=20))
            sys.exit("joined by the address in " + name)
        if "store" in told:
            sys.exit("read the name of the store in " + name)
for name in ("tcp", "tcp6"):
    for line in Path("/proc/net", name).read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in sys.argv[2:]:
            port, child = int(words[1].rpartition(":")[2], 16), os.fork()
            if child == 0:
                signal.alarm(5)  # what is no store answers nothing, and the client waits for ever
                dist.TCPStore(socket.gethostname(), port, is_master=False, timeout=timedelta(seconds=2))
                os._exit(7)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7:
                sys.exit(f"reached a store at port {port}")
print("kept out")
"""


@pytest.fixture
def study():
    """A folder that everybody may read, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="fsr_ranks_"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_rank(monkeypatch):
    """Make this process a rank of two."""

    def become(number):
        monkeypatch.setenv("SLURM_PROCID", str(number))
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "FSR_STORE_FILE"):
            monkeypatch.setenv(name, "")  # which the rendezvous sets

    return become


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_nobody_else_can_read_what_ranks_are_told(tmp_path, as_rank):
    as_rank(0)
    (tmp_path / "locks").mkdir()
    leader = Rendezvous(tmp_path / "locks")
    leader.announce(synthetic(), Run(tmp_path / "trial_0000"))
    (private,) = (tmp_path / "locks").iterdir()
    assert mode(private) == 0o700
    (store,) = private.glob("*.store")
    assert (mode(store), str(store)) == (0o600, os.environ["FSR_STORE_FILE"])
    assert not {"host", "port", "MASTER_ADDR"} & {*json.loads(next(private.glob("*.json")).read_text()), *os.environ}
    leader.announce(synthetic(), Run(tmp_path / "trial_0001"))
    (other,) = private.glob("*.store")  # a name of its own for each process group
    assert other != store


@pytest.mark.parametrize("kind", ["link", "another user's"])
def test_a_folder_that_is_not_ones_own_is_refused(tmp_path, as_rank, kind, monkeypatch):
    as_rank(1)
    place = tmp_path / f"ranks_{os.geteuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to("elsewhere")
    else:
        place.mkdir()

        def refuse(*_):  # what the kernel says to all but the owner and root
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(UserError, match="must be a folder of your own"):
        next(Rendezvous(tmp_path).announced())
    as_rank(0)
    with pytest.raises(UserError, match="must be a folder of your own"):
        Rendezvous(tmp_path).announce(synthetic(), Run(tmp_path / "trial_0000"))


def rank(number, study):
    variables = {"SLURM_PROCID": str(number), "SLURM_STEP_NUM_TASKS": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RANK, study]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | variables, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def sockets_of(process):
    """Inodes of the sockets that a process has open."""
    links = [os.readlink(file) for file in Path(f"/proc/{process.pid}/fd").iterdir() if file.is_symlink()]
    return [link[8:-1] for link in links if link.startswith("socket:[")]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can be another user")
def test_another_user_can_neither_join_nor_be_rank_0(study):
    (study / "locks").mkdir()
    leader = rank(0, study)
    try:
        wait_for(lambda: sockets_of(leader), 60)  # it waits for the other rank
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*AS_NOBODY, sys.executable, "-c", INTRUDER, study, *sockets_of(leader)]
        said = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=120)
        assert (said.returncode, said.stdout) == (0, "kept out\n"), said.stdout + said.stderr
        follower = rank(1, study)
        assert "trained" in follower.communicate(timeout=60)[0]
        assert "trained" in leader.communicate(timeout=60)[0]
        assert not list(study.rglob("*.store"))  # the last rank removes it
    finally:
        leader.kill()
