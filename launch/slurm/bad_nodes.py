"""Nodes on which trials die of what looks like broken hardware."""

import re

from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder

TRIALS = 2  # so many different trials must have died there


def report(folder: LaunchFolder, number: int, attempt: Attempt) -> None:
    """Remember the node of an attempt, if that was its cause."""
    if attempt.cause == "node":
        place = folder.bad_nodes / re.sub(r"[^\w.-]", "_", attempt.node)
        place.mkdir(parents=True, exist_ok=True)
        (place / str(number)).touch()


def bad_nodes(folder: LaunchFolder) -> list[str]:
    """Nodes where at least two different trials died of such causes."""
    if not folder.bad_nodes.exists():
        return []
    return sorted(place.name for place in folder.bad_nodes.iterdir() if len(list(place.iterdir())) >= TRIALS)


def to_exclude(folder: LaunchFolder, nodes: set[str] | None) -> list[str]:
    """The bad nodes, as long as good ones remain among the cluster's `nodes`."""
    bad = bad_nodes(folder)
    return bad if nodes is None or nodes - set(bad) else []
