"""Sweeps on a real Slurm: nothing on the login node, nothing lost to whatever ends a task."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import MISSING, ROOT, TESTS, Cluster, Sweep, available, kill, wait_for

from fsr.compare import first_difference
from fsr.run import Run
from launch.state.attempts import AttemptLog

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)
METHOD = TESTS / "tiny.py"
SEEDS = range(int(os.environ.get("FSR_FAULT_SEEDS", "1")))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.down()


def test_a_sweep_continues_when_its_submitter_is_killed(sweep):
    command = sweep.command(trials=8, parallel=4)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **sweep.surroundings)
    while "submitted" not in process.stdout.readline():
        pass
    process.kill()
    process.wait()
    sweep.finish(8)
    assert len(list(sweep.study.glob("slurm/submission_*.sh"))) == 1
    jobs = {attempt["job"].split("_")[0] for number in range(8) for attempt in sweep.attempts(number)}
    assert len(jobs) == 1
    assert {attempt["node"] for number in range(8) for attempt in sweep.attempts(number)} <= {"n1", "n2", "n3", "n4"}


def preempt(sweep, number):
    sweep.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 3")
    wait_for(lambda: sweep.causes(number)[0] is not None)


def requeue(sweep, number):
    sweep.cluster.ask("scontrol", "requeue", sweep.job_of(number))


def kill_rank_0(sweep, number):
    kill(sweep.pids(number)[0])


def kill_rank_1(sweep, number):
    kill(sweep.pids(number)[1])


def lose_node(sweep, number):
    """Everything on the node dies at once, its slurmd with it."""
    node = sweep.attempts(number)[-1]["node"]
    there = [n for n in (0, 1) if sweep.attempts(n)[-1]["node"] == node]
    dying = [pid for n in there for pid in (*sweep.stepds(n), *sweep.pids(n))]
    for pid in [sweep.cluster.daemon(f"slurmd-{node}"), *dying]:
        kill(pid)


def restart_controller(sweep, number):
    pid = sweep.cluster.daemon("slurmctld")
    os.kill(pid, signal.SIGTERM)
    time.sleep(2)
    sweep.cluster.ask("slurmctld")


def save_and_stop(sweep, number):
    sweep.cluster.ask("scancel", "--signal=USR2", sweep.job_of(number))


FAULTS = {
    "preempted": (preempt, {"preempted"}),
    "requeued": (requeue, {"preempted"}),
    "time limit near": (save_and_stop, {"time limit"}),
    "rank 0 killed": (kill_rank_0, {"killed"}),
    "node lost": (lose_node, {"node"}),
    "controller restarted": (restart_controller, set()),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "fault",
    [
        "preempted",
        "time limit near",
        "rank 0 killed",
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("requeued", "node lost", "controller restarted")),
    ],
)
def test_no_end_loses_a_trial(sweep, fault, seed):
    inflict, causes = FAULTS[fault]
    sweep.submit(trials=3)
    sweep.wait_for_step(0, random.Random(f"{fault}{seed}").randint(2, 20))
    inflict(sweep, 0)
    sweep.finish(3)
    assert causes <= set(sweep.causes(0))
    assert sweep.causes(0)[-1] == "finished"
    assert (len(sweep.causes(0)) > 1) == bool(causes)


def partition_is(sweep, **settings):
    words = [f"{name}={value}" for name, value in settings.items()]
    sweep.cluster.ask("scontrol", "update", "partitionname=low", *words)


@pytest.fixture
def other_partition(sweep):
    """Whatever a test makes of the partition, the next one finds it as it was."""
    yield sweep
    partition_is(sweep, preemptmode="requeue", gracetime=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "partition, save_s, saved",
    [
        ({"gracetime": 0}, 0, True),  # Slurm's KillWait (5 s here) is the grace then
        ({"gracetime": 0}, 20, False),
        ({"gracetime": 5}, 20, False),
        ({"gracetime": 30}, 20, True),
        ({"preemptmode": "cancel"}, 0, True),
        ({"preemptmode": "cancel", "gracetime": 0}, 20, False),
    ],
)
def test_no_manner_of_preemption_loses_a_trial(other_partition, partition, save_s, saved, seed):
    sweep = other_partition
    partition_is(sweep, **partition)
    sweep.set("save_s", save_s)
    sweep.submit(trials=2)
    sweep.wait_for_step(0, random.Random(f"{partition}{save_s}{seed}").randint(6, 20))
    node = sweep.attempts(0)[0]["node"]
    sweep.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 3")
    wait_for(lambda: node not in sweep.cluster.ask("squeue", "--noheader", "--partition=low", "--format=%N"), 60)
    if partition.get("preemptmode") == "cancel" and not saved:
        sweep.wait_for_no_jobs()
        sweep.submit(trials=2)
    sweep.finish(2)
    assert sweep.causes(0) == ["preempted", "finished"]
    assert sweep.attempts(0)[1]["first_step"] >= 5
    stopped, resumed = sweep.attempts(0)
    assert (resumed["first_step"] == stopped["reached"]) == saved


@pytest.mark.slow
def test_a_node_where_two_trials_met_broken_hardware_is_left_out(sweep):
    sweep.set("broken_node", "n1")
    sweep.submit(trials=4)
    sweep.finish(4)
    places = [[(attempt["node"], attempt["cause"]) for attempt in sweep.attempts(number)] for number in range(4)]
    assert {cause for place in places for node, cause in place if node == "n1"} == {"node"}
    assert all(place[-1][0] != "n1" for place in places)
    assert sum(node == "n1" for place in places for node, _ in place) <= 4


def test_a_worker_killed_between_claim_and_attempt_leaves_its_trial_to_be_done(sweep):
    (sweep.study).mkdir(parents=True)
    (sweep.study / "die_before_attempt").touch()
    sweep.submit(trials=2, parallel=1)
    sweep.finish(2)
    assert not (sweep.study / "die_before_attempt").exists()


def test_scancel_is_final_and_the_same_command_resumes(sweep):
    sweep.submit(trials=2)
    sweep.wait_for_step(0, 5)
    sweep.wait_for_step(1, 5)
    sweep.cluster.ask("scancel", "--me")
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"), 60)
    assert [sweep.causes(number) for number in (0, 1)] == [["cancelled"], ["cancelled"]]
    time.sleep(3)
    assert not sweep.cluster.ask("squeue", "--noheader")
    assert [trial["state"] for trial in sweep.status()["trials"]] == ["waiting", "waiting"]
    sweep.submit(trials=2)
    sweep.finish(2)
    assert [sweep.causes(number) for number in (0, 1)] == [["cancelled", "finished"]] * 2
    assert sweep.attempts(0)[1]["first_step"] >= 5


@pytest.fixture
def small_disk(tmp_path):
    """64 MB for everything that a sweep writes, of which a checkpoint could have 18."""
    folder = tmp_path / "runs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_waited_out(small_disk, sweep):
    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_step(0, 6)
    with pytest.raises(OSError), open(small_disk / "filler", "wb") as filler:
        while True:
            filler.write(bytes(1 << 16))
            filler.flush()
    time.sleep(4)
    (small_disk / "filler").unlink()
    sweep.finish(1)
    assert sweep.causes(0) == ["disk full", "finished"]


def test_running_it_again_submits_only_what_is_missing(sweep):
    assert "2 workers; 0 were there already" in sweep.submit(trials=3, parallel=2)
    assert "0 workers in 0 sbatch calls; 2 were there already" in sweep.submit(trials=3, parallel=2)
    assert "1 workers; 2 were there already" in sweep.submit(trials=5, parallel=3)
    sweep.finish(5)
    assert "0 workers" in sweep.submit(trials=5, parallel=3)


def test_a_stop_file_ends_the_workers_and_a_changed_checkout_does_not_leak_in(sweep):
    sweep.submit(trials=2)
    sweep.wait_for_step(0, 3)
    (sweep.study / "stop").touch()
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"))
    assert sweep.causes(0) == ["cancelled"]
    assert sweep.step(0) < 30
    (code,) = (sweep.study / "code").glob("*/launch/worker/method.py")
    code.write_text(code.read_text() + "\n# changed behind our back\n")
    sweep.submit(trials=2)
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"))
    assert sweep.causes(0) == ["cancelled"]  # the jobs would run the snapshot, which is not what was taken
    (mistake, *_) = (sweep.study / "mistakes").iterdir()
    assert "was changed after it was taken: launch/worker/method.py" in mistake.read_text()


@pytest.fixture(scope="module")
def undisturbed_run(cluster, synthetic_folder, tmp_path_factory):
    """A trial of the real method on two nodes that nobody disturbed."""
    cluster.clear()
    reference = Sweep(cluster, tmp_path_factory.mktemp("reference"), METHOD, synthetic_folder, "pair")
    reference.submit("--nodes", "2", "--keep", "all", trials=1, iterations=60)
    reference.wait_for_no_jobs()
    assert reference.causes(0) == ["finished"]
    assert reference.attempts(0)[0]["ranks"] == 2
    return Run(reference.run_folder(0))


def truncate_checkpoint(sweep, number):
    """All ranks die, and the last checkpoint turns out to be damaged."""
    wait_for(lambda: (sweep.run_folder(number) / "checkpoint.previous.pt").exists())
    kill(sweep.pids(number)[0])
    file = sweep.run_folder(number) / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "end",
    [pytest.param(end, marks=pytest.mark.slow) for end in (preempt, kill_rank_0, kill_rank_1, truncate_checkpoint)],
)
def test_two_ranks_on_two_nodes_lose_nothing_and_come_to_the_same_bits(
    cluster, synthetic_folder, tmp_path, undisturbed_run, end, seed
):
    cluster.clear()
    data = tmp_path / "data"
    data.mkdir()
    (data / "VOCdevkit").symlink_to(synthetic_folder / "VOCdevkit")
    (data / "trial_0000").write_text("slow")
    sweep = Sweep(cluster, tmp_path, METHOD, data, "pair")
    sweep.submit("--nodes", "2", "--keep", "all", trials=1, iterations=60)
    sweep.wait_for_step(0, random.Random(f"{end}{seed}").randint(7, 30), 60)
    end(sweep, 0)
    (data / "trial_0000").unlink()  # what is left of it may be fast
    sweep.wait_for_no_jobs()
    assert sweep.causes(0) in (["preempted", "finished"], ["killed", "finished"])
    assert first_difference(Run(sweep.run_folder(0)), undisturbed_run) is None


@pytest.mark.slow
def test_two_ranks_on_two_nodes_prune_a_trial_and_continue_with_the_next(cluster, synthetic_folder, tmp_path):
    cluster.clear()
    sweep = Sweep(cluster, tmp_path, METHOD, synthetic_folder, "pair")
    sweep.submit("--nodes", "2", trials=10, parallel=1, iterations=60)
    sweep.wait_for_no_jobs(300)
    states = [trial["state"] for trial in sweep.status()["trials"]]
    assert set(states) == {"complete", "pruned"}
    assert [sweep.attempts(number)[0]["ranks"] for number in range(10)] == [2] * 10
    for number, state in enumerate(states):
        assert sweep.causes(number) == ["finished" if state == "complete" else "pruned"]


def test_a_dry_run_shows_the_script_and_submits_nothing(sweep):
    command = sweep.command("--dry-run", "--time-limit", "1:00:00", "--account", "vision")
    answer = sweep.run(command)
    assert answer.returncode == 0
    for line in ("#SBATCH --array=0-1%2", "#SBATCH --time=1:00:00", "#SBATCH --account=vision", "#SBATCH --mem=300M"):
        assert line in answer.stdout
    assert "2 workers in 1 sbatch calls" in answer.stdout
    assert not sweep.study.exists()
    assert not sweep.cluster.ask("squeue", "--noheader")


def python(sweep, *command, **environment):
    """A command of launch/ on this cluster: exit code and output."""
    words = [sys.executable, ROOT / "launch" / command[0], *command[1:]]
    answer = subprocess.run(words, capture_output=True, text=True, env=sweep.cluster.environment | environment)
    assert "Traceback" not in answer.stderr, answer.stderr
    return answer.returncode, answer.stdout + answer.stderr


def test_the_doctor_tells_what_this_cluster_does_and_repairs_a_study(sweep):
    code, output = python(sweep, "doctor.py", "--partition", "low")
    assert code == 0
    for words in (
        "MaxArraySize",
        "1001",
        "SIGTERM, 5 s later SIGKILL and requeue",
        "nothing, if it can save within 5 s",
    ):
        assert words in output
    code, output = python(sweep, "doctor.py", "--partition", "nonsense")
    assert (code, "there is no partition nonsense; allowed: main, low" in output) == (2, True)

    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_step(0, 6)  # so soon that the attempt is younger than an answer of the queue may be old
    for pid in (*sweep.batch_scripts(0), *sweep.pids(0)):  # nobody is left to say a word
        kill(pid)
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"))
    assert sweep.causes(0) == [None]
    places = ["--study", "smoke", "--runs", sweep.folder / "runs"]
    code, output = python(sweep, "doctor.py", *places)
    assert code == 0
    assert "workers alive: 0" in output
    assert "repaired: trial 0 had died without a cause" in output
    assert sweep.causes(0) != [None]
    sweep.submit(trials=1, parallel=1)
    sweep.finish(1)
    assert sweep.attempts(0)[1]["first_step"] >= 5


def test_the_doctor_touches_nothing_where_slurm_does_not_answer(sweep):
    sweep.submit(trials=1, parallel=1)
    sweep.wait_for_step(0, 2)
    for pid in (*sweep.batch_scripts(0), *sweep.pids(0)):
        kill(pid)
    wait_for(lambda: not sweep.cluster.ask("squeue", "--noheader"))
    places = ["--study", "smoke", "--runs", sweep.folder / "runs"]
    code, output = python(sweep, "doctor.py", *places, PATH=str(sweep.folder))  # no squeue there
    assert code == 0
    assert "workers alive: unknown, Slurm does not answer" in output
    assert "worked on, as far as can be known from here: trials 0" in output
    assert sweep.causes(0) == [None]


def test_ten_thousand_workers_are_submitted_in_ten_arrays_within_five_seconds(sweep):
    started = time.monotonic()
    output = sweep.submit("--sbatch", "begin=now+1days", trials=10_000, parallel=10_000)
    seconds = time.monotonic() - started
    print(f"\nsubmitting 10 000 workers: {seconds:.1f} s")
    assert "submitted 10 arrays" in output
    assert "10000 workers; 0 were there already" in output
    assert seconds < 5
    assert "0 workers in 0 sbatch calls; 10000 were there already" in sweep.submit(trials=10_000, parallel=10_000)
    assert "submitted array" in Sweep(sweep.cluster, sweep.folder / "other").submit(trials=10_000, parallel=64)


@pytest.mark.slow
def test_one_long_run_resumes_after_preemption(sweep, synthetic_folder):
    folder = sweep.folder / "run"
    flags = ["--workers", "0", "--iterations", "12", "--save_every", "3", "--log_every", "1", "--eval_every", "12"]
    command = ["train.py", "synthetic", "--data_folder", synthetic_folder, "--run_folder", folder, *flags]
    slurm = ["--cluster", "slurm", "--partition", "low", "--sbatch", "mem=1G"]
    code, output = python(sweep, *command, *slurm)
    assert (code, "submitted job" in output) == (0, True), output
    wait_for(lambda: any(record["step"] >= 4 for record in Run(folder).metrics()), 120)
    assert "in the queue or running already" in python(sweep, *command, *slurm)[1]
    sweep.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: AttemptLog(Run(folder)).attempts()[0].cause is not None, 60)
    sweep.wait_for_no_jobs()
    attempts = AttemptLog(Run(folder)).attempts()
    assert [attempt.cause for attempt in attempts] == ["preempted", "finished"]
    assert attempts[1].first_step >= 4
    assert Run(folder).result() is not None
    assert "finished already" in python(sweep, *command, *slurm)[1]


@pytest.mark.slow
def test_a_real_time_limit_is_met_in_time(sweep):
    sweep.set("step_s", 1.5)
    sweep.submit("--time-limit", "1", "--signal-before-s", "40", trials=1, parallel=1)
    sweep.finish(1, seconds=240)
    assert sweep.causes(0)[0] == "time limit"
    assert sweep.causes(0)[-1] == "finished"
    steps = [attempt["first_step"] for attempt in sweep.attempts(0)]
    assert steps == sorted(set(steps))  # each attempt got further
