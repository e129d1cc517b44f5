"""A command given again while its work is under way says who does it, and disturbs nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import MISSING, Cluster, Sweep, available, wait_for
from tiny import flags, tiny_config

from fsr.run import Run
from launch import train as launch_train
from launch.slurm import commands
from launch.slurm.answers import QueuedJob
from launch.state.attempts import AttemptLog
from launch.state.paths import RunFolder

ROOT = Path(__file__).parent.parent


def started(*command):
    """A command of this project that works in the background."""
    words = [sys.executable, *map(str, command)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(*command):
    """What a command says that ends with exit code 2 and one sentence."""
    process = started(*command)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_local_run_given_again_names_the_process_and_trains_on(synthetic_folder, tmp_path):
    config, run = tiny_config(synthetic_folder, iterations=4000, eval_every=4000), Run(tmp_path / "run")
    command = ["launch/train.py", *flags(config), "--run_folder", run.folder, "--cluster", "local"]
    first = started(*command)
    wait_for(lambda: run.metrics_file.exists() and run.metrics(), 120)
    said = refused(*command)
    assert f"process {first.pid} is training {run.folder} already, on " in said
    assert first.poll() is None
    step = run.metrics()[-1]["step"]
    wait_for(lambda: run.metrics()[-1]["step"] > step, 60)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert [attempt.cause for attempt in AttemptLog(run).attempts()] == ["cancelled"]


def test_a_run_that_slurm_trains_is_not_trained_here_too(synthetic_folder, tmp_path, monkeypatch, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.identify()
    AttemptLog(folder.run).begin("7", 0, "n3", 1)
    there = {"7": QueuedJob("RUNNING"), "8": QueuedJob("PENDING", "Priority")}
    monkeypatch.setattr(commands, "queued_jobs", lambda identity: there if identity == folder.identity else {})
    words = [*flags(tiny_config(synthetic_folder)), "--run_folder", str(folder.folder), "--cluster", "local"]
    with pytest.raises(SystemExit) as end:
        launch_train.main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "is trained by Slurm: job 7 is RUNNING on n3, job 8 is PENDING; wait for it, or end it with scancel" in said
    assert not folder.run.config_file.exists()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not available():
        pytest.skip(MISSING)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.down()


@pytest.mark.slow
def test_a_run_of_slurm_given_again_names_job_and_node_and_trains_on(cluster, tmp_path):
    sweep, folder = Sweep(cluster, tmp_path), RunFolder(tmp_path / "one")
    places = ["--data_folder", sweep.data, "--run_folder", folder.folder, "--sbatch", "mem=300M", "--partition", "low"]
    steps = ["--iterations", "200", "--eval_every", "100"]
    command = [sys.executable, sweep.checkout / "launch" / "train.py", "synthetic", *places, *steps]

    def given(cluster):
        return sweep.run([*map(str, command), "--cluster", cluster])

    first = given("slurm")
    (job,) = [word.rstrip(";") for word in first.stdout.split("submitted job ")[1].split()[:1]]
    wait_for(lambda: folder.run.metrics_file.exists() and folder.run.metrics(), 60)
    node = AttemptLog(folder.run).attempts()[0].node
    (job,) = {attempt.job for attempt in AttemptLog(folder.run).attempts()}
    again = given("slurm")
    assert again.returncode == 0
    assert f"it is in the queue or running already: job {job} is RUNNING on {node}" in again.stdout
    here = given("local")
    assert here.returncode == 2
    assert f"is trained by Slurm: job {job} is RUNNING on {node}; wait for it" in here.stderr
    sweep.wait_for_no_jobs()
    assert [attempt.cause for attempt in AttemptLog(folder.run).attempts()] == ["finished"]
    assert json.loads(folder.run.result_file.read_text())
    assert os.listdir(folder.mistakes_folder) == []
