"""The signals that ask a command to save and end, and what they do while there is nothing to save."""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def received_signals() -> list[int]:
    """A list that from now on gets the number of each such signal; one that is ignored (nohup) stays so."""
    received: list[int] = []
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: received.append(number))
    return received


def leave(number: int, frame: FrameType | None) -> None:
    """The handler before a command's work and after it: end at once, with the exit code of an interrupted command.

    A KeyboardInterrupt would cross imports of others, which take it for something else.
    """
    os._exit(128 + number)
