"""What a real Slurm says of jobs that do not work, and what is said where it says nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import MISSING, ROOT, Cluster, alive, available, wait_for

pytestmark = [pytest.mark.skipif(not available(), reason=MISSING), pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm_queue"))
    yield started
    started.down()


LATER = ("--sbatch", "begin=now+1hour")


def watching(sweep, *options, **numbers):
    """A sweep that stays; it has submitted, as its first lines say, which come with it, and the array's id."""
    command = sweep.command(*options, **numbers)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **sweep.surroundings
    )
    head = ""
    while "submitted array" not in head:
        line = process.stdout.readline()
        assert line, head
        head += line
    return process, head.split("submitted array ")[1].split(":")[0]


def shown_status(sweep):
    """What `launch/status.py` draws."""
    command = [sys.executable, ROOT / "launch" / "status.py", "--study", sweep.name, "--runs", sweep.runs]
    environment = sweep.cluster.environment | {"COLUMNS": "300"}
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout


def test_a_held_job_is_named_with_its_remedy_and_another_works_in_its_place(sweep):
    array = sweep.submit(*LATER, trials=2).split("submitted array ")[1].split(":")[0]
    sweep.cluster.ask("scontrol", "uhold", f"{array}_0")
    wait_for(lambda: "JobHeldUser" in sweep.cluster.ask("squeue", "--noheader", "--array", "--format=%r"))
    wait_for(lambda: "BeginTime" in sweep.cluster.ask("squeue", "--noheader", "--array", "--format=%r"))
    remedy = (
        f"job {array}_0 cannot work by itself, pending (JobHeldUser): scontrol release {array}_0, or scancel {array}_0"
    )
    shown = shown_status(sweep)
    assert "Slurm's queue: 1 pending (BeginTime), 1 pending (JobHeldUser)" in shown
    assert remedy in shown
    assert "logs of the workers: " in shown
    output = sweep.submit(trials=2)
    assert f"note: {remedy}" in output
    assert re.search(r"submitted array \d+: 1 workers; 1 were there already", output)
    wait_for(lambda: [sweep.causes(number) for number in (0, 1)] == [["finished"]] * 2, 90)
    sweep.cluster.ask("scontrol", "release", f"{array}_0")  # comes too late, and finds nothing to do
    sweep.finish(2)


def test_a_sweep_ends_when_all_its_jobs_are_held(sweep):
    process, array = watching(sweep, *LATER, trials=2)
    sweep.cluster.ask("scontrol", "uhold", array)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    assert "Slurm's queue: 2 pending (JobHeldUser)" in output
    assert output.count(f"scontrol release {array}_0,{array}_1, or scancel {array}_0 {array}_1") == 2  # and at the end
    assert "no worker is left, and work is missing" in output
    assert "0 of 2 trials done" in output


def test_a_sweep_ends_when_its_jobs_depend_on_one_that_failed(sweep):
    failing = sweep.cluster.ask("sbatch", "--parsable", "--output=/dev/null", "--begin=now+5", "--wrap=exit 3").strip()
    process, array = watching(sweep, "--sbatch", f"dependency=afterok:{failing}", trials=2, parallel=1)
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 1, output
    assert "Slurm's queue: 1 pending (Dependency)" in output
    assert f"job {array}_0 cannot work by itself, pending (DependencyNeverSatisfied): scancel {array}_0" in output


def controller_leaves(cluster):
    pid = cluster.daemon("slurmctld")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alive(pid), 30)


def test_a_minute_without_a_controller_submits_nothing_loses_nothing_and_is_said(sweep):
    sweep.set("step_s", 2)
    process, _ = watching(sweep, trials=2)
    for number in (0, 1):
        sweep.wait_for_step(number, 2, 60)
    controller_leaves(sweep.cluster)
    try:
        left = time.monotonic()
        again = sweep.run(sweep.command("--detach", trials=4))
        assert (again.returncode, again.stderr.count("\n")) == (2, 1), again.stdout + again.stderr
        assert "Slurm does not answer: `scontrol ping` says" in again.stderr
        assert "is DOWN" in again.stderr
        shown = shown_status(sweep)
        assert "Slurm's queue: unknown, Slurm does not answer: `squeue` says" in shown
        assert sweep.status()["queue"] is None
        assert {trial["state"] for trial in sweep.status()["trials"]} <= {"running", "complete"}
        wait_for(lambda: time.monotonic() - left > 90, 100)
        assert process.poll() is None
    finally:
        sweep.cluster.ask("slurmctld")
        wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"), 120)  # Slurm ends jobs slowly after it
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert output.count("Slurm has not answered: `squeue` says") == 1
    assert output.count("Slurm answers again since") == 1
    sweep.finish(2)
    assert len(list(sweep.study.glob("slurm/submission_*.sh"))) == 1


def test_a_python_that_does_not_start_is_told_with_the_end_of_its_log(sweep):
    python = sweep.folder / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libpython3.so: cannot open shared object file' >&2\nexit 127\n")
    python.chmod(0o755)
    code = f"import sys; from launch.sweep import main; sys.executable = {str(python)!r}; main(sys.argv[1:])"
    answer = sweep.run([sys.executable, "-c", code, *sweep.command(trials=2)[2:]])
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert f"cannot run the study's code with {python}" in answer.stderr
    assert "ImportError: libpython3.so: cannot open shared object file" in answer.stderr
    shown = shown_status(sweep)
    assert "left without any work to show" in shown and "ImportError: libpython3.so" in shown
    assert any("ImportError" in line for line in sweep.status()["problem"])


@pytest.fixture
def failing_prolog(cluster, tmp_path):
    """Slurm's prolog fails on node n1."""
    conf = cluster.folder / "slurm.conf"
    before = conf.read_text()
    prolog = tmp_path / "prolog"
    prolog.write_text('#!/bin/sh\n[ "$SLURMD_NODENAME" != n1 ]\n')
    prolog.chmod(0o755)
    conf.write_text(f"{before}Prolog={prolog}\n")
    cluster.ask("scontrol", "reconfigure")
    yield
    conf.write_text(before)
    cluster.ask("scontrol", "reconfigure")


@pytest.mark.slow
def test_a_job_held_by_a_failed_prolog_is_named_and_replaced(sweep, failing_prolog):
    sweep.submit(trials=2, parallel=2)
    held = "--states=PENDING", "--format=%r"
    wait_for(lambda: "held" in sweep.cluster.ask("squeue", "--noheader", "--array", *held).lower(), 60)
    told = sweep.submit(trials=2, parallel=2)
    print(told)
    assert "launch failed requeued held" in told.replace("_", " ").lower()
    assert "scontrol release" in told
    wait_for(lambda: [sweep.causes(number)[-1:] for number in (0, 1)] == [["finished"]] * 2, 90)
    sweep.cluster.ask("scancel", "--me")
    sweep.finish(2)
