"""Where the first attempts all fail in the same way, the study is stopped; a setting that fails alone stops nothing."""

# ruff: noqa: F811  # fixtures of another file
# ruff: noqa: E501  # a row is a case

import json
import multiprocessing
import subprocess
import time
from pathlib import Path

import cloudpickle
import launch_stub
import pytest
from method_checkout import command_of, private_checkout, surroundings_of
from slurm_cluster import MISSING, Cluster, Sweep, available
from test_launch_claim import claim_for, data_folder, hold_a_claim, spawn, trials_of, with_target, work_on, worker  # noqa: F401

from fsr.files import write_json
from launch.state.attempts import Attempt
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
from launch.state.same_failure import (
    SAME,
    SameFailure,
    Stopped,
    Tried,
    same_failure,
    signature,
    stop_study,
    that_count,
    what_came,
)
from launch.worker.protocol import Outcome

TYPE_ERROR = "TypeError: f() takes 1 argument"
PLACE = "fsr/train.py:88"


def failed(detail=TYPE_ERROR, place=PLACE, cause="exception", reached=0, started=100.0, seconds=20.0, first_step=0):
    """An attempt that ended so; `seconds` None: it is at work since then."""
    ended = None if seconds is None else started + seconds
    return Attempt(
        job="local", restart=0, node="n1", pid=1, ranks=1, started=started, first_step=first_step, reached=reached,
        ended=ended, cause=None if seconds is None else cause, detail=detail, place=place,
    )  # fmt: skip


def found(*trials, since=0.0, **of_last):
    """How many failures of these trials are the same; each trial is a list of attempts."""
    tried = [Tried(number, attempts) for number, attempts in enumerate(trials)]
    if of_last:
        tried[-1] = Tried(len(trials) - 1, trials[-1], **of_last)
    failure = same_failure(tried, since)
    return 0 if failure is None else len(failure.failures)


TABLE = {
    "one of each of three trials": (found([failed()], [failed()], [failed()]), 3),
    "two of one trial and one of another": (found([failed(), failed()], [failed()]), 3),
    "one of one": (found([failed()]), 1),
    "none": (found([]), 0),
    "numbers in the words differ": (
        found(*([failed(f"ValueError: step {n} of 0x{n}f of trial_000{n}")] for n in range(3))),
        3,
    ),
    "words differ": (found([failed("TypeError: a")], [failed("TypeError: b")], [failed("KeyError: a")]), 1),
    "the place differs": (found(*([failed(place=f"fsr/train.py:{n}")] for n in range(3))), 1),
    "a mistake of the user": (found(*([failed("no file a", cause="cancelled")] for _ in range(3))), 3),
    "cancelled by scancel": (found(*([failed("", place="", cause="cancelled")] for _ in range(3))), 0),
    "memory": (found(*([failed(cause="out of memory")] for _ in range(3))), 0),
    "nodes": (found(*([failed(cause="node")] for _ in range(3))), 0),
    "killed": (found(*([failed(cause="killed")] for _ in range(3))), 0),
    "not finite": (found(*([failed(cause="not finite")] for _ in range(3))), 0),
    "ranks that could not say why": (found(*([failed("a rank ended with exit code 1", "")] for _ in range(3))), 3),
    "at the first evaluation": (found(*([failed(reached=2000)] for _ in range(3))), 3),
    "another was evaluated": (found([failed()], [failed()], [failed()], [], evaluated=True), 0),
    "one of them was evaluated": (found([failed()], [failed()], [failed()], evaluated=True), 0),
    "another got further": (found([failed()], [failed()], [failed()], [failed("", "", "preempted", 50)]), 0),
    "another is further": (found([failed()], [failed()], [failed()], [failed(seconds=None)], step=50), 0),
    "another works for longer": (found([failed()], [failed()], [failed()], [failed(seconds=None, started=1.0)]), 0),
    "another has just begun": (found([failed()], [failed()], [failed()], [failed(seconds=None, started=time.time())]), 3),
    "another starts where it was": (found([failed()], [failed()], [failed()], [failed("", "", "preempted", 50, first_step=50)]), 3),
    "before this sweep": (found([failed()], [failed()], [failed()], since=101.0), 0),
    "some before this sweep": (found([failed()], [failed()], [failed(started=200.0)], since=101.0), 1),
}  # fmt: skip


def is_open(*trials):
    return same_failure([Tried(number, attempts) for number, attempts in enumerate(trials)], 0.0).open


def test_a_trial_at_work_since_before_enough_had_failed_may_still_show_that_it_is_sound():
    now = time.time()
    three = [[failed(started=now - 25)] for _ in range(3)]
    assert is_open(*three, [failed(seconds=None, started=now - 10)])
    assert not is_open(*three, [failed(seconds=None, started=now - 1)])  # else there would always be one
    assert not is_open(*three[:2], [*three[2], failed(seconds=None, started=now - 10)])  # its setting has failed
    failure = same_failure(
        [Tried(number, attempts) for number, attempts in enumerate([*three, [failed(seconds=None, started=now - 10)]])],
        0.0,
    )
    assert failure.waits_for_more(failed()) and not failure.stops
    assert not failure.waits_for_more(failed("KeyError: 3"))


def test_what_an_earlier_code_version_did_speaks_for_no_later_one():
    old = failed("", "", "preempted", reached=2000)
    new = failed(started=300.0)
    was = Progress(step=2000, evaluated=2000)
    assert what_came(0, [old, new], was, 200.0) == Tried(0, [new])
    assert what_came(0, [old, new], was, 0.0) == Tried(0, [old, new], 2000, True)
    assert what_came(0, [old, new], Progress(step=2100, evaluated=2000), 200.0) == Tried(0, [new], 2100)


@pytest.mark.parametrize("kind", TABLE)
def test_the_table_of_attempts(kind):
    same, expected = TABLE[kind]
    assert same == expected


def test_the_sentence_says_what_happened_and_what_mends_it():
    failure = SameFailure("x", [(0, failed()), (0, failed()), (3, failed("ModuleNotFoundError: No module named 'x'"))])
    assert failure.stops and len(failure.failures) == SAME
    assert failure.sentence(StudyFolder(Path("/runs/smoke"))) == (
        "3 attempts on trials 0, 3 ended in the same way, and no trial has come further, so the study was stopped: "
        "ModuleNotFoundError: No module named 'x' (fsr/train.py:88); install what is missing in the workers' Python, "
        "or mend the code and add --renew_code, then run the same command again: every trial is tried anew, and none "
        "of these attempts counts (traceback: /runs/smoke/trial_0003/error.txt)"
    )


@pytest.mark.parametrize(
    "detail, remedy",
    [
        ("OSError: We couldn't connect to 'https://huggingface.co'", "pretrained fetch"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'a.jpg'", "prepare --help"),
        ("TypeError: f() takes 1 argument", "--renew_code"),
    ],
)
def test_each_kind_of_failure_has_its_remedy(detail, remedy):
    assert remedy in SameFailure("x", [(0, failed(detail))]).sentence(StudyFolder(Path("runs")))


def refuse(worker, data_folder, words="no module"):
    (data_folder / "error").write_text(words)
    return worker


def causes(worker, number):
    return [attempt.cause for attempt in worker.folder.attempt_log(number).attempts()]


def with_code(worker):
    object.__setattr__(worker, "code", "v1")
    return worker


def test_three_same_failures_stop_the_study_and_no_trial_has_failed(worker, data_folder):
    assert work_on(refuse(with_code(worker), data_folder)) is Outcome.STOPPED
    assert [trial.state.name for trial in trials_of(worker)] == ["RUNNING"] * 3
    assert [causes(worker, number) for number in range(3)] == [["exception"]] * 3  # three settings tell more than one
    reason = worker.folder.stop_reason()
    assert reason.startswith("3 attempts on trials 0, 1, 2 ended in the same way, and no trial has come further, so")
    assert "RuntimeError: no module (tests/launch_stub.py:" in reason

    (data_folder / "error").unlink()
    worker.folder.stop_file.unlink()
    since = time.time()
    write_json(worker.folder.target_file, {"trials": 8, "limit": 8, "since": since})
    assert work_on(worker) is Outcome.DONE
    assert {trial.state.name for trial in trials_of(worker)} <= {"COMPLETE", "PRUNED"}
    assert len(trials_of(worker)) == 8


def test_a_stopped_study_has_a_clean_slate_also_for_budgets(worker, data_folder):
    refuse(with_code(worker), data_folder)
    for times in (1, 2):
        assert work_on(worker) is Outcome.STOPPED
        assert {trial.state.name for trial in trials_of(worker)} == {"RUNNING"}
        assert len(json.loads(worker.folder.stopped_file.read_text())) == times
        worker.folder.stop_file.unlink()
        write_json(worker.folder.target_file, {"trials": 8, "limit": 8, "since": time.time()})
        time.sleep(0.2)


def test_a_setting_that_fails_where_another_is_sound_stops_nothing(worker, data_folder):
    worker = with_target(with_code(worker), 4, 4)
    (data_folder / "error").write_text("no such setting")
    for _ in range(2):  # two settings fail, and wait for what another one shows
        claimed = claim_for(worker)
        worker._train(claimed, *surrounding(worker))
        claimed.let_go()
    assert [causes(worker, number) for number in (0, 1)] == [["exception"]] * 2
    sound = claim_for(worker)
    assert sound.trial.number == 2
    (data_folder / "error").unlink()
    worker._train(sound, *surrounding(worker))
    sound.let_go()
    assert trials_of(worker)[2].state.name == "COMPLETE"
    (data_folder / "error").write_text("no such setting")
    for _ in range(2):
        again = claim_for(worker)
        worker._train(again, *surrounding(worker))
        again.let_go()
    (data_folder / "error").unlink()
    assert work_on(worker) is Outcome.DONE
    assert [trial.state.name for trial in trials_of(worker)] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert worker.folder.stop_reason() is None
    assert trials_of(worker)[0].user_attrs["error"] == "exception 2 times: RuntimeError: no such setting"


def test_the_study_is_not_stopped_while_another_setting_is_being_tried(worker, data_folder, monkeypatch):
    monkeypatch.setattr("launch.state.same_failure.LEAST_S", 1e6)  # on a machine however busy
    worker = with_target(with_code(worker), 4, 4)
    holder = spawn.Process(target=hold_a_claim, args=(cloudpickle.dumps(worker),))  # of trial 0
    holder.start()
    while not (worker.folder.folder / "held").exists():
        time.sleep(0.01)
    sound_log = worker.folder.attempt_log(0)
    sound_log.begin("local", 0, "n1", 1)
    (data_folder / "error").write_text("no such setting")
    for _ in range(3):
        claimed = claim_for(worker)
        worker._train(claimed, *surrounding(worker))
        claimed.let_go()
    assert [trial.state.name for trial in trials_of(worker)] == ["RUNNING"] * 4
    waiting = claim_for(worker)
    assert not isinstance(waiting, str), waiting  # it is tried again, and nothing is stopped
    waiting.let_go()
    assert worker.folder.stop_reason() is None
    sound_log.end("exception", "RuntimeError: no such setting", worker.folder.attempt_log(1).attempts()[-1].place)
    assert claim_for(worker) == "stopped"
    holder.kill()
    holder.join()


def surrounding(worker):
    from launch.slurm.environment import LocalEnvironment
    from launch.state.stop import StopRequest
    from launch.worker.rendezvous import Rendezvous

    return StopRequest(), LocalEnvironment(), Rendezvous(worker.folder.locks)


def test_who_had_failed_in_an_earlier_sweep_is_not_given_up_before_the_others_have_shown_theirs(worker, data_folder):
    refuse(with_code(worker), data_folder)
    claimed = claim_for(worker)
    worker._train(claimed, *surrounding(worker))
    claimed.let_go()
    time.sleep(0.2)
    write_json(worker.folder.target_file, {"trials": 8, "limit": 8, "since": time.time()})
    assert work_on(worker) is Outcome.STOPPED
    assert [trial.state.name for trial in trials_of(worker)] == ["RUNNING"] * 3
    assert [causes(worker, number) for number in range(3)] == [["exception"] * 2, ["exception"], ["exception"]]


def test_the_only_trial_of_a_study_fails_as_ever(worker, data_folder):
    worker = with_target(refuse(with_code(worker), data_folder), 1, 1)
    assert work_on(worker) is Outcome.DONE
    assert [trial.state.name for trial in trials_of(worker)] == ["FAIL"]


def test_failures_of_other_kinds_give_up_their_trials_as_ever(worker, data_folder):
    worker = with_target(with_code(worker), 4, 4)
    (data_folder / "fail").write_text("yes")  # not finite
    assert work_on(worker) is Outcome.DONE
    assert {trial.state.name for trial in trials_of(worker)} == {"FAIL"}


def record(folder, number):
    with folder.claim_lock():
        stop_study(folder, SameFailure("x", [(number, failed())] * 3), float(number))


def test_two_workers_that_record_at_once_record_it_once(worker):
    processes = [multiprocessing.Process(target=record, args=(worker.folder, number)) for number in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    (stop,) = json.loads(worker.folder.stopped_file.read_text())
    assert worker.folder.stop_reason() == stop["sentence"]


def test_what_stopped_a_study_counts_against_no_budget(worker):
    stops = [Stopped(signature(failed()), 150.0, "so")]
    write_json(worker.folder.stopped_file, [stop.__dict__ for stop in stops])
    before, after, other = failed(), failed(started=200.0), failed("KeyError: 3")
    assert that_count(worker.folder, [before, after, other]) == [after, other]


BREAKS = {
    "an exception": ("raise TypeError('wrong call of step 3')", "TypeError: wrong call of step 3 (launch/worker/method.py:"),
    "a missing module": ("import module_of_nobody", "No module named 'module_of_nobody' (launch/worker/method.py:"),
    "weights that cannot be fetched": ("raise OSError('We cannot connect to huggingface.co')", "pretrained fetch"),
    "data of another kind": ("open(config.data_folder / 'image.jpg')", "prepare --help"),
    "a mistake": ("from fsr.errors import UserError\n    raise UserError('no list train.txt')", "no list train.txt"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", BREAKS)
def test_the_command_ends_with_the_sentence_and_resumes_once_it_is_mended(tmp_path, kind):
    breaks, words = BREAKS[kind]
    method = tmp_path / "broken.py"
    text = Path(launch_stub.__file__).read_text()
    method.write_text(
        text.replace('    mistake = setting(config, "mistake", None)', f"    {breaks}\n    mistake = None")
    )
    checkout = private_checkout(tmp_path / "checkout", method)
    data = tmp_path / "data"
    data.mkdir()
    command = [*command_of(checkout), "--study", "smoke", "--data_folder", data, "--runs", tmp_path / "runs"]
    command += ["--iterations", "20", "--cluster", "local", "--trials", "8", "--parallel", "2"]
    answer = subprocess.run(command, capture_output=True, text=True, **surroundings_of(checkout))
    print(answer.stdout, answer.stderr)
    assert answer.returncode == 2
    assert words in answer.stderr and len(answer.stderr.splitlines()) == 1
    study = tmp_path / "runs" / "smoke"
    attempts = [json.loads(file.read_text()) for file in study.glob("trial_*/attempts.json")]
    assert sum(map(len, attempts)) <= 4  # two workers may be at it at once; after a mistake the study is undone
    assert bool(attempts) == (kind != "a mistake")
    (checkout / "launch" / "worker" / "method.py").write_text(text)
    mended = subprocess.run([*command, "--renew-code"], capture_output=True, text=True, **surroundings_of(checkout))
    print(mended.stdout, mended.stderr)
    assert mended.returncode == 0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if not available():
        pytest.skip(MISSING)
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.down()


ON_SLURM = {
    "a missing module": ("import module_of_nobody  # noqa", "No module named 'module_of_nobody' (launch/worker/method.py:"),
    "a mistake": ("from fsr.errors import UserError; raise UserError('no list train.txt')", "no list train.txt"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ON_SLURM)
def test_on_slurm_the_third_same_failure_cancels_what_waits_and_the_same_command_resumes(cluster, tmp_path, kind):
    line, words = ON_SLURM[kind]
    text = (Path(__file__).parent / "slurm_stub.py").read_text()
    sweep = Sweep(cluster, tmp_path / "sweep", private=True)
    (sweep.checkout / "launch" / "worker" / "method.py").write_text(broken(text, line))
    sweep.submit(trials=12, parallel=10)
    sweep.wait_for_no_jobs()
    status = sweep.status()
    print(status)
    assert words in status["stopped"]
    assert {trial["state"] for trial in status["trials"]} == {"waiting"}
    assert sum(len(sweep.attempts(number)) for number in range(12)) <= 8  # four work at once
    (sweep.checkout / "launch" / "worker" / "method.py").write_text(text)
    sweep.submit("--renew-code", trials=12, parallel=4)
    sweep.finish(12)


def broken(text, line):
    """The method with this line where it begins to train."""
    lines = text.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith("def train("))
    end = next(number for number in range(start, len(lines)) if lines[number].rstrip().endswith(":"))
    return "".join([*lines[: end + 1], f"    {line}\n\n", *lines[end + 1 :]])
