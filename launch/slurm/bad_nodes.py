"""Nodes on which trials die of what looks like broken hardware."""

import re

from fsr.errors import LostGpuError
from fsr.files import open_file
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder

MARKS = 2  # of different trials or shards; one could be what breaks the hardware


def report(folder: LaunchFolder, number: int, attempt: Attempt) -> None:
    """Remember the node of an attempt on a trial, if that was its cause."""
    if attempt.cause == "node":
        mark(folder, number, attempt.node, attempt.detail)


def mark(folder: LaunchFolder, number: int, node: str, detail: str) -> None:
    """Remember that a trial or shard died of a node.

    A promised GPU that is not there counts for two: no trial has touched it, and each would die there.
    """
    place = folder.bad_nodes / re.sub(r"[^\w.-]", "_", node)
    open_file(place / str(number), "a").close()
    if LostGpuError.__name__ in detail:
        open_file(place / "lost_gpu", "a").close()


def bad_nodes(folder: LaunchFolder) -> list[str]:
    """Nodes where at least two different trials died of such causes, or one found no GPU."""
    if not folder.bad_nodes.exists():
        return []
    return sorted(place.name for place in folder.bad_nodes.iterdir() if len(list(place.iterdir())) >= MARKS)


def to_exclude(folder: LaunchFolder, nodes: set[str] | None) -> list[str]:
    """The bad nodes, as long as good ones remain among the cluster's `nodes`."""
    bad = bad_nodes(folder)
    return bad if nodes is None or nodes - set(bad) else []
