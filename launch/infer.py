"""Inference on Slurm: `fsr submit-infer voc --checkpoint … --data_folder … --shards 32 --parallel 8`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("submit-infer")
    from fsr.command import help_first
    from launch import infer_options, infer_study_options

    help_first((infer_study_options if infer_study_options.names_a_study(sys.argv[1:]) else infer_options).parse)

import sys
from dataclasses import replace

from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.inference.config import InferConfig
from launch import infer_study
from launch.infer_options import Options, parse
from launch.infer_study_options import names_a_study
from launch.show.messages import NOTHING_SUBMITTED, more_than_parallel, say
from launch.state.paths import ResultsFolder
from launch.state.rights import check_rights
from launch.state.stop import StopRequest
from launch.submit import choose_code, prepare, submit
from launch.worker import method
from launch.worker.job_spec import JobSpec


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Flags of `fsr infer`, and those that say where (`--cluster --parallel --partition --time_limit …`); with --study
    those of the inference of a study's checkpoints."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if names_a_study(arguments):
        infer_study.main(arguments)
        return
    config, asked = parse(arguments)
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
    """What a worker gets. Raises UserError for what it cannot get, and for a shard, which the workers choose."""
    resources = asked.resolved().for_inference(config)
    if config.shard:
        raise UserError(f"--shard is chosen by the workers, got {config.shard}; --shards says how many there are")
    return resources


if __name__ == "__main__":
    main()
