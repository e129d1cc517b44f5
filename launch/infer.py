"""Inference on Slurm: `python launch/infer.py voc --checkpoint … --data_folder … --shards 32 --parallel 8`."""

import sys
from dataclasses import dataclass, replace

import tyro
from rich.console import Console

from fsr.errors import UserError, reports_user_errors
from fsr.inference.config import InferConfig, parse
from launch import submit
from launch.slurm.resources import Resources
from launch.state.paths import ResultsFolder
from launch.state.stop import StopRequest
from launch.worker.inference import infer


@dataclass(frozen=True, kw_only=True)
class Options(Resources):
    """Where an inference runs."""

    parallel: int = 4
    """Workers at the same time on Slurm, each with one GPU; they take the shards in turn."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Flags of `python -m fsr.infer`, and those that say where (`--cluster --parallel --partition --time-limit …`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked, others = tyro.cli(Options, args=arguments, return_unknown_args=True, add_help=False)
    config = parse("python launch/infer.py", others)
    resources = resources_for(asked, config)
    if resources.cluster != "slurm":
        with StopRequest() as stop:
            sys.exit(130 if infer(config).answer_shard(config.shard, stop) == "stopped" else 0)
    places = {name: getattr(config, name).absolute() for name in ("checkpoint", "data_folder")}
    lists = config.list_folder.absolute() if config.list_folder else None
    folder = ResultsFolder(config.results_folder.absolute())
    config = replace(config, **places, list_folder=lists, output_folder=folder.folder)
    lock = folder.sweep_lock()
    if not lock.try_acquire(patience_s=1.0):
        raise UserError(f"process {lock.holder()} is submitting {folder.folder} already")
    folder.stop_file.unlink(missing_ok=True)
    submitted = submit.prepare(folder, min(asked.parallel, config.shards), resources, config)
    ids = submit.submit(submitted, folder, config, infer)
    lock.release()
    console = Console(width=None if sys.stdout.isatty() else 140)
    for warning in submitted.warnings:
        console.print(f"note: {warning}", soft_wrap=True, highlight=False)
    done = sum(1 for _ in folder.results.records())
    jobs = f" as {', '.join(ids)}" if ids else ""
    console.print(
        f"submitted {submitted.workers} workers{jobs}; {submitted.live} were there already; {done} images are done; "
        f"logs: {folder.slurm}",
        soft_wrap=True,
        highlight=False,
    )


def resources_for(asked: Options, config: InferConfig) -> Options:
    """What a worker gets: one GPU, none for the synthetic set. Raises UserError if more is asked for."""
    resources = asked.resolved()
    if asked.parallel < 1:
        raise UserError(f"--parallel must be at least 1, got {asked.parallel}")
    if resources.gpus is None:
        resources = replace(resources, gpus=0 if config.dataset == "synthetic" else 1)
    if resources.gpus > 1 or resources.nodes > 1:
        raise UserError(
            f"--gpus must be 0 or 1 and --nodes 1, as each worker infers alone (more of them: --parallel), "
            f"got {resources.gpus} and {resources.nodes}"
        )
    if config.shard:
        raise UserError(f"--shard is chosen by the workers, got {config.shard}; --shards says how many there are")
    return resources


if __name__ == "__main__":
    main()
