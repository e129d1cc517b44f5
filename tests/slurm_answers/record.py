"""Record what a real Slurm answers: `FSR_SLURM_PREFIX=… python tests/slurm_answers/record.py` (as root).

It starts the Slurm of that prefix, or of PATH, as four virtual nodes with accounts, and brings jobs into states that a
sweep may meet. Each answer goes to a file of `tests/slurm_answers/VERSION/`, with the command and its exit code.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWERS = Path(__file__).parent
sys.path[:0] = [str(ANSWERS.parent), str(ANSWERS.parent.parent)]
from slurm_cluster import Cluster, kill, version, wait_for  # noqa: E402

from launch.slurm import answers  # noqa: E402

IDENTITY = "0123abcd"
OURS = (f"--job-name=fsr-smoke-{IDENTITY}", f"--comment=fsr {IDENTITY}", "--partition=low", "--mem=300M", "--requeue")
QUEUE = ("squeue", "--array", f"--format={answers.QUEUE_FORMAT}", "--user=0")
SACCT = ("sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "--format=State,JobName", "--jobs")


class Recorder:
    """Asks a cluster, and writes down what it hears."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder, self.version = cluster, folder, version()
        cluster.environment["SLURM_TIME_FORMAT"] = "standard"

    def record(self, name, *command):
        """Ask, and keep the answer under this name."""
        answer = subprocess.run(command, capture_output=True, text=True, env=self.cluster.environment)
        self.keep(name, " ".join(command), answer.returncode, answer.stdout, answer.stderr)

    def keep(self, name, command, code, stdout, stderr=""):
        head = f"{self.version}\n$ {command}\nexit code {code}\n"
        text = f"{head}--- stdout\n{stdout}--- stderr\n{stderr}"
        places = {str(self.cluster.folder): "/cluster", sys.executable: "python", os.getcwd(): "/project"}
        for place, said in places.items():
            text = text.replace(place, said)
        (self.folder / f"{name}.txt").write_text(text)

    def submit(self, *options, script="sleep 600"):
        """The number of a new job."""
        words = ("sbatch", "--parsable", "--output=/dev/null", *OURS, *options, "--wrap", script)
        answer = subprocess.run(words, capture_output=True, text=True, env=self.cluster.environment)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def state(self, job):
        found = re.search(r"JobState=(\S+)", self.cluster.ask("scontrol", "show", "job", "-o", job))
        return found[1] if found else None

    def wait(self, job, *states, seconds=60):
        wait_for(lambda: self.state(job) in states, seconds)

    def show(self, name, job):
        self.record(f"job_{name}", "scontrol", "show", "job", "-o", job)


def settings(to):
    to.record("ping", "scontrol", "ping")
    to.record("config", "scontrol", "show", "config")
    to.record("partitions", "scontrol", "show", "partition", "-o")
    to.record("nodes", "sinfo", "--noheader", "--Node", "--format=%N", "--partition", "low")
    for words in (("account", "vision"), ("user", "root", "account=vision", "MaxSubmitJobs=3")):
        to.cluster.ask("sacctmgr", "-i", "add", *words)
    to.cluster.ask("sacctmgr", "-i", "add", "qos", "narrow", "MaxSubmitJobsPerUser=1", "GraceTime=90")
    limits, fields = ",".join(answers.ASSOCIATION), ",".join(answers.QOS)
    show = ("sacctmgr", "--noheader", "--parsable2", "show")
    to.record("associations", *show, "assoc", "account=vision", "cluster=mini", f"format={limits}")
    to.record("qos", *show, "qos", f"format={fields}")
    to.record("qos_preemption", *show, "qos", "format=Name,PreemptMode,Preempt,GraceTime")
    to.record("sbatch_no_partition", "sbatch", "--parsable", "--partition=nonsense", "--wrap", "true")


def queue(to):
    """Jobs in many states at once, in one listing."""
    failed = to.submit(script="exit 3")
    to.wait(failed, "FAILED")
    jobs = {
        "array": to.submit("--array=0-3%2"),
        "held_by_user": to.submit("--hold"),
        "begin_time": to.submit("--begin=now+1days"),
        "never": to.submit(f"--dependency=afterok:{failed}"),
        "requeue_hold": to.submit(),
        "special_exit": to.submit(),
        "suspended": to.submit(),
        "stopped": to.submit(),
        "completing": to.submit(script="trap '' TERM; sleep 600 & wait; sleep 600"),
        "held_by_admin": to.submit("--begin=now+1days"),
    }
    foreign = to.submit("--job-name=a | b", "--comment=RUNNING|None|fsr-x")
    for name in ("requeue_hold", "special_exit", "suspended", "stopped", "completing"):
        to.wait(jobs[name], "RUNNING")
    to.cluster.ask("scontrol", "hold", jobs["held_by_admin"])
    to.cluster.ask("scontrol", "requeuehold", jobs["requeue_hold"])
    to.cluster.ask("scontrol", "requeuehold", "State=SpecialExit", jobs["special_exit"])
    to.cluster.ask("scontrol", "suspend", jobs["suspended"])
    to.cluster.ask("scancel", "--signal=STOP", jobs["stopped"])
    to.wait(jobs["requeue_hold"], "PENDING", "REQUEUE_HOLD")
    to.wait(jobs["special_exit"], "PENDING", "SPECIAL_EXIT")
    waiting = [to.submit("--nodes=4", "--exclusive"), to.submit("--nodes=4", "--exclusive")]
    time.sleep(2)
    to.cluster.ask("scancel", jobs["completing"])
    to.wait(jobs["completing"], "COMPLETING")
    to.record("queue", *QUEUE)
    for name in jobs:
        if name != "array":
            to.show(name, jobs[name])
    to.show("running", f"{jobs['array']}_0")
    to.show("array_task_limit", f"{jobs['array']}_3")
    to.show("resources", waiting[0])
    to.show("failed", failed)
    to.show("unknown", "999999")
    to.record("states_in_json", "sh", "-c", "squeue --json --user=0 | grep -A3 '\"job_state\"' | head -40")
    to.record("requeue_refused", "scontrol", "requeue", jobs["begin_time"])
    to.record("requeue_unknown", "scontrol", "requeue", "999999")
    to.cluster.ask("scancel", *jobs.values(), foreign, *waiting)
    wait_for(lambda: not to.cluster.ask("squeue", "--noheader"), 60)
    to.record("queue_empty", *QUEUE)
    to.show("cancelled", jobs["suspended"])
    to.record("past_cancelled", *SACCT, jobs["suspended"])
    to.record("past_failed", *SACCT, failed)
    to.record("past_unknown", *SACCT, "999999")


def ends(to):
    """How jobs end, and what the accounts and the logs say of it."""
    log = to.cluster.folder / "out"
    hungry = f"srun {sys.executable} -c 'bytearray(600 << 20)'"
    job = to.submit(f"--error={log}", script=hungry)
    to.wait(job, "FAILED", "OUT_OF_MEMORY")
    to.show("out_of_memory", job)
    to.keep("log_out_of_memory", f"srun in job {job}, which took more memory than it had", 0, "", log.read_text())
    step = ("sacct", "--noheader", "--parsable2", "--format=State", "--jobs")
    wait_for(lambda: "OUT_OF_ME" in to.cluster.ask(*step, f"{job}.0"), 30)
    to.record("step_out_of_memory", *step, f"{job}.0")

    environment = f"env > {log}.batch; srun env > {log}.step"
    job = to.submit("--array=0-0", "--cpus-per-task=2", script=environment)
    to.wait(job, "COMPLETED")
    to.show("completed", job)
    wait_for(lambda: "COMPLETED" in to.cluster.ask(*SACCT, job), 30)
    to.record("past_completed", *SACCT, job)
    for place in ("batch", "step"):
        lines = Path(f"{log}.{place}").read_text().splitlines()
        kept = sorted(line for line in lines if re.match("SLURM|SRUN|SBATCH", line))
        to.keep(f"environment_{place}", "env in a job with --cpus-per-task=2", 0, "\n".join(kept) + "\n")

    job = to.submit(script="trap '' TERM; sleep 600 & wait; sleep 600")
    to.wait(job, "RUNNING")
    time.sleep(2)
    to.cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: "PreemptTime=2" in to.cluster.ask("scontrol", "show", "job", "-o", job))
    to.show("preempted", job)
    to.wait(job, "PENDING")
    to.show("after_preemption", job)
    to.cluster.release()
    to.wait(job, "RUNNING")
    to.show("running_after_preemption", job)
    to.record("past_preempted", *SACCT, job)

    node = re.search(r" NodeList=(\S+)", to.cluster.ask("scontrol", "show", "job", "-o", job))[1]
    listing = subprocess.run(["pgrep", "-f", f"slurmstepd: \\[{job}\\."], capture_output=True, text=True).stdout
    lost = [pid for pid in map(int, listing.split()) if to.cluster.owns(pid)]
    for pid in [to.cluster.daemon(f"slurmd-{node}"), *lost]:
        kill(pid)
    state = ("sinfo", "--noheader", "--nodes", node, "--format=%T")
    wait_for(lambda: time.sleep(2) or "DOWN" in to.cluster.ask("scontrol", "show", "node", node), 120)
    to.record("node_down", *state)
    to.show("after_node_loss", job)
    wait_for(lambda: "NODE_FAIL" in to.cluster.ask(*SACCT, job), 30)
    to.record("past_node_lost", *SACCT, job)
    to.cluster.ask("scancel", job)
    to.record("node_unknown", "sinfo", "--noheader", "--nodes", "n99", "--format=%T")
    to.cluster.ask("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    to.record("node_drained", "sinfo", "--noheader", "--nodes", "n1", "--format=%T")
    to.record("node_idle", "sinfo", "--noheader", "--nodes", "n2", "--format=%T")


def silence(to):
    """What is said where a daemon is away."""
    kill(to.cluster.daemon("slurmdbd"))
    time.sleep(1)
    to.record("silence_accounts", *SACCT, "1")
    to.record("silence_accounts_manager", "sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name")
    kill(to.cluster.daemon("slurmctld"))
    time.sleep(1)
    to.record("silence_ping", "scontrol", "ping")
    to.record("silence_queue", *QUEUE)
    to.record("silence_job", "scontrol", "show", "job", "-o", "1")
    to.record("silence_node", "sinfo", "--noheader", "--nodes", "n1", "--format=%T")
    to.record("silence_requeue", "scontrol", "requeue", "1")
    away = {name: value for name, value in to.cluster.environment.items() if name != "SLURM_CONF"}
    answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, env=away)
    to.keep("no_cluster", "scontrol ping (no configuration)", answer.returncode, answer.stdout, answer.stderr)


def main(scenes=(settings, queue, ends, silence)):
    folder = ANSWERS / re.search(r"\d+\.\d+", version())[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    place = Path(tempfile.mkdtemp(prefix="slurm_answers_"))
    cluster = Cluster(place, accounts=True)
    try:
        to = Recorder(cluster, folder)
        for scene in scenes:
            scene(to)
    finally:
        cluster.down()
        shutil.rmtree(place, ignore_errors=True)
    print(f"{len(os.listdir(folder))} answers of {to.version} in {folder}")


if __name__ == "__main__":
    main()
