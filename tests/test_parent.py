"""A process that ends with its parent, however that ends."""

import subprocess
import sys

from slurm_cluster import alive, kill, wait_for

CHILD = (
    "import os, time; from fsr.parent import end_with; end_with(os.getppid()); "
    "print(os.getpid(), flush=True); time.sleep(60)"
)


def test_who_ends_with_a_parent_that_is_killed_is_killed(tmp_path):
    script = f'"{sys.executable}" -c "{CHILD}" & wait'
    parent = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert alive(child)
    kill(parent.pid)
    parent.wait()
    wait_for(lambda: not alive(child), 10)


def test_who_finds_its_parent_gone_ends_at_once():
    code = "from fsr.parent import end_with; end_with(1 << 22); print('goes on')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (1, "")
