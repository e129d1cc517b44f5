"""A real Slurm of four virtual nodes on this machine, and a study swept on it, for tests and benchmarks."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from method_checkout import checkout, command_of, overlaid, private_checkout, surroundings_of

TESTS = Path(__file__).parent
ROOT = TESTS.parent
# Another Slurm than the one of PATH, for whatever is started from here.
PREFIX = os.environ.get("FSR_SLURM_PREFIX")
if PREFIX:
    os.environ["PATH"] = os.pathsep.join([f"{PREFIX}/bin", f"{PREFIX}/sbin", os.environ["PATH"]])
MISSING = "Slurm's daemons are not installed (Debian: apt-get install slurm-wlm munge), or this is not root"


def available():
    """Whether the daemons are here. Where FSR_REQUIRE_DAEMONS is set, as in CI, their lack is an error."""
    return bool(os.environ.get("FSR_REQUIRE_DAEMONS")) or _installed()


def _installed():
    return shutil.which("slurmctld") is not None and shutil.which("munged") is not None and os.getuid() == 0


def version():
    """Name and version of the Slurm whose daemons are used."""
    return subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout.strip()


class Cluster:
    """Started once a test run in a private folder; stopped by the ids that it recorded.

    With `accounts` it keeps accounts and holds jobs to their memory, as large clusters do.
    """

    PORTS = 16  # of one cluster

    def __init__(self, folder, nodes=4, accounts=False, **environment):
        self.folder = folder
        places = {"SLURM_CONF": str(folder / "slurm.conf"), "MINISLURM_PORT": str(free_ports(self.PORTS))}
        self.environment = os.environ | places | environment
        if accounts:
            self.environment["MINISLURM_CGROUP"] = "1"
        options = ["--accounting"] if accounts else []
        subprocess.run([TESTS / "minislurm", "up", folder, str(nodes), *options], check=True, env=self.environment)

    def down(self):
        """Stop it, and whatever it had started."""
        self.ask("scancel", "--me", "--signal=KILL")
        subprocess.run([TESTS / "minislurm", "down", self.folder], check=True)
        wait_for(lambda: not self._end_processes(), 30)

    def _end_processes(self):
        """Kill every process that was started with this cluster's configuration; how many there were."""
        ours = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and self.owns(entry.name)]
        for pid in ours:
            kill(pid)
        return len(ours)

    def owns(self, pid):
        """Whether a process has this cluster's configuration: another cluster has jobs of the same numbers.

        Slurm's own helpers write over their environment where Slurm is newer; they work in its folder.
        """
        process = Path("/proc") / str(pid)
        try:
            known = str(self.folder / "slurm.conf").encode() in (process / "environ").read_bytes()
            return known or (process / "cwd").readlink().is_relative_to(self.folder)
        except OSError:
            return False

    def ask(self, *command):
        return subprocess.run(command, capture_output=True, text=True, env=self.environment).stdout

    def daemon(self, name):
        """Process number of a daemon such as slurmd-n1."""
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def start_node(self, name):
        """Start the daemon of a node, with the helper that is its own."""
        self.ask("slurmd", "-d", shutil.which("slurmstepd"), "-N", name)

    def release(self):
        """Start what Slurm holds for two minutes after a requeue."""
        for job in self.ask("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split():
            self.ask("scontrol", "update", f"jobid={job}", "starttime=now")

    def clear(self):
        """No jobs, all nodes up."""
        self.ask("scancel", "--me")
        wait_for(lambda: not self.ask("squeue", "--noheader"), 40)
        for number in range(1, 5):
            pid = self.folder / "run" / f"slurmd-n{number}.pid"
            if not (pid.exists() and alive(int(pid.read_text()))):
                self.start_node(f"n{number}")
        self.ask("scontrol", "update", "nodename=n[1-4]", "state=resume")
        wait_for(lambda: self.ask("sinfo", "-h", "-p", "main", "-o", "%T %D").strip() == "idle 4", 40)


class Sweep:
    """The study smoke, or pair for two ranks, with a method that counts steps."""

    def __init__(self, cluster, folder, method=TESTS / "slurm_stub.py", data=None, name="smoke", private=False):
        self.cluster, self.folder = cluster, Path(folder)
        self.checkout = private_checkout(self.folder / "checkout", method) if private else checkout(method)
        self.name = name
        self.runs = self.folder / "runs"
        self.data = data or self.folder / "data"
        if data is None:
            self.data.mkdir(parents=True)
            self.set("step_s", 0.15)

    @property
    def study(self):
        return self.runs / self.name

    def set(self, name, value):
        (self.data / name).write_text(str(value))

    def command(self, *options, trials=4, parallel=2, partition="low", iterations=30):
        numbers = ["--trials", str(trials), "--parallel", str(parallel), "--iterations", str(iterations)]
        places = ["--data_folder", self.data, "--runs", self.runs, "--partition", partition]
        cluster = ["--cluster", "slurm", "--sbatch", "mem=300M", "--study", self.name]
        return overlaid([*command_of(self.checkout), *cluster, *numbers, *places], options)

    def submit(self, *options, **numbers):
        """Submit and return; the output."""
        command = self.command("--detach", *options, **numbers)
        answer = self.run(command)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def run(self, command):
        """A command that `command` made, on this cluster."""
        return subprocess.run(command, capture_output=True, text=True, **self.surroundings)

    @property
    def surroundings(self):
        """Options of subprocess for commands that `command` made."""
        return surroundings_of(self.checkout, **self.cluster.environment)

    def status(self):
        command = [sys.executable, ROOT / "launch" / "status.py", "--json", "--study", self.name, "--runs"]
        answer = subprocess.run([*command, self.runs], capture_output=True, text=True, env=self.cluster.environment)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def run_folder(self, number):
        return self.study / f"trial_{number:04d}"

    def attempts(self, number):
        file = self.run_folder(number) / "attempts.json"
        return json.loads(file.read_text()) if file.exists() else []

    def causes(self, number):
        return [attempt["cause"] for attempt in self.attempts(number)]

    def step(self, number):
        file = self.run_folder(number) / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return max((json.loads(line)["step"] for line in lines), default=0)

    def wait_for_step(self, number, step, seconds=40):
        wait_for(lambda: self.step(number) >= step, seconds)

    def finish(self, trials=4, seconds=180):
        """Wait until all is done, and check it."""
        self.wait_for_no_jobs(seconds)
        self.check(trials)

    def wait_for_no_jobs(self, seconds=180):
        """Wait until all jobs have ended, releasing what Slurm holds back."""

        def no_jobs():
            self.cluster.release()
            return not self.cluster.ask("squeue", "--noheader")

        wait_for(no_jobs, seconds)

    def check(self, trials=4, iterations=30):
        """As many trials as ordered, each once, nothing left running; each came to what an undisturbed one comes to."""
        status = self.status()
        assert [trial["number"] for trial in status["trials"]] == list(range(trials))
        assert {trial["state"] for trial in status["trials"]} <= {"complete", "pruned"}, status
        for trial in status["trials"]:
            if trial["state"] == "complete":
                config = json.loads((self.run_folder(trial["number"]) / "config.json").read_text())
                assert trial["value"] == undisturbed(config["mask_ratio"], iterations)
                steps = [json.loads(line) for line in (self.run_folder(trial["number"]) / "metrics.jsonl").open()]
                assert [s["step"] for s in steps if "digest" in s] == list(range(1, iterations + 1))

    def job_of(self, number):
        """Id of the job or array task that works on a trial, as its attempt log has it."""
        return self.attempts(number)[-1]["job"]

    def job_number(self, number):
        """Slurm's own number of that job, of which each task of an array has one; None where Slurm does not tell."""
        words = self.cluster.ask("scontrol", "show", "job", self.job_of(number)).split()
        return next((word.split("=")[1] for word in words if word.startswith("JobId=")), None)  # Slurm may not answer

    def stepds(self, number):
        """Slurm's own processes that look after the ranks and the batch script of a trial's task."""
        listing = subprocess.run(
            ["pgrep", "-af", f"slurmstepd: \\[{self.job_number(number)}\\."], capture_output=True, text=True
        )
        pids = [int(line.split()[0]) for line in listing.stdout.splitlines()]
        return [pid for pid in pids if self.cluster.owns(pid)]

    def pids(self, number):
        """Processes of the ranks that work on a trial, rank 0 first."""
        found = {}
        for pid, words, variables in self._processes(number):
            if words[1:4] == ["-u", "-m", "launch.worker.main"]:
                found[pid] = int(variables["SLURM_PROCID"])
        ranks = {rank: pid for pid, rank in found.items() if parent(pid) not in found}  # loader workers look alike
        return [ranks[rank] for rank in sorted(ranks)]

    def batch_scripts(self, number):
        """The shell that runs the batch script of a trial's task."""
        return [pid for pid, words, _ in self._processes(number) if "slurm_script" in words[1:2][0]]

    def _processes(self, number):
        """Number, words and environment of every process of a trial's job, in this cluster alone."""
        job = self.job_number(number)
        for entry in Path("/proc").iterdir():
            try:
                variables = dict(v.split("=", 1) for v in (entry / "environ").read_text().split("\0") if "=" in v)
                words = (entry / "cmdline").read_text().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            if variables.get("SLURM_JOB_ID") == job and self.cluster.owns(entry.name):
                yield int(entry.name), words, variables


def undisturbed(mask_ratio, iterations):
    """The score of slurm_stub's run that nobody stopped."""
    digest = hashlib.sha256(str(mask_ratio).encode()).hexdigest()
    for _ in range(iterations):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return int(digest[:8], 16) / 16**8


def free_ports(count):
    """The first of so many ports in a row that nobody listens on; two clusters that start together draw others."""
    firsts = range(20_000, 30_000, count)
    for first in random.sample(firsts, len(firsts)):
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    sockets.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    raise RuntimeError("all ports are taken")


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def parent(pid):
    """The process that started one; None if that has ended."""
    try:
        return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid):
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
