"""A study is one study on a real Slurm: its jobs are known by its id, its code by its content, by whatever path."""

import json
import subprocess
import sys

import pytest
from slurm_cluster import MISSING, Cluster, Sweep, available, wait_for

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.down()


@pytest.fixture
def mine(cluster, tmp_path):
    """A study that is swept from a checkout which the test may change."""
    cluster.clear()
    yield Sweep(cluster, tmp_path, private=True)
    cluster.clear()


def refused(sweep, *options, **numbers):
    answer = sweep.run(sweep.command("--detach", *options, **numbers))
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_what_sbatch_refuses_leaves_no_definition_behind(mine):
    assert "sbatch refuses" in refused(mine, partition="nonsense")
    assert {file.parent.name for file in mine.study.rglob("*") if file.is_file()} <= {"locks"}
    assert "submitted array" in mine.submit(trials=1, iterations=10)  # other steps than in the refused call
    mine.wait_for_no_jobs()
    assert mine.causes(0) == ["finished"]


@pytest.mark.slow
def test_what_sbatch_refuses_of_a_study_that_runs_changes_nothing(mine):
    mine.submit(trials=2)
    before = (mine.study / "study.json").read_text()
    assert "sbatch refuses" in refused(mine, partition="nonsense", trials=4, parallel=4)
    assert (mine.study / "study.json").read_text() == before
    mine.finish(2)


@pytest.mark.slow
def test_workers_are_known_by_name_or_comment_through_any_path(mine):
    (mine.folder / "link").symlink_to(mine.runs)
    mine.set("step_s", 0.3)
    first, *_ = mine.submit(trials=3, parallel=2).split("submitted array ")[1].split(":")
    identity = json.loads((mine.study / "study.json").read_text())["id"]
    names = mine.cluster.ask("squeue", "--noheader", "--array", "--format=%j %k").splitlines()
    assert names == [f"fsr-smoke-{identity} fsr {identity}"] * 2
    mine.cluster.ask("scontrol", "update", f"jobid={first}_0", "comment=account=vision")  # a site that rewrites them
    mine.cluster.ask("scontrol", "update", f"jobid={first}_1", "name=job")
    mine.runs = mine.folder / "checkout" / ".." / "link"
    assert "0 workers in 0 sbatch calls; 2 were there already" in mine.submit(trials=3, parallel=2)
    mine.finish(3)


@pytest.mark.slow
def test_a_folder_with_spaces_quotes_and_dollars_keeps_its_logs(mine):
    mine.runs = mine.folder / "all of 'my' $runs & more"
    mine.submit(trials=1, parallel=1)
    mine.finish(1)
    logs = sorted(file.name for file in (mine.study / "slurm").glob("*_log.out"))
    assert logs and all(log.endswith("_0_0_log.out") for log in logs)


def test_a_newer_checkout_is_said_and_taken_on_request_while_jobs_keep_what_they_were_submitted_with(mine):
    mine.submit(trials=2, parallel=1)
    method = mine.checkout / "launch" / "worker" / "method.py"
    method.write_text(method.read_text().replace("import hashlib", "import hashlib  # edited"))
    config = mine.checkout / "fsr" / "config.py"
    config.write_text(
        config.read_text().replace("    data_folder: Path", "    colour: str = 'blue'\n    data_folder: Path", 1)
    )
    output = mine.submit(trials=4, parallel=2)
    assert "in fsr/config.py, launch/worker/method.py; workers run that version" in output
    wait_for(lambda: len(list(mine.study.glob("trial_*/config.json"))) >= 2, 60)
    output = mine.submit("--renew-code", trials=6, parallel=3)
    old, new = json.loads((mine.study / "code" / "versions.json").read_text())
    assert f"new code version {new} (before: {old})" in output
    mine.wait_for_no_jobs()
    status = mine.status()
    assert {trial["state"] for trial in status["trials"]} <= {"complete", "pruned"}
    versions = [trial["code"] for trial in status["trials"]]
    assert versions[:2] == [[old]] * 2 and [new] in versions
    specs = [json.loads(file.read_text()) for file in sorted((mine.study / "slurm").glob("submission_????.json"))]
    assert [spec["code"] for spec in specs] == [old, old, new]
    assert ["colour" in spec["config"] for spec in specs] == [False, False, True]


@pytest.mark.slow
def test_a_snapshot_that_is_gone_is_said_and_loses_nothing(mine):
    mine.submit(trials=1, parallel=1)
    mine.wait_for_step(0, 6)
    mine.cluster.ask("scancel", "--me")
    mine.wait_for_no_jobs()
    (snapshot,) = (mine.study / "code").glob("*/fsr")
    (snapshot / "run.py").unlink()
    mine.submit(trials=1, parallel=1)
    mine.wait_for_no_jobs(120)
    (mistake, *_) = (file.read_text() for file in (mine.study / "mistakes").iterdir())
    # Where the package is installed from a checkout, Python takes the module from there, and the snapshot sees that.
    assert "is not whole" in mistake or "was changed after it was taken: fsr/run.py" in mistake
    assert "with --renew_code" in mistake
    output = mine.submit("--renew-code", trials=1, parallel=1)
    mine.finish(1)
    assert mine.attempts(0)[-1]["first_step"] >= 5, output


def single_run(sweep, *options):
    """`launch/train.py` from the folder that the data lies in, with relative paths."""
    words = [sys.executable, sweep.checkout / "launch" / "train.py", "synthetic", "--cluster", "slurm"]
    places = ["--data_folder", "data", "--run_folder", "one", "--sbatch", "mem=300M"]
    there = sweep.surroundings | {"cwd": sweep.folder}
    return subprocess.run([*words, *places, *options], capture_output=True, text=True, **there)


def test_a_single_run_is_pinned_when_it_trains_and_its_paths_are_the_callers(mine):
    folder = mine.folder / "one"
    answer = single_run(mine, "--partition", "nonsense", "--iterations", "20")
    assert (answer.returncode, "sbatch refuses" in answer.stderr) == (2, True), answer.stderr
    assert not (folder / "config.json").exists()
    mine.cluster.ask("scontrol", "update", "partitionname=low", "state=down")  # jobs wait
    try:
        steps = ["--partition", "low", "--eval_every", "10", "--iterations"]
        assert "submitted job" in single_run(mine, *steps, "10").stdout
        assert "it is in the queue or running already" in single_run(mine, *steps, "10").stdout
        answer = single_run(mine, *steps, "20")
        assert answer.returncode == 2
        assert "with iterations 10, not 20, is in the queue; wait for it, or end it with scancel" in answer.stderr
    finally:
        mine.cluster.ask("scontrol", "update", "partitionname=low", "state=up")
    mine.wait_for_no_jobs()
    assert (folder / "result.json").exists()
    assert "with iterations 10, not 20" in single_run(mine, *steps, "20").stderr


@pytest.mark.slow
def test_job_shapes_may_differ_within_a_study(cluster, tmp_path):
    cluster.clear()
    sweep = Sweep(cluster, tmp_path, name="pair")
    sweep.submit("--nodes", "2", trials=1, parallel=1)
    sweep.wait_for_no_jobs()
    refusal = sweep.run(sweep.command("--detach", "--nodes", "3", trials=3))
    assert refusal.returncode == 2
    assert "makes 3 processes, which must divide the 2 micro-batches of a step (ranks); allowed: 1, 2" in refusal.stderr
    sweep.submit(trials=3, parallel=2)
    sweep.finish(3)
    assert [sweep.attempts(number)[0]["ranks"] for number in range(3)] == [2, 1, 1]
