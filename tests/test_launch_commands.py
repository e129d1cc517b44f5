"""launch/train.py and launch/infer.py on the command line: help, typing errors, and what a full account is told."""

import pytest

from launch import infer, sweep, train
from launch.slurm import commands
from launch.slurm.answers import Limit
from launch.slurm.queue import Queue

INFER = ["voc", "--checkpoint", "best.pt", "--data_folder", "data"]


@pytest.fixture
def said(capsys):
    """Runs a command's main: exit code, output, errors."""

    def run(main, *arguments):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "main, arguments, flags",
    [
        (train.main, ["voc"], ("--run-folder", "--mask-ratio", "--partition", "--gpus", "--time-limit", "--sbatch")),
        (train.main, ["--gpus", "2", "synthetic"], ("--run-folder", "--cluster-file")),
        (infer.main, ["voc"], ("--checkpoint", "--shards", "--parallel", "--partition", "--sbatch")),
    ],
)
def test_help_shows_the_flags_of_the_method_and_those_of_slurm(said, main, arguments, flags):
    code, output, _ = said(main, *arguments, "--help")
    assert code == 0
    for flag in flags:
        assert flag in output.replace("_", "-")


@pytest.mark.parametrize(
    "main, arguments, wrong, nearest",
    [
        (train.main, ["voc", "--run_folder", "x", "--partiton", "gpu"], "--partiton", "--partition"),
        (train.main, ["voc", "--run_folder", "x", "--partiton=gpu"], "--partiton", "--partition"),
        (train.main, ["--time_limt", "1:00", "voc", "--run_folder", "x"], "--time_limt", "--time_limit"),
        (train.main, ["voc", "--mask_ration", "0.5"], "--mask_ration", "--mask_ratio"),
        (train.main, ["voc", "--run-foldr", "x"], "--run-foldr", "--run_folder"),
        (infer.main, [*INFER, "--paralel", "4"], "--paralel", "--parallel"),
        (infer.main, ["voc", "--chekpoint", "x"], "--chekpoint", "--checkpoint"),
        (infer.main, [*INFER, "--acount", "x"], "--acount", "--account"),
        (infer.main, ["voc", "--modl_path", "x"], "--modl_path", "--model_path"),
    ],
)
def test_a_typing_error_is_named_with_the_nearest_of_all_flags(said, main, arguments, wrong, nearest):
    code, output, errors = said(main, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"error: unknown option {wrong}; nearest allowed: {nearest}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "main, arguments, sentence",
    [
        (
            train.main,
            ["voc", "--partition", "a", "--run_folder", "x", "--partition", "b"],
            "--partition is given twice",
        ),
        (train.main, [], "expects a data set as its first argument, got nothing"),
        (train.main, ["imagenet", "--gpus", "1"], "got imagenet; allowed: voc, coco, synthetic"),
        (infer.main, [*INFER, "--cluster", "local", "--parallel", "0"], "--parallel must be from 1 to 100000, got 0"),
        (infer.main, [*INFER, "--cluster", "local", "--parallel", "-2"], "--parallel must be from 1 to 100000, got -2"),
        (infer.main, [*INFER, "--cluster", "local", "--sbatch", "gres=gpu:2"], "--gpus must be 0 or 1"),
        (infer.main, [*INFER, "--cluster", "local", "--gpus", "a100:2"], "--gpus must be 0 or 1"),
        (infer.main, [*INFER, "--cluster", "local", "--time-limit", "1"], "--signal_before_s must be shorter"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(said, main, arguments, sentence):
    code, _, errors = said(main, *arguments)
    assert (code, errors.count("\n")) == (2, 1)
    assert sentence in errors


@pytest.fixture
def full_account(monkeypatch):
    """A Slurm where this user's account has no room in the queue."""
    monkeypatch.setattr(commands, "presence", lambda: "answers")
    monkeypatch.setattr(Queue, "jobs", lambda self: {})
    monkeypatch.setattr(commands, "submit_limits", lambda *where: [Limit(2, "your account", ())])
    monkeypatch.setattr(commands, "jobs_that_count", lambda limit: 2)
    monkeypatch.setattr(commands, "settings", lambda: {"MaxArraySize": "1001"})
    monkeypatch.setattr(commands, "partitions", lambda: {"main": {"Default": "YES"}})
    monkeypatch.setattr(commands, "partition_nodes", lambda partition: {"n1"})


def test_an_account_without_room_is_told_in_one_sentence(full_account, said, synthetic_folder, tmp_path):
    run = ["synthetic", "--data_folder", synthetic_folder, "--run_folder", tmp_path / "run"]
    (tmp_path / "best.pt").touch()
    inference = ["synthetic", "--checkpoint", tmp_path / "best.pt", "--data_folder", synthetic_folder, "--shards", "4"]
    study = ["--study", "smoke", "--data_folder", synthetic_folder, "--runs", tmp_path / "runs"]
    for main, arguments in ((train.main, run), (infer.main, inference), (sweep.main, study)):
        code, output, errors = said(main, *arguments)
        assert code == 2
        assert "note: your account may have 2 jobs in the queue: 0 workers are started" in output
        assert (
            errors
            == "error: no job was submitted, as your account has no room for one; run the same command again later\n"
        )
