"""Inference on Slurm: `fsr submit-infer voc --checkpoint … --data_folder … --shards 32 --parallel 8`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("submit-infer")
    from fsr.command import help_first
    from launch.infer_options import parse

    help_first(parse)

import sys
from dataclasses import replace

from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.inference.config import InferConfig
from launch.infer_options import Options, parse
from launch.show.messages import NOTHING_SUBMITTED, more_than_parallel, say
from launch.state.paths import ResultsFolder
from launch.state.rights import check_rights
from launch.state.stop import StopRequest
from launch.submit import choose_code, prepare, submit
from launch.worker import method
from launch.worker.job_spec import JobSpec


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Flags of `fsr infer`, and those that say where (`--cluster --parallel --partition --time_limit …`)."""
    config, asked = parse(sys.argv[1:] if arguments is None else arguments)
    resources = resources_for(asked, config)
    if resources.cluster != "slurm":
        with StopRequest() as stop:
            stopped = method.open_inference(config).answer_shard(config.shard, stop) == "stopped"
        sys.exit(ExitCode.INTERRUPTED if stopped else ExitCode.DONE)
    places = {name: getattr(config, name).absolute() for name in ("checkpoint", "data_folder")}
    optional = ("list_folder", "compare")
    places |= {name: getattr(config, name).absolute() for name in optional if getattr(config, name)}
    folder = ResultsFolder(config.results_folder.resolve())
    pictures = tuple(place.absolute() for place in config.pictures)
    config = replace(config, **places, pictures=pictures, output_folder=folder.folder)
    check_rights(folder)
    lock = folder.sweep_lock()
    lock.take(f"submitting {folder.folder}")
    folder.stop_file.unlink(missing_ok=True)
    console = new_console()
    code = choose_code(folder, asked.renew_code, "", console)
    submission = prepare(folder, min(asked.parallel, config.shards), resources)
    spec = JobSpec(kind="inference", folder=str(folder.folder), config=config.to_json(), code=code)
    ids = submit(submission, spec, resources, config)
    lock.release()
    for note in (*submission.notes, *more_than_parallel(submission.live, asked.parallel)):
        say(console, f"note: {note}")
    if not ids and not submission.live:
        raise UserError(NOTHING_SUBMITTED)
    done = sum(1 for _ in folder.results.records())
    jobs = f" as {', '.join(ids)}" if ids else ""
    line = f"submitted {submission.workers} workers{jobs}; {submission.live} were there already"
    say(console, f"{line}; {done} images are done; logs: {folder.slurm}")


def resources_for(asked: Options, config: InferConfig) -> Options:
    """What a worker gets: one GPU, none for the synthetic set. Raises UserError if more is asked for."""
    resources = asked.resolved()
    count = resources.gpu_count
    gpus = count if count is not None else 0 if config.dataset == "synthetic" else 1
    if gpus > 1 or resources.nodes > 1:
        raise UserError(
            f"--gpus must be 0 or 1 and --nodes 1, as each worker infers alone (more of them: --parallel), "
            f"got {gpus} and {resources.nodes}"
        )
    if config.shard:
        raise UserError(f"--shard is chosen by the workers, got {config.shard}; --shards says how many there are")
    return resources if count is not None else replace(resources, gpus=gpus)


if __name__ == "__main__":
    main()
