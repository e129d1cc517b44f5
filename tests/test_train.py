"""Training as a whole: what a run leaves behind, that it resumes bit-identically, and how it ends when it must."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import flags, source_of, tiny_config

from fsr import distributed
from fsr.checkpoint import TrainState, load_file, load_network
from fsr.compare import COSTS, first_difference
from fsr.errors import NotFiniteError, UserError
from fsr.evaluate import evaluate
from fsr.files import HOST
from fsr.run import Run
from fsr.tensor_file import write_tensors
from fsr.train import main, train

TESTS = Path(__file__).parent
DEAD = 2**22 + 1  # no process has this number: Linux's are smaller


@pytest.fixture(scope="module")
def uninterrupted(synthetic_folder, tmp_path_factory) -> Run:
    """A tiny run that nobody stopped."""
    run = Run(tmp_path_factory.mktemp("uninterrupted"))
    assert train(tiny_config(synthetic_folder), run) == "finished"
    return run


def stop_after(steps: int):
    """Asks to stop when `steps` steps are done."""
    left = [steps]

    def stop_requested() -> bool:
        left[0] -= 1
        return left[0] == -1

    return stop_requested


def assert_same_run(run: Run, other: Run) -> None:
    """Bit-identical: weights, teacher, optimizer, centres, best weights, metrics and scores; not what it cost."""
    assert first_difference(run, other) is None


def test_a_run_leaves_metrics_result_checkpoints_provenance_and_events(uninterrupted):
    result = uninterrupted.result()
    for name in ("val/seg_miou", "val/cam_miou", "val/aux_cam_miou", "val/teacher_seg_miou", "val/class_f1"):
        assert 0 <= result[name] <= 1
    assert result["step"] == 10
    records = uninterrupted.metrics()
    assert [r["step"] for r in records if "train/loss" in r] == [3, 6, 9]
    assert [r["step"] for r in records if "val/seg_miou" in r] == [4, 8, 10]
    attempt = json.loads(uninterrupted.provenance_file.read_text())["attempts"][0]
    assert {"git_commit", "git_dirty", "versions", "host", "device", "command"} <= attempt.keys()
    assert attempt["precision"] == "fp32"
    assert list(uninterrupted.folder.glob("events.out.tfevents.*"))
    network, config = load_network(uninterrupted.best_file)
    assert config == uninterrupted.config() == dataclasses.replace(config)
    assert not network.training


def test_all_parts_of_the_method_are_active_in_the_tiny_run(uninterrupted):
    last = [record for record in uninterrupted.metrics() if "train/loss" in record][-1]
    for name in ("cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg"):
        assert last[f"train/{name}"] != 0, name


@pytest.mark.parametrize("step", range(11))
def test_a_run_stopped_after_any_step_resumes_bit_identically(uninterrupted, synthetic_folder, tmp_path, step):
    run = Run(tmp_path)
    config = tiny_config(synthetic_folder)
    assert train(config, run, stop_requested=stop_after(step)) == "stopped"
    assert run.result() is None
    assert load_file(run.checkpoint_file)["step"] == step
    assert train(config, run) == "finished"
    assert_same_run(run, uninterrupted)


def test_loading_workers_do_not_change_a_run(uninterrupted, synthetic_folder, tmp_path):
    run = Run(tmp_path)
    train(tiny_config(synthetic_folder, workers=2), run)
    assert_same_run(run, uninterrupted)


def test_views_finished_on_the_device_resume_bit_for_bit(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, augment="device", local_crops=1, local_crop_size=16)
    broken, whole = Run(tmp_path / "broken"), Run(tmp_path / "whole")
    train(config, broken, stop_requested=stop_after(7))
    train(dataclasses.replace(config, workers=2), broken)
    train(config, whole)
    assert_same_run(broken, whole)


def killed_before(step: int):
    """A hook that ends the run without a chance to save, as SIGKILL does."""
    left = [step]

    def die() -> bool:
        left[0] -= 1
        if left[0] == -1:
            raise Killed
        return False

    return die


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step, saved", [(3, 0), (8, 5)])
def test_a_killed_run_repeats_the_steps_since_its_checkpoint(uninterrupted, synthetic_folder, tmp_path, step, saved):
    run = Run(tmp_path)
    config = tiny_config(synthetic_folder)
    with pytest.raises(Killed):
        train(config, run, stop_requested=killed_before(step))
    assert load_file(run.checkpoint_file)["step"] == saved
    assert train(config, run) == "finished"
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("step", [3, 8])
def test_a_killed_run_has_one_curve_in_tensorboard(synthetic_folder, tmp_path, step):
    run = Run(tmp_path)
    config = tiny_config(synthetic_folder, log_every=1)
    with pytest.raises(Killed):
        train(config, run, stop_requested=killed_before(step))
    time.sleep(1.1)  # TensorBoard orders the files of a run by the second in their names
    train(config, run)
    assert len(list(run.folder.glob("events.out.tfevents.*"))) == 2
    events = EventAccumulator(str(run.folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 11))
    assert [event.step for event in events.Scalars("val/seg_miou")] == [4, 8, 10]
    assert [event.step for event in events.Images(events.Tags()["images"][0])] == [4, 8, 10]


def test_a_difference_between_runs_is_found_wherever_it_is(uninterrupted, tmp_path):
    def changed(change):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(uninterrupted.folder, folder)
        change(Run(folder))
        return first_difference(Run(folder), uninterrupted)

    def touch_a_weight(run):
        content = load_file(run.checkpoint_file)
        content["teacher"]["encoder.norm.weight"][3] += 1e-7
        with open(run.checkpoint_file, "wb") as file:
            write_tensors(content, file)

    assert changed(lambda run: None) is None
    assert changed(touch_a_weight) == "checkpoint_file: /teacher/encoder.norm.weight"
    assert "records of metrics against" in changed(lambda run: run.log({"step": 11}))
    assert "results: " in changed(lambda run: run.result_file.write_text("{}"))


def test_a_finished_run_is_not_trained_again(uninterrupted, synthetic_folder):
    before = uninterrupted.checkpoint_file.stat().st_mtime_ns
    assert train(tiny_config(synthetic_folder), uninterrupted) == "finished"
    assert uninterrupted.checkpoint_file.stat().st_mtime_ns == before


def test_a_pruned_run_stops_at_that_evaluation(synthetic_folder, tmp_path):
    seen = []

    def prune(step, scores):
        seen.append((step, scores["val/seg_miou"]))
        return step == 8

    run = Run(tmp_path)
    assert train(tiny_config(synthetic_folder), run, prune=prune) == "pruned"
    assert [step for step, _ in seen] == [4, 8]
    assert run.result() is None
    assert load_file(run.checkpoint_file)["step"] == 8


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(synthetic_folder, tmp_path):
    run = Run(tmp_path)
    with pytest.raises(NotFiniteError, match=r"not finite at step \d+: loss nan"):
        train(tiny_config(synthetic_folder, lr=1e6, save_every=1), run)
    content = load_file(run.checkpoint_file)
    assert all(tensor.isfinite().all() for tensor in content["reinforcement"].values())


def test_a_checkpoint_saved_at_once_is_the_one_written_behind_the_steps(synthetic_folder, tmp_path):
    at_once, behind = Run(tmp_path / "at_once"), Run(tmp_path / "behind")
    state = TrainState(tiny_config(synthetic_folder), torch.device("cpu"))
    write = state.snapshot()
    state.save(at_once)
    for parameter in state.student.parameters():
        parameter.detach().zero_()  # the steps continue
    write(behind)
    sizes = (run.checkpoint_file.stat().st_size for run in (at_once, behind))
    assert next(sizes) == pytest.approx(next(sizes), rel=0.01)
    one, other = (load_file(run.checkpoint_file) for run in (at_once, behind))
    assert one.keys() == other.keys()
    for part in ("student", "teacher", "reinforcement"):
        assert all(torch.equal(tensor, other[part][name]) for name, tensor in one[part].items())
    assert any(tensor.any() for tensor in one["student"].values())


@pytest.mark.parametrize("when", ["during the run", "at the end"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(synthetic_folder, tmp_path, monkeypatch, when):
    save = torch.save

    def fail(content, file):
        if "optimizer" in content and content["step"] == (5 if when == "during the run" else 10):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", fail)
    run = Run(tmp_path)
    with pytest.raises(OSError, match="No space left") as raised:
        train(tiny_config(synthetic_folder), run)
    assert raised.value.errno == errno.ENOSPC
    assert run.result() is None
    assert load_file(run.checkpoint_file)["step"] == (0 if when == "during the run" else 5)
    monkeypatch.undo()
    assert train(tiny_config(synthetic_folder), run) == "finished"


def test_a_run_folder_of_other_settings_is_refused(uninterrupted, synthetic_folder):
    with pytest.raises(UserError, match=r"mask_ratio 0\.4, not 0\.5"):
        train(tiny_config(synthetic_folder, mask_ratio=0.5), uninterrupted)


def test_checkpoints_that_are_all_damaged_are_one_clear_error(synthetic_folder, tmp_path):
    run = Run(tmp_path)
    config = tiny_config(synthetic_folder)
    train(config, run, stop_requested=stop_after(2))
    for file in (run.checkpoint_file, run.previous_checkpoint_file):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint .*checkpoint\.previous\.pt cannot be read"):
        train(config, run)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    uninterrupted, synthetic_folder, tmp_path, damage, capsys
):
    run = Run(tmp_path)
    config = tiny_config(synthetic_folder)
    train(config, run, stop_requested=stop_after(7))
    if damage == "truncated":
        run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:1000])
    else:  # killed between setting the old one aside and putting the new one in its place
        run.checkpoint_file.rename(run.folder / f".checkpoint.pt.{HOST}.{DEAD}.0.part")
    capsys.readouterr()
    assert train(config, run) == "finished"
    shown = capsys.readouterr()
    assert "at step 5 of 10" in shown.out
    assert ("checkpoint.pt cannot be read" in shown.err) == (damage == "truncated")
    assert not list(run.folder.glob(".*.part"))
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize(
    "changes",
    [
        {"local_crops": 2, "local_crop_size": 16},
        {"use_mim": False},
        {"use_aa": True, "use_gauss": True, "use_solar": True},
        {"augment": "device", "use_solar": True},
        {
            "drop_path_in_targets": False,
            "image_levels": "round",
            "block_uncertainty": "area",
            "cls_attends": "unmasked",
        },
        {"cls_aggregation": "max", "cls_attends": "unmasked", "uncertain_from": 1.0},
        {"precision": "bf16"},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
        {"cls_lr_factor": 10.0, "fsr_iters": 2, "cls_depth": 1},
        {"w_class": 0.0, "w_patch": 0.0, "w_aff": 0.0, "w_seg": 0.0, "w_reg": 0.0},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_every_option_trains(synthetic_folder, tmp_path, changes):
    run = Run(tmp_path)
    assert train(tiny_config(synthetic_folder, iterations=5, eval_every=5, log_every=5, **changes), run) == "finished"


def torchrun(*arguments: object, processes: int = 2, **changes: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [TESTS / "ddp_run.py", *map(str, arguments), json.dumps(changes)]
    subprocess.run([*command, *words], check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("processes, ranks", [(2, 2), pytest.param(3, 6, marks=pytest.mark.slow)])
def test_gloo_ranks_stopped_and_resumed_equal_an_uninterrupted_run(synthetic_folder, tmp_path, processes, ranks):
    stopped, whole = Run(tmp_path / "stopped"), Run(tmp_path / "whole")
    torchrun(synthetic_folder, whole.folder, 0, processes=processes, ranks=ranks)
    torchrun(synthetic_folder, stopped.folder, 7, processes=processes, ranks=ranks)
    assert load_file(stopped.checkpoint_file)["step"] == 7
    torchrun(synthetic_folder, stopped.folder, 0, processes=processes, ranks=ranks)
    assert_same_run(stopped, whole)


FIFTY = {"ranks": 4, "iterations": 50, "eval_every": 50, "log_every": 1}


@pytest.fixture(scope="module")
def fifty_steps_on(synthetic_folder, tmp_path_factory):
    """Fifty steps of four micro-batches each, on some processes, that nobody stopped."""

    @cache
    def run_on(processes: int) -> Run:
        folder = tmp_path_factory.mktemp("processes")
        torchrun(synthetic_folder, folder, 0, processes=processes, **FIFTY)
        return Run(folder)

    return run_on


def draws(run: Run) -> list[list[object]]:
    """Step, micro-batch and what was drawn for it, of all ranks."""
    files = run.folder.glob("draws_*.jsonl")
    return sorted(json.loads(line) for file in files for line in file.read_text().splitlines())


def assert_equal_learning(run: Run, other: Run) -> None:
    """The same samples, masks and drop paths, and losses within 1e-4 at every step."""
    assert draws(run) == draws(other)
    assert len(draws(run)) == 4 * 50
    ours, theirs = ([r for r in run.metrics() if "train/loss" in r] for run in (run, other))
    assert len(ours) == 50
    for record, other_record in zip(ours, theirs, strict=True):
        assert {k: v for k, v in record.items() if k not in COSTS} == pytest.approx(
            {k: v for k, v in other_record.items() if k not in COSTS}, rel=1e-4
        )
    content, other_content = load_file(run.checkpoint_file), load_file(other.checkpoint_file)
    for name, centre in content["reinforcement"].items():
        assert torch.allclose(centre, other_content["reinforcement"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 1])
def test_four_micro_batches_learn_the_same_on_any_number_of_processes(fifty_steps_on, processes):
    assert_equal_learning(fifty_steps_on(processes), fifty_steps_on(4))


@pytest.mark.slow
def test_a_run_may_be_resumed_on_other_numbers_of_processes(fifty_steps_on, synthetic_folder, tmp_path):
    for processes, steps in ((4, 17), (1, 16), (2, 0)):
        torchrun(synthetic_folder, tmp_path, steps, processes=processes, **FIFTY)
    assert [start["first_step"] for start in Run(tmp_path).starts()] == [0, 17, 33]
    assert_equal_learning(Run(tmp_path), fifty_steps_on(4))


def test_processes_that_cannot_share_the_micro_batches_equally_are_refused(synthetic_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UserError) as raised:
        train(tiny_config(synthetic_folder, ranks=4), Run(tmp_path / "run"))
    assert str(raised.value) == (
        "the number of processes must divide the 4 micro-batches of a step (--ranks), got 3; allowed: 1, 2, 4"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_folder_of_version_0_1_0_keeps_the_global_batch_of_its_first_start(uninterrupted, tmp_path):
    def as_it_was(device: str, accumulate: int) -> Run:
        run = Run(tmp_path)
        fields = {name: value for name, value in uninterrupted.config().to_json().items() if name != "ranks"}
        run.config_file.write_text(json.dumps(fields | {"accumulate": accumulate}))
        starts = [{"pid": 1, "host": "n1", "first_step": 0, "device": name} for name in (device, "9 × CPU")]
        run.provenance_file.write_text(json.dumps({"attempts": starts}))
        return run

    assert as_it_was("1 × CPU (2 threads)", 1).config() == uninterrupted.config()
    run = as_it_was("4 × NVIDIA H100 80GB HBM3", 2)
    assert run.config().ranks == 8
    run.provenance_file.unlink()
    assert run.config().ranks == 1  # the preset's


def test_a_run_of_four_micro_batches_resumes_bit_identically(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, ranks=4)
    broken, whole = Run(tmp_path / "broken"), Run(tmp_path / "whole")
    train(config, broken, stop_requested=stop_after(5))
    train(config, broken)
    train(config, whole)
    assert_same_run(broken, whole)


def test_evaluation_on_two_ranks_equals_one_process(synthetic_folder, tmp_path):
    torchrun(synthetic_folder, tmp_path / "two", "scores", ranks=2)
    config = tiny_config(synthetic_folder)
    state = TrainState(config, torch.device("cpu"))
    ours = evaluate({"student": state.student}, config, source_of(config), torch.device("cpu"))
    assert json.loads((tmp_path / "two" / "scores.json").read_text()) == json.loads(json.dumps(ours))


def test_sigterm_saves_and_the_same_command_resumes(uninterrupted, synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder)
    command = [sys.executable, "-m", "fsr.train", *flags(config), "--run_folder", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while not Run(tmp_path).checkpoint_file.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in errors
    main([*flags(config), "--run_folder", str(tmp_path)])
    assert_same_run(Run(tmp_path), uninterrupted)
