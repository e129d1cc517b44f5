"""Ten thousand damaged state files: whatever is in one, its reader says in one sentence what is wrong, or reads it."""

import io
import json
import math
import random
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from studies import attempt, write_run

from analysis.load import load as load_tables
from analysis.tables import quality_rows
from fsr.errors import UserError
from fsr.files import write_json
from fsr.heartbeat import Sign
from fsr.json_file import read_json
from launch.repair import repair
from launch.slurm.job_logs import last_arrays
from launch.state.attempts import AttemptLog
from launch.state.hparams import read_hparams, write_hparams
from launch.state.paths import StudyFolder
from launch.state.retention import Retention
from launch.state.storage import load_launched, open_storage
from launch.state.target import Target
from launch.state.trials import SUMMARY, damage_of
from launch.status import Status, tell
from launch.study import load
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Announcement, Failure, Lack

ROOT = Path(__file__).parent.parent
FILES, COMMANDS = 10_000, 100
CAUSES = ("finished", "preempted")


def study(runs):
    """A study with three complete trials and one that was interrupted, and every kind of file."""
    folder, study = StudyFolder(runs / "mask_ratio"), load("mask_ratio")
    base = study.base("synthetic", runs, iterations=200, seed=None)
    definition = {"study": "mask_ratio", "id": "1a2b3c4d", "metric": study.metric, "base": base.to_json()}
    write_json(folder.study_file, definition | {"space": study.space(base), "target": 9, "storage": "journal.log"})
    Target(9, 9).write(folder)
    Retention("best", 12).write(folder)
    spec = JobSpec(kind="study", folder=str(folder.folder), config=base.to_json(), code="0123456789ab")
    spec.write(folder.folder / "local" / "submission_0001.json")
    write_json(folder.slurm / "submission_0001_arrays.json", ["12", "13"])
    write_json(folder.code.versions_file, ["0123456789ab"])
    write_json(folder.code.manifest_file("0123456789ab"), {"fsr/run.py": "0" * 64})
    write_json(folder.locks / "ranks_0" / "announcement.json", {"number": 1, "config": base.to_json(), "run": "x"})
    write_json(folder.locks / "ranks_0" / "failure.json", {"cause": "killed", "detail": "x"})
    write_json(folder.locks / "ranks_0" / "lack.json", {"node": "n1"})
    sign = {"count": 1, "doing": "x", "patience_s": 2.0, "place": "n1"}
    (folder.locks / "ranks_0" / "heartbeat0").write_bytes(json.dumps(sign).encode().ljust(512))
    stored = optuna.create_study(study_name="mask_ratio", storage=open_storage(folder.folder), direction="maximize")
    for number, ratio in enumerate((0.4, 0.5, 0.6, 0.7)):
        stored.enqueue_trial({"mask_ratio": ratio})
        trial, run = stored.ask(), folder.run(number)
        settings = study.suggest(trial, base)
        score = 0.2 + number / 10
        attempts = [attempt(0, 36, 0, 100, "preempted"), attempt(36, 72, 90, 200, "finished")]
        write_run(run, 20 if number < 3 else 10, attempts, **{study.metric: score})
        write_json(run.config_file, base.to_json() | settings)
        starts = [{"pid": 1, "host": "n1", "first_step": step, "device": "2 × CPU"} for step in (0, 90)]
        write_json(run.provenance_file, {"attempts": starts})
        write_json(run.removed_file, {"why": "--keep best", "bytes": {"checkpoint.pt": 7}})
        if number < 3:
            write_json(run.result_file, {study.metric: score, "step": 200, "seconds": 72.0})
            trial.report(score, 200)
            shares = {"useful": 1.0, "repeated": 0.0, "lost": 0.0}
            summary = {"causes": CAUSES, "node": "n1", "seconds": 72.0, "gpu_seconds": shares, "bytes": 9, "step": 200}
            trial.set_user_attr(SUMMARY, summary | {"evaluated": 200, "scores": {study.metric: score}})
            write_hparams(run, trial, 0, optuna.trial.TrialState.COMPLETE)
            stored.tell(trial, score)
    return folder


def readers(folder):
    """What reads each file, and whether what it read can be."""
    run = folder.run(1)
    ranks = folder.locks / "ranks_0"
    return {
        folder.study_file: (folder.definition, lambda read: isinstance(read["base"]["iterations"], int)),
        folder.target_file: (partial(Target.of, folder), lambda read: 0 <= read.trials <= read.limit),
        folder.keep_file: (partial(Retention.of, folder), lambda read: read.keep in ("best", "all", "none")),
        folder.folder / "local" / "submission_0001.json": (
            partial(JobSpec.read, folder.folder / "local" / "submission_0001.json"),
            lambda read: read.kind in ("study", "run", "inference") and isinstance(read.config, dict),
        ),
        folder.slurm / "submission_0001_arrays.json": (
            partial(last_arrays, folder),
            lambda read: all(isinstance(name, str) for name in read),
        ),
        folder.code.versions_file: (folder.code.versions, lambda read: all(len(name) == 12 for name in read)),
        folder.code.manifest_file("0123456789ab"): (
            partial(read_json, folder.code.manifest_file("0123456789ab"), dict[str, str]),
            lambda read: all(isinstance(digest, str) for digest in read.values()),
        ),
        folder.folder / "journal.log": (
            lambda: load_launched(folder).get_trials(deepcopy=False),
            lambda read: [trial.number for trial in read] == list(range(len(read))),
        ),
        ranks / "announcement.json": (partial(read_json, ranks / "announcement.json", Announcement), bool),
        ranks / "failure.json": (partial(read_json, ranks / "failure.json", Failure), bool),
        ranks / "lack.json": (partial(read_json, ranks / "lack.json", Lack), bool),
        ranks / "heartbeat0": (lambda: Sign.of((ranks / "heartbeat0").read_bytes()), lambda read: True),
        run.config_file: (run.config, lambda read: 0 <= read.mask_ratio <= 1),
        run.provenance_file: (run.starts, lambda read: all(isinstance(start["pid"], int) for start in read)),
        run.metrics_file: (run.metrics, lambda read: all(sound(record) for record in read)),
        run.result_file: (run.result, lambda read: read is None or sound(read)),
        run.removed_file: (partial(run.remove_weights, True, "x"), lambda read: read == 0),
        run.folder / "attempts.json": (AttemptLog(run).attempts, lambda read: all(possible(one) for one in read)),
        run.folder / "events.out.tfevents.hparams": (partial(read_hparams, run), lambda read: isinstance(read, dict)),
        run.quality_file: (lambda: list(quality_rows(run.quality_file)), fractions),
    }


def sound(record):
    """Whether each value is a number, and each finite score one from 0 to 1."""
    numbers = {name: value for name, value in record.items() if value is not None}
    scores = [value for name, value in numbers.items() if name.startswith("val/") and math.isfinite(value)]
    return all(type(value) in (int, float) for value in numbers.values()) and all(0 <= score <= 1 for score in scores)


def possible(one):
    return one.ranks >= 1 and one.started >= 0 and (one.ended is None or math.isfinite(one.ended)) and one.seconds >= 0


def fractions(rows):
    values = [value for _, _, columns in rows for name in ("iou", "miou") for value in columns.get(name, ())]
    return all(value is None or 0 <= value <= 1 for value in values)


def mutated(content, rng, others):
    """The content damaged in one way."""
    text = bytearray(content)
    kind = rng.randrange(14)
    place = rng.randrange(len(text)) if text else 0
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes(len(content) - place)
    if kind == 2:
        for _ in range(rng.choice((1, 1, 1, 3, 20))):
            text[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        return bytes(text)
    if kind == 3:
        return rng.choice(
            (b"", b"\0" * 100, b"\n\n", b" ", b"\xef\xbb\xbf" + content, b"7", b"null", b'""', b"[]", b"{}")
        )
    if kind == 4:
        return rng.choice(others)
    if kind == 5:
        return rng.choice((b"[", b'{"a":')) * rng.choice((500, 100_000))
    if kind == 6:
        return content.decode("latin-1").encode(rng.choice(("utf-16", "utf-32", "utf-7", "cp037")))
    if kind == 7:
        return content[:place] + bytes([rng.choice((0, 10, 13, 27, 255))]) + content[place:]
    if kind == 8:
        size = rng.randrange(1, 64)
        return content[:place] + rng.randbytes(size) + content[place + size :]
    if kind == 9:
        lines = content.split(b"\n")
        rng.shuffle(lines)
        return b"\n".join(lines)
    if kind == 10:
        half = content[place : place + 200]
        return content[:place] + half + content[place:]
    # another value in the place of one
    numbers = [(i, c) for i, c in enumerate(content) if chr(c).isdigit()]
    if not numbers:
        return content + b"x"
    where = rng.choice(numbers)[0]
    end = where
    while end < len(content) and (chr(content[end]).isdigit() or content[end : end + 1] in (b".", b"e")):
        end += 1
    value = rng.choice(
        (b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b'"x"', b"null", b"true", b"[]", b"{}")
    )
    return content[:where] + value + content[end:]


def command(*words):
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    whole = study(tmp_path / "whole")
    rng, counts, wrong = random.Random(17), Counter(), []
    contents = {path.relative_to(whole.folder): path.read_bytes() for path in readers(whole)}
    trials = [path.read_bytes() for path in whole.folder.glob("trial_000[023]/*") if path.is_file()]
    others = [*contents.values(), *trials]
    monkeypatch.setattr("analysis.cache.cache_folder", lambda: None)
    for number in range(FILES):
        path, (read, can_be) = rng.choice(list(readers(whole).items()))
        name = path.relative_to(whole.folder)
        content = mutated(contents[name], rng, others)
        path.write_bytes(content)
        try:
            found = read()
        except (UserError, FileNotFoundError) as error:
            counts[f"{name}: refused"] += 1
            if "\n" in str(error) or len(str(error)) > 700:
                wrong.append((number, str(name), content[:200], f"no sentence: {error}"))
        except Exception as error:
            wrong.append((number, str(name), content[:200], repr(error)))
        else:
            counts[f"{name}: {'read as it was' if content == contents[name] else 'read'}"] += 1
            try:
                if not can_be(found):
                    wrong.append((number, str(name), content[:200], "a wrong value was read"))
            except Exception as error:
                wrong.append((number, str(name), content[:200], f"a value of another kind was read: {error!r}"))
        if number % 100 == 0:  # whoever shows all goes on, or says one sentence
            for show in (show_status, show_doctor, show_tables):
                try:
                    show(whole)
                    counts[show.__name__] += 1
                except UserError:
                    counts[f"{show.__name__}: refused"] += 1
                except Exception as error:
                    wrong.append((number, str(name), content[:200], f"{show.__name__}: {error!r}"))
        path.write_bytes(contents[name])
    print()
    for what, times in sorted(counts.items()):
        print(f"{times:6d}  {what}")
    for one in wrong[:40]:
        print(one)
    assert not wrong, f"{len(wrong)} of {FILES}"


def show_status(folder):
    with redirect_stdout(io.StringIO()):
        tell(Status(folder), Console(file=io.StringIO(), width=200))
    best = [trial for trial in load_launched(folder).get_trials(deepcopy=False) if damage_of(trial) is None]
    assert all(trial.value is None or 0 <= trial.value <= 1 for trial in best)


def show_doctor(folder):
    repair(folder, False, Console(file=io.StringIO()))


def show_tables(folder):
    tables = load_tables("mask_ratio", runs=folder.folder.parent)
    assert tables.trials["value"].dropna().between(0, 1).all()


@pytest.mark.slow
def test_commands_on_damaged_studies_end_with_a_sentence_and_a_repair_makes_them_whole(tmp_path):
    whole = study(tmp_path / "whole")
    contents = {path.relative_to(whole.folder): path.read_bytes() for path in readers(whole)}
    rng, counts = random.Random(18), Counter()
    for number in range(COMMANDS // 4):
        runs = tmp_path / str(number)
        shutil.copytree(whole.folder, runs / "mask_ratio")
        for name in rng.sample(list(contents), 2):
            (runs / "mask_ratio" / name).write_bytes(mutated(contents[name], rng, list(contents.values())))
        where = ("--study", "mask_ratio", "--runs", runs)
        calls = {
            "status": ("launch/status.py", *where),
            "load": ("analysis/load.py", *where, "--out", tmp_path / "out"),
            "doctor": ("launch/doctor.py", *where),
            "doctor --repair": ("launch/doctor.py", *where, "--repair"),
            "status after it": ("launch/status.py", *where),
        }
        for name, words in calls.items():
            done = command(*words)
            counts[name, done.returncode] += 1
            assert "Traceback" not in done.stdout + done.stderr, (number, name, done.stdout, done.stderr)
            assert done.returncode in (0, 1, 2) and done.stderr.count("\n") <= 1, (name, done.stderr)
        assert done.returncode == 0, done.stderr
    print()
    for what, times in sorted(counts.items()):
        print(f"{times:4d}  {what[0]}: exit code {what[1]}")
