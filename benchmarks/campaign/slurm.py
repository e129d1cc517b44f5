"""What Slurm's commands say of the simulated cluster, in Slurm's own text, which the project's parsers then read."""

import subprocess
import time
from collections.abc import Callable, Sequence

from benchmarks.campaign.cluster import Cluster, Job

AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
UNKNOWN = "slurm_load_jobs error: Invalid job id specified\n"
Answer = tuple[str, str, int]  # stdout, stderr, exit code


class Slurm:
    """The commands, in the place of `subprocess.run`."""

    def __init__(self, cluster: Cluster, name: str, cancels: bool, accounts: bool) -> None:
        self._cluster = cluster
        self._name = name
        self._mode = "CANCEL" if cancels else "REQUEUE"
        self._accounts = accounts
        self._commands: dict[str, Callable[[Sequence[str]], Answer]] = {
            "scontrol": self._scontrol,
            "squeue": self._squeue,
            "sacct": self._sacct,
            "sinfo": self._sinfo,
            "scancel": self._scancel,
            "sacctmgr": self._sacctmgr,
        }

    def run(self, command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Answer a command."""
        program, *words = command
        stdout, stderr, code = self._commands[program](words)
        return subprocess.CompletedProcess(list(command), code, stdout, stderr)

    def _scontrol(self, words: Sequence[str]) -> Answer:
        if self._cluster.is_away:
            return "", AWAY, 1
        if words[:2] == ["show", "config"]:
            return f"PreemptMode             = {self._mode}\nPreemptType             = preempt/partition_prio\n", "", 0
        if words[:2] == ["show", "partition"]:
            return f"PartitionName=gpu PreemptMode={self._mode} State=UP\n", "", 0
        job = self._job(words[1].removeprefix("jobid=") if words[0] != "show" else words[-1])
        if job is None:
            return "", UNKNOWN, 1
        if words[0] == "requeue":
            return ("", "", 0) if self._cluster.requeue(job) else ("", "Job is pending execution\n", 1)
        if words[0] == "update":
            excluded = next(word for word in words if word.startswith("excnodelist="))
            if job.state == "RUNNING":  # one that is being requeued counts as waiting
                return "", "Job is no longer pending execution for job\n", 1
            job.excluded = tuple(excluded.partition("=")[2].split(","))
            return "", "", 0
        assert words[0] == "show", words
        preempted = "None" if job.preempted_at is None else _clock(job.preempted_at)
        line = (
            f"JobId={job.number} ArrayJobId={job.array} ArrayTaskId={job.index} JobName={self._name} "
            f"JobState={job.state} Reason=None Requeue=1 Restarts={job.restarts} StartTime={_clock(job.since)} "
            f"PreemptEligibleTime=None PreemptTime={preempted} Partition=gpu "
            f"ExcNodeList={','.join(job.excluded) or '(null)'} NodeList={job.node.name if job.node else '(null)'}"
        )
        return line + "\n", "", 0

    def _squeue(self, words: Sequence[str]) -> Answer:
        if self._cluster.is_away:
            return "", AWAY, 1
        rows = [f"{job.id}|{job.state}|None|{self._name}|\n" for job in self._cluster.in_queue()]
        return "JOBID|STATE|REASON|NAME|COMMENT\n" + "".join(rows), "", 0

    def _sacct(self, words: Sequence[str]) -> Answer:
        if not self._accounts:
            return "", "Slurm accounting storage is disabled\n", 1
        asked = words[words.index("--jobs") + 1]
        number, dot, step = asked.partition(".")
        job = self._cluster.accounts.get(number)
        if job is None:
            return "", "", 0
        if dot:
            return f"{job.step_states.get(step, job.state)}\n", "", 0
        states = [*job.past, *([job.state] if job.in_queue else [])]
        return "".join(f"{state}|{self._name}\n" for state in states), "", 0

    def _sinfo(self, words: Sequence[str]) -> Answer:
        if self._cluster.is_away:
            return "", AWAY, 1
        nodes = self._cluster.nodes
        if "--nodes" in words:
            asked = words[words.index("--nodes") + 1]
            return "".join("mixed\n" if node.is_up else "down*\n" for node in nodes if node.name == asked), "", 0
        return "".join(f"{node.name}\n" for node in nodes), "", 0

    def _scancel(self, words: Sequence[str]) -> Answer:
        for word in words:
            job = self._job(word)
            if job is not None:
                self._cluster.cancel(job)
        return "", "", 0

    def _sacctmgr(self, words: Sequence[str]) -> Answer:
        return ("", "", 0) if self._accounts else ("", "You are not running a supported accounting_storage plugin\n", 1)

    def _job(self, asked: str) -> Job | None:
        job = self._cluster.accounts.get(asked)
        return job if job is not None and job.id in self._cluster.jobs else None


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment))
