"""What each rank of a job and each local worker runs, `python -m launch.worker.main JOB_SPEC`.

Rank 0 works, the others follow it. The exit code tells the batch script, or the local sweep, what came of it.
"""

import faulthandler
import os
import signal
import sys
from pathlib import Path

# Before the imports that take seconds: what comes meanwhile waits until there are handlers for it.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)

try:
    from fsr.errors import UnreadableError, UserError
    from fsr.exit_codes import ExitCode
    from fsr.heartbeat import HEARTBEAT
    from fsr.system_errors import sentence_of
    from launch.slurm import bad_nodes, commands
    from launch.slurm.environment import Environment, current_environment
    from launch.slurm.error_causes import cause_of_error
    from launch.state.damage import naming_repair
    from launch.state.paths import LaunchFolder
    from launch.state.process import die_after
    from launch.state.stop import StopRequest
    from launch.worker.job_spec import JobSpec
    from launch.worker.protocol import Outcome, Worker
    from launch.worker.rendezvous import Rendezvous
except ImportError as error:
    # Somebody removed files of the snapshot: without them it cannot verify itself, and must say so by hand. On Slurm
    # the batch script does, where no other node can run it either.
    sentence = f"the code snapshot {os.getcwd()} is not whole ({error}); take a new one with --renew_code"
    print(f"error: {sentence}", file=sys.stderr)
    if "SLURM_JOB_ID" not in os.environ:
        mistakes = Path(sys.argv[1]).parent.parent / "mistakes"  # the job spec lies in a folder of the study's
        mistakes.mkdir(exist_ok=True)
        (mistakes / f"import_{os.getpid()}").write_text(sentence, encoding="utf-8")
    sys.exit(2)

EXIT_CODES = {
    Outcome.DONE: ExitCode.DONE,
    Outcome.STOPPED: ExitCode.INTERRUPTED,
    Outcome.BROKEN: ExitCode.BROKEN,
    Outcome.MISTAKE: ExitCode.MISTAKE,
}


def main() -> None:
    """Work until nothing is left to do."""
    try:
        spec = JobSpec.read(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        print(f"error: {sentence_of(error) or error}", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)
    folder, environment = spec.launch_folder(), current_environment()
    rendezvous = Rendezvous(folder.locks)
    # Loader workers inherit it. Their stacks tell where a rank hangs.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A rank may use the cores that Slurm gave it, less those of its data loaders; not all that the node has.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spec.config["workers"])))
    try:
        if spec.sweep_pid is None:
            HEARTBEAT.write_to(rendezvous.heartbeat_file(), environment.node)
            HEARTBEAT.start("starting")
        with naming_repair(folder):
            worker = spec.worker()
    except UserError as error:
        if rendezvous.rank == 0:
            report_mistake(folder, environment, error)
        sys.exit(ExitCode.MISTAKE)
    if spec.sweep_pid is not None:
        alive = folder.worker_lock(os.getpid())  # by which it is counted
        alive.acquire()
    with stop_request(spec, folder) as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        try:
            if rendezvous.rank == 0:
                outcome = lead(worker, stop, environment, rendezvous)
                HEARTBEAT.start("ending")
                sys.exit(exit_code(outcome, spec))
            HEARTBEAT.idle("following")
            worker.follow(stop, rendezvous)
            HEARTBEAT.start("ending")
        finally:  # whatever comes now, this process ends as it has decided
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            if spec.sweep_pid is not None:
                alive.path.unlink(missing_ok=True)


def exit_code(outcome: Outcome, spec: JobSpec) -> ExitCode:
    """A local sweep wants to know of a stop; a batch script is to do nothing more after one, so for it all is done."""
    return ExitCode.DONE if outcome is Outcome.STOPPED and spec.sweep_pid is None else EXIT_CODES[outcome]


def stop_request(spec: JobSpec, folder: LaunchFolder) -> StopRequest:
    """What stops this worker; a local one also ends when its sweep does, however that ends."""
    if spec.sweep_pid is None:
        return StopRequest(folder.stop_file)
    die_after(spec.sweep_pid)
    return StopRequest(folder.stop_file, folder.sweep_lock(), spec.sweep_pid)


def lead(worker: Worker, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
    """Rank 0: leave a bad node, or work; a mistake of the user is recorded for the one who submitted."""
    HEARTBEAT.idle("choosing its work")
    if environment.is_preempted():
        stop.signals += 1
    elif environment.node in bad_nodes.bad_nodes(worker.folder):
        leave_bad_nodes(worker.folder, environment)
    try:
        with naming_repair(worker.folder):
            outcome = worker.work(stop, environment, rendezvous)
    except Exception as error:
        if isinstance(error, UnreadableError) or cause_of_error(error)[0] == "node":
            leave_node_that_lacks(worker, environment, rendezvous, error)
        if isinstance(error, PermissionError):
            error = UserError(sentence_of(error) or str(error))
        if not isinstance(error, UserError):
            raise
        report_mistake(worker.folder, environment, error)
        outcome = Outcome.MISTAKE
    rendezvous.announce_end()
    return outcome


def leave_bad_nodes(folder: LaunchFolder, environment: Environment) -> None:
    """Go to a node that is not bad; returns only where there is none."""
    bad = bad_nodes.to_exclude(folder, partition_nodes())
    if bad:
        print(f"node {environment.node} is bad for trials; going to another node", flush=True)
        environment.move_off(bad)


def leave_node_that_lacks(worker: Worker, environment: Environment, rendezvous: Rendezvous, error: Exception) -> None:
    """Go to another node if this one lacks what others may have; returns where the mistake is the user's."""
    if environment.job == "local":
        return
    folder, lacking = worker.folder, bad_nodes.lacking(worker.folder)
    # Of a job on several nodes, one of the other ranks' may lack it.
    node = next(iter(sorted(rendezvous.nodes_that_lack())), environment.node)
    works_elsewhere = bool(worker.nodes_at_work() - lacking - {node})
    if not bad_nodes.nodes_fault(node, lacking, partition_nodes(), works_elsewhere, bool(folder.mistakes())):
        bad_nodes.unmark_lacks(folder)
        return
    print(f"error: node {node} lacks what others may have: {error}", file=sys.stderr, flush=True)
    bad_nodes.mark_lacks(folder, node)
    leave_bad_nodes(folder, environment)


def partition_nodes() -> set[str] | None:
    """All nodes that this job may get."""
    return commands.partition_nodes(os.environ.get("SLURM_JOB_PARTITION"))


def report_mistake(folder: LaunchFolder, environment: Environment, error: UserError) -> None:
    """Tell the log, and the one who started the worker, what the user has to mend."""
    print(f"error: {error}", file=sys.stderr)
    folder.record_mistake(f"{environment.job}_{os.getpid()}", str(error))


if __name__ == "__main__":
    main()
