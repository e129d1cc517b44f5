"""Large studies: ten thousand trials to look at, sixty-four workers that start in the same second."""

import json
import multiprocessing
import resource
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import load
from launch.worker.claim import claim

ROOT = Path(__file__).parent.parent
TRIALS = 10_000
SUMMARY = {
    "causes": ["preempted", "finished"],
    "node": "n1",
    "seconds": 4.0,
    "gpu_seconds": {"useful": 3.5, "repeated": 0.5, "lost": 0.0},
    "step": 20,
    "evaluated": 20,
    "scores": {"val/seg_miou": 0.4, "val/cam_miou": 0.5},
    "steps_per_s": 5.0,
}
fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def large_study(tmp_path_factory):
    """A study with 10 000 finished trials and one that runs: one trial's records, repeated under other numbers."""
    folder = StudyFolder(tmp_path_factory.mktemp("runs") / "smoke")
    folder.folder.mkdir()
    base = load("smoke").base("synthetic", folder.folder, iterations=20, seed=None)
    folder.study_file.write_text(
        json.dumps({"base": base.to_json(), "target": TRIALS, "metric": "val/seg_miou", "space": {}})
    )
    study = optuna.create_study(study_name="smoke", storage=open_storage(folder.folder), direction="maximize")
    trial = study.ask()
    trial.suggest_float("mask_ratio", 0.05, 0.95)
    trial.suggest_float("1-momentum", 1e-3, 1e-1, log=True)
    trial.report(0.3, 10)
    trial.report(0.4, 20)
    trial.set_user_attr("summary", SUMMARY)
    study.tell(trial, 0.4)
    journal = folder.folder / "journal.log"
    created, *records = journal.read_text().splitlines()
    lines = [created]
    for number in range(TRIALS):
        lines += [line.replace('"trial_id":0', f'"trial_id":{number}') for line in records]
    journal.write_text("\n".join(lines) + "\n")
    study = optuna.load_study(study_name="smoke", storage=open_storage(folder.folder))
    assert study.ask().number == TRIALS
    return folder


@pytest.mark.slow
def test_the_status_of_ten_thousand_trials_takes_two_seconds(large_study):
    command = [sys.executable, ROOT / "launch" / "status.py", "--json", "--study", "smoke", "--runs"]
    # Of the processor, not of the clock: what the machine does besides would fail this.
    # Busy neighbours still take cache and clock rate, up to 1.4 times as much of it, hence more than one try.
    seconds = []
    while len(seconds) < 6 and min(seconds, default=2) >= 2:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run([*command, large_study.folder.parent], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    status = json.loads(answer.stdout)
    assert len(status["trials"]) == TRIALS + 1
    assert status["trials"][77]["causes"] == ["preempted", "finished"]
    assert status["gpu_hours"]["repeated"] == pytest.approx(TRIALS * 0.5 / 3600, abs=1e-3)
    print(f"\nstatus.py on {TRIALS} trials: CPU {min(seconds):.2f} s")
    assert min(seconds) < 2 * 1.4


def work(folder, base, start, trials, results):
    """Claim and tell `trials` trials, ten seconds apart but for the first, and say how long each call took."""
    storage = open_storage(folder.folder)
    start.wait()
    calls = []
    for _ in range(trials):
        began = time.monotonic()
        claimed = claim(load("smoke"), base, folder, storage, "local", "v1")
        calls.append(time.monotonic() - began)
        claimed.attempt_log.begin("local", 0, "n1", 1)
        claimed.attempt_log.end("finished")
        time.sleep(10 if trials > 1 else 0)
        began = time.monotonic()
        claimed.tell(0.5)
        claimed.let_go()
        calls.append(time.monotonic() - began)
    results.put((claimed.trial.number, calls))


def swarm(folder, workers, trials):
    """All workers' calls (seconds)."""
    base = load("smoke").base("synthetic", folder.parent, iterations=20, seed=None)
    study = StudyFolder(folder)
    folder.mkdir()
    optuna.create_study(study_name="smoke", storage=open_storage(folder), direction="maximize")
    Target(workers * trials, workers * trials).write(study)
    start, results = fork.Event(), fork.Queue()
    processes = [fork.Process(target=work, args=(study, base, start, trials, results)) for _ in range(workers)]
    for process in processes:
        process.start()
    time.sleep(1)
    start.set()
    answers = [results.get(timeout=300) for _ in processes]
    numbers = [t.number for t in optuna.load_study(study_name="smoke", storage=open_storage(folder)).trials]
    assert numbers == list(range(workers * trials))
    return answers


@pytest.mark.slow
def test_sixty_four_workers_that_start_at_once_have_their_trials_in_six_seconds(tmp_path):
    last = []
    for attempt in range(3):  # the machine is shared, and the measure is of the best it can do
        (tmp_path / str(attempt)).mkdir()
        answers = swarm(tmp_path / str(attempt) / "smoke", 64, 1)
        assert sorted(number for number, _ in answers) == list(range(64))  # nothing doubled
        last.append(max(calls[0] for _, calls in answers))
        if last[-1] < 6:
            break
    print(f"\n64 workers in the same second: the last has its trial after {last[-1]:.2f} s")
    assert min(last) < 6


@pytest.mark.slow
def test_sixty_four_workers_that_claim_and_tell_every_ten_seconds_wait_less_than_one(tmp_path):
    answers = swarm(tmp_path / "smoke", 64, 6)
    calls = sorted(seconds for _, calls in answers for seconds in calls[2:])  # the first claims come all at once
    p99 = calls[int(0.99 * len(calls))]
    print(f"\n{len(calls)} calls of 64 workers: median {calls[len(calls) // 2]:.3f} s, 99 % under {p99:.3f} s")
    assert p99 < 1
