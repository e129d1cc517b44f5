"""Which versions of Slurm this program was tried with."""

import re

FIRST, LAST = (22, 5), (25, 11)


def was_tried(version: str) -> bool | None:
    """Whether a version, such as 24.11.5, lies among those that were tried; None if it is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return FIRST <= (int(found[1]), int(found[2])) <= LAST if found else None


def note(version: str) -> str:
    """What the version of a cluster means for a sweep, in words."""
    span = " to ".join(f"{year}.{month:02}" for year, month in (FIRST, LAST))
    if was_tried(version):
        return f"tried with {span}"
    return f"not tried, only {span}; a word that is unknown is taken for no answer"
