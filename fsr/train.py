"""Training, top to bottom: `fsr train {voc,coco,synthetic,test_bed} --run_folder DIR`."""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("train", torch=True)
    from fsr.command import help_first, parse_command

    help_first(parse_command)

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fsr import distributed
from fsr.arithmetic import use_arithmetic
from fsr.background_writer import BackgroundWriter
from fsr.checkpoint import TrainState
from fsr.command import parse_command
from fsr.config import TrainConfig
from fsr.data.check import check_files
from fsr.data.loaders import train_loader
from fsr.data.source import Source, open_source
from fsr.ema import update_teacher
from fsr.errors import LoaderError, NotFiniteError, UserError, reports_user_errors
from fsr.evaluate import Evaluation, evaluate
from fsr.exit_codes import ExitCode
from fsr.graphs import Graphs
from fsr.heartbeat import HEARTBEAT
from fsr.lock import FileLock
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.optim import set_learning_rates
from fsr.prefetch import Prefetcher
from fsr.pretrained import require_weights
from fsr.run import Run
from fsr.run_log import RunLog
from fsr.schedules import teacher_momentum
from fsr.score_names import SEG_MIOU, score_text
from fsr.step import Batch, step_losses, temperature_of
from fsr.stop_signals import received_signals
from fsr.writable import check_folder

Outcome = Literal["finished", "stopped", "pruned"]
Loaded = TypeVar("Loaded")
LOCK_PATIENCE_S = 10.0


def never(*_: object) -> bool:
    """The default of `stop_requested` and `prune`."""
    return False


def train(
    config: TrainConfig,
    run: Run,
    *,
    stop_requested: Callable[[], bool] = never,
    prune: Callable[[int, dict[str, float | None]], bool] = never,
) -> Outcome:
    """Train until the run is finished, stopped or pruned. Resumes from the run folder's checkpoint, if there is one.

    `stop_requested` is asked on every rank between two steps: if any rank says yes, all save one checkpoint and return.
    `prune` is asked on rank 0 after each evaluation with the step and the scores. A resumed run is bit-identical to an
    uninterrupted one on the same device and world size. On another world size that divides `config.ranks` it learns the
    same within rounding.

    All ranks return together, after everything is written. What only rank 0 can know of the run folder, it tells the
    others: none of them reads a file that rank 0 may be writing.

    A new run folder belongs to this configuration once network, data and device are there, and no longer if the first
    step or the first checkpoint fails: a command whose mistake is mended may use the folder again.

    Only one process trains a run at a time: another one raises UserError.

    Raises UserError for what the user must mend, on every rank. Raises NotFiniteError for a loss that is not finite;
    the weights do not change from that step on. A CPU raises it at once, a GPU at the next record, evaluation or
    checkpoint, because checking makes the host wait for the device. Raises LoaderError, on every rank, if the loader
    workers of one fail; during a stop that is a stop.
    """
    HEARTBEAT.start("starting")
    device = distributed.start()
    use_arithmetic(config.precision, deterministic=config.deterministic)
    config.micro_batches(distributed.world_size())  # refuses a number of processes that cannot share them
    source = open_run(config, run)
    if is_finished(run):
        return "finished"
    with distributed.shared_errors():
        state = TrainState(config, device, source.class_names)
    with alone_in(run):
        return resume_and_train(config, run, source, state, device, stop_requested, prune)


@contextmanager
def alone_in(run: Run) -> Iterator[None]:
    """Let no other process train this run meanwhile; rank 0 keeps them out.

    Raises UserError, on every rank, if one does. It gets some time to end, as a job that was requeued may start before
    a file server has noticed the end of the last one.
    """
    lock = FileLock(run.lock_file)
    with distributed.shared_errors():
        if distributed.rank() == 0:
            lock.take(f"training in {run.folder}", patience_s=LOCK_PATIENCE_S)
    try:
        yield
    finally:
        lock.release()


def resume_and_train(
    config: TrainConfig,
    run: Run,
    source: Source,
    state: TrainState,
    device: torch.device,
    stop_requested: Callable[[], bool],
    prune: Callable[[int, dict[str, float | None]], bool],
) -> Outcome:
    """What `train` does once everything is there, and nobody else trains the run."""
    if is_finished(run):  # by the process that was waited for
        return "finished"
    with distributed.shared_errors():
        if distributed.rank() == 0:
            run.check(config)
    resumed = state.resume(run, device)
    student: Network | DistributedDataParallel = state.student.train()
    state.teacher.train()
    graphs = Graphs() if config.graphs else None
    if distributed.world_size() > 1 and not graphs:
        # With find_unused_parameters the gradient buckets keep their layout. Without it DDP rebuilds them after the
        # first step, and a resumed run would sum gradients in another order.
        student = DistributedDataParallel(state.student, find_unused_parameters=True, gradient_as_bucket_view=True)
    ranks = distributed.rank(), distributed.world_size()
    with distributed.shared_errors():
        batches = train_loader(config, source, *ranks, state.step, config.iterations)
    prefetcher = Prefetcher(batches, device)
    writer = BackgroundWriter()
    run_log: RunLog | None = None  # rank 0's
    started = time.monotonic() - state.seconds
    saved = (state.step, state.evaluated) if resumed else None

    def save(*, leaving: bool) -> None:
        nonlocal saved
        if leaving:
            HEARTBEAT.beat("saving", slow=True)
            writer.wait()
        if saved == (state.step, state.evaluated):
            return
        state.guard.check()
        state.seconds = time.monotonic() - started
        if run_log and leaving:
            HEARTBEAT.beat("saving", slow=True)
            state.save(run)  # training has stopped, so no copy is needed
        elif run_log:
            write = state.snapshot()
            writer.write(lambda: write(run))
        saved = state.step, state.evaluated

    def evaluated() -> Evaluation:
        networks = {"student": state.student, "teacher": state.teacher}
        with run_log.progress.paused() if run_log else nullcontext():
            return evaluate(networks, config, source, device)

    def next_batch() -> Batch:
        with distributed.shared_errors():
            return prefetcher.next()

    def loaded(work: Callable[[], Loaded]) -> Loaded | None:
        """What is made of loaded images; None where they cannot be loaded, but all are to stop anyway."""
        try:
            return work()
        except (UserError, LoaderError):
            if distributed.any_rank(stop_requested()):
                return None
            raise

    def loop() -> Outcome:
        while True:
            if distributed.any_rank(stop_requested()):
                save(leaving=True)
                return "stopped"
            at_end = state.step == config.iterations
            if state.evaluated < state.step and (at_end or state.step % config.eval_every == 0):
                state.guard.check()
                evaluation = loaded(evaluated)
                if evaluation is None:
                    continue
                (state.scores, quality), state.evaluated = evaluation, state.step
                with distributed.shared_errors():
                    if run_log:
                        run_log.scores(quality)
                if distributed.from_first(bool(run_log and prune(state.step, state.scores))):
                    save(leaving=True)
                    return "pruned"
            if at_end or state.step % config.save_every == 0:
                save(leaving=at_end)
            if at_end:
                break
            batch = loaded(next_batch)
            if batch is None:
                continue
            one_step(student, state, batch, config, device, graphs)
            if device.type == "cpu" or state.step % config.log_every == 0:
                state.guard.check()
            if run_log:
                run_log.losses(prefetcher)
            writer.check()
        if run_log:
            run_log.finish()
        return "finished"

    new, outcome = False, None
    try:
        with distributed.shared_errors():
            if distributed.rank() == 0:
                new = run.start(config)
                run_log = RunLog(config, run, source, state, device)
        outcome = loop()
    finally:
        writer.close()
        if run_log:
            run_log.close()
        if new and outcome is None and (state.step == 0 or not run.has_checkpoint()):
            run.release()
    distributed.wait_for_all()
    return outcome


def is_finished(run: Run) -> bool:
    """Whether the run has its final scores, as rank 0 sees it."""
    with distributed.shared_errors():
        finished = distributed.rank() == 0 and run.result() is not None
    return bool(distributed.from_first(finished))


def open_run(config: TrainConfig, run: Run) -> Source:
    """Open the data; check it, the run folder and the pretrained weights on rank 0.

    Every rank raises the UserError of any rank.
    """
    with distributed.shared_errors():
        source = open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)
        if distributed.rank() == 0:
            run.check(config)
            require_weights(config)
            if not run.has_checkpoint():
                trained_on, evaluated_on = source.items(config.train_set), source.items(config.val_set)
                try:
                    check_files(source, config.train_set, trained_on, with_masks=False)
                    check_files(source, config.val_set, evaluated_on, with_masks=True)
                except UserError as error:  # which images a run learns from, its lists say
                    without = f"`{source.remedy} --skip_bad` makes lists without bad files"
                    raise type(error)(f"{error}; {without}") from None
            for sentence in filter(None, map(source.left_out, (config.train_set, config.val_set))):
                print(sentence)
    return source


def one_step(
    student: Network | DistributedDataParallel,
    state: TrainState,
    batch: Batch,
    config: TrainConfig,
    device: torch.device,
    graphs: Graphs | None = None,
) -> None:
    """One optimizer step of the student and one EMA step of the teacher. The host does not wait for a GPU."""
    step = state.step
    state.optimizer.zero_grad(set_to_none=graphs is None)
    sums = torch.zeros_like(state.loss_sums)
    count = config.micro_batches(distributed.world_size())
    for index, micro_batch in enumerate(batch.split(count)):
        # The draws belong to the micro-batch, by its number in the step, whichever rank computes it.
        key = (config.seed, distributed.rank() * count + index, step)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        noise = block_noise(len(micro_batch.labels), config).to(device, non_blocking=True)
        last = index + 1 == count
        sync: AbstractContextManager[None] = nullcontext()
        if isinstance(student, DistributedDataParallel) and not last:
            sync = student.no_sync()  # the gradients of all micro-batches are reduced with the last one
        with sync:
            sums += backward(student, state, micro_batch, noise, config, count, graphs)
    if graphs:
        distributed.average_gradients(state.student)
    state.reinforcement.update_centres(count)
    if state.mixture:
        state.mixture.update(step)
    if state.seco and config.loss_weights(step)["seco"] > 0:
        state.seco.update(count)
    means = distributed.mean(sums / count)
    state.guard.watch(step, means)
    state.loss_sums += means
    state.summed_steps += 1

    set_learning_rates(state.optimizer, step, config)
    state.optimizer.step()
    update_teacher(
        state.teacher, state.student, teacher_momentum(step, config.momentum, config.self_reinforcement_steps)
    )
    state.step += 1


def backward(
    student: Network | DistributedDataParallel,
    state: TrainState,
    batch: Batch,
    noise: Tensor,
    config: TrainConfig,
    micro_batches: int,
    graphs: Graphs | None = None,
) -> Tensor:
    """Add a micro-batch's share to the gradients, and return its losses, float64 in the order of config.losses."""
    step = state.step

    def work(
        most_classes: int | None, temperature: Tensor, thresholds: Tensor, noise: Tensor, *images: Tensor
    ) -> Tensor:
        view1, view2, labels, *local_crops = images
        batch = Batch(view1, view2, labels, local_crops, most_classes)
        parts = student, state.teacher, state.reinforcement
        options = state.mixture, state.seco
        losses = step_losses(*parts, batch, noise, step, config, temperature, thresholds, *options)
        torch.autograd.backward(losses["loss"] / micro_batches)
        return torch.stack([losses[name].detach().double() for name in config.losses])

    # Tensors, for a graph could not read another number each time, and divided by a number the bits are others.
    temperature = torch.full((), temperature_of(step, config), device=noise.device)
    inputs = temperature, state.thresholds(), noise, *batch[:3], *batch.local_crops
    if graphs is None:
        return work(batch.most_classes, *inputs)
    # Few kinds: classes that an image does not have change nothing.
    assert batch.most_classes is not None
    classes = min(1 << max(batch.most_classes - 1, 0).bit_length(), batch.labels.shape[1])
    phase = config.masks_at_random(step), config.cam_source_at(step), config.filters_noise(step)
    kind = classes, *phase, *config.loss_weights(step).values()
    return graphs.run(kind, partial(work, classes), inputs)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """`fsr train`: train one run."""
    words = sys.argv[1:] if arguments is None else arguments
    run = train_to_the_end(lambda: read_command(words))
    if run:
        result = run.result() or {}
        print(f"finished: segmentation mIoU {score_text(result[SEG_MIOU], 4)}; all scores in {run.result_file}")


def train_to_the_end(read: Callable[[], tuple[TrainConfig, Path]]) -> Run | None:
    """Train the run that `read` names, configuration and folder; exit unless it finishes. Rank 0 gets the run.

    On SIGINT, SIGTERM and SIGHUP it saves a checkpoint and ends. Under torchrun all ranks end alike, and rank 0 alone
    says how.
    """
    received = received_signals()
    distributed.join()
    first = distributed.rank() == 0
    try:
        config, run_folder = read()
        run = Run(run_folder)
        outcome = train(config, run, stop_requested=lambda: bool(received))
    except UserError:
        if first:
            raise
        sys.exit(ExitCode.MISTAKE)
    except NotFiniteError as error:
        if first:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.INCOMPLETE)
    finally:
        distributed.stop()
    if outcome == "stopped":
        if first:
            print(f"stopped; the same command resumes from {run.checkpoint_file}", file=sys.stderr)
        sys.exit(128 + (received[0] if received else signal.SIGTERM))
    return run if first else None


def read_command(arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """Configuration and run folder. Rank 0 reads the command line, so that help and mistakes are printed once."""

    def read() -> dict[str, Any]:
        try:
            config, run_folder = parse_command(arguments)
            if not os.path.exists(Run(run_folder).result_file):
                check_folder(run_folder, "--run_folder")
        except UserError as error:
            return {"mistake": str(error)}
        except SystemExit as end:
            return {"exit": end.code}
        return {"config": config.to_json(), "run_folder": str(run_folder)}

    command: Any = distributed.from_first(read() if distributed.rank() == 0 else None)
    if "mistake" in command:
        raise UserError(command["mistake"])
    if "exit" in command:
        sys.exit(command["exit"])
    return TrainConfig.from_json(command["config"]), Path(command["run_folder"])


if __name__ == "__main__":
    main()
