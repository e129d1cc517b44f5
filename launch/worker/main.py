"""What each rank of a job and each local worker runs, `python -m launch.worker.main JOB_SPEC`.

Rank 0 works, the others follow it. The exit code tells the batch script, or the local sweep, what came of it.
"""

import json
import os
import sys
from pathlib import Path

try:
    from fsr.errors import UserError
    from fsr.exit_codes import ExitCode
    from fsr.system_errors import sentence_of
    from launch.slurm import bad_nodes, commands
    from launch.slurm.environment import Environment, current_environment
    from launch.state.paths import LaunchFolder
    from launch.state.process import die_after
    from launch.state.stop import StopRequest
    from launch.worker.job_spec import JobSpec
    from launch.worker.protocol import Outcome, Worker
    from launch.worker.rendezvous import Rendezvous
except ImportError as error:
    # Somebody removed files of the snapshot: without them it cannot verify itself, and must say so by hand.
    sentence = f"the code snapshot {os.getcwd()} is not whole ({error}); take a new one with --renew-code"
    mistakes = Path(json.loads(Path(sys.argv[1]).read_text())["folder"]) / "mistakes"
    mistakes.mkdir(exist_ok=True)
    (mistakes / f"import_{os.getpid()}").write_text(sentence)
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)

EXIT_CODES = {
    Outcome.DONE: ExitCode.DONE,
    Outcome.STOPPED: ExitCode.INTERRUPTED,
    Outcome.BROKEN: ExitCode.BROKEN,
    Outcome.MISTAKE: ExitCode.MISTAKE,
}


def main() -> None:
    """Work until nothing is left to do."""
    spec = JobSpec.read(Path(sys.argv[1]))
    folder, environment = spec.launch_folder(), current_environment()
    rendezvous = Rendezvous(folder.locks)
    # A rank may use the cores that Slurm gave it, less those of its data loaders; not all that the node has.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spec.config["workers"])))
    try:
        worker = spec.worker()
    except UserError as error:
        if rendezvous.rank == 0:
            report_mistake(folder, environment, error)
        sys.exit(ExitCode.MISTAKE)
    with stop_request(spec, folder) as stop:
        if rendezvous.rank == 0:
            sys.exit(exit_code(lead(worker, stop, environment, rendezvous), spec))
        worker.follow(stop, rendezvous)


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
    if environment.node in bad_nodes.bad_nodes(worker.folder):
        bad = bad_nodes.to_exclude(worker.folder, commands.partition_nodes(os.environ.get("SLURM_JOB_PARTITION")))
        if bad:
            print(f"trials died of broken hardware on {environment.node}; going to another node", flush=True)
            environment.move_off(bad)
    try:
        outcome = worker.work(stop, environment, rendezvous)
    except UserError as error:
        report_mistake(worker.folder, environment, error)
        outcome = Outcome.MISTAKE
    except PermissionError as error:
        report_mistake(worker.folder, environment, UserError(sentence_of(error) or str(error)))
        outcome = Outcome.MISTAKE
    rendezvous.announce_end()
    return outcome


def report_mistake(folder: LaunchFolder, environment: Environment, error: UserError) -> None:
    """Tell the log, and the one who started the worker, what the user has to mend."""
    print(f"error: {error}", file=sys.stderr)
    folder.record_mistake(f"{environment.job}_{os.getpid()}", str(error))


if __name__ == "__main__":
    main()
