"""On a real Slurm, whose signals reach every process of a step: loader workers, and ranks that hang without dying."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from slurm_cluster import MISSING, TESTS, Cluster, Sweep, available, wait_for

from fsr.compare import first_difference
from fsr.heartbeat import FSR_SILENCE_S
from fsr.run import Run
from launch.slurm import bad_nodes
from launch.state.paths import StudyFolder

pytestmark = [pytest.mark.skipif(not available(), reason=MISSING), pytest.mark.slow]
METHOD = TESTS / "tiny.py"
SILENCE_S = 8
STEPS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"), **{FSR_SILENCE_S: str(SILENCE_S)})
    yield started
    started.down()


@pytest.fixture(scope="module")
def data(synthetic_folder, tmp_path_factory):
    """The synthetic set, for runs with two loader workers a rank that leave time to disturb them."""
    folder = shutil.copytree(synthetic_folder, tmp_path_factory.mktemp("data") / "synthetic")
    (folder / "workers").write_text("2")
    (folder / "trial_0000").write_text("slow")
    return folder


@pytest.fixture(scope="module")
def undisturbed(cluster, data, tmp_path_factory):
    """Trial 0 on two nodes, where nobody disturbed it, without loader workers: they change no bit."""
    calm = shutil.copytree(data, tmp_path_factory.mktemp("calm") / "synthetic")
    (calm / "workers").unlink()
    (calm / "trial_0000").unlink()
    sweep = Sweep(cluster, tmp_path_factory.mktemp("reference"), METHOD, calm, "pair")
    sweep.submit("--nodes", "2", "--keep", "all", trials=1, iterations=STEPS)
    sweep.wait_for_no_jobs()
    assert sweep.causes(0) == ["finished"]
    return Run(sweep.run_folder(0))


@pytest.fixture
def pair(cluster, data, tmp_path):
    """Trial 0 on two ranks on two nodes, some steps after its first checkpoint."""
    cluster.clear()
    sweep = Sweep(cluster, tmp_path, METHOD, data, "pair")
    sweep.submit("--nodes", "2", "--keep", "all", trials=1, iterations=STEPS)
    sweep.wait_for_step(0, 8, 120)
    yield sweep
    cluster.clear()


def workers_of(pid):
    listing = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in listing.stdout.split()]


def stop_rank(sweep, rank):
    os.kill(sweep.pids(0)[rank], signal.SIGSTOP)


def stop_loaders(sweep, rank):
    for pid in workers_of(sweep.pids(0)[rank]):
        os.kill(pid, signal.SIGSTOP)


HANGS = {
    "rank 0": (stop_rank, 0),
    "rank 1": (stop_rank, 1),
    "the loaders of rank 0": (stop_loaders, 0),
    "the loaders of rank 1": (stop_loaders, 1),
}


@pytest.mark.parametrize("hang", HANGS)
def test_what_hangs_is_ended_and_resumed_to_the_same_bits(pair, undisturbed, hang):
    stop, rank = HANGS[hang]
    stop(pair, rank)
    started = time.monotonic()
    wait_for(lambda: len(pair.attempts(0)) > 1, 90)
    print(f"\n{hang}: the next attempt began after {time.monotonic() - started:.0f} s")
    pair.wait_for_no_jobs()
    assert pair.causes(0) == ["hung", "finished"], pair.attempts(0)[0]["detail"]
    first, second = pair.attempts(0)
    assert second["first_step"] >= 5 and first["job"] == second["job"]
    print(first["detail"])
    assert "no sign of life" in first["detail"] or "gave nothing for 8 s" in first["detail"]
    logs = "".join(file.read_text() for file in (pair.study / "slurm").glob("*_log.err"))
    if "no sign of life" in first["detail"]:
        assert "most recent call first" in logs  # the stacks of a rank that was not stopped
    assert first_difference(Run(pair.run_folder(0)), undisturbed) is None


def test_a_job_that_is_suspended_for_longer_is_not_hung(pair, undisturbed):
    job = pair.job_of(0)
    pair.cluster.ask("scontrol", "suspend", job)
    time.sleep(SILENCE_S * 4)
    pair.cluster.ask("scontrol", "resume", job)
    pair.wait_for_no_jobs()
    assert pair.causes(0) == ["finished"], pair.attempts(0)
    assert first_difference(Run(pair.run_folder(0)), undisturbed) is None


def test_preempted_with_loader_workers_it_saves_and_resumes_at_its_step(pair, undisturbed):
    pair.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 3")
    wait_for(lambda: pair.causes(0)[0] is not None, 40)
    pair.wait_for_no_jobs()
    assert pair.causes(0) == ["preempted", "finished"], pair.attempts(0)
    first, second = pair.attempts(0)
    assert second["first_step"] == first["reached"] >= 8
    assert first_difference(Run(pair.run_folder(0)), undisturbed) is None


def test_cancelled_with_loader_workers_it_saves_and_resumes_at_its_step(pair, undisturbed):
    pair.cluster.ask("scancel", "--me")
    wait_for(lambda: not pair.cluster.ask("squeue", "--noheader"), 60)
    assert pair.causes(0) == ["cancelled"], pair.attempts(0)
    pair.submit("--nodes", "2", "--keep", "all", trials=1, iterations=STEPS)
    pair.wait_for_no_jobs()
    first, second = pair.attempts(0)
    assert second["first_step"] == first["reached"] >= 8
    assert first_difference(Run(pair.run_folder(0)), undisturbed) is None


def test_a_method_that_says_nothing_of_itself_is_not_hung(cluster, tmp_path):
    """Each question whether to stop is a sign of life."""
    cluster.clear()
    sweep = Sweep(cluster, tmp_path)
    sweep.submit(trials=2, iterations=int(SILENCE_S * 4 / 0.15))
    sweep.wait_for_no_jobs()
    assert [sweep.causes(number) for number in (0, 1)] == [["finished"]] * 2


def test_a_fifo_in_place_of_a_picture_ends_the_sweep_with_one_sentence(cluster, data, tmp_path):
    cluster.clear()
    folder = shutil.copytree(data, tmp_path / "data")
    picture = sorted((folder / "VOCdevkit/VOC2012/JPEGImages").iterdir())[3]
    picture.unlink()
    os.mkfifo(picture)
    sweep = Sweep(cluster, tmp_path / "sweep", METHOD, folder, "pair")
    sweep.submit("--nodes", "2", "--keep", "all", trials=1, iterations=STEPS)
    sweep.wait_for_no_jobs()
    (mistake, *_) = (sweep.study / "mistakes").iterdir()
    said, remedy = mistake.read_text().split("; ")
    assert said == f"image {picture} cannot be read: it is a FIFO, not a regular file"
    assert remedy.endswith(f"prepare voc {folder} --skip_bad` makes lists without bad files")


def test_a_node_where_two_trials_hung_is_left(cluster, data, tmp_path):
    cluster.clear()
    calm = shutil.copytree(data, tmp_path / "data")
    for number in range(4):
        (calm / f"trial_{number:04d}").write_text("slow")
    sweep = Sweep(cluster, tmp_path / "sweep", METHOD, calm)
    sweep.submit("--sbatch", "exclude=n[2-4]", trials=2, parallel=2, iterations=STEPS)
    for number in (0, 1):
        sweep.wait_for_step(number, 8, 120)
        os.kill(sweep.pids(number)[0], signal.SIGSTOP)
    folder = StudyFolder(sweep.study)
    wait_for(lambda: bad_nodes.bad_nodes(folder) == ["n1"], 90)
    assert [sweep.causes(number)[0] for number in (0, 1)] == ["hung", "hung"]
