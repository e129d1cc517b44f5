"""A full disk, or a quota that is used up, is waited out: somebody will make room, and no trial should end of it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fsr.files import unfinished
from fsr.system_errors import disk_is_full as disk_is_full

AGAIN_S = 10.0


def wait_for_space(folder: Path, stop: Callable[[], bool] = lambda: False) -> bool:
    """Wait until something can be written to `folder` again; False if a stop was requested before."""
    with suppress(OSError):  # the log may lie on the same disk
        print(f"no space is left in {folder}; waiting for some", flush=True)
    probe = unfinished(folder / "probe")
    waited = AGAIN_S
    while not stop():
        if waited >= AGAIN_S:
            waited = 0.0
            try:
                probe.write_bytes(bytes(1 << 20))
                return True
            except OSError as error:
                if not disk_is_full(error):
                    raise
            finally:
                probe.unlink(missing_ok=True)
        time.sleep(1)
        waited += 1
    return False
