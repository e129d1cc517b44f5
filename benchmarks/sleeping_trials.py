"""Stands in for launch/worker/method.py: 32 trials that only sleep, each for a fixed time; for sweep_makespan.py."""

import json
import time
from typing import Any

from fsr.config import TrainConfig
from fsr.run import Run
from fsr.score_names import SEG_MIOU

# Seconds that trial 0, 1, ... sleeps; drawn once, uniformly from 1 to 20.
SECONDS = (7, 1, 12, 5, 18, 3, 9, 14, 2, 20, 6, 11, 4, 16, 8, 1, 13, 10, 5, 19, 3, 7, 15, 2, 9, 17, 4, 6, 12, 8, 1, 5)


def train(config: TrainConfig, run: Run, **hooks: Any) -> str:
    """Stands in for the method."""
    run.start(config)
    began = time.time()
    time.sleep(SECONDS[int(run.folder.name.removeprefix("trial_"))])
    run.result_file.write_text(json.dumps({SEG_MIOU: 0.5, "began": began, "ended": time.time()}))
    return "finished"
