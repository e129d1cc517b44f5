"""A rank of a tiny run, for torchrun: `ddp_run.py DATA_FOLDER RUN_FOLDER STOP_AFTER` (0: do not stop) or `… scores`."""

import json
import sys
from pathlib import Path

import torch
from tiny import source_of, tiny_config

from fsr import distributed
from fsr.checkpoint import TrainState
from fsr.evaluate import evaluate
from fsr.run import Run
from fsr.train import train


class StopAfter:
    """Asks to stop after some steps, on the last rank alone."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == -1 and distributed.rank() == distributed.world_size() - 1


def main() -> None:
    data_folder, run_folder, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    config = tiny_config(data_folder)
    if what == "scores":
        device = distributed.start()
        state = TrainState(config, device)
        found = evaluate({"student": state.student}, config, source_of(config), device)
        if distributed.rank() == 0:
            run_folder.mkdir(exist_ok=True)
            (run_folder / "scores.json").write_text(json.dumps(found))
    else:
        stop = StopAfter(int(what)) if int(what) else (lambda: False)
        train(config, Run(run_folder), stop_requested=stop)
    distributed.stop()


if __name__ == "__main__":
    main()
