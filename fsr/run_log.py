"""The run log: everything that a run records while it trains."""

import itertools
import resource
import time
from collections.abc import Mapping
from typing import Any

import torch

from fsr import distributed
from fsr.arithmetic import computed_in
from fsr.checkpoint import NOT_MEASURED, TrainState, save_best
from fsr.config import TrainConfig
from fsr.data.loaders import evaluation_images
from fsr.data.source import Source
from fsr.event_file import EventFile
from fsr.files import write_json
from fsr.pictures import draw, with_titles
from fsr.prefetch import Prefetcher
from fsr.progress import TrainProgress
from fsr.run import Run
from fsr.score_names import AUX_CAM_MIOU, CAM_MIOU, PREFIX, SEG_MIOU, TEACHER_SEG_MIOU, score_text


class RunLog:
    """Records a run on rank 0: metrics.jsonl, TensorBoard, progress, best weights and the result."""

    def __init__(self, config: TrainConfig, run: Run, source: Source, state: TrainState, device: torch.device) -> None:
        self.config, self.run, self.source, self.state, self.device = config, run, source, state, device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # a worker's trials follow each other in one process
        run.record_attempt(device_name(device), computed_in(config.precision, device), state.step)
        run.rewind(state.step)  # an attempt that was lost recorded steps after its checkpoint, which are repeated now
        self.board = EventFile(run.folder, state.step + 1)
        self.progress = TrainProgress(state.step, config.iterations)
        self.recorded = time.monotonic()
        start = "resuming" if state.step else "starting"
        self.progress.say(
            f"{start} in {run.folder} at step {state.step} of {config.iterations} on {device_name(device)}"
        )

    def losses(self, prefetcher: Prefetcher) -> None:
        """Show the progress; at the end of each logging interval, record the mean losses."""
        state = self.state
        self.progress.step(state.step)
        if state.step % self.config.log_every:
            return
        means = dict(zip(self.config.losses, (state.loss_sums / state.summed_steps).tolist(), strict=True))
        state.loss_sums.zero_()
        state.summed_steps = 0
        rate = self.progress.record(state.step, means)
        values = {f"train/{name}": mean for name, mean in means.items()}
        values["train/lr"] = state.optimizer.param_groups[0]["lr"]
        now = time.monotonic()
        stalled = prefetcher.waited_s() / (now - self.recorded)
        self.recorded = now
        values |= {
            "perf/steps_per_s": rate,
            "perf/stall_fraction": stalled,
            "perf/peak_memory_gb": peak_memory_gb(self.device),
        }
        self._scalars(state.step, values)

    def scores(self, quality: dict[str, dict[str, Any]]) -> None:
        """Record an evaluation with its quality by class and pictures; save the weights if they are the best."""
        state, config = self.state, self.config
        write_json(
            self.run.quality_file, {"step": state.step, "class_names": self.source.class_names, "networks": quality}
        )
        self._scalars(state.step, state.scores)
        images = evaluation_images(config, self.source, config.val_set, 0, 1)
        for sample in itertools.islice(images, config.pictures):
            picture = draw(state.student, sample, config, self.device)
            self.board.image(f"validation/{sample[0]}", with_titles(picture), state.step)
        shown = (CAM_MIOU, AUX_CAM_MIOU, SEG_MIOU, TEACHER_SEG_MIOU)
        scores = "  ".join(f"{name.removeprefix(PREFIX)} {score_text(state.scores[name])}" for name in shown)
        self.progress.say(f"step {state.step}: {scores}")
        score = state.scores[SEG_MIOU]
        # As long as none could be measured, the last weights stand in for the best.
        if state.best < 0 if score is None else score > state.best:
            state.best = NOT_MEASURED if score is None else score
            save_best(self.run.best_file, state, config, state.scores)

    def _scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        self.run.log({"step": step, **values})
        self.board.scalars({board_tag(name): value for name, value in values.items() if value is not None}, step)

    def finish(self) -> None:
        """Write the final scores."""
        state = self.state
        best = None if state.best == NOT_MEASURED else state.best
        result = {"step": state.step, "seconds": state.seconds, "best/seg_miou": best}
        write_json(self.run.result_file, {**state.scores, **result})

    def close(self) -> None:
        """Flush the records and give the terminal back."""
        self.board.close()
        self.progress.close()


def board_tag(name: str) -> str:
    """What TensorBoard, which sorts by name, calls a record: what the run computes stands before how fast it does."""
    return f"~{name}" if name.startswith("perf/") else name


def peak_memory_gb(device: torch.device) -> float:
    """The most memory (10⁹ bytes): of the GPU in this run, or of the machine since this process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def device_name(device: torch.device) -> str:
    """What the run computes on, in words."""
    ranks = distributed.world_size()
    if device.type == "cuda":
        return f"{ranks} × {torch.cuda.get_device_name(device)}"
    return f"{ranks} × CPU ({torch.get_num_threads()} threads)"
