"""The checkpoints of a study, inferred: which are chosen, what is done once, and whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from inference import infer, save_checkpoint
from slurm_cluster import MISSING, Cluster, available, wait_for
from studies import add_run, add_trial, new_study
from tiny import tiny_config

from fsr.data.synthetic import synthesise
from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch.infer_study import main
from launch.state.checkpoints import checkpoints_of, chosen_trials
from launch.state.evaluation import inferences_of, is_finished, unfinished
from launch.state.paths import EvaluationFolder, StudyFolder
from launch.worker.inference import InferenceWorker
from launch.worker.protocol import Outcome

ROOT = Path(__file__).parent.parent
LISTS = "VOCdevkit/VOC2012/ImageSets/fsr"
HOW = ("--workers", "0", "--threads", "1")


# Which checkpoints


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Settings 0 to 4, of which 1 was pruned and 4 is trial 2's again; then repeats of 0, 2 and 3, one that failed."""
    _, study = new_study(tmp_path_factory.mktemp("trials"))
    for ratio, value in ((0.4, 0.2), (0.5, None), (0.6, 0.4), (0.7, 0.3), (0.6, 0.41)):
        add_trial(study, ratio, "complete" if value else "pruned", value)
    for seed in (1, 2):
        for setting, ratio in ((0, 0.4), (2, 0.6), (3, 0.7)):
            failed = (seed, setting) == (2, 3)
            add_trial(study, ratio, "fail" if failed else "complete", 0.3, seed=seed, repeats=setting)
    return study.get_trials(deepcopy=False)


def test_the_best_settings_stand_beside_trial_0_and_each_setting_once(trials):
    assert chosen_trials(trials, best=1) == [0, 4]
    assert chosen_trials(trials, best=2) == [0, 3, 4]
    assert chosen_trials(trials) == [0, 2, 3, 4]  # all that finished; the pruned one has no scores


def test_repeats_are_those_of_the_chosen_settings_that_finished(trials):
    assert chosen_trials(trials, numbers=[3, 0], repeats=True) == [0, 3, 5, 7, 8]
    assert chosen_trials(trials, numbers=[6], repeats=True) == [6, 9]
    assert chosen_trials(trials, repeats=True) == [0, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("number, said", [(1, "trial 1 is pruned"), (10, "trial 10 is fail"), (11, "0 to 10, got 11")])
def test_a_trial_that_cannot_be_meant_is_named(trials, number, said):
    with pytest.raises(UserError, match=said):
        chosen_trials(trials, numbers=[0, number])


def test_a_checkpoint_that_was_removed_is_left_out_and_named(tmp_path):
    study = StudyFolder(tmp_path / "smoke")
    for number in (0, 1):
        study.run(number).folder.mkdir(parents=True)
    study.run(0).best_file.touch()
    removed = {"why": "--keep none", "bytes": {"best.pt": 9}}
    (study.run(1).folder / "removed.json").write_text(json.dumps(removed))
    files, notes = checkpoints_of(study, [0, 1], named=[])
    assert files == {0: study.run(0).best_file} and len(notes) == 1
    assert "trial 1 is left out: checkpoint" in notes[0]
    assert "was removed when its run had ended (--keep none)" in notes[0]
    with pytest.raises(UserError, match=r"^checkpoint .* was removed when its run had ended"):
        checkpoints_of(study, [0, 1], named=[1])
    with pytest.raises(UserError, match="no finished trial with weights to be evaluated: trial 1 is left out"):
        checkpoints_of(study, [1], named=[])


# What is inferred


@pytest.fixture
def planned(voc, checkpoint, tmp_path):
    """The inferences of two checkpoints on val, both networks."""
    common = InferConfig(
        dataset="voc", checkpoint=checkpoint, data_folder=voc, num_classes=9, workers=0, threads=1, shards=2
    )
    folder = EvaluationFolder(tmp_path / "evaluation")
    files = {number: tmp_path / f"{number}.pt" for number in (0, 4)}
    for file in files.values():
        shutil.copy(checkpoint, file)
    return folder, files, common


def test_one_pass_of_each_network_gives_all_that_is_scored_of_a_list(planned, voc, tmp_path):
    folder, files, common = planned
    lists = shutil.copytree(voc / "VOCdevkit/VOC2012/ImageSets/fsr", tmp_path / "lists")
    shutil.copy(lists / "val.txt", lists / "test.txt")
    common = replace(common, list_folder=lists)
    both = inferences_of(files, folder, common, ("train", "val", "test"), ("student", "teacher"))
    assert len(both) == 2 * 3 * 2
    places = {config.results_folder.relative_to(folder.folder).as_posix(): config for config in both}
    train, val, test = (places[f"trial_0004/{name}_teacher"] for name in ("train", "val", "test"))
    assert (train.pseudo_labels, train.crf, train.single_scale, train.weights) == ("crf", False, False, "teacher")
    assert (val.pseudo_labels, val.crf, val.single_scale, val.class_gating) == ("none", True, True, True)
    assert (test.crf, test.single_scale, test.class_gating) == (True, False, False)
    with pytest.raises(UserError, match=r"list .*nowhere\.txt is missing"):
        inferences_of(files, folder, common, ("nowhere",), ("student",))


def test_a_damaged_checkpoint_keeps_no_other_from_being_done_and_is_named(planned):
    folder, files, common = planned
    files[0].write_bytes(b"no checkpoint")
    both = inferences_of(files, folder, common, ("val",), ("student",))
    with pytest.raises(UserError, match=r"checkpoint .*/0\.pt cannot be read"):
        InferenceWorker(inferences=tuple(both), folder=folder).work(lambda: False, None, None)
    assert [is_finished(config) for config in both] == [False, True]
    assert unfinished(both) == both[:1]


def test_what_is_finished_is_not_opened_again_and_another_checkpoint_in_its_place_is_refused(planned, monkeypatch):
    folder, files, common = planned
    both = inferences_of(files, folder, common, ("val",), ("student",))
    worker = InferenceWorker(inferences=tuple(both), folder=folder)
    assert worker.work(lambda: False, None, None) is Outcome.DONE and unfinished(both) == []
    monkeypatch.setattr("launch.worker.method.open_inference", lambda _: pytest.fail("opened for nothing"))
    assert worker.work(lambda: False, None, None) is Outcome.DONE
    shutil.copy(both[0].results_folder / "scores.json", files[4])
    with pytest.raises(UserError, match=r"trial_0004/val_student holds results with checkpoint_sha256 .*, not "):
        unfinished(both)


# A study with checkpoints

IMAGES = 12  # of train


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A synthetic set of few images."""
    folder = tmp_path_factory.mktemp("small")
    synthesise(folder, images=IMAGES, seed=3)
    return folder


@pytest.fixture
def study(small_data, tmp_path):
    """Three settings, the first of them twice more with fresh seeds, with networks that were drawn."""
    folder, study = new_study(tmp_path / "runs")
    config = tiny_config(small_data)
    folder.study_file.write_text(json.dumps(folder.definition() | {"base": config.to_json()}))
    for ratio, value, attributes in (
        *((0.4, 0.2, {}), (0.5, 0.3, {}), (0.6, 0.4, {})),
        *((0.4, 0.2, {"seed": seed, "repeats": 0}) for seed in (1, 2)),
    ):
        number = len(study.get_trials(deepcopy=False))
        add_run(folder, study, ratio, value, **attributes)
        save_checkpoint(folder.run(number).best_file, config, seed=number)
    return folder


def command(study, *words):
    """The command as a user types it."""
    line = [sys.executable, ROOT / "launch/infer.py", "--study", "smoke", "--runs", study.folder.parent, *HOW, *words]
    return list(map(str, line))


def names_of(data, infer_set):
    """The images of a list."""
    return [line.split()[0] for line in (data / LISTS / f"{infer_set}.txt").read_text().splitlines()]


def workers_on(cluster):
    """Numbers of the processes that infer on a cluster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if words[1:4] == [b"-u", b"-m", b"launch.worker.main"] and cluster.owns(entry.name):
            found.append(int(entry.name))
    return found


def scores_of(study):
    """What each inference has come to, by its folder."""
    found = EvaluationFolder.of(study).all_results()
    return {f"{one.folder.parent.name}/{one.folder.name}": json.loads(one.scores_file.read_text()) for one in found}


@pytest.mark.slow
def test_the_table_of_a_swept_study_has_what_inferring_by_hand_has(swept, synthetic_folder, tmp_path):
    shutil.copytree(swept / "smoke", tmp_path / "runs/smoke")
    study = StudyFolder(tmp_path / "runs/smoke")
    answer = subprocess.run(command(study, "--best", 1, "--cluster", "local"), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "study smoke: mIoU in %" in answer.stdout and "published: single-stage, ImageNet weights" in answer.stdout
    rows = json.loads((EvaluationFolder.of(study).folder / "table.json").read_text())["checkpoints"]
    trials = sorted({row["trial"] for row in rows})
    assert len(trials) == 2 and trials[0] == 0 and len(rows) == 2 * 2 * 6
    by_hand = {
        "train": ("--infer_set", "train", "--no-crf", "--pseudo_labels", "crf"),
        "val": ("--infer_set", "val", "--single_scale", "--class_gating"),
    }
    for trial, network in zip(trials, ("student", "teacher"), strict=True):
        for name, flags in by_hand.items():
            where = study.run(trial).best_file, synthetic_folder, tmp_path / f"{trial}_{name}"
            alone = infer("synthetic", *where, "--weights", network, "--threads", 1, *flags)
            found = [row for row in rows if (row["trial"], row["network"], row["set"]) == (trial, network, name)]
            assert len(found) == (2 if name == "train" else 4)
            for row in found:
                scores = alone["scores"][row["kind"]]
                assert (row["miou"], row["pixel_accuracy"]) == (scores["miou"], scores["pixel_accuracy"])


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_comes_to_the_same(study, small_data, tmp_path):
    whole = StudyFolder(tmp_path / "whole/smoke")
    shutil.copytree(study.folder, whole.folder)
    words = ("--best", 1, "--weights", "student", "--cluster", "local")
    answer = subprocess.run(command(whole, *words), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    kills = 0
    for images in (3, 13, 24):
        started = subprocess.Popen(command(study, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        folder = EvaluationFolder.of(study).folder

        def done(folder=folder):
            return sum(len(file.read_bytes().splitlines()) for file in folder.glob("trial_*/*/images/*.jsonl"))

        deadline = time.monotonic() + 120
        while done() < images and started.poll() is None:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        kills += started.poll() is None
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
    assert kills >= 2
    before = {file: file.stat().st_mtime_ns for file in folder.glob("trial_*/*/crf/*.png")}
    answer = subprocess.run(command(study, *words), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert before == {file: file.stat().st_mtime_ns for file in before}  # nothing was done twice

    def told(scores):
        return {place: (one["scores"], one["images"], one["skipped"]) for place, one in scores.items()}

    assert told(scores_of(study)) == told(scores_of(whole)) and len(scores_of(study)) == 4
    lines = [line for file in folder.glob("trial_*/*/images/*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == 2 * (IMAGES + len(names_of(small_data, "val")))
    answer = subprocess.run(command(study, *words), capture_output=True, text=True)
    assert "\n4 inferences, 4 of them done\n" in answer.stdout and "study smoke: mIoU in %" in answer.stdout


@pytest.mark.slow
def test_a_set_without_truth_comes_to_an_archive_a_checkpoint(study, small_data, tmp_path):
    data = shutil.copytree(small_data, tmp_path / "data")
    names = names_of(small_data, "val")
    (data / LISTS / "test.txt").write_text("".join(f"{name}\n" for name in names))
    words = ("--trials", 0, "--infer_set", "test", "--data_folder", data, "--cluster", "local")
    answer = subprocess.run(command(study, *words), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    archives = [results.archive_file for results in EvaluationFolder.of(study).all_results()]
    assert len(archives) == 2 and all(file.exists() for file in archives)
    assert all(f"archive for VOC's evaluation server: {file}" in answer.stdout for file in archives)


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason=MISSING)
def test_three_workers_on_slurm_go_through_a_requeue_and_a_kill(study, small_data, tmp_path, tmp_path_factory):
    whole = StudyFolder(tmp_path / "whole/smoke")
    shutil.copytree(study.folder, whole.folder)
    words = ("--best", 2)
    answer = subprocess.run(command(whole, *words, "--cluster", "local"), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        where = ("--cluster", "slurm", "--partition", "low", "--sbatch", "mem=700M", "--parallel", 3, "--shards", 3)
        line = command(study, *words, *where)
        folder = EvaluationFolder.of(study).folder
        answer = subprocess.run([*line, "--detach"], capture_output=True, text=True, env=cluster.environment)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "3 workers; 0 were there already" in answer.stdout
        wait_for(lambda: len(list(folder.glob("trial_*/*/images/*.jsonl"))) >= 3, 120)
        jobs = cluster.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()
        cluster.ask("scontrol", "requeue", jobs[0])
        wait_for(lambda: workers_on(cluster), 60)
        os.kill(workers_on(cluster)[0], signal.SIGKILL)
        waiting = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster.environment
        )

        def over():
            cluster.release()
            return waiting.poll() is not None

        wait_for(over, 240)
        told = waiting.stdout.read()
        assert waiting.returncode == 0, told
        assert "12 of 12 inferences are done" in told and "study smoke: mIoU in %" in told
    finally:
        cluster.down()
    assert {place: one["scores"] for place, one in scores_of(study).items()} == {
        place: one["scores"] for place, one in scores_of(whole).items()
    }
    files = list(folder.glob("trial_*/*/images/*.jsonl"))
    done = [(file.parent, json.loads(line)["name"]) for file in files for line in file.read_text().splitlines()]
    assert len(done) == len(set(done)) == 3 * 2 * (IMAGES + len(names_of(small_data, "val")))


# What cannot be meant


def test_two_ways_to_choose_are_refused(study_folder_of_one, capsys):
    for words, said in (
        (("--best", "1", "--trials", "0"), "give only one of them"),
        (("--trials", "7"), "--trials must be of the study, whose trials are 0 to 0, got 7"),
        ((), "no finished trial with weights to be evaluated: trial 0 is left out: checkpoint"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["--study", "smoke", "--runs", str(study_folder_of_one), "--cluster", "local", *words])
        assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.fixture
def study_folder_of_one(tmp_path):
    _, study = new_study(tmp_path)
    add_trial(study, 0.4)
    return tmp_path
