"""The signals that ask a command to save and end."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def received_signals() -> list[int]:
    """A list that from now on gets the number of each such signal; one that is ignored (nohup) stays so."""
    received: list[int] = []
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: received.append(number))
    return received
