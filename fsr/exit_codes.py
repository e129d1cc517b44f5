"""What a command's exit code says. docs/cluster.md holds the same table."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command or a worker ended. A command that a signal stopped ends with 128 + the signal's number."""

    DONE = 0
    """Everything was done."""
    INCOMPLETE = 1
    """The command worked, but something is missing, failed or unequal."""
    MISTAKE = 2
    """The user has to mend something; one sentence on stderr says what."""
    BROKEN = 75
    """This node lacks a GPU that was asked for. Of a worker: a trial broke here, and the batch script restarts the
    ranks."""
    INTERRUPTED = 130
    """Ctrl-C or a stop; everything is saved, the same command resumes."""
