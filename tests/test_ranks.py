"""`torchrun -m fsr.train` as its user types it: how several ranks end, whatever ends them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import flags, tiny_config

from fsr.checkpoint import load_file
from fsr.run import Run

TESTS = Path(__file__).parent


def torchrun(*arguments: object, module: str = "fsr.train") -> subprocess.Popen[str]:
    """Start two ranks of a module."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", module]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code of torchrun, and what the ranks printed on stdout and stderr."""
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def our_tracebacks(errors: str) -> list[str]:
    """Lines of tracebacks in stderr that come from this project's code."""
    return [line for line in errors.splitlines() if line.lstrip().startswith("File ") and "/fsr/" in line]


def ends_well(config, folder, module="fsr.train") -> None:
    """Train a run on two ranks, and check that both ended well."""
    code, output, errors = ended(torchrun(*flags(config), "--run_folder", folder, module=module))
    assert code == 0, errors
    assert output.count("finished: ") == 1
    run = Run(folder)
    assert run.result() is not None
    assert load_file(run.checkpoint_file)["step"] == config.iterations
    assert not list(run.folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["fsr.train", "slow_writer"])
def test_two_ranks_end_well_however_slow_the_disk_is(synthetic_folder, tmp_path, module):
    ends_well(short(synthetic_folder), tmp_path, module)


@pytest.mark.slow
def test_two_ranks_end_well_fifty_times_in_a_row(synthetic_folder, tmp_path):
    for number in range(50):
        ends_well(short(synthetic_folder), tmp_path / str(number), ["fsr.train", "slow_writer"][number % 2])


def short(data_folder, **changes):
    """A tiny run of four steps."""
    return tiny_config(data_folder, **({"ranks": 2, "iterations": 4, "eval_every": 4, "log_every": 1} | changes))


def test_a_finished_run_is_finished_on_all_ranks(synthetic_folder, tmp_path):
    config = short(synthetic_folder)
    for _ in range(2):
        ends_well(config, tmp_path)
    assert len(Run(tmp_path).starts()) == 1


def test_sigterm_to_torchrun_saves_one_checkpoint_and_no_rank_crashes(synthetic_folder, tmp_path):
    config = short(synthetic_folder, iterations=2000, eval_every=2000)
    run = Run(tmp_path)
    process = torchrun(*flags(config), "--run_folder", tmp_path)
    while not run.metrics_file.exists() or not run.metrics():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, output, errors = ended(process)
    assert errors.count("the same command resumes") == 1
    assert our_tracebacks(errors) == []
    steps = [record["step"] for record in run.metrics()]
    assert 0 < load_file(run.checkpoint_file)["step"] == steps[-1] < 2000
    assert "finished" not in output


@pytest.mark.parametrize(
    "flag, value, sentence",
    [
        pytest.param("--data_folder", "/nowhere", "/nowhere holds no synthetic set", marks=pytest.mark.slow),
        pytest.param("--mask_ratio", "1.2", "mask_ratio must be in (0, 1], got 1.2", marks=pytest.mark.slow),
        ("--ranks", "3", "must divide the 3 micro-batches of a step (--ranks), got 2; allowed: 1, 3"),
        pytest.param("--iterations", "three", "Error parsing --iterations", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_told_once_and_ends_all_ranks(synthetic_folder, tmp_path, flag, value, sentence):
    process = torchrun(*flags(short(synthetic_folder), **{flag.removeprefix("--"): value}), "--run_folder", tmp_path)
    code, _, errors = ended(process)
    assert code == 1  # torchrun's own, which names the ranks' exit codes
    assert errors.count(sentence) == 1, errors
    assert our_tracebacks(errors) == []
    assert "exitcode  : 2" in errors
    assert "exitcode  : 1 " not in errors


@pytest.mark.slow
@pytest.mark.parametrize("place", ["JPEGImages", "SegmentationClass"])
def test_a_file_that_one_rank_alone_cannot_read_ends_all_ranks(synthetic_folder, tmp_path, place):
    folder = tmp_path / "data"
    shutil.copytree(synthetic_folder, folder)
    config = short(folder, iterations=20, eval_every=4)
    lists = (folder / "VOCdevkit/VOC2012/ImageSets/fsr/val.txt").read_text().split("\n")
    mask = folder / "VOCdevkit/VOC2012/SegmentationClass" / f"{lists[1].split()[0]}.png"  # of rank 1's share
    damaged = mask if place == "SegmentationClass" else mask.parent.parent / "JPEGImages/2012_000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    code, _, errors = ended(torchrun(*flags(config), "--run_folder", tmp_path / "run"))
    assert code == 1
    assert errors.count(f"{damaged} cannot be read") == 1, errors
    assert our_tracebacks(errors) == []


@pytest.mark.slow
def test_ranks_resume_from_the_checkpoint_before_a_damaged_one(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, ranks=2)
    run = Run(tmp_path)
    ends_well(config, tmp_path)
    run.result_file.unlink()
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:1000])
    process = torchrun(*flags(config), "--run_folder", tmp_path)
    code, output, errors = ended(process)
    assert code == 0, errors
    assert errors.count("resuming from checkpoint.previous.pt") == 1
    assert "at step 5 of 10" in output
