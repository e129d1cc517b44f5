"""What doctor measures between two nodes, and what it says of it."""

import errno
import os
import sys

import pytest
import two_nodes

from launch import node_probe
from launch.file_probe import CONTENT_S, NAMES_S, Measured, SilentError, findings, measure, pair, try_files
from launch.node_probe import GOT_IN, KEPT_OUT, NEW, OLD, UNSEEN

on_fuse = [
    pytest.mark.slow,
    pytest.mark.skipif(two_nodes.missing() is not None, reason=str(two_nodes.missing())),
]


def measured(**changes):
    """What a sound file system shows, but for the changes."""
    sound = {
        "nodes": ("n1", "n2"),
        "locks": [KEPT_OUT, KEPT_OUT],
        "delays": {"names": [0.0, 30.0, 60.0], "status": [3.0], "content": [0.0, 0.1]},
        "read_on": OLD,
        "won": [20, 30],
        "sync": [0.001, 0.002, 0.02],
        "clocks": 0.1,
        "stamps": [0.0, -0.2],
    }
    return Measured(**sound | changes)


def test_what_is_as_the_protocol_needs_it_is_told_with_its_figures(tmp_path):
    right, said = zip(*findings(measured(), tmp_path), strict=True)
    assert all(right)
    assert "n2 was kept out of a lock (fcntl)" in said[0] and "(flock)" in said[1]
    assert "after 30.0 s (median), 60.0 s (worst of 3)" in said[2]
    assert said[-1] == "clocks: the nodes' differ by 0.1 s, that of the files from theirs by 0.2 s"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"locks": [KEPT_OUT, GOT_IN]}, "LOCKS: node n2 took a lock (flock)"),
        ({"locks": ["No locks available", KEPT_OUT]}, "LOCKS: node n2 could not try a lock (fcntl)"),
        ({"delays": {"content": [0.0, CONTENT_S + 1]}}, "CONTENT: node n2 reads what node n1 wrote"),
        ({"delays": {"names": [0.0, None]}}, f"1 of 2 not within {NAMES_S:.0f} s"),
        ({"delays": {"names": [None]}}, "NAMES: "),
        ({"read_on": NEW}, "RENAME: "),
        ({"doubled": 2}, "2 were made twice"),
        ({"clocks": -7200.0}, "CLOCKS: the nodes' differ by 7200.0 s"),
        ({"stamps": [0.0, 7200.0]}, "that of the files from theirs by 7200.0 s"),
    ],
)
def test_what_the_protocol_does_not_tolerate_is_told_in_capitals_and_is_a_fault(tmp_path, changes, words):
    wrong = [sentence for right, sentence in findings(measured(**changes), tmp_path) if not right]
    assert len(wrong) == 1 and words in wrong[0]


def test_slow_syncs_are_told_with_what_they_cost_and_are_no_fault(tmp_path):
    (said,) = [said for _, said in findings(measured(sync=[0.1, 0.1]), tmp_path) if said.startswith("fsync")]
    assert said.endswith("more than 2.5 claims a second have to wait")


def test_a_node_that_does_not_see_the_folder_is_one_sentence(tmp_path):
    ((right, said),) = findings(measured(locks=[UNSEEN, UNSEEN]), tmp_path)
    assert not right and "node n2 does not see the files of" in said


def test_a_file_that_is_refused_after_it_was_replaced_is_no_fault(tmp_path):
    told = findings(measured(read_on=os.strerror(errno.ESTALE)), tmp_path)
    assert all(right for right, _ in told)
    assert any("node n2 is refused to read on" in said for _, said in told)


def test_two_processes_of_this_machine_tell_of_syncs_clocks_and_exclusive_creation(tmp_path):
    sound, sentences = try_files(tmp_path, on_slurm=False, partition=None)
    assert sound
    assert [sentence.partition(":")[0] for sentence in sentences] == ["O_EXCL", "fsync", "clocks"]
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_starts_nothing_is_heard(tmp_path):
    fails = [sys.executable, "-c", "import sys; sys.exit('no nodes are free')"]
    with pair([fails], tmp_path) as nodes, pytest.raises(SilentError, match="no nodes are free"):
        nodes.ask(0, node_probe.where)


@pytest.mark.parametrize("what", [pytest.param(what, marks=on_fuse) for what in ("shared", "local", "none")])
def test_what_two_nodes_with_old_caches_see(tmp_path, what):
    options = ["--locks", what, *(["--skew_s", "7200"] if what == "local" else [])]
    with two_nodes.two_nodes(tmp_path, 2.0, *options) as nodes:
        folder = nodes.shared / "runs"
        (nodes.server / "runs").mkdir()
        with pair([nodes.on("a"), nodes.on("b")], folder) as both:
            if what == "none":
                with pytest.raises(OSError, match="not implemented"):
                    measure(both)
                return
            found = measure(both)
        assert found.nodes == ("node-a", "node-b")
        assert found.locks == [KEPT_OUT, KEPT_OUT] if what == "shared" else [GOT_IN, GOT_IN]
        assert all(1 < max(found.delays[name]) < 4 for name in ("names", "status"))
        assert max(found.delays["content"]) < CONTENT_S
        assert sum(found.won) == 50 and not found.doubled
        wrong = [sentence.split(":")[0] for right, sentence in findings(found, folder) if not right]
        assert wrong == ([] if what == "shared" else ["LOCKS", "LOCKS", "CLOCKS"])
