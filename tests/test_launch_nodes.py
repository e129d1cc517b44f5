"""What one node alone lacks is that node's fault; what others lack, too, is the user's mistake."""

import errno
from dataclasses import dataclass, field

import pytest

from fsr.data.images import read_image
from fsr.data.lists import read_list
from fsr.data.source import open_source
from fsr.errors import UnreadableError, UserError, unreadable
from launch.slurm import bad_nodes, commands
from launch.state.attempts import AttemptLog
from launch.state.paths import RunFolder
from launch.state.stop import StopRequest
from launch.worker import main, method, training
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous

MISSING = UnreadableError("data folder /data must hold VOCdevkit/VOC2012, which is missing")


@pytest.mark.parametrize(
    "lacking, nodes, works_elsewhere, told, fault",
    [
        (set(), {"n1", "n2"}, False, False, True),
        (set(), {"n1"}, False, False, False),  # there is no other
        (set(), None, False, False, True),  # Slurm does not answer
        ({"n1"}, {"n1", "n2"}, False, False, True),  # of another job on the same node
        ({"n2"}, {"n1", "n2", "n3"}, False, False, False),
        ({"n2"}, {"n1", "n2", "n3"}, True, False, True),  # n3 works
        ({"n2", "n3"}, {"n1", "n2", "n3"}, True, False, False),  # none is left
        (set(), {"n1", "n2"}, True, True, False),
    ],
)
def test_whose_fault_it_is_that_something_is_missing_on_n1(lacking, nodes, works_elsewhere, told, fault):
    assert bad_nodes.nodes_fault("n1", lacking, nodes, works_elsewhere, told) == fault


def test_one_mark_is_enough_to_leave_a_node_that_lacks_something_and_can_be_taken_back(tmp_path):
    folder = RunFolder(tmp_path)
    bad_nodes.mark_lacks(folder, "n1")
    assert (bad_nodes.lacking(folder), bad_nodes.bad_nodes(folder)) == ({"n1"}, ["n1"])
    bad_nodes.unmark_lacks(folder)
    assert (bad_nodes.lacking(folder), bad_nodes.bad_nodes(folder)) == (set(), [])


@dataclass
class OnSlurm:
    """A job of Slurm on node n1."""

    job: str = "7_0"
    restarts: int = 0
    node: str = "n1"
    preempted: bool = False
    moved_off: list = field(default_factory=list)

    def cause_of_stop(self, request):
        return "preempted"

    def is_preempted(self):
        return self.preempted

    def leave(self, cause):
        pass

    def move_off(self, nodes):
        self.moved_off.append(nodes)


@dataclass
class Lacking:
    """A worker that finds no data."""

    folder: RunFolder
    nodes: set = field(default_factory=set)

    def work(self, stop, environment, rendezvous):
        if stop():
            return Outcome.STOPPED
        raise MISSING

    def nodes_at_work(self):
        return self.nodes


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.setattr(commands, "partition_nodes", lambda partition: {"n1", "n2", "n3"})


def lead(worker, environment):
    with StopRequest() as stop:
        return main.lead(worker, stop, environment, Rendezvous(worker.folder.locks))


def test_a_worker_leaves_the_first_node_that_lacks_something_and_the_second_is_told_to_the_user(nodes, tmp_path):
    worker, first, second = Lacking(RunFolder(tmp_path)), OnSlurm(), OnSlurm(node="n2")
    main_told = lead(worker, first)
    assert (main_told, first.moved_off) == (Outcome.MISTAKE, [["n1"]])  # it would be killed in move_off
    worker.folder.forget_mistakes()
    assert lead(worker, second) is Outcome.MISTAKE
    assert (second.moved_off, worker.folder.mistakes()) == ([], [str(MISSING)])
    assert bad_nodes.bad_nodes(worker.folder) == []


def test_where_others_work_two_nodes_may_lack_something(nodes, tmp_path):
    worker, second = Lacking(RunFolder(tmp_path), {"n3"}), OnSlurm(node="n2")
    bad_nodes.mark_lacks(worker.folder, "n1")
    lead(worker, second)
    assert second.moved_off == [["n1", "n2"]]


def test_a_mistake_that_no_node_can_have_is_told_at_once(nodes, tmp_path, monkeypatch):
    worker, environment = Lacking(RunFolder(tmp_path)), OnSlurm()
    monkeypatch.setattr(worker, "work", lambda *_: (_ for _ in ()).throw(UserError("mask_ratio must be in (0, 1]")))
    assert lead(worker, environment) is Outcome.MISTAKE
    assert environment.moved_off == []


def test_a_file_system_that_fails_before_any_attempt_is_the_nodes(nodes, tmp_path, monkeypatch):
    worker, environment = Lacking(RunFolder(tmp_path)), OnSlurm()

    def work(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(worker, "work", work)
    with pytest.raises(OSError, match="Stale file handle"):
        lead(worker, environment)
    assert environment.moved_off == [["n1"]]


def test_a_worker_that_was_preempted_before_it_could_see_a_signal_stops(nodes, tmp_path):
    assert lead(Lacking(RunFolder(tmp_path)), OnSlurm(preempted=True)) is Outcome.STOPPED


def test_the_class_of_an_error_tells_what_only_a_node_may_lack(tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    with pytest.raises(UnreadableError, match="VOCdevkit/VOC2012, which is missing"):
        open_source("voc", tmp_path, None, 21)
    with pytest.raises(UnreadableError, match="is missing"):
        read_list(tmp_path / "train.txt", 21, "make it")
    with pytest.raises(UnreadableError, match="cannot be read"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(UserError) as error:
        read_image(damaged)
    assert error.type is UserError
    assert unreadable(OSError(errno.EIO, "Input/output error")) is UnreadableError
    assert unreadable(ValueError("cut")) is UserError


def test_nodes_at_work_are_those_where_an_attempt_came_to_its_first_step(tmp_path):
    runs = [RunFolder(tmp_path / name).run for name in ("working", "failed")]
    for run, node in zip(runs, ("n1", "n2"), strict=True):
        run.folder.mkdir()
        AttemptLog(run).begin("7_0", 0, node, 1)
    runs[0].record_attempt("nothing", "fp32", 0)
    assert training.nodes_at_work(runs) == {"n1"}


@pytest.fixture
def rank_1(tmp_path, monkeypatch):
    """Rank 1 of two, to which rank 0 announces a run and the end."""
    monkeypatch.setattr(Rendezvous, "announced", lambda self: iter([(None, RunFolder(tmp_path).run)]))
    monkeypatch.setattr(Rendezvous, "end_is_announced", lambda self: True)
    rendezvous = Rendezvous(tmp_path / "locks")
    rendezvous.rank, rendezvous.count = 1, 2
    (tmp_path / "locks").mkdir()
    return rendezvous


@pytest.mark.parametrize("own", [True, False])
def test_a_mistake_that_all_ranks_share_is_no_error_of_the_others(rank_1, tmp_path, monkeypatch, own):
    def train(*_, **__):
        raise UnreadableError("image x cannot be read") from (MISSING if own else None)

    monkeypatch.setattr(method, "train", train)
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    training.follow(StopRequest(), rank_1)
    assert not list(tmp_path.glob("error_rank*.txt"))
    monkeypatch.setattr("launch.worker.rendezvous.PATIENCE_S", 0.0)
    assert rank_1.nodes_that_lack() == ({"n2"} if own else set())
