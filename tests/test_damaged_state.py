"""Damaged state: readers show it and go on with the rest, writers refuse in one sentence, and nothing of a user's is
removed."""

import json
import os
import time
from dataclasses import asdict, replace

import pytest
from rich.console import Console
from studies import add_trial, attempt, new_study, write_run

from analysis import cache
from analysis.load import load as load_tables
from analysis.ranking import ranking
from fsr.errors import UserError
from fsr.files import HOST, write_json
from fsr.heartbeat import Sign
from fsr.json_file import DamagedError
from fsr.lock import FileLock
from fsr.records import read_records
from fsr.run import Run
from launch.doctor import check_study
from launch.plan import Options, definition_of, plan, undefine
from launch.show.table import DAMAGED, Rows
from launch.slurm import bad_nodes
from launch.state.attempts import AttemptLog
from launch.state.journal import StudyJournal
from launch.state.paths import StudyFolder
from launch.state.retention import clean_up_announced
from launch.state.storage import check_not_lost, load_launched, open_launched, open_storage
from launch.state.trial_identity import TrialIdentity
from launch.state.trials import best_first
from launch.status import Status, tell
from launch.sweep import check_whole, sweep, sweeping
from launch.verify_resume import remove_earlier
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Rendezvous

# Empty, torn, zeros, other kinds, not UTF-8, nested too deeply.
BROKEN = [b"", b"[{", b"\0" * 40, b"{}", b"\xff\xfe", b"[" * 5000, b'[{"job": "1"}]', "folder", "fifo"]


def damage(path, content):
    path.unlink(missing_ok=True)
    if content == "folder":
        path.mkdir()
    elif content == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


def picture(folder):
    console = Console(file=open(os.devnull, "w"), width=200, record=True)  # noqa: SIM115
    tell(Status(folder), console)
    return console.export_text()


@pytest.mark.parametrize("content", BROKEN)
def test_status_shows_a_damaged_trial_as_damaged_and_the_others_as_they_are(all_states, content):
    folder = StudyFolder(all_states / "smoke")
    damage(folder.run(3).folder / "attempts.json", content)
    rows = Status(folder).rows()
    assert [row.state for row in rows] == ["complete", "pruned", "fail", "damaged", "complete", "complete", "waiting"]
    assert rows[3].error.startswith("attempts.json: ")
    shown = picture(folder)
    assert "trial 3 is damaged: attempts.json: " in shown
    assert "fsr doctor --study smoke --runs " in shown and "--repair" in shown


@pytest.mark.parametrize("name", ["attempts.json", "quality.json", "metrics.jsonl", "result.json", "config.json"])
@pytest.mark.parametrize("content", [*BROKEN[1:7], "folder", "fifo"])
def test_tables_name_the_damaged_file_and_hold_the_others(all_states, name, content):
    folder = StudyFolder(all_states / "smoke")
    content = content if isinstance(content, str) else content + b"\n"
    damage(folder.run(4).folder / name, content)
    trials = load_tables("smoke", runs=all_states).trials.set_index("trial")
    if name == "config.json" and content == b"{}\n":
        return
    if name != "result.json" or content != b"{}\n":
        assert trials["damage"].dropna().index.tolist() == [4]
        assert name in trials.loc[4, "damage"]
    assert trials.loc[4, "value"] == trials.loc[4, "val/seg_miou"] == 0.25


def test_a_score_that_none_can_be_counts_for_nothing(tmp_path):
    folder, study = new_study(tmp_path)
    for value in (0.2, 7.0, -1.0, 0.3):
        add_trial(study, 0.4, value=value)
    assert best_first(study.trials)[0].number == 3
    rows = Status(folder).rows()
    assert [row.state for row in rows] == ["complete", "damaged", "damaged", "complete"]
    assert rows[1].error == "its value is 7.0, not a score from 0 to 1"
    tables = load_tables("smoke", runs=tmp_path)
    assert tables.trials["state"].tolist() == ["complete", "damaged", "damaged", "complete"]
    assert ranking(tables, "smoke")["trial"].tolist() == [3, 0]


def test_scores_of_another_trial_are_not_believed(all_states):
    folder = StudyFolder(all_states / "smoke")
    folder.run(0).metrics_file.write_bytes(folder.run(4).metrics_file.read_bytes())
    trials = load_tables("smoke", runs=all_states).trials.set_index("trial")
    assert trials.loc[0, "damage"] == "metrics.jsonl: its val/seg_miou is 0.25, but the study was told 0.2"
    assert trials.loc[0, "val/seg_miou"] == 0.2


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"\0\0\0", "it holds 3 zeros"),
        (b'{"op_code":4', "it is not JSON from line 1"),
        (b"7", "it is 7, not an object"),
        (b'{"op_code":99,"worker_id":"x"}', "it has op_code 99"),
        (b'{"op_code":8,"worker_id":"x","trial_id":77,"user_attr":{"a":1}}', "it tells of trial 77, and none"),
        (b'{"op_code":8,"worker_id":"x","trial_id":0,"user_attr":{}}', "its values are not such as Optuna writes"),
        (b'{"op_code":5,"worker_id":"x","trial_id":0}', "it has no param_value_internal"),
    ],
)
def test_a_damaged_line_of_the_journal_is_named_by_its_number(tmp_path, line, wrong):
    folder, study = new_study(tmp_path)
    add_trial(study, 0.4)
    journal = folder.folder / "journal.log"
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(DamagedError) as caught:
        open_launched(folder)
    assert f"{journal}: line 4 " in str(caught.value) and wrong in str(caught.value)
    with pytest.raises(DamagedError, match="--repair"):
        load_tables("smoke", runs=tmp_path)


def test_a_lost_record_does_not_give_a_trial_its_neighbours_score(tmp_path):
    folder, study = new_study(tmp_path)
    for ratio in (0.4, 0.5):
        add_trial(study, ratio, value=ratio)
    journal = folder.folder / "journal.log"
    lines = journal.read_bytes().split(b"\n")
    made = [number for number, line in enumerate(lines) if b'"op_code":4' in line]
    journal.write_bytes(b"\n".join(line for number, line in enumerate(lines) if number != made[0]))
    with pytest.raises(DamagedError, match="tells of trial"):
        open_launched(folder)


def test_a_journal_that_is_replaced_under_a_process_is_said(tmp_path):
    folder, study = new_study(tmp_path)
    journal = folder.folder / "journal.log"
    journal.rename(tmp_path / "old")
    journal.write_bytes((tmp_path / "old").read_bytes())
    with pytest.raises(UserError, match="was replaced while this process used it"):
        add_trial(study, 0.4)
        study.get_trials()


def options(folder, tmp_path):
    where = {"study": "smoke", "runs": folder.folder.parent, "data_folder": tmp_path}
    return Options(**where, cluster="local", dataset="synthetic")


@pytest.mark.parametrize("lost", ["study.json", "journal.log"])
def test_a_sweep_makes_no_new_study_over_the_trials_of_another(tmp_path, lost):
    folder, study = new_study(tmp_path / "runs")
    add_trial(study, 0.4)
    write_run(folder.run(0), attempts=[attempt(0, 36, 0, 200, "finished")])
    folder.study_file.write_text(json.dumps(definition_of(plan(options(folder, tmp_path)))))
    before = set(folder.folder.rglob("*")) - {folder.folder / lost}
    (folder.folder / lost).unlink()
    with pytest.raises(UserError, match="--repair"):
        sweep(options(folder, tmp_path))
    assert before <= set(folder.folder.rglob("*"))
    assert not (folder.folder / lost).exists()


def test_a_storage_that_lost_trials_is_refused(tmp_path):
    folder, study = new_study(tmp_path)
    add_trial(study, 0.4)
    check_not_lost(folder, open_storage(folder.folder))
    folder.run(1).folder.mkdir()
    with pytest.raises(DamagedError, match=r"trial_0001 is there, but the journal .* knows 1 trials"):
        check_not_lost(folder, open_storage(folder.folder))


def test_study_json_alone_says_what_is_wrong(tmp_path):
    folder, _ = new_study(tmp_path)
    for content in BROKEN:
        damage(folder.study_file, content)
        with pytest.raises(UserError) as caught:
            folder.definition()
        assert str(folder.study_file) in str(caught.value) and "\n" not in str(caught.value)
        folder.study_file.rmdir() if content == "folder" else folder.study_file.unlink()
    with pytest.raises(DamagedError, match=r"study.json is gone, although"):
        check_whole(folder)


def test_heartbeats_and_messages_of_ranks_that_are_damaged_stop_nobody(tmp_path):
    for content in (b"", b"7", b'{"count": 1}', b"\0" * 512, b"[" * 9999, b'{"count": NaN}'):
        assert Sign.of(content) is None
    rendezvous = Rendezvous(tmp_path)
    rendezvous.report_failure("killed", "x", rank=1)
    (file,) = (tmp_path / f"ranks_{os.geteuid()}").glob("*.rank1.json")
    file.write_bytes(b"{")
    with pytest.raises(DamagedError):
        rendezvous.reported_failure(patience_s=0)


def test_a_job_spec_of_another_kind_is_one_sentence(tmp_path):
    for content in (b"", b"[]", b'{"kind": "tea", "folder": "x", "config": {}}', b'{"kind": "run"}'):
        (tmp_path / "spec.json").write_bytes(content)
        with pytest.raises(DamagedError, match=r"spec.json is damaged: "):
            JobSpec.read(tmp_path / "spec.json")
    whole = b'{"kind": "run", "folder": "x", "config": {}, "a_newer_field": 1}'
    (tmp_path / "spec.json").write_bytes(whole)
    assert JobSpec.read(tmp_path / "spec.json").kind == "run"


def test_cached_tables_with_a_flipped_bit_are_read_anew(all_states, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    load_tables("smoke", runs=all_states)
    (file,) = cache.cache_folder().glob("*/trials.parquet")
    content = bytearray(file.read_bytes())
    for place in range(8, len(content) - 8, 97):
        content[place] ^= 1
        file.write_bytes(content)
        content[place] ^= 1
        study, _, state = file.parent.name.partition("-")
        assert cache.cached(study, state, ["trials"]) is None


def test_a_folder_that_verify_resume_did_not_make_is_refused(tmp_path):
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        remove_earlier(tmp_path / "verify")
    assert (tmp_path / "verify" / "thesis.tex").exists()
    (tmp_path / "link").symlink_to(tmp_path / "verify")
    with pytest.raises(UserError, match="is a link"):
        remove_earlier(tmp_path / "link")
    (tmp_path / "made" / "interrupted").mkdir(parents=True)
    (tmp_path / "made" / "uninterrupted").symlink_to(tmp_path / "verify")
    with pytest.raises(UserError, match="is a link"):
        remove_earlier(tmp_path / "made")
    (tmp_path / "made" / "uninterrupted").unlink()
    remove_earlier(tmp_path / "made")
    remove_earlier(tmp_path / "made")
    assert not (tmp_path / "made").exists() and (tmp_path / "verify" / "thesis.tex").exists()


# Removals: only what the program made.


def test_unfinished_files_of_living_processes_and_of_users_stay(tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    mine = run.folder / f".checkpoint.pt.{HOST}.{os.getpid()}.0.part"
    dead = run.folder / f".checkpoint.pt.{HOST}.4194300.0.part"
    users = [run.folder / name for name in (".my.pt.x.part", ".notes.1", ".checkpoint.pt.part", "best.pt.damaged-1")]
    for path in (mine, dead, *users):
        path.write_bytes(b"x")
    (run.folder / "checkpoint.pt").symlink_to(tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"mine")
    run.remove_weights(best=True, why="--keep none")
    assert not dead.exists() and mine.exists() and all(path.exists() for path in users)
    assert (tmp_path / "weights").read_bytes() == b"mine"


def test_a_refused_sweep_removes_only_what_it_made(tmp_path):
    folder = StudyFolder(tmp_path / "runs" / "smoke")
    folder.folder.mkdir(parents=True)
    kept = [folder.code.folder / "mine.py", folder.slurm / "note", folder.run(0).folder / "note"]
    kept += [folder.folder / "journal.log.bak", folder.folder / "trial_notes" / "x"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    before = set(folder.folder.iterdir())
    folder.study_file.write_text("{}")
    (folder.folder / "journal.log").write_text("")
    folder.run(1).folder.mkdir()
    (folder.folder / "trial_0002").symlink_to(tmp_path)
    undefine(folder, before)
    assert all(path.read_text() == "mine" for path in kept)
    assert not folder.study_file.exists() and not folder.run(1).folder.exists()
    assert tmp_path.exists()


def test_a_second_sweep_does_not_remove_the_folder_of_the_first(tmp_path):
    planned = plan(options(StudyFolder(tmp_path / "runs" / "smoke"), tmp_path))
    with sweeping(planned) as lock:
        holder = lock.path.read_text()
        other = replace(planned, folder=StudyFolder(planned.folder.folder))
        with pytest.raises(RuntimeError), sweeping(other):
            raise RuntimeError("the kernel lets a process take its own lock twice")
        assert holder.split()[0] == str(os.getpid())
        (planned.folder.folder / "users_file").write_text("mine")
    assert (planned.folder.folder / "users_file").exists()


def test_only_sentences_of_workers_are_forgotten(tmp_path):
    folder = StudyFolder(tmp_path)
    for worker in ("local_12", "77_3_4711", "77"):
        folder.record_mistake(worker, "no data")
    (folder.mistakes_folder / "notes.txt").write_text("mine")
    (folder.mistakes_folder / "12").unlink(missing_ok=True)
    (folder.mistakes_folder / "12").mkdir()
    (folder.mistakes_folder / "local_13").write_bytes(b"\xff no data")
    assert len(folder.mistakes()) == 4
    folder.forget_mistakes()
    assert sorted(path.name for path in folder.mistakes_folder.iterdir()) == ["12", "notes.txt"]


def test_strangers_among_marks_stop_nobody(tmp_path):
    folder, study = new_study(tmp_path)
    add_trial(study, 0.4)
    folder.ended.mkdir()
    (folder.ended / "0x").write_text("")
    (folder.ended / "7 of nine").mkdir()
    clean_up_announced(folder, open_storage(folder.folder))
    folder.bad_nodes.mkdir(parents=True)
    (folder.bad_nodes / "README").write_text("mine")
    bad_nodes.mark_lacks(folder, "n1")
    assert bad_nodes.bad_nodes(folder) == ["n1"]


def test_a_changed_snapshot_is_set_aside_and_not_removed(tmp_path):
    folder = StudyFolder(tmp_path)
    version = folder.code.take()
    (folder.code.snapshot(version) / "fsr" / "mine.py").write_text("x = 1\n")
    assert folder.code.take(renew=True) == version
    assert (folder.code.folder / f"{version}.damaged-1" / "fsr" / "mine.py").exists()
    assert not (folder.code.snapshot(version) / "fsr" / "mine.py").exists()


def test_a_claim_reads_new_records_as_fast_as_before(tmp_path):
    journal = StudyJournal(tmp_path / "journal.log", FileLock(tmp_path / "lock"))
    journal.append_logs([{"op_code": 0, "worker_id": "x", "study_name": "s", "directions": [2]}])
    journal.append_logs([{"op_code": 4, "worker_id": "x", "study_id": 0, "datetime_start": "2026-01-01T00:00:00"}])
    told = {"op_code": 8, "worker_id": "x", "trial_id": 0, "user_attr": {"a": 1}}
    journal.append_logs([told] * 10_000)
    began = time.process_time()
    assert sum(len(records) for records in iter(journal.read_new, [])) == 10_002
    assert time.process_time() - began < 1


def test_attempts_that_cannot_be_are_damage(tmp_path):
    log = AttemptLog(Run(tmp_path))
    log.begin("1", 0, "n1", 2)
    sound = json.loads(log.file.read_text())
    for name, value in (
        ("ranks", 0),
        ("started", -1),
        ("ended", 1e300),
        ("pid", 10**400),
        ("cause", "bored"),
    ):
        log.file.write_text(json.dumps([sound[0] | {name: value}]))
        with pytest.raises(DamagedError, match=name):
            log.attempts()


def test_records_of_which_zeros_alone_are_left_are_damaged_and_a_line_that_is_being_written_is_not(tmp_path):
    file, record = tmp_path / "metrics.jsonl", b'{"step": 1}\n'
    for content, found in {
        bytes(99): ([], ["line 1 of metrics.jsonl is damaged: it holds 99 zeros"]),
        record + b'{"st': ([{"step": 1}], []),
        record + bytes(9): ([{"step": 1}], []),  # NFS shows zeros where the writer's bytes have not arrived yet
        b"": ([], []),
    }.items():
        file.write_bytes(content)
        assert read_records(file) == found


def test_what_a_later_version_added_to_an_attempt_is_left_out_and_a_damaged_name_is_not(tmp_path):
    log = AttemptLog(Run(tmp_path))
    log.begin("1", 0, "n1", 2)
    (written,) = json.loads(log.file.read_text())
    before = log.attempts()
    log.file.write_text(json.dumps([written | {"gpu": "H100"}]))
    assert log.attempts() == before
    written["caus\x01"] = written.pop("cause")
    log.file.write_text(json.dumps([written]))
    with pytest.raises(DamagedError, match="is unknown"):
        log.attempts()


def test_status_and_doctor_say_that_a_running_trials_folder_belongs_to_another(all_states, capsys):
    folder = StudyFolder(all_states / "smoke")
    stored = load_launched(folder)
    own = TrialIdentity.of(folder, stored.trials[3], folder.definition()["base"]["seed"])
    write_json(folder.run(3).folder / "trial.json", asdict(own))
    rows = Rows(stored, folder, lambda attempt: True).read()
    assert DAMAGED not in {row.state for row in rows}
    write_json(folder.run(3).folder / "trial.json", asdict(replace(own, seed=77)))
    rows = Rows(stored, folder, lambda attempt: True).read()
    assert [row.number for row in rows if row.state == DAMAGED] == [3]
    assert "belongs to another trial: seed 77, not" in (rows[3].error or "")
    check_study(folder, Console(width=300))
    assert "belongs to another trial: seed 77, not" in " ".join(capsys.readouterr().out.split())
