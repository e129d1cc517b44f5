"""No folder of a study has more than about 10 000 entries, whatever its number of trials; trials of fewer digits and
studies of earlier versions have everything where it was."""

import os
import time

import pytest
from optuna.trial import TrialState

from analysis.inference_errors import errors_of
from analysis.named_runs import NamedRuns
from fsr.files import write_json
from launch.slurm import bad_nodes
from launch.state.paths import MOST_MISTAKES, EvaluationFolder, StudyFolder, folders_of_trials, place_of_trial
from launch.state.retention import Retention, announce_end, clean_up
from launch.worker.rendezvous import Rendezvous, forget_old_jobs, ranks_folder


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "smoke")


def made(folder, *numbers):
    for number in numbers:
        folder.run(number).folder.mkdir(parents=True)
    return [folder.run(number).folder for number in numbers]


def test_a_trial_below_10_000_has_its_place_in_the_folder_itself_and_others_in_folders_of_10_000(folder):
    def place(path):
        return str(path.relative_to(folder.folder))

    assert [place(folder.run(number).folder) for number in (0, 42, 9_999)] == ["trial_0000", "trial_0042", "trial_9999"]
    assert place(folder.run(10_000).folder) == "trials_0001/trial_10000"
    assert place(folder.run(19_999).folder) == "trials_0001/trial_19999"
    assert place(folder.run(1_234_567).folder) == "trials_0123/trial_1234567"
    assert [place(folder.trial_lock(n).path) for n in (42, 20_000)] == [
        "locks/0042.lock",
        "locks/trials_0002/20000.lock",
    ]
    assert [place(folder.ended_mark(n)) for n in (42, 20_000)] == ["ended/42", "ended/trials_0002/20000"]
    assert [place(folder.aside(n)) for n in (42, 20_000)] == [
        "set_aside/trial_0042_1",
        "set_aside/trials_0002/trial_20000_1",
    ]
    evaluation = EvaluationFolder.of(folder)
    assert place(evaluation.results(10_042, "val", "student")) == "evaluation/trials_0001/trial_10042/val_student"


def test_no_folder_gets_more_than_10_000_of_a_hundred_thousand_trials(tmp_path):
    count = {}
    for number in range(0, 100_000, 7):
        place = place_of_trial(tmp_path, number, f"trial_{number:04d}")
        count[place.parent] = count.get(place.parent, 0) + 7
    assert max(count.values()) <= 10_010 and len(count) == 10


def test_trials_are_listed_by_number_not_by_name_and_from_one_on(folder):
    made(folder, 9_999, 100_000, 10_000, 0, 20_001)
    for other in ("trial_00042", "trial_best", "trials_old"):
        (folder.folder / other).mkdir()
    assert list(folders_of_trials(folder.folder)) == [0, 9_999, 10_000, 20_001, 100_000]
    assert folder.trial_folders() == [folder.run(n).folder for n in (0, 9_999, 10_000, 20_001, 100_000)]
    assert folder.trial_folders(first=20_001) == [folder.run(n).folder for n in (20_001, 100_000)]
    assert folder.trial_folders(first=100_001) == []
    assert StudyFolder(folder.folder / "none").trial_folders() == []


def test_folders_whose_trials_are_all_known_are_not_read(folder, monkeypatch):
    made(folder, 0, 10_000, 20_000)
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (read.append(os.path.basename(path)), scandir(path))[1])
    assert folder.trial_folders(first=20_000) == [folder.run(20_000).folder]
    assert read == ["smoke", "trials_0002"]


def test_a_study_of_an_earlier_version_has_its_later_trials_where_they_were(folder):
    flat = folder.folder / "trial_12000"
    flat.mkdir(parents=True)
    folder.locks.mkdir()
    (folder.locks / "12000.lock").touch()
    assert folder.run(12_000).folder == flat and folder.trial_folders() == [flat]
    assert folder.trial_lock(12_000).path == folder.locks / "12000.lock"
    assert folder.run(12_001).folder == folder.folder / "trials_0001" / "trial_12001"


def test_the_locks_of_all_trials_are_found_and_no_others(folder):
    for number in (10_500, 3, 20):
        with folder.trial_lock(number), folder.claim_lock(), folder.worker_lock(77):
            pass
    assert [lock.path.name for lock in folder.trial_locks()] == ["0003.lock", "0020.lock", "10500.lock"]


def test_marks_of_ended_trials_are_made_found_and_removed_wherever_they_are(folder):
    folder.folder.mkdir()
    Retention("best").write(folder)
    for number in (7, 30_000):
        announce_end(folder, number, TrialState.PRUNED)
    assert folder.ended_marks() == {7, 30_000}
    clean_up(folder, 30_000, TrialState.PRUNED)
    assert folder.ended_marks() == {7}


def test_what_was_set_aside_twice_has_two_places(folder):
    folder.aside(10_000).mkdir(parents=True)
    assert folder.aside(10_000).name == "trial_10000_2"


def test_results_of_an_evaluation_come_by_number(folder):
    evaluation = EvaluationFolder.of(folder)
    for number in (100_000, 9_999, 20_000):
        for name in ("val", "train"):
            evaluation.results(number, name, "student").mkdir(parents=True)
    found = [results.folder for results in evaluation.all_results()]
    assert found == [
        evaluation.results(n, name, "student") for n in (9_999, 20_000, 100_000) for name in ("train", "val")
    ]


def test_errors_of_inferences_are_found_and_none_of_what_was_set_aside(folder):
    evaluation = EvaluationFolder.of(folder)
    places = [evaluation.results(n, "val", "student") for n in (3, 10_042)]
    places += [folder.run(10_001).folder / "infer_val", folder.aside(3) / "infer_val"]
    for place in places:
        write_json(place / "errors.json", {})  # no errors of an inference: it is named as damaged
    write_json(folder.study_file, {})
    told = errors_of(["smoke"], folder.folder.parent).damage
    assert len(told) == 3 and not any("set_aside" in line for line in told)


def test_the_runs_that_tensorboard_shows_lie_in_folders_of_10_000_too(folder, tmp_path):
    for run in made(folder, 1, 10_001):
        (run / "config.json").write_text("{}")
    links = tmp_path / "links"
    links.mkdir()
    runs = NamedRuns(folder, links)
    runs.refresh()
    runs.refresh()
    shown = sorted(str(path.relative_to(links)) for path in links.rglob("trial_*"))
    assert shown == ["trial_0001", "trials_0001/trial_10001"]
    folder.run(10_001).folder.rename(tmp_path / "gone")
    runs.refresh()
    assert not (links / "trials_0001" / "trial_10001").is_symlink()


def test_to_list_the_folders_of_trials_asks_nothing_of_each(folder, monkeypatch):
    """100 000 folders were sorted in .9 s of CPU; here 3 000, with a margin."""
    for part, first in (("", 0), ("trials_0001", 10_000)):
        (folder.folder / part).mkdir()
        for number in range(first, first + 1_500):
            (folder.folder / part / f"trial_{number:04d}").mkdir()
    monkeypatch.setattr(os, "stat", None)
    monkeypatch.setattr(os, "lstat", None)
    began = time.process_time()
    assert len(folder.trial_folders()) == 3_000
    assert time.process_time() - began < 1


def a_rank(monkeypatch, job, step, restart=0, rank=0):
    for name, value in (("JOB_ID", job), ("STEP_ID", step), ("RESTART_COUNT", restart), ("PROCID", rank)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_files_of_ranks_lie_in_folders_of_a_thousand_jobs_that_nobody_else_can_enter(folder, monkeypatch):
    places = {}
    for job in (7, 12_345_678):
        a_rank(monkeypatch, job, 0)
        Rendezvous(folder.locks).heartbeat_file().write_bytes(b"x")
        Rendezvous(folder.locks).report_failure("killed", "x", rank=1)
        (places[job],) = {path.parent for path in folder.locks.rglob(f"{job}.*")}
        assert Rendezvous(folder.locks).heartbeats() == {0: b"x"}
    assert places[7] == ranks_folder(folder.locks) and places[12_345_678] == places[7] / "jobs_12345"
    assert {place.stat().st_mode & 0o777 for place in places.values()} == {0o700}


def test_a_step_removes_what_earlier_steps_of_its_job_left_and_nothing_of_other_jobs(folder, monkeypatch):
    for job, step, restart in ((5, 0, 0), (51, 0, 0), (5, 1, 0), (5, 0, 1)):
        a_rank(monkeypatch, job, step, restart)
        Rendezvous(folder.locks).heartbeat_file().touch()
    a_rank(monkeypatch, 5, 0, 1, rank=1)
    Rendezvous(folder.locks).heartbeat_file().touch()
    left = sorted(path.name for path in ranks_folder(folder.locks).iterdir())
    assert left == ["5.1.0.heartbeat0", "5.1.0.heartbeat1", "51.0.0.heartbeat0"]


def test_what_jobs_left_that_have_been_silent_for_a_week_is_removed_with_the_next_submission(folder, monkeypatch):
    for job in (7, 8, 1_007, 2_008):
        a_rank(monkeypatch, job, 0)
        for rank in (0, 1):
            a_rank(monkeypatch, job, 0, rank=rank)
            Rendezvous(folder.locks).heartbeat_file().touch()
    long_ago = time.time() - 8 * 86_400
    for path in ranks_folder(folder.locks).rglob("*"):
        if path.name.startswith(("7.", "1007.")) or path.name == "8.0.0.heartbeat1":
            os.utime(path, (long_ago, long_ago))
    forget_old_jobs(folder.locks)
    left = sorted(path.name for path in ranks_folder(folder.locks).rglob("*"))
    eight = ["8.0.0.heartbeat0", "8.0.0.heartbeat1"]  # one of its ranks gave a sign
    assert left == ["2008.0.0.heartbeat0", "2008.0.0.heartbeat1", *eight, "jobs_2"]
    forget_old_jobs(folder.folder)  # without any


def test_a_thousand_workers_tell_of_the_same_mistake_and_the_next_does_not(folder):
    folder.mistakes_folder.mkdir(parents=True)
    for number in range(MOST_MISTAKES):
        (folder.mistakes_folder / f"7_{number}").touch()
    folder.record_mistake("7_1000", "there is no such study")
    assert len(list(folder.mistakes_folder.iterdir())) == MOST_MISTAKES


def test_a_node_gets_no_more_than_a_hundred_marks(folder):
    for number in range(150):
        bad_nodes.mark(folder, number, "n1", "")
    assert len(list((folder.bad_nodes / "n1").iterdir())) == 100 and bad_nodes.bad_nodes(folder) == ["n1"]
