"""What this cluster does to jobs, and what of it a sweep survives: `python launch/doctor.py [--study NAME --runs DIR]`.

With a study it also checks the study's folder and repairs what it safely can.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import optuna
import tyro
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.system_errors import getuser, nearest
from launch.lock_probe import try_locks
from launch.slurm import commands
from launch.slurm.environment import cause_of_lost_attempt
from launch.slurm.queue import Queue
from launch.state.attempts import AttemptLog
from launch.state.paths import StudyFolder
from launch.state.rights import may_write
from launch.state.storage import NETWORK, file_system, open_launched
from launch.worker.claim import close_lost

LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=posix", "localflock")  # options of NFS and Lustre mounts


@dataclass(frozen=True, kw_only=True)
class Options:
    """Look at the cluster, and at a study's folder."""

    study: str | None = None
    """A study to check and to repair."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    partition: str | None = None
    """Look at this partition alone."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; exit code 1 if something is lost for good."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = tyro.cli(Options, args=arguments)
    console = new_console()
    check_cluster(options.partition, console)
    sound = check_locks(options.runs, options.partition, console)
    if options.study:
        sound &= check_study(StudyFolder.in_runs(options.runs, options.study), console)
    sys.exit(ExitCode.DONE if sound else ExitCode.INCOMPLETE)


def check_cluster(partition: str | None, console: Console) -> None:
    """Say what Slurm does on each kind of end, and what it costs a sweep. Raises UserError for no such partition."""
    if not commands.answers_here():
        console.print("no Slurm answers here (scontrol ping): sweeps run on this machine (--cluster local)")
        return
    for note in commands.notes():
        console.print(f"note: {note}", soft_wrap=True)
    settings, partitions = commands.settings(), commands.partitions()
    if partition is not None and partition not in partitions:
        raise UserError(f"there is no partition {partition}; allowed: {', '.join(partitions)}")
    facts = Table("setting", "value", "what it means for a sweep", title="this cluster")
    size, limit = settings.get("MaxArraySize", "unknown"), commands.submit_limit()
    facts.add_row("MaxArraySize", size, "more workers are split into several arrays")
    facts.add_row("submit limit", str(limit or "none known"), "no more workers than this are submitted")
    facts.add_row(
        "JobRequeue", settings.get("JobRequeue", "unknown"), "every job asks for --requeue, whatever this says"
    )
    facts.add_row("KillWait", settings.get("KillWait", "unknown"), "time between SIGTERM and SIGKILL of scancel")
    user_signal = "send_user_signal" in settings.get("PreemptParameters", "")
    facts.add_row("send_user_signal", "yes" if user_signal else "no", "SIGTERM is understood as well as SIGUSR2")
    accounts = settings.get("AccountingStorageType", "")
    facts.add_row("accounting", accounts or "unknown", "without it, a node's loss is told from preemption by its state")
    console.print(facts)

    ends = Table("partition", "end", "what Slurm does", "what a sweep loses", title="what a sweep survives")
    for name, row in partitions.items():
        if partition in (None, name):
            mode, grace = row.get("PreemptMode", settings.get("PreemptMode", "OFF")), row.get("GraceTime", "0")
            ends.add_row(name, "preemption", *preemption(mode, grace))
            time_limit = row.get("MaxTime", "UNLIMITED")
            ends.add_row(
                "", f"time limit ({time_limit})", "SIGUSR2 some time before", "nothing: it saves and is requeued"
            )
            restarts = "requeues, or the batch script restarts the ranks"
            ends.add_row("", "node lost, SIGKILL", restarts, "steps since the last checkpoint")
            ends.add_row("", "scancel", "SIGTERM, SIGKILL", "nothing: it saves; the same sweep command resumes")
    console.print(ends)


def preemption(mode: str, grace: str) -> tuple[str, str]:
    """What a preemption mode does to a job, and what it costs a sweep."""
    if mode.startswith("REQUEUE"):
        cost = "steps since the last checkpoint" if grace == "0" else f"nothing, if it can save within {grace} s"
        return f"SIGTERM, {grace} s later SIGKILL and requeue", cost
    if mode.startswith("CANCEL"):
        cost = f"nothing, if it can save and requeue itself within {grace} s; else a worker, not its trial"
        return f"SIGTERM, {grace} s later SIGKILL, no requeue", cost
    if mode.startswith("SUSPEND"):
        return "stops the processes for a while", "nothing"
    return "does not happen", "nothing"


def check_locks(runs: Path, partition: str | None, console: Console) -> bool:
    """Say whether locks under the runs folder hold across nodes: what its mount says, and what comes of taking one."""
    folder = nearest(runs.absolute())
    kind = file_system(folder)
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    bad = [line for line in lines if line.split(" ")[2] == kind and any(option in line for option in LOCAL_LOCKS)]
    if bad and kind in NETWORK:
        console.print(
            f"LOCKS: {folder} lies on {kind}, mounted so that locks do not reach other nodes; mount it without"
        )
        console.print(f"  {bad[0]}", soft_wrap=True)
        return False
    shared = "a network file system" if kind in NETWORK else "seen by other nodes only if it is shared in another way"
    console.print(f"locks: {folder} lies on {kind or 'an unknown file system'}, {shared}", soft_wrap=True)
    sound, sentences = try_locks(folder, commands.answers_here(), partition)
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
    return sound


def check_study(folder: StudyFolder, console: Console) -> bool:
    """Check a study's files; give every attempt that died its cause; say what was done."""
    study = optuna.load_study(study_name=folder.name, storage=open_launched(folder))
    repairs = may_write(folder)
    if not repairs:
        console.print(f"{getuser()} may only read {folder.folder}, so nothing is repaired", soft_wrap=True)
    queue = Queue(folder, on_slurm=folder.slurm.exists())
    trials, sound, working = study.get_trials(deepcopy=False), True, []
    done, jobs = sum(trial.state.is_finished() for trial in trials), queue.jobs()
    alive = "unknown, Slurm does not answer" if jobs is None else len(jobs)
    console.print(f"study {folder.name}: {len(trials)} trials, {done} finished; workers alive: {alive}")
    for trial in trials:
        run, attempt_log = folder.run(trial.number), AttemptLog(folder.run(trial.number))
        if trial.state == TrialState.COMPLETE and run.result() is None:
            console.print(f"trial {trial.number} is complete, but {run.result_file} is missing: its folder was touched")
            sound = False
        if trial.state != TrialState.RUNNING:
            continue
        attempts, lock = attempt_log.attempts(), folder.trial_lock(trial.number)
        if attempts and attempts[-1].cause is None:
            if queue.holds(attempts[-1]) or not repairs or not lock.try_acquire():
                working.append(trial.number)
                continue
            close_lost(folder, trial.number, cause_of_lost_attempt)
            lock.release()
            last = attempt_log.attempts()[-1]
            console.print(f"repaired: trial {trial.number} had died without a cause: {last.cause} ({last.detail})")
        console.print(f"trial {trial.number} waits to be resumed: run the same sweep command again")
    if working:
        numbers = ", ".join(map(str, working))
        console.print(f"worked on, as far as can be known from here: trials {numbers}", soft_wrap=True)
    return sound


if __name__ == "__main__":
    main()
