"""The comparison of arms over paired seeds (benchmarks/claims): its statistics, its runs, its resuming."""

import dataclasses
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scipy import stats
from tiny import TINY, tiny_config

from fsr.config import PRESETS
from fsr.errors import UserError
from fsr.run import Run
from fsr.score_names import CAM_MIOU, SEG_MIOU

sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks.claims import trained as training
from benchmarks.claims.__main__ import main
from benchmarks.claims.arms import RELEASED, TABLES, Row, arms_of
from benchmarks.claims.comparison import Comparison
from benchmarks.claims.table import compared, rows_of
from benchmarks.claims.trained import Job, trained

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(100, 108)
ROW = Row("ours helps", "ours", "theirs")


def runs(scores: dict[int, float | None]) -> dict[int, dict[str, float | None]]:
    return {seed: {SEG_MIOU: score, CAM_MIOU: score} for seed, score in scores.items()}


def judged(differences: list[float], rows: int = 1) -> dict:
    """What is said of two arms that differ by these amounts, seed by seed."""
    theirs = {seed: 0.3 + 0.05 * (seed % 4) for seed in SEEDS}
    ours = {seed: theirs[seed] + d for seed, d in zip(SEEDS, differences, strict=False)}
    return compared(ROW, SEG_MIOU, {"ours": runs(ours), "theirs": runs(theirs)}, SEEDS, rows)


@pytest.mark.parametrize(
    "differences, rows, verdict",
    [
        ([0.02, 0.03, 0.025, 0.02, 0.03, 0.02, 0.03, 0.02], 12, "holds"),
        ([-0.02, -0.03, -0.025, -0.02, -0.03, -0.02, -0.03, -0.02], 12, "fails"),
        ([0.02, -0.02, 0.03, -0.03, 0.01, -0.01, 0.0, 0.01], 1, "not shown"),
        ([0.03, 0.01, 0.04, -0.01, 0.03, 0.0, 0.04, 0.01], 1, "holds"),  # of itself alone, but not among twelve
        ([0.03, 0.01, 0.04, -0.01, 0.03, 0.0, 0.04, 0.01], 12, "not shown"),
        ([0.5], 1, "not shown"),
        ([0.0] * 8, 1, "not shown"),
    ],
)
def test_a_claim_holds_or_fails_where_its_interval_excludes_0_for_all_rows_at_once(differences, rows, verdict):
    assert judged(differences, rows)["verdict"] == verdict


def test_the_intervals_are_students_over_pairs_and_bonferronis_over_rows():
    differences = [0.03, 0.01, 0.04, -0.01, 0.03, 0.0, 0.04, 0.01]
    found = judged(differences, rows=5)
    error = statistics.stdev(differences) / math.sqrt(8)
    assert found["difference"] == pytest.approx(statistics.mean(differences))
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 7) * error)
    assert found["half_width_together"] == pytest.approx(stats.t.ppf(1 - 0.025 / 5, 7) * error)


def test_only_seeds_that_both_arms_have_and_could_measure_are_pairs():
    results = {"ours": runs({100: 0.5, 101: 0.6, 102: None, 200: 0.9}), "theirs": runs({100: 0.4, 102: 0.1, 103: 0.2})}
    found = compared(ROW, SEG_MIOU, results, SEEDS, 1)
    assert found["by_seed"] == {100: pytest.approx(0.1)} and found["half_width"] is None
    nothing = compared(ROW, SEG_MIOU, {}, SEEDS, 1)
    assert nothing["difference"] is None and nothing["verdict"] == "not shown"
    json.dumps(rows_of([ROW], {}, SEEDS), allow_nan=False)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_arm_is_a_run_and_every_row_names_two_arms(preset):
    bed = PRESETS[preset]()
    arms = arms_of(bed)
    for fields in arms.values():
        dataclasses.replace(bed, **fields)
    rows = [row for table in TABLES.values() for row in table(bed)]
    assert {arm for row in rows for arm in (row.arm, row.counterpart)} <= set(arms)
    assert all(row.arm != row.counterpart for row in rows)


def comparison(folder: Path, table: str = "claims", arms: tuple = (), seeds: range = range(2), **changes) -> Comparison:
    bed = tiny_config(folder.parent / "data", iterations=4, eval_every=4, **changes)
    return Comparison(table, bed, arms, seeds, folder / "runs", folder / "found.json")


def test_arms_that_come_to_the_same_are_trained_once(tmp_path):
    whole = comparison(tmp_path)
    names = [job.arm for job in whole.jobs() if job.seed == 0]
    assert {"method", "ratio_0.2", "blocks_16"} <= set(names) and not {"ratio_0.4", "blocks_8"} & set(names)
    assert len({job.folder for job in whole.jobs()}) == len(whole.jobs()) == 2 * len(names)
    # Also where the arm of that name is not among those that were asked for.
    assert [job.arm for job in comparison(tmp_path, arms=("ratio_0.2",)).jobs()] == ["ratio_0.2", "method"] * 2
    assert [job.seed for job in whole.jobs()] == sorted(job.seed for job in whole.jobs())


RESULT = {SEG_MIOU: 0.5, CAM_MIOU: 0.4, "val/aux_cam_miou": 0.3, "val/teacher_seg_miou": 0.5, "seconds": 7.0}
RESULT |= {"val/cam_best_miou": 0.4, "val/class_f1": 0.9, "best/seg_miou": 0.5}


def test_what_the_file_of_results_knows_is_not_trained_again_and_another_bed_is_refused(tmp_path):
    first = comparison(tmp_path, arms=("none",))
    first.write()
    comparison(tmp_path, lr=0.1)  # nothing is known yet, of any bed
    for job in first.jobs():
        first.add(job, RESULT)
    first.write()
    assert comparison(tmp_path, arms=("none",)).missing() == []
    missing = {job.arm for job in comparison(tmp_path).missing()}
    assert not {"method", "patch_alone", "none"} & missing and {"average", "max", "random_masks"} <= missing
    assert {job.seed for job in comparison(tmp_path, arms=("none",), seeds=range(3)).missing()} == {2}
    with pytest.raises(UserError, match=r"found.json holds results with lr 0.002, not 0.1; choose another --out"):
        comparison(tmp_path, lr=0.1)


def test_results_of_an_arm_that_means_another_thing_now_are_left(tmp_path, monkeypatch):
    first = comparison(tmp_path, arms=("none",))
    for job in first.jobs():
        first.add(job, RESULT)
    first.write()
    others = {**arms_of(first.bed), "none": {"w_class": 0.0, "w_patch": 0.0, "fsr_from": 0.5}}
    monkeypatch.setattr("benchmarks.claims.comparison.arms_of", lambda bed: others)
    assert {job.arm for job in comparison(tmp_path, arms=("none",)).missing()} == {"none"}


def test_a_name_that_is_no_arm_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="--arms must name arms, got nothing; allowed: method, patch_alone"):
        comparison(tmp_path, arms=("nothing",))
    with pytest.raises(UserError, match="table released has no row with random_masks"):
        comparison(tmp_path, "released", arms=("random_masks",))


@pytest.mark.parametrize(
    "content, wrong",
    [
        ({"a": 1}, "arms is missing"),
        ({"bed": [], "arms": {}, "runs": {}}, r"bed is \[\], not an object"),
        ({"bed": {}, "arms": {}, "runs": {"none": {"200": 0.5}}}, "runs.none.200 is 0.5, not an object"),
    ],
)
def test_a_file_that_holds_no_results_is_one_sentence_and_stays(tmp_path, content, wrong):
    file = tmp_path / "found.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"found.json is damaged: {wrong}"):
        comparison(tmp_path)
    assert json.loads(file.read_text()) == content


@pytest.mark.parametrize("minutes", ["nan", "-1", "0", "inf"])
def test_a_time_that_is_none_is_one_sentence(tmp_path, minutes):
    with pytest.raises(SystemExit) as end:
        main([f"--minutes={minutes}", "--arms", "nothing", "--runs", str(tmp_path)])
    assert end.value.code == 2


def test_the_released_arm_is_told_as_the_reference_trains_it(tmp_path):
    others = {"aux_layer": 2, "cam_source": "top", "w_swap": 0.05, "threshold_rule": "mixture", "mask_ratio": 0.2}
    released = comparison(tmp_path, "released", **others).jobs()[-1]
    assert released.released
    told = released.config
    assert (told.aux_layer, told.cam_source, told.w_swap, told.threshold_rule) == (3, "aux", 0.0, "fixed")
    assert told.mask_ratio == 0.2  # which the reference takes from the bed


@pytest.fixture
def stop(monkeypatch) -> threading.Event:
    event = threading.Event()
    monkeypatch.setattr(training, "_stop", event, raising=False)
    return event


def test_a_stopped_run_resumes_and_its_weights_go(synthetic_folder, tmp_path, stop, monkeypatch):
    config = tiny_config(synthetic_folder, iterations=6, eval_every=6)
    job = Job("method", config, tmp_path / "run", released=False)
    with monkeypatch.context() as patched:
        patched.setattr(training._stop, "is_set", iter([False, *[False] * 3, *[True] * 9]).__next__)
        assert trained(job) is None and Run(job.folder).has_checkpoint()
    result = trained(job)
    assert result is not None and result == job.result() and result["step"] == 6
    assert not Run(job.folder).has_checkpoint()
    assert len(Run(job.folder).starts()) == 2
    stop.set()
    assert trained(dataclasses.replace(job, folder=tmp_path / "other")) is None and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_released_order_learns_what_ours_does(synthetic_folder, tmp_path, stop):
    config = tiny_config(
        synthetic_folder, iterations=6, eval_every=6, log_every=1, drop_path=0.0, lr=3e-3, momentum=0.5
    )
    found = {}
    for released in (False, True):
        job = Job("method", config, tmp_path / str(released), released)
        trained(job)
        found[released] = Run(job.folder).metrics()
    for ours, theirs in zip(found[False], found[True], strict=True):
        for name, value in ours.items():
            # The dense energy is made where its weight is 0, as released.
            if name.startswith("train/") and name != "train/reg":
                assert theirs[name] == pytest.approx(value, rel=2e-3, abs=1e-5), (ours["step"], name)
    assert found[True][-1][SEG_MIOU] == pytest.approx(found[False][-1][SEG_MIOU], abs=0.03)


def command(folder: Path, data: Path, *more: str, seeds: int = 2) -> list[str]:
    changes = TINY | {"iterations": 4, "eval_every": 4, "pretrained": "none", "data_folder": data}
    flags = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    where = ["--runs", str(folder / "runs"), "--out", str(folder / "found.json"), "--seeds", str(seeds)]
    return [sys.executable, "-m", "benchmarks.claims", *flags, *where, "--parallel", "2", *more]


@pytest.mark.slow
def test_the_command_trains_compares_and_trains_nothing_twice(synthetic_folder, tmp_path):
    line = command(tmp_path, synthetic_folder, "--arms", "none", RELEASED)
    first = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["says"] for row in found["rows"]] == ["the patch term helps", "self-reinforcement helps"]
    assert found["seeds"] == [100, 101] and {len(runs) for runs in found["runs"].values()} == {2}
    page = (tmp_path / "found.md").read_text()
    assert "| self-reinforcement helps | method − none" in page and page.count("\n|---") == 2
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "runs").glob("*/*.pt"))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    again = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "6 runs, 6 of them are there" in again.stdout and again.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_runs_and_the_same_command_resumes(synthetic_folder, tmp_path, number):
    slow = [
        "--arms",
        "none",
        "--iterations",
        "4000",
        "--eval_every",
        "4000",
        "--save_every",
        "4000",
        "--log_every",
        "1",
    ]
    line = command(tmp_path, synthetic_folder, *slow, seeds=1)
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "runs").glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(1)
        process.send_signal(number)
        said, wrong = process.communicate(timeout=60)
    assert process.returncode == 128 + number, wrong
    assert "not shown" in said
    assert len(list((tmp_path / "runs").glob("*/checkpoint.pt"))) == 2


@pytest.mark.slow
def test_ctrl_c_while_the_processes_still_import_ends_in_no_traceback(synthetic_folder, tmp_path):
    slow = ["--iterations", "4000", "--eval_every", "4000"]
    line = command(tmp_path, synthetic_folder, "--arms", "none", *slow, seeds=1)
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert "runs, 0 of them are there" in process.stdout.readline()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, wrong = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT and wrong == ""


@pytest.mark.slow
def test_a_process_that_dies_is_told_once(synthetic_folder, tmp_path):
    slow = ["--iterations", "4000", "--eval_every", "4000", "--log_every", "1"]
    line = command(tmp_path, synthetic_folder, *slow)
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "runs").glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        worker = next((tmp_path / "runs").glob("worker_*.log")).stem.removeprefix("worker_")
        os.kill(int(worker), signal.SIGKILL)
        _, wrong = process.communicate(timeout=60)
    assert process.returncode == 1 and wrong.count("failed: a process died") == 1, wrong


@pytest.mark.slow
def test_a_run_that_cannot_be_trained_is_told_and_the_others_go_on(synthetic_folder, tmp_path):
    line = command(tmp_path, synthetic_folder, "--arms", "faster_teacher", "--lr", "1000000.0", seeds=1)
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1 and ended.stderr.count("failed: NotFiniteError: ") == 2, ended.stderr
    assert "2 runs are missing; the same command trains them" in ended.stderr
