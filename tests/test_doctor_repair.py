"""doctor --repair restores damaged files from what else is known, says so, and keeps what was damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from studies import attempt, write_run

from fsr.errors import UserError
from fsr.json_file import DamagedError
from fsr.lock import FileLock
from launch.repair import repair
from launch.state.attempts import AttemptLog
from launch.state.code_snapshot import running_version
from launch.state.paths import StudyFolder
from launch.state.storage import load_launched, open_storage
from launch.state.target import Target
from launch.study import load
from launch.worker.job_spec import JobSpec

ROOT = Path(__file__).parent.parent
RATIOS = (0.4, 0.5, 0.6, 0.7)


@pytest.fixture
def folder(tmp_path):
    """A study mask_ratio: three complete trials and one that was interrupted, as a sweep leaves them."""
    folder, study = StudyFolder(tmp_path / "mask_ratio"), load("mask_ratio")
    base = study.base("synthetic", tmp_path, iterations=200, seed=None)
    definition = {"study": "mask_ratio", "id": "1a2b3c4d", "metric": study.metric, "base": base.to_json()}
    folder.folder.mkdir()
    folder.study_file.write_text(json.dumps(definition | {"space": study.space(base), "target": 9}))
    JobSpec(kind="study", folder=str(folder.folder), config=base.to_json()).write(
        folder.folder / "local" / "submission_0001.json"
    )
    Target(9, 9).write(folder)
    stored = optuna.create_study(study_name="mask_ratio", storage=open_storage(folder.folder), direction="maximize")
    for number, ratio in enumerate(RATIOS):
        stored.enqueue_trial({"mask_ratio": ratio})
        trial = stored.ask()
        settings = study.suggest(trial, base)
        score, run = 0.2 + number / 10, folder.run(number)
        points = 20 if number < 3 else 10
        write_run(run, points, [attempt(0, 36, 0, 10 * points, "finished")], **{study.metric: score})
        run.config_file.write_text(json.dumps(base.to_json() | settings))
        start = {"pid": 1, "host": "n1", "first_step": 0, "device": "2 × CPU", "started": "1970-01-01T00:00:00Z"}
        run.provenance_file.write_text(json.dumps({"attempts": [start]}))
        if number < 3:
            run.result_file.write_text(json.dumps({study.metric: score, "step": 200, "seconds": 36.0}))
            stored.tell(trial, score)
    return folder


def told(folder, really=True):
    """Whether all is sound, and what was said."""
    console = Console(width=1000, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    return repair(folder, really, console), console.export_text()


def state(folder):
    """What the study knows."""
    trials = load_launched(folder).get_trials(deepcopy=False)
    return [(trial.number, trial.state.name, trial.value, trial.params) for trial in trials]


def as_before(folder):
    return [
        (n, "COMPLETE" if n < 3 else "RUNNING", 0.2 + n / 10 if n < 3 else None, {"mask_ratio": ratio})
        for n, ratio in enumerate(RATIOS)
    ]


def lines_of(folder):
    return (folder.folder / "journal.log").read_bytes().split(b"\n")[:-1]


def number_of(folder, words, which=0):
    """Number, from 0, of a line of the journal."""
    return [number for number, line in enumerate(lines_of(folder)) if words in line][which]


def damage_line(folder, number, line=b'{"op_code":\0\0'):
    lines = lines_of(folder)
    lines[number] = line
    (folder.folder / "journal.log").write_bytes(b"\n".join(lines) + b"\n")


def test_a_sound_study_is_left_as_it_is(folder):
    before = {path: path.read_bytes() for path in folder.folder.rglob("*") if path.is_file()}
    assert told(folder, really=False) == (True, "")
    assert told(folder) == (True, "")
    after = {path: path.read_bytes() for path in before}
    assert after == before


@pytest.mark.parametrize("really", [False, True])
@pytest.mark.parametrize("content", [b"", b'{"base', b"\0" * 99, b"[]", None])
def test_study_json_is_restored_from_the_job_spec_and_the_study(folder, content, really):
    before, jobs = folder.definition(), load_launched(folder)
    folder.study_file.unlink()
    if content is not None:
        folder.study_file.write_bytes(content)
    sound, said = told(folder, really)
    assert "restored from the last job spec and sweeps/mask_ratio.py" in said
    assert sound is really
    if not really:
        assert folder.study_file.exists() is (content is not None) and "--repair restores" in said
        return
    after = folder.definition()
    assert {name: after[name] for name in ("study", "metric", "base", "space", "target")} == {
        name: before[name] for name in ("study", "metric", "base", "space", "target")
    }
    kept = list(folder.folder.glob("study.json.damaged-*"))
    assert [path.read_bytes() for path in kept] == ([] if content is None else [content])
    assert len(load_launched(folder).trials) == len(jobs.trials)


def test_study_json_is_restored_from_trial_0_where_no_job_spec_is_left(folder):
    base = folder.definition()["base"]
    (folder.folder / "local" / "submission_0001.json").unlink()
    folder.study_file.write_bytes(b"")
    assert "as trial 0 trains the base itself" in told(folder)[1]
    assert folder.definition()["base"] == base | {"mask_ratio": 0.4}


@pytest.mark.parametrize(
    ("words", "which"),
    [(b'"op_code":0', 0), (b'"op_code":4', 1), (b'"op_code":4', 3), (b'"op_code":5', 2), (b'"op_code":6', 0)],
)
def test_a_damaged_line_is_set_aside_with_its_number_and_told_again(folder, words, which):
    number = number_of(folder, words, which)
    damage_line(folder, number)
    with pytest.raises(DamagedError, match=f"line {number + 1} "):
        load_launched(folder)
    before = (folder.folder / "journal.log").read_bytes()
    sound, said = told(folder)
    assert sound and f"line {number + 1} is set aside: " in said
    assert (folder.folder / "journal.log.damaged-1").read_bytes() == before
    (aside,) = map(json.loads, (folder.folder / "journal.log.damaged-1.lines").read_text().splitlines())
    assert aside["line"] == number + 1
    assert [(n, params) for n, _, _, params in state(folder)] == [(n, params) for n, _, _, params in as_before(folder)]
    assert [s for _, s, *_ in state(folder)].count("COMPLETE") >= 2


def test_trials_keep_their_numbers_when_the_record_that_makes_one_is_lost(folder):
    damage_line(folder, number_of(folder, b'"op_code":4', 1), b"\xff\xfe")
    assert told(folder)[0]
    assert state(folder) == as_before(folder)


@pytest.mark.parametrize("content", [None, b"", b'{"op_code":0'])
def test_a_lost_journal_is_written_again_from_the_runs(folder, content):
    journal = folder.folder / "journal.log"
    journal.unlink()
    if content is not None:
        journal.write_bytes(content)
    with pytest.raises(DamagedError):
        load_launched(folder)
    sound, said = told(folder)
    assert sound and "trial 1 is complete again" in said
    assert state(folder) == as_before(folder)
    study = load_launched(folder)
    study.enqueue_trial({"mask_ratio": 0.8})
    assert study.ask().number == 4


def test_a_repeat_stays_one(folder):
    config = folder.run(2).config_file
    config.write_text(json.dumps(json.loads(config.read_text()) | {"seed": 7, "mask_ratio": 0.4}))
    (folder.folder / "journal.log").unlink()
    assert "trial 2 is a repeat of trial 0 with seed 7 again" in told(folder)[1]
    assert load_launched(folder).trials[2].user_attrs == {"seed": 7, "repeats": 0}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 50, b"[{}]", b"[" * 9999, b'[{"job": 1e999}]', b"\xff", "folder", "fifo"]
)
@pytest.mark.parametrize(
    "name", ["config.json", "provenance.json", "attempts.json", "result.json", "quality.json", "removed.json"]
)
def test_a_file_of_a_run_is_restored_from_the_others(folder, name, content):
    run = folder.run(1)
    files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    file = run.folder / name
    file.unlink(missing_ok=True)
    if content == "folder":
        file.mkdir()
    elif content == "fifo":
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    assert told(folder, really=False)[0] is False
    sound, said = told(folder)
    assert sound and f"repaired: {file}: " in said and f"{name}.damaged-1" in said
    assert told(folder) == (True, "")
    if name == "config.json":
        assert run.config().to_json()["mask_ratio"] == 0.5
        assert json.loads(file.read_text()) == json.loads(files[name])
    if name == "attempts.json":
        (found,) = AttemptLog(run).attempts()
        assert (found.ranks, found.node, found.first_step, found.reached) == (2, "n1", 0, 200)
    if name == "result.json":
        assert run.result()["val/seg_miou"] == json.loads(files[name])["val/seg_miou"]
    if name == "provenance.json":
        assert [(start["pid"], start["first_step"]) for start in run.starts()] == [(1, 0)]


def test_damaged_records_are_set_aside_line_by_line(folder):
    file = folder.run(0).metrics_file
    lines = file.read_bytes().split(b"\n")
    lines[4], lines[6] = b"\0\0", b'{"step": 30, "val/seg_miou": 7}'
    file.write_bytes(b"\n".join(lines))
    sound, said = told(folder)
    assert sound and "line 5 is set aside" in said and "line 7 is set aside" in said
    assert len(folder.run(0).metrics()) == 38
    beside = (folder.run(0).folder / "metrics.jsonl.damaged-1.lines").read_text().splitlines()
    assert [json.loads(line)["line"] for line in beside] == [5, 7]


def test_a_result_of_another_trial_is_not_believed(folder):
    folder.run(1).result_file.write_bytes(folder.run(2).result_file.read_bytes())
    sound, said = told(folder)
    assert sound and "the study was told 0.3" in said
    assert folder.run(1).result()["val/seg_miou"] == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["target.json", "keep.json", "stopped.json", "local/submission_0001.json"])
def test_what_the_next_sweep_writes_anew_is_set_aside(folder, name):
    (folder.folder / name).write_bytes(b"{")
    assert told(folder)[0]
    assert (folder.folder / f"{name}.damaged-1").read_bytes() == b"{"
    assert told(folder) == (True, "")


def test_the_list_of_code_versions_comes_from_the_snapshots(folder):
    version = folder.code.take()
    folder.code.versions_file.write_bytes(b"[")
    folder.code.manifest_file(version).write_bytes(b"")
    assert told(folder)[0]
    assert folder.code.versions() == [version] == [running_version()]
    assert folder.code.differences() == []


def test_nothing_is_repaired_while_somebody_works(folder):
    folder.study_file.write_bytes(b"{")
    code = f"from fsr.lock import FileLock; FileLock('{folder.locks}/0003.lock').acquire(); print(flush=True); "
    code += "input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, folder.locks / "0003.lock"], cwd=ROOT, stdin=-1, stdout=-1
    ) as worker:
        worker.stdout.readline()
        with pytest.raises(UserError, match=f"process {worker.pid} works on study mask_ratio and holds 0003.lock"):
            told(folder)
        worker.stdin.close()
    assert not list(folder.folder.glob("*.damaged-*"))
    assert told(folder)[0]
    FileLock(folder.locks / "0003.lock").acquire()
