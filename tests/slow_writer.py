"""`python -m slow_writer …`: python -m fsr.train on a disk that takes five seconds to write the last checkpoint."""

import time
from typing import Any

from fsr import checkpoint
from fsr.run import Run
from fsr.train import main

SECONDS = 5
write = checkpoint._write


def slowly(content: dict[str, Any], run: Run) -> None:
    """Write a checkpoint; the last one slowly."""
    if content["step"] == run.config().iterations:
        time.sleep(SECONDS)
    write(content, run)


if __name__ == "__main__":
    checkpoint._write = slowly
    main()
