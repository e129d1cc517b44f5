"""A rank of a tiny run, for torchrun: `ddp_run.py DATA_FOLDER RUN_FOLDER STOP_AFTER [CHANGES]`.

STOP_AFTER is a number of steps (0: do not stop), or `scores` for an evaluation alone; CHANGES is JSON, what the
configuration changes. The run folder gets a file draws_RANK.jsonl of what each micro-batch drew.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from tiny import source_of, tiny_config

import fsr.train
from fsr import distributed
from fsr.checkpoint import TrainState
from fsr.config import TrainConfig
from fsr.evaluate import evaluate
from fsr.run import Run
from fsr.train import step_losses, train


class StopAfter:
    """Asks to stop after some steps, on the last rank alone."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == -1 and distributed.rank() == distributed.world_size() - 1


def digest(*tensors: torch.Tensor) -> str:
    """A text that is equal for equal tensors."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def record_draws(run_folder: Path, config: TrainConfig) -> None:
    """Write down the samples, the mask's noise and the random draws (of drop path) of each micro-batch."""
    count, made = config.micro_batches(distributed.world_size()), [0]

    def recording(student, teacher, reinforcement, batch, noise, step, config, *others):
        losses = step_losses(student, teacher, reinforcement, batch, noise, step, config, *others)
        number = distributed.rank() * count + made[0] % count
        made[0] += 1
        samples, masks = digest(batch.view1, batch.view2, batch.labels), digest(noise)
        with open(run_folder / f"draws_{distributed.rank()}.jsonl", "a") as file:
            file.write(json.dumps([step, number, samples, masks, digest(torch.get_rng_state())]) + "\n")
        return losses

    fsr.train.step_losses = recording


def main() -> None:
    data_folder, run_folder, what, *changes = sys.argv[1:]
    run_folder = Path(run_folder)
    run_folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    config = tiny_config(Path(data_folder), **json.loads(changes[0] if changes else "{}"))
    device = distributed.start()
    if what == "scores":
        state = TrainState(config, device)
        found = evaluate({"student": state.student}, config, source_of(config), device)
        if distributed.rank() == 0:
            (run_folder / "scores.json").write_text(json.dumps(found))
    else:
        record_draws(run_folder, config)
        stop = StopAfter(int(what)) if int(what) else (lambda: False)
        train(config, Run(run_folder), stop_requested=stop)
    distributed.stop()


if __name__ == "__main__":
    main()
