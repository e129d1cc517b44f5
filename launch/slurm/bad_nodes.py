"""Nodes on which trials die of what looks like broken hardware."""

import re

from fsr.errors import LostGpuError
from fsr.files import open_file
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder

MARKS = 2  # of different trials or shards; one could be what breaks the hardware
# Marks that say enough alone: no trial has touched the GPU that is not there, or what the node cannot read.
LOST_GPU, LACKS = "lost_gpu", "lacks"


def report(folder: LaunchFolder, number: int, attempt: Attempt) -> None:
    """Remember the node of an attempt on a trial, if that was its cause.

    Which node hung, the detail says; it says none where ranks on several nodes fell silent together.
    """
    if attempt.cause == "node":
        mark(folder, number, attempt.node, attempt.detail)
    hung = re.search(r"hung on node (\S+):", attempt.detail) if attempt.cause == "hung" else None
    if hung:
        mark(folder, number, hung[1], attempt.detail)


def mark(folder: LaunchFolder, number: int, node: str, detail: str) -> None:
    """Remember that a trial or shard died of a node."""
    _touch(folder, node, str(number))
    if LostGpuError.__name__ in detail:
        _touch(folder, node, LOST_GPU)


def mark_lacks(folder: LaunchFolder, node: str) -> None:
    """Remember that a node lacks what others may have."""
    _touch(folder, node, LACKS)


def unmark_lacks(folder: LaunchFolder) -> None:
    """Forget all nodes that lacked something: the others lack it, too, so it is no fault of theirs."""
    for file in folder.bad_nodes.glob(f"*/{LACKS}"):
        file.unlink(missing_ok=True)


def lacking(folder: LaunchFolder) -> set[str]:
    """Nodes that lack what others may have."""
    return {file.parent.name for file in folder.bad_nodes.glob(f"*/{LACKS}")}


def nodes_fault(node: str, lacking: set[str], nodes: set[str] | None, works_elsewhere: bool, told: bool) -> bool:
    """Whether what is missing on a node is that node's fault, as far as is known, and not a mistake of the user.

    Args:
        node: where it is missing.
        lacking: nodes where something was missing before; `node` may be one of them.
        nodes: all that a job may get; None if Slurm does not answer.
        works_elsewhere: an attempt was at work on a node that lacks nothing.
        told: the user was told of a mistake already.
    """
    if told or (nodes is not None and not nodes - lacking - {node}):
        return False
    return works_elsewhere or lacking <= {node}


def bad_nodes(folder: LaunchFolder) -> list[str]:
    """Nodes where at least two different trials died of such causes, or one found no GPU or could not read files."""
    if not folder.bad_nodes.exists():
        return []
    places = [place for place in folder.bad_nodes.iterdir() if place.is_dir()]
    marks = {place.name: {file.name for file in place.iterdir()} for place in places}
    return sorted(node for node, names in marks.items() if len(names) >= MARKS or names & {LOST_GPU, LACKS})


def _touch(folder: LaunchFolder, node: str, name: str) -> None:
    open_file(folder.bad_nodes / _file_name(node) / name, "a").close()


def _file_name(node: str) -> str:
    return re.sub(r"[^\w.-]", "_", node)


def to_exclude(folder: LaunchFolder, nodes: set[str] | None) -> list[str]:
    """The bad nodes, as long as good ones remain among the cluster's `nodes`.

    Nothing where Slurm does not say which those are (None): a job that is kept off all nodes of the cluster would wait
    for ever.
    """
    bad = bad_nodes(folder)
    return bad if nodes is not None and nodes - set(bad) else []
