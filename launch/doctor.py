"""What this cluster does to jobs, and what of it a sweep survives: `fsr doctor [--study NAME]`.

With a study it also checks the study's folder and repairs what it safely can.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("doctor")

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from fsr.command import parse_flags
from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.system_errors import getuser, nearest
from launch.lock_probe import try_folder
from launch.repair import damage, repair
from launch.show.messages import say
from launch.slurm import answers, commands, version
from launch.slurm.environment import cause_of_lost_attempt
from launch.slurm.queue import Queue
from launch.state.attempts import AttemptLog
from launch.state.damage import naming_repair
from launch.state.paths import StudyFolder
from launch.state.rights import check_rights, may_write
from launch.state.storage import NETWORK, file_system, load_launched
from launch.state.trial_identity import Strangers
from launch.state.trials import damage_of
from launch.worker.interrupted import close_lost

PREEMPTING = {
    "preempt/qos": "the QOS says what happens to a preempted job (below)",
    "preempt/partition_prio": "the partition says what happens to a preempted job (below)",
}
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=posix", "localflock")  # options of NFS and Lustre mounts


@dataclass(frozen=True, kw_only=True)
class Options:
    """Look at the cluster, and at a study's folder.

    Examples:
        --partition gpu
        --study mask_ratio --repair
    """

    study: str | None = None
    """A study to check and to repair."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    partition: str | None = None
    """Look at this partition alone."""
    repair: bool = False
    """Restore the study's damaged files from what else is known. The damaged ones stay beside them."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; exit code 1 if something is lost for good."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "doctor", arguments)
    console = new_console()
    check_cluster(options.partition, console)
    sound = check_locks(options.runs, options.partition, console)
    if options.study:
        folder = StudyFolder.in_runs(options.runs, options.study)
        if options.repair:
            check_rights(folder)
        whole = repair(folder, options.repair, console)
        with naming_repair(folder):
            sound &= check_study(folder, console) and whole
    sys.exit(ExitCode.DONE if sound else ExitCode.INCOMPLETE)


def check_cluster(partition: str | None, console: Console) -> None:
    """Say what Slurm does on each kind of end, and what it costs a sweep. Raises UserError for no such partition."""
    presence = commands.presence()
    if presence == "absent":
        say(
            console,
            "no Slurm answers here: there is no sbatch, or no cluster that it knows; sweeps run on this machine",
        )
        return
    if isinstance(presence, commands.Silence):
        say(console, f"Slurm does not answer: {presence.words}; sweeps are refused, except with --cluster local")
        return
    for note in commands.notes():
        console.print(f"note: {note}", soft_wrap=True)
    settings, partitions = commands.settings(), commands.partitions()
    if partition is not None and partition not in partitions:
        raise UserError(f"there is no partition {partition}; allowed: {', '.join(partitions)}")
    facts = Table("setting", "value", "what it means for a sweep", title="this cluster")
    slurm = settings.get("SLURM_VERSION", "unknown")
    facts.add_row("SLURM_VERSION", slurm, version.note(slurm))
    facts.add_row("MaxArraySize", settings.get("MaxArraySize", "unknown"), "more workers are split into several arrays")
    facts.add_row("submit limit", submit_limit(partition), "no more workers than this are submitted")
    facts.add_row(
        "JobRequeue", settings.get("JobRequeue", "unknown"), "every job asks for --requeue, whatever this says"
    )
    facts.add_row("KillWait", settings.get("KillWait", "unknown"), "time between SIGTERM and SIGKILL of scancel")
    user_signal = "send_user_signal" in settings.get("PreemptParameters", "")
    facts.add_row("send_user_signal", "yes" if user_signal else "no", "SIGTERM is understood as well as SIGUSR2")
    accounts = settings.get("AccountingStorageType", "")
    facts.add_row("accounting", accounts or "unknown", "without it, a node's loss is told from preemption by its state")
    tracking = settings.get("ProctrackType", "unknown")
    facts.add_row("ProctrackType", tracking, signalled(tracking))
    preempting = settings.get("PreemptType", "unknown")
    facts.add_row("PreemptType", preempting, PREEMPTING.get(preempting, "jobs are not preempted"))
    console.print(facts)
    if preempting == "preempt/qos":
        console.print(preemption_of_qos(settings))

    ends = Table("partition", "end", "what Slurm does", "what a sweep loses", title="what a sweep survives")
    for name, row in partitions.items():
        if partition in (None, name):
            if preempting == "preempt/qos":
                ends.add_row(name, "preemption", "as the job's QOS says (above)", "")
            else:
                mode = answers.preempt_mode(settings, row, None) or "OFF"
                ends.add_row(name, "preemption", *preemption(mode, row.get("GraceTime", "0")))
            time_limit = row.get("MaxTime", "UNLIMITED")
            ends.add_row(
                "", f"time limit ({time_limit})", "SIGUSR2 some time before", "nothing: it saves and is requeued"
            )
            restarts = "requeues, or the batch script restarts the ranks"
            ends.add_row("", "node lost, SIGKILL", restarts, "steps since the last checkpoint")
            ends.add_row("", "scancel", "SIGTERM, SIGKILL", "nothing: it saves; the same sweep command resumes")
    console.print(ends)


def submit_limit(partition: str | None) -> str:
    """The limits on this user's jobs in the queue, with the default account and QOS, as text."""
    limits = commands.submit_limits(None, partition, None)
    if limits is None:
        return "unknown: the accounts do not answer (sacctmgr)"
    return ", ".join(f"{limit.whose}: {limit.number}" for limit in limits) or "none known"


def signalled(tracking: str) -> str:
    """Which processes of a job get a signal of scancel or preemption."""
    if tracking.endswith(("linuxproc", "pgid")):
        return "each process of a job is signalled by itself, loader workers too"
    return "a signal reaches all processes in a job's cgroup" if tracking.endswith("cgroup") else "unknown"


def seconds(duration: str) -> str:
    """Seconds of sacctmgr's HH:MM:SS."""
    parts = duration.split(":")
    return str(sum(int(part) * 60**power for power, part in enumerate(reversed(parts)))) if duration else "0"


def preemption_of_qos(settings: dict[str, str]) -> Table:
    """What preemption does to the jobs of each QOS."""
    drawn = Table("QOS", "may preempt", "what Slurm does to its jobs", "what a sweep loses", title="preemption by QOS")
    for name, row in commands.qos_settings().items():
        mode = answers.preempt_mode(settings, None, row) or "OFF"
        drawn.add_row(name, row["Preempt"] or "none", *preemption(mode, seconds(row["GraceTime"])))
    if not drawn.row_count:
        drawn.add_row("unknown", "", "the accounts do not answer (sacctmgr show qos)", "")
    return drawn


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
    sound, sentences = try_folder(folder, commands.presence() == "answers", partition)
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
    return sound


def check_study(folder: StudyFolder, console: Console) -> bool:
    """Check a study's files; give every attempt that died its cause; say what was done."""
    study = load_launched(folder)
    repairs = may_write(folder)
    if not repairs:
        console.print(f"{getuser()} may only read {folder.folder}, so nothing is repaired", soft_wrap=True)
    queue = Queue(folder, on_slurm=folder.slurm.exists())
    trials, sound, working = study.get_trials(deepcopy=False), True, []
    done, jobs = sum(trial.state.is_finished() for trial in trials), queue.jobs()
    alive = "unknown, Slurm does not answer" if jobs is None else len(jobs)
    console.print(f"study {folder.name}: {len(trials)} trials, {done} finished; workers alive: {alive}")
    reason = folder.stop_reason()
    if reason is not None:
        say(console, f"stopped: {reason or 'a file stop is there, which the next sweep removes'}")
    strangers = Strangers(folder)
    for trial in trials:
        run, attempt_log = folder.run(trial.number), AttemptLog(folder.run(trial.number))
        stranger = strangers.stranger_in(run, trial) if trial.state != TrialState.WAITING else None
        if stranger:
            say(console, f"trial {trial.number}: {stranger}")
            sound = False
        wrong = damage_of(trial)
        if wrong:
            say(console, f"trial {trial.number} is damaged in the storage, and counts for nothing: {wrong}")
            sound = False
        if trial.state == TrialState.COMPLETE and not run.result_file.exists():
            say(console, f"trial {trial.number} is complete, but {run.result_file} is missing: its folder was touched")
            sound = False
        if trial.state != TrialState.RUNNING or damage(attempt_log.attempts):  # which was told of before
            continue
        attempts, lock = attempt_log.attempts(), folder.trial_lock(trial.number)
        if attempts and attempts[-1].cause is None:
            if queue.holds(attempts[-1]) or not repairs or not lock.try_acquire():
                working.append(trial.number)
                continue
            close_lost(folder, trial.number, partial(cause_of_lost_attempt, identity=folder.identity))
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
