"""What the protocol asks of a shared folder, between two nodes whose caches of it are old."""

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from itertools import count

import pytest
import torch
import two_nodes
from test_safe_ranks import RANK
from tiny import tiny_config

from fsr.checkpoint import TrainState, load_file
from fsr.errors import UnreadableError, UserError
from fsr.files import look_again, unfinished, write_json
from fsr.inference.journal import DoneImages, Journal, Results
from fsr.json_file import read_json
from fsr.lock import FileLock
from fsr.run import Run
from launch.state.attempts import AttemptLog
from launch.state.journal import JournalFile
from launch.state.paths import StudyFolder
from launch.state.retention import Retention
from launch.state.same_failure import StoppedError, raise_mistakes
from launch.state.target import Target
from launch.submit import next_spec_file
from launch.worker.rendezvous import Rendezvous

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(two_nodes.missing() is not None, reason=str(two_nodes.missing())),
]
fork = multiprocessing.get_context("fork")
DELAY_S = 3.0


@pytest.fixture
def nodes(tmp_path):
    with two_nodes.two_nodes(tmp_path, DELAY_S) as nodes:
        yield nodes


def together(*calls):
    """Run functions with arguments in processes of their own, at the same time."""
    processes = [fork.Process(target=call, args=arguments) for call, *arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_the_double_believes_what_it_knew_but_opens_anew(nodes):
    a, b = nodes.a, nodes.b
    (a / "file").write_text("one")
    assert not (b / "new").exists()
    assert os.listdir(b) == ["file"]
    reader = (b / "file").open()
    assert reader.read() == "one"
    assert (b / "file").stat().st_size == 3
    (a / "new").write_text("")
    with open(a / "file", "a") as file:
        file.write(" and two")
    assert os.listdir(b) == ["file"]
    assert not (b / "new").exists()
    assert (b / "file").stat().st_size == 3
    assert (b / "file").read_text() == "one and two"
    with pytest.raises(FileExistsError):
        (b / "new").touch(exist_ok=False)
    write_json(a / "file", {})
    assert (b / "file").read_text() == "{}\n"
    assert os.pread(reader.fileno(), 99, 0) == b"one and two"
    time.sleep(DELAY_S + 0.5)
    with pytest.raises(OSError) as found:
        os.pread(reader.fileno(), 99, 0)
    assert found.value.errno == errno.ESTALE
    reader.close()
    assert sorted(os.listdir(b)) == ["file", "new"]


def test_what_is_written_reaches_another_node_with_close_or_fsync_or_late(nodes):
    with open(nodes.a / "file", "w", buffering=1) as file:
        file.write("one\n")
        assert (nodes.b / "file").read_text() == ""
        os.fsync(file.fileno())
        assert (nodes.b / "file").read_text() == "one\n"
        file.write("two\n")
        time.sleep(DELAY_S + 1)
        assert (nodes.b / "file").read_text() == "one\ntwo\n"


def test_who_appends_on_two_nodes_at_once_overwrites_and_is_kept_as_nfs_until_it_is_closed(nodes):
    (nodes.a / "file").write_text("")
    with open(nodes.a / "file", "a") as one, open(nodes.b / "file", "a") as two:
        one.write("one")
        two.write("two")
    assert (nodes.server / "file").read_text() in ("one", "two")
    with open(nodes.a / "file") as file:
        (nodes.a / "file").unlink()
        assert [name[:4] for name in os.listdir(nodes.a)] == [".nfs"]
        assert len(file.read()) == 3


def test_a_file_that_is_replaced_again_and_again_is_read_whole(nodes):
    until = time.monotonic() + 4
    write_json(nodes.a / "target.json", {"number": 0})

    def replace():
        for number in count(1):
            write_json(nodes.a / "target.json", {"number": number, "more": "x" * (number % 7) * 3000})
            if time.monotonic() > until:
                return

    def read(node):
        last = reads = 0
        while time.monotonic() < until:
            found = read_json(node / "target.json", dict[str, object])["number"]
            assert found >= last
            last, reads = found, reads + 1
        assert reads > 50

    together((replace,), (read, nodes.a), (read, nodes.b))


def test_target_and_keep_are_those_that_were_written_last(nodes):
    here, there = StudyFolder(nodes.a), StudyFolder(nodes.b)
    for trials in (1, 2, 3):
        Target(trials, trials).write(here)
        assert Target.of(there).trials == trials
    assert Retention.of(there).keep == "all"
    for keep in ("best", "none", "best"):
        Retention(keep).write(here)
        look_again(there.folder)  # there was none
        assert Retention.of(there).keep == keep


def test_a_lock_of_one_node_keeps_out_the_other(nodes):
    def add(node):
        for _ in range(60):
            with FileLock(node / "lock"):
                number = int((node / "number").read_text())
                (node / "number").write_text(str(number + 1))

    (nodes.a / "number").write_text("0")
    together((add, nodes.a), (add, nodes.b), (add, nodes.a), (add, nodes.b))
    assert (nodes.server / "number").read_text() == "240"
    # Not by this process: its locks would be freed when it looks into the file.
    holder = "import sys, time; from pathlib import Path; from fsr.lock import FileLock\n"
    holder += "FileLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", holder, nodes.a / "lock"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        lock = FileLock(nodes.b / "lock")
        assert lock.is_held()
        assert not lock.try_acquire()
        with pytest.raises(UserError, match="already"):
            lock.take("training here")
        process.kill()
    assert lock.try_acquire(5)
    lock.release()


def test_locks_that_do_not_reach_the_other_node_or_are_not_there(tmp_path):
    with (
        two_nodes.two_nodes(tmp_path / "local", 1, "--locks", "local") as nodes,
        open(nodes.a / "lock", "w") as one,
        open(nodes.b / "lock", "w") as two,
    ):
        for file in (one, two):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (
        two_nodes.two_nodes(tmp_path / "none", 1, "--locks", "none") as nodes,
        pytest.raises(UserError, match="lock"),
    ):
        FileLock(nodes.a / "lock").acquire()


def test_a_journal_that_both_nodes_append_to_loses_no_record(nodes):
    (nodes.a / "journal.log").touch()

    def append(node, who):
        journal = JournalFile(node / "journal.log", FileLock(node / "journal.log.lock"))
        for number in range(30):
            journal.append_logs([{"who": who, "number": number}])
            assert [r["number"] for r in journal.read_logs(0) if r["who"] == who] == list(range(number + 1))

    def follow(node):
        journal, records, until = (
            JournalFile(node / "journal.log", FileLock(node / "x.lock")),
            [],
            time.monotonic() + 60,
        )
        while len(records) < 120 and time.monotonic() < until:
            records += journal.read_logs(len(records))
        for who in range(4):
            assert [record["number"] for record in records if record["who"] == who] == list(range(30))

    appending = ((append, nodes.a if who % 2 else nodes.b, who) for who in range(4))
    together(*appending, (follow, nodes.a), (follow, nodes.b))


def test_a_journal_that_another_node_has_replaced_is_opened_as_the_new_one(nodes):
    (nodes.a / "journal.log").write_text('{"number": 1}\n')
    assert (nodes.b / "journal.log").stat().st_size
    unfinished(nodes.a / "journal.log").write_text('{"number": 2}\n')
    next(nodes.a.glob(".*.part")).replace(nodes.a / "journal.log")
    journal = JournalFile(nodes.b / "journal.log", FileLock(nodes.b / "lock"))
    assert [record["number"] for record in journal.read_logs(0)] == [2]


def test_who_looks_again_finds_what_another_node_has_made(nodes):
    names = [nodes.b / "trial", nodes.b / "trial" / "file"]
    assert not any(name.exists() for name in names)
    (nodes.a / "trial").mkdir()
    (nodes.a / "trial" / "file").touch()
    assert not any(name.exists() for name in names)
    look_again(nodes.b / "trial")
    assert all(name.exists() for name in names)
    assert os.listdir(nodes.b / "trial") == ["file"]
    (nodes.a / "trial" / "more").touch()
    assert os.listdir(nodes.b / "trial") == ["file"]
    look_again(nodes.b / "trial")
    assert sorted(os.listdir(nodes.b / "trial")) == ["file", "more"]
    look_again(nodes.b / "nowhere" / "at" / "all")


def test_the_attempts_of_another_node_are_not_forgotten(nodes):
    first, second = (AttemptLog(Run(node / "trial_0000")) for node in (nodes.a, nodes.b))
    (nodes.a / "trial_0000").mkdir()
    assert second.attempts() == []  # which this node believes for some seconds
    first.begin("1", 0, "a", 1)
    assert second.attempts() == []
    second.begin("2", 0, "b", 1)
    assert [attempt.node for attempt in second.attempts()] == ["a", "b"]


def test_a_lost_attempt_of_another_node_gets_its_cause(nodes):
    first, second = (AttemptLog(Run(node / "trial_0000")) for node in (nodes.a, nodes.b))
    (nodes.a / "trial_0000").mkdir()
    assert second.attempts() == []
    first.begin("1", 0, "a", 1)
    assert second.close_lost(lambda attempt: ("node", "gone"))
    assert [attempt.cause for attempt in first.attempts()] == ["node"]


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_server_whose_clock_differs_makes_no_attempt_longer_than_it_can_have_been(tmp_path, skew_s):
    with two_nodes.two_nodes(tmp_path, 1, "--skew_s", str(skew_s)) as nodes:
        log = AttemptLog(Run(nodes.a / "trial_0000"))
        log.begin("1", 0, "a", 1)
        (nodes.a / "trial_0000" / "metrics.jsonl").touch()
        assert abs((nodes.a / "trial_0000" / "metrics.jsonl").stat().st_mtime - time.time() - skew_s) < 60
        log.close_lost(lambda attempt: ("node", "gone"))
        assert 0 <= log.attempts()[0].seconds < 60


def test_two_login_nodes_never_use_one_job_spec(nodes):
    names = []
    for node in (nodes.a, nodes.b, nodes.a, nodes.b):
        (node / "slurm").mkdir(exist_ok=True)
        file = next_spec_file(node / "slurm")
        file.write_text("{}")
        names.append(file.name)
        assert [os.listdir(other / "slurm") for other in (nodes.a, nodes.b) if (other / "slurm").exists()]
    assert len(set(names)) == 4


def test_a_checkpoint_of_one_node_is_resumed_from_on_the_other(nodes):
    """Each node in turn: what the other has just saved, though it remembers which file had that name before."""
    config, runs = tiny_config(nodes.server), [Run(node / "trial_0000") for node in (nodes.a, nodes.b)]
    for step in range(1, 9):
        run = runs[step % 2]
        AttemptLog(run).begin(str(step), 0, "a", 1)
        state = TrainState(config, torch.device("cpu"))
        assert state.resume(run, torch.device("cpu")) == (step > 1)
        assert state.step == step - 1
        state.step = step
        state.save(run)
        assert all(other.checkpoint_file.exists() for other in runs)


def test_a_checkpoint_that_is_saved_again_and_again_is_never_torn(nodes):
    config, until = tiny_config(nodes.server), time.monotonic() + 4
    TrainState(config, torch.device("cpu")).save(Run(nodes.a))

    def save():
        state = TrainState(config, torch.device("cpu"))
        while time.monotonic() < until:
            state.step += 1
            state.save(Run(nodes.a))

    def load():
        run, last = Run(nodes.b), 0
        while time.monotonic() < until:
            try:
                look_again(run.folder)
                step = load_file(run.checkpoint_file)["step"]
            except UserError as error:  # between two names, or replaced while it was read; never a wrong content
                assert isinstance(error, UnreadableError), error
                continue
            assert step >= last
            last = step
        assert last > 3

    together((save,), (load,))


def test_who_finishes_an_inference_last_knows_of_all_images(nodes):
    Results(nodes.a).journal_folder.mkdir()
    done = [DoneImages(Results(node)) for node in (nodes.a, nodes.b)]
    for turn in range(4):
        node, name = (nodes.a, nodes.b)[turn % 2], f"image{turn}"
        journal = Journal(Results(node), turn, 4)
        journal.append({"name": name, "skipped": "for a test"})
        journal.close()
        for images in done:
            images.update()
            assert name in images.skipped


def test_mistakes_of_workers_of_another_node_are_known_when_they_have_ended(nodes):
    here, there = StudyFolder(nodes.a), StudyFolder(nodes.b)
    there.forget_mistakes()
    assert there.mistakes() == []
    here.record_mistake("1_2", "a mistake")
    with pytest.raises(UserError, match="a mistake"):
        raise_mistakes(there)
    assert there.stop_reason() is None
    here.stop_file.write_text("all failed alike")
    with pytest.raises(StoppedError, match="alike"):
        raise_mistakes(there)
    here.forget_mistakes()
    assert there.mistakes() == []


def environment_of(rank):
    """That of a rank of a step of two."""
    return {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "GLOO_SOCKET_IFNAME": "lo"}


def test_ranks_on_two_nodes_find_each_other_and_train(nodes):
    ranks = []
    for rank, node in ((1, "b"), (0, "a")):  # who follows is there first, and finds nothing
        command = [*nodes.on(node), sys.executable, "-c", RANK, nodes.shared / "runs"]
        ranks.append(
            subprocess.Popen(
                command,
                env=os.environ | environment_of(rank),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        time.sleep(5)
    for rank in ranks:
        output, errors = rank.communicate(timeout=120)
        assert (rank.returncode, output) == (0, "trained\n"), errors


def test_a_rank_hears_at_once_what_another_node_announces(nodes, monkeypatch):
    for name, value in environment_of(0).items():
        monkeypatch.setenv(name, value)
    heard = fork.Queue()

    def follow():
        monkeypatch.setenv("SLURM_PROCID", "1")
        for config, run in Rendezvous(nodes.b / "locks").announced():
            heard.put((time.monotonic(), config.seed, run.folder.name))
        heard.put((time.monotonic(), None, "end"))

    other = fork.Process(target=follow)
    other.start()
    leader = Rendezvous(nodes.a / "locks")
    for number in range(3):
        time.sleep(1)
        announced = time.monotonic()
        leader.announce(tiny_config(nodes.server), Run(nodes.a / f"trial_{number}"))
        at, _, name = heard.get(timeout=20)
        assert name == f"trial_{number}"
        assert at - announced < 1.5
    leader.announce_end()
    assert heard.get(timeout=20)[2] == "end"
    other.join()


def test_why_a_rank_of_another_node_died_is_known_at_once(nodes, monkeypatch):
    for name, value in environment_of(0).items():
        monkeypatch.setenv(name, value)
    leader = Rendezvous(nodes.a / "locks")
    leader.announce(tiny_config(nodes.server), Run(nodes.a / "trial"))
    assert leader.reported_failure(0) is None
    monkeypatch.setenv("SLURM_PROCID", "1")
    other = Rendezvous(nodes.b / "locks")
    other.report_failure("out of memory", "no memory")
    other.report_lack()
    assert leader.reported_failure(1) == ("out of memory", "rank1: no memory")
    assert len(leader.nodes_that_lack()) == 1
