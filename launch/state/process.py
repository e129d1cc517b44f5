"""Ending some time after another process."""

import os
import threading
import time

from fsr.files import process_exists

GRACE_S = 30.0


def die_after(process: int, grace_s: float = GRACE_S) -> None:
    """End this process `grace_s` after that one is gone, if it has not ended by itself.

    A training loop asks for the flag between steps, but an evaluation may take many minutes.
    """

    def watch() -> None:
        while process_exists(process):
            time.sleep(1)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
