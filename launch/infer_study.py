"""Inference of a study's checkpoints: `fsr infer --study NAME --best 3 --repeats`. Running it again resumes."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("infer --study")
    from fsr.command import help_first
    from launch.infer_study_options import parse

    help_first(parse)

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import optuna
from rich.console import Console

from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.files import open_file
from fsr.inference.config import InferConfig
from fsr.next_command import next_command, study_words
from launch.infer_study_options import Options, parse
from launch.show.messages import NOTHING_SUBMITTED, more_than_parallel, say, tell_submission
from launch.slurm.environment import LocalEnvironment, leave_job
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.checkpoints import checkpoints_of, chosen_trials
from launch.state.damage import naming_repair
from launch.state.evaluation import inferences_of, is_finished, unfinished
from launch.state.paths import EvaluationFolder, StudyFolder, relative
from launch.state.rights import check_rights
from launch.state.same_failure import raise_mistakes
from launch.state.stop import StopRequest
from launch.state.storage import load_launched
from launch.submit import choose_code, prepare, submit
from launch.worker.inference import InferenceWorker
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Rendezvous

TABLE = Path(__file__).resolve().parent.parent / "analysis" / "evaluation.py"
LOOK_EVERY_S = 2.0
BY_THEMSELVES = (
    "the jobs work on by themselves (scancel ends them); the same command waits for them and shows the table"
)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.exit(evaluate(parse(sys.argv[1:] if arguments is None else arguments)))


def evaluate(options: Options) -> ExitCode:
    """Do what is missing of the evaluation, and show its table."""
    console = new_console()
    study = StudyFolder.in_runs(options.runs, options.study)
    folder = EvaluationFolder(options.output_folder.resolve()) if options.output_folder else EvaluationFolder.of(study)
    inferences = planned(options, study, folder, console)
    resources = options.resolved().for_inference(inferences[0])
    check_rights(folder)
    missing = unfinished(inferences)
    say(console, f"{len(inferences)} inferences, {len(inferences) - len(missing)} of them done")
    on_slurm = bool(missing) and resources.cluster == "slurm"
    with StopRequest() as stop:
        try:
            if on_slurm:
                infer_on_slurm(missing, folder, options, resources, console)
                if not options.detach:
                    queue = Queue(folder, on_slurm=True)
                    wait_for(inferences, lambda: stop.signals > 0 or queue.nobody_works(), console)
                if options.detach or stop.signals:
                    say(console, BY_THEMSELVES)
                    return ExitCode.INTERRUPTED if stop.signals else ExitCode.DONE
                raise_mistakes(folder)
            elif missing:
                infer_here(missing, folder, stop)
        finally:  # also where a mistake is about to be told: it may be of one checkpoint alone
            left = sum(not is_finished(config) for config in inferences)
            if left < len(inferences) and not stop.signals and not (on_slurm and options.detach):
                show_table(options, folder)
    if left:
        say(console, f"{left} of {len(inferences)} inferences are not done; the same command resumes them")
    return ExitCode.INTERRUPTED if stop.signals else ExitCode.INCOMPLETE if left else ExitCode.DONE


def planned(options: Options, study: StudyFolder, folder: EvaluationFolder, console: Console) -> list[InferConfig]:
    """The inferences that the options ask for. Raises UserError where there are none."""
    if options.best is not None and options.trials:
        raise UserError("--best and --trials both choose checkpoints; give only one of them")
    with naming_repair(study):
        trials = load_launched(study).get_trials(deepcopy=False)
        base = study.definition()["base"]
    numbers = chosen_trials(trials, options.best, options.trials, options.repeats)
    checkpoints, notes = checkpoints_of(study, numbers, options.trials)
    for note in notes:
        say(console, f"note: {note}")
    say(console, f"study {study.name}, checkpoints of trials {', '.join(map(str, checkpoints))}")
    common = InferConfig(
        dataset=base["dataset"],
        checkpoint=next(iter(checkpoints.values())),
        data_folder=Path(options.data_folder or base["data_folder"]).absolute(),
        list_folder=Path(base["list_folder"]) if base.get("list_folder") else None,
        num_classes=base["num_classes"],
        precision=options.precision,
        gate_threshold=options.gate_threshold,
        report=options.report,
        skip_bad=options.skip_bad,
        batch_size=options.batch_size,
        workers=options.workers,
        threads=options.threads,
        shards=options.shards,
    )
    return inferences_of(checkpoints, folder, common, options.infer_set, options.weights)


def infer_here(inferences: Sequence[InferConfig], folder: EvaluationFolder, stop: StopRequest) -> None:
    """Infer in this process; another one with the same command takes other shards meanwhile.

    What each inference prints, among it its table by class, goes to a log.
    """
    leave_job()
    with open_file(folder.local_log, "a") as log, redirect_stdout(log):
        worker = InferenceWorker(inferences=tuple(inferences), folder=folder)
        worker.work(stop, LocalEnvironment(), Rendezvous(folder.locks))


def infer_on_slurm(
    inferences: Sequence[InferConfig],
    folder: EvaluationFolder,
    options: Options,
    resources: Resources,
    console: Console,
) -> None:
    """Submit the workers that are missing for these."""
    lock = folder.sweep_lock()
    lock.take(f"submitting {folder.folder}")
    folder.stop_file.unlink(missing_ok=True)
    code = choose_code(folder, options.renew_code, "", console)
    submission = prepare(folder, min(options.parallel, len(inferences) * options.shards), resources)
    spec = JobSpec(
        kind="evaluation",
        folder=str(folder.folder),
        config=inferences[0].to_json(),
        inferences=[config.to_json() for config in inferences],
        code=code,
    )
    ids = submit(submission, spec, resources, inferences[0])
    lock.release()
    notes = [*submission.notes, *more_than_parallel(submission.live, options.parallel)]
    tell_submission(ids, len(submission.sizes), submission.workers, submission.live, notes, console)
    if not ids and not submission.live:
        raise UserError(NOTHING_SUBMITTED)
    say(console, f"logs of the workers: {relative(folder.slurm)}")


def wait_for(inferences: Sequence[InferConfig], ended: Callable[[], bool], console: Console) -> None:
    """Wait until all are finished, or nobody is left; says how many are, whenever it changes."""
    left, told = list(inferences), -1
    while True:
        over = ended()
        left = [config for config in left if not is_finished(config)]
        if len(left) != told:
            say(console, f"{len(inferences) - len(left)} of {len(inferences)} inferences are done")
            told = len(left)
        if over or not left:
            return
        time.sleep(LOOK_EVERY_S)


def show_table(options: Options, folder: EvaluationFolder) -> None:
    """Show the table of what is done, by the command that shows it at any time."""
    words = [*study_words(options.study, options.runs)]
    if options.output_folder is not None:
        words += ["--evaluation", folder.folder]
    sys.stdout.flush()
    subprocess.run([sys.executable, str(TABLE), *map(str, words)], check=False)
    print(f"the table again: {next_command('table', *words)}")


if __name__ == "__main__":
    main()
