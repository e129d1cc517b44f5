"""A storm on a real Slurm: faults of every kind, drawn at random, fall on one sweep every few seconds."""

import os
import random
import signal
import time
from collections import Counter

import pytest
from slurm_cluster import MISSING, Cluster, Sweep, alive, available, kill, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not available(), reason=MISSING)]
SEEDS = range(int(os.environ.get("FSR_FAULT_SEEDS", "1")))
FAULTS = 40
TRIALS = 16
STEPS = 500
EVERY_S = 1.5
# What may end an attempt only so many times, before its trial is given up, and how many of them a storm inflicts.
HARD, BEARABLE = ("killed", "node", "hung", "exception"), 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"), FSR_SILENCE_S="8")
    yield started
    started.down()


class Storm:
    """Draws a trial that is being trained, and something that ends or disturbs its attempt."""

    def __init__(self, sweep, ranks, seed):
        self.sweep, self.cluster, self.ranks = sweep, sweep.cluster, ranks
        self.draw = random.Random(f"storm {ranks} {seed}")
        self.inflicted = Counter()
        self.hung = set()
        self.ended_for_good = 0  # workers since the last submission, by somebody who wanted that

    def submit(self):
        self.ended_for_good = 0
        nodes = ["--nodes", str(self.ranks)] if self.ranks > 1 else []
        return self.sweep.submit(*nodes, trials=TRIALS, parallel=8 // self.ranks, iterations=STEPS)

    def strike(self):
        """Inflict one fault, if there is anything to inflict it on."""
        numbers = [number for number in range(TRIALS) if self._works(number)]
        fault = self.draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if fault not in ON_ALL and not numbers:
            return
        number = self.draw.choice(numbers) if numbers else None
        if fault in HARD_FAULTS and sum(cause in HARD for cause in self.sweep.causes(number)) >= BEARABLE:
            return
        if fault is Storm.stop_a_rank and number in self.hung:
            return
        fault(self, number)
        self.inflicted[fault.__name__.replace("_", " ")] += 1

    def _works(self, number):
        attempts = self.sweep.attempts(number)
        return bool(attempts) and attempts[-1]["cause"] is None and bool(self.sweep.pids(number))

    def preempt_a_node(self, number):
        node = self.sweep.attempts(number)[-1]["node"]
        self._high_priority(f"--nodelist={node}")

    def preempt_all_nodes(self, number):
        self._high_priority("-N4")

    def preempt_while_it_starts(self, number):
        """The job comes back from a requeue, and is preempted while Python imports, or before."""
        job, node = self.sweep.job_of(number), self.sweep.attempts(number)[-1]["node"]
        self.cluster.ask("scontrol", "requeue", job)
        wait_for(lambda: self._state(job) != "RUNNING", 60)
        self.cluster.release()
        deadline = time.monotonic() + 15
        while self._state(job) != "RUNNING" and time.monotonic() < deadline:
            self.cluster.release()
        time.sleep(self.draw.uniform(0, 1.2))
        node = self.cluster.ask("squeue", "--noheader", "--jobs", job, "--format=%N").strip() or node
        self._high_priority(f"--nodelist={node.split(',')[0].replace('[', '').split('-')[0]}")

    def requeue(self, number):
        self.cluster.ask("scontrol", "requeue", self.sweep.job_of(number))

    def near_its_time_limit(self, number):
        self.cluster.ask("scancel", "--signal=USR2", self.sweep.job_of(number))

    def kill_rank_0(self, number):
        kill(self.sweep.pids(number)[0])

    def kill_the_last_rank(self, number):
        kill(self.sweep.pids(number)[-1])

    def kill_the_batch_script(self, number):
        self.ended_for_good += 1
        for pid in self.sweep.batch_scripts(number):
            kill(pid)

    def stop_a_rank(self, number):
        self.hung.add(number)
        os.kill(self.draw.choice(self.sweep.pids(number)), signal.SIGSTOP)

    def suspend_and_resume(self, number):
        job = self.sweep.job_of(number)
        self.cluster.ask("scontrol", "suspend", job)
        time.sleep(2)
        self.cluster.ask("scontrol", "resume", job)

    def scancel(self, number):
        self.ended_for_good += 1
        self.cluster.ask("scancel", self.sweep.job_of(number))

    def lose_a_node(self, number):
        """Everything on it dies at once, its slurmd with it; the node comes back later."""
        node = self.sweep.attempts(number)[-1]["node"]
        dying = [self.cluster.daemon(f"slurmd-{node}")]
        for other in range(TRIALS):
            if self._works(other) and self.sweep.attempts(other)[-1]["node"] == node:
                dying += [*self.sweep.stepds(other), *self.sweep.pids(other)]
        for pid in dying:
            kill(pid)
        deadline = time.monotonic() + 20  # SlurmdTimeout is 10 s
        while "down" not in self.cluster.ask("sinfo", "-h", "-n", node, "-o", "%T") and time.monotonic() < deadline:
            time.sleep(0.5)
        self.cluster.start_node(node)
        self.cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def touch_the_stop_file(self, number):
        self.ended_for_good += 1
        (self.sweep.study / "stop").touch()
        wait_for(lambda: not self.cluster.ask("squeue", "--noheader", "--states=RUNNING"), 60)

    def take_the_controller_away(self, number):
        """Nobody answers for a while: neither the workers, nor those who ask how the study stands."""
        pid = self.cluster.daemon("slurmctld")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid))
        assert self.sweep.status()["queue"] is None
        time.sleep(self.draw.uniform(1, 20))
        self.cluster.ask("slurmctld")
        wait_for(lambda: "UP" in self.cluster.ask("scontrol", "ping"))

    def _high_priority(self, where):
        self.cluster.ask("sbatch", "--partition=main", "--exclusive", where, "--output=/dev/null", "--wrap", "sleep 1")

    def _state(self, job):
        return self.cluster.ask("squeue", "--noheader", "--jobs", job, "--format=%T").strip()


# How often each is drawn.
WEIGHTS = {
    Storm.preempt_a_node: 4,
    Storm.preempt_all_nodes: 2,
    Storm.preempt_while_it_starts: 4,
    Storm.requeue: 4,
    Storm.near_its_time_limit: 4,
    Storm.kill_rank_0: 4,
    Storm.kill_the_last_rank: 4,
    Storm.kill_the_batch_script: 2,
    Storm.stop_a_rank: 3,
    Storm.suspend_and_resume: 3,
    Storm.scancel: 3,
    Storm.lose_a_node: 2,
    Storm.touch_the_stop_file: 1,
    Storm.take_the_controller_away: 1,
}
ON_ALL = (Storm.preempt_all_nodes, Storm.touch_the_stop_file, Storm.take_the_controller_away)
HARD_FAULTS = (
    Storm.kill_rank_0,
    Storm.kill_the_last_rank,
    Storm.kill_the_batch_script,
    Storm.stop_a_rank,
    Storm.lose_a_node,
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_storm_loses_nothing(cluster, tmp_path, ranks, seed):
    cluster.clear()
    sweep = Sweep(cluster, tmp_path, name="pair" if ranks > 1 else "smoke")
    storm = Storm(sweep, ranks, seed)
    storm.submit()

    def done():
        return sum(sweep.causes(number)[-1:] == ["finished"] for number in range(TRIALS)) == TRIALS

    deadline = time.monotonic() + 900 * ranks
    while not done():
        assert time.monotonic() < deadline, (sweep.status(), cluster.ask("squeue"))
        time.sleep(EVERY_S)
        cluster.release()
        cluster.ask(
            "scontrol", "update", "nodename=n[1-4]", "state=resume"
        )  # drained by Slurm, as their steps ended late
        if storm.inflicted.total() < FAULTS:
            storm.strike()
        reasons = cluster.ask("squeue", "--noheader", "--partition=low", "--format=%r").splitlines()
        # What Slurm holds for ever, as the launch of a job failed while a node was broken, is no worker.
        if not (done() or any("held" not in reason for reason in reasons)):
            assert storm.ended_for_good, f"the sweep stands still: {sweep.status()}"
            cluster.ask("scancel", "--me", "--partition=low")  # as status says of what is held
            storm.submit()  # the same command, as after any sweep whose workers somebody ended
    sweep.wait_for_no_jobs()
    sweep.check(TRIALS, STEPS)
    faults = ", ".join(f"{name} {number}" for name, number in sorted(storm.inflicted.items()))
    print(f"\n{storm.inflicted.total()} faults on {ranks} ranks, seed {seed}: {faults}")
