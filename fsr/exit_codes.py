"""What a command's exit code says. docs/cluster.md holds the same table."""

from enum import IntEnum


class ExitCode(IntEnum):
    """A command that a signal stopped may also end with 128 and the signal's number, as shells do."""

    DONE = 0
    INCOMPLETE = 1
    """The command worked, but something is missing, failed or unequal."""
    MISTAKE = 2
    """The user has to mend something; one sentence on stderr says what."""
    BROKEN = 75
    """Inside a job only: a trial broke here, and the batch script restarts the ranks."""
    INTERRUPTED = 130
    """Ctrl-C or a stop; everything is saved, and the same command resumes."""
