"""What is damaged in a study, and what a user should do about it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsr.json_file import DamagedError
from fsr.next_command import next_command, study_words
from launch.state.paths import LaunchFolder, StudyFolder


def repair_command(folder: StudyFolder) -> str:
    """The command that restores what can be restored."""
    return next_command("doctor", *study_words(folder.name, folder.folder.parent), "--repair")


@contextmanager
def naming_repair(folder: LaunchFolder) -> Iterator[None]:
    """Let a DamagedError of a study say which command restores what can be restored."""
    try:
        yield
    except DamagedError as error:
        if not isinstance(folder, StudyFolder) or "--repair" in str(error):
            raise
        raise DamagedError(f"{error}; to restore what can be: {repair_command(folder)}") from error


def in_words(error: Exception, folder: Path) -> str:
    """What is wrong with a file of a run: its name, and why it cannot be read."""
    if isinstance(error, OSError):
        name = Path(os.fsdecode(error.filename)).name if error.filename else "a file"
        return f"{name}: it cannot be read: {error.strerror}"
    said = str(error).removeprefix(f"the records of run folder {folder} are damaged: ").removeprefix(f"{folder}/")
    return said.replace(" is damaged: ", ": ", 1)
