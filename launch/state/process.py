"""Whether a process of this machine is alive, and ending with another one."""

import os
import threading
import time

from fsr.files import process_exists

GRACE_S = 30.0
exists = process_exists


def die_after(process: int, grace_s: float = GRACE_S) -> None:
    """End this process `grace_s` after that one is gone, if it has not ended by itself.

    A training loop asks for the flag between steps, but an evaluation may take many minutes.
    """

    def watch() -> None:
        while exists(process):
            time.sleep(1)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
