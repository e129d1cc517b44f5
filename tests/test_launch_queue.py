"""A study and Slurm's answers, or none: what a sweep counts, says and refuses. Slurm's commands are small scripts."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from fsr.errors import UserError
from fsr.files import write_json
from launch import doctor, infer, status, sweep, train
from launch.show.live import Watched, watch_lines
from launch.slurm import commands, job_logs, queue
from launch.slurm.answers import Job, QueuedJob
from launch.slurm.commands import Silence
from launch.slurm.job_states import GONE
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder, StudyFolder
from launch.submit import prepare

HEADER = "JOBID|STATE|REASON|NAME|COMMENT"
UP, DOWN = "Slurmctld(primary) at ctl is UP", "Slurmctld(primary) at ctl is DOWN"
LOST = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
CONFIG = "MaxArraySize = 1001\nAccountingStorageType = accounting_storage/none"
PARTITIONS = "PartitionName=gpu Default=YES MaxTime=UNLIMITED"


@pytest.fixture(autouse=True)
def home_and_pauses(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(commands, "PAUSE_S", (0, 0))
    monkeypatch.setattr(commands, "PATIENCE_S", 1.0)


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """Makes commands of Slurm that say one thing each; what a name lacks is not there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin-without-slurm")

    def command(name, text="", code=0, errors="", sleep=0):
        nap = f"/bin/sleep {sleep}\n" if sleep else ""
        body = f"#!/bin/sh\n{nap}/bin/cat <<'E'\n{text}\nE\n/bin/cat >&2 <<'E'\n{errors}\nE\nexit {code}\n"
        (folder / name).write_text(body)
        (folder / name).chmod(0o755)

    def make(ping=UP, **others):
        command("sbatch", "77")
        answers = f"case $1 in ping) echo '{ping}';; *) case $2 in config) echo '{CONFIG}';; *) echo '{PARTITIONS}';;"
        (folder / "scontrol").write_text(f"#!/bin/sh\n{answers} esac;; esac\n")
        (folder / "scontrol").chmod(0o755)
        command("squeue", HEADER)
        command("sinfo", "n1")

    make.command = command
    make.folder = folder
    return make


ASKING = [
    {"partition": "gpu"},
    {"account": "vision"},
    {"gpus": 2},
    {"gpus": 0},
    {"qos": "long"},
    {"nodes": 2},
    {"time_limit": "1:00:00"},
    {"constraint": "a100"},
    {"sbatch": ("mem=1G",)},
    {"cluster": "slurm"},
]


@pytest.mark.parametrize("flags", [{}, *ASKING])
@pytest.mark.parametrize("kind", ["down", "silent", "error with exit code 0", "hangs", "no scontrol"])
def test_a_silent_slurm_never_sends_a_sweep_to_the_login_node(slurm, monkeypatch, flags, kind):
    slurm(ping=DOWN)
    if kind == "silent":
        slurm.command("scontrol")
    elif kind == "error with exit code 0":
        slurm.command("scontrol", "", 0, "slurm_load_ctl_conf error: Socket timed out on send/recv operation")
    elif kind == "hangs":
        monkeypatch.setattr(commands, "PATIENCE_S", 0.05)
        slurm.command("scontrol", UP, sleep=1)
    elif kind == "no scontrol":
        (slurm.folder / "scontrol").unlink()
    with pytest.raises(UserError, match="Slurm does not answer: `scontrol ping`") as raised:
        Resources(**flags).resolved()
    assert str(raised.value).endswith("try again later; --cluster local works on this machine")
    assert Resources(**flags | {"cluster": "local"}).resolved().cluster == "local"


@pytest.mark.parametrize("flags", ASKING)
def test_who_asks_for_slurm_where_there_is_none_is_told(slurm, flags):
    name = next(iter(flags))
    with pytest.raises(UserError, match=f"^--{name}.* asks for Slurm, and no Slurm answers here"):
        Resources(**flags).resolved()


def test_a_cluster_file_asks_for_slurm_too(slurm, tmp_path):
    file = tmp_path / ".config" / "fsr" / "cluster.toml"
    file.parent.mkdir(parents=True)
    file.write_text('partition = "gpu"')
    with pytest.raises(UserError, match=r"^the cluster file's partition asks for Slurm"):
        Resources().resolved()
    file.write_text('[sbatch]\nmem = "64G"')
    with pytest.raises(UserError, match=r"^the cluster file's sbatch asks for Slurm"):
        Resources().resolved()
    assert Resources(cluster="local").resolved().cluster == "local"
    file.unlink()
    assert Resources().resolved().cluster == "local"


def test_every_command_ends_with_2_and_one_sentence(slurm, capsys, synthetic_folder, tmp_path):
    slurm(ping=DOWN)
    data, run = ["--data_folder", str(synthetic_folder)], ["--run_folder", str(tmp_path / "run")]
    (tmp_path / "best.pt").touch()
    for main, words in (
        (sweep.main, ["--study", "smoke", "--runs", str(tmp_path / "runs"), *data, "--partition", "gpu"]),
        (train.main, ["synthetic", *data, *run]),
        (infer.main, ["synthetic", *data, "--checkpoint", str(tmp_path / "best.pt"), "--gpus", "1"]),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        errors = capsys.readouterr().err
        assert (end.value.code, errors.count("\n")) == (2, 1), errors
        assert f"`scontrol ping` says '{DOWN}'" in errors
    assert not (tmp_path / "runs").exists() and not (tmp_path / "run").exists()


@pytest.fixture
def folder(tmp_path):
    made = LaunchFolder(tmp_path / "study")
    made.slurm.mkdir(parents=True)
    made.identity_file.write_text('{"id": "1a2b3c4d"}')
    return made


def listing(*jobs):
    return "\n".join([HEADER, *(f"{job}|fsr-study-1a2b3c4d|fsr 1a2b3c4d" for job in jobs)])


@pytest.mark.parametrize(
    "text, errors, code",
    [("", LOST, 0), (LOST, "", 0), ("", LOST, 1), ("", "", 0), (f"{listing('1_0|RUNNING|None')}\n{LOST}", "", 0)],
)
def test_nothing_is_submitted_where_the_queue_is_unknown(slurm, folder, text, errors, code):
    slurm()
    slurm.command("squeue", text, code, errors)
    with pytest.raises(UserError, match="squeue does not answer, so it is unknown which workers are there: `squeue`"):
        prepare(folder, 2, Resources())


def test_nothing_is_submitted_where_the_cluster_does_not_tell_its_limits(slurm, folder):
    slurm()
    slurm.command("scontrol", "", 0, "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(UserError, match="Slurm does not answer"):
        prepare(folder, 2, Resources())


def test_a_job_that_cannot_work_is_replaced_and_named(slurm, folder):
    slurm()
    slurm.command("squeue", listing("1_0|PENDING|JobHeldUser", "1_1|RUNNING|None", "1_2|COMPLETING|None"))
    submission = prepare(folder, 2, Resources())
    assert (submission.workers, submission.live) == (1, 1)
    assert "job 1_0 cannot work by itself, pending (JobHeldUser): scontrol release 1_0, or scancel 1_0" in (
        submission.notes
    )
    held = prepare(folder, 2, Resources(sbatch=("hold",)))  # this user holds them
    assert (held.workers, held.live) == (0, 2)
    assert not [note for note in held.notes if "1_0" in note]


@dataclass
class Clock:
    now: float = 1000.0

    def time(self):
        return self.now

    def strftime(self, form, moment):
        return str(round(self.now))

    def localtime(self, moment):
        return moment


@dataclass
class Answers:
    clock: Clock = field(default_factory=Clock)
    jobs: object = field(default_factory=dict)


@pytest.fixture
def asked(monkeypatch):
    """What the queue answers, and a clock that stands still."""
    found = Answers()
    monkeypatch.setattr(queue, "time", found.clock)
    monkeypatch.setattr(commands, "queued_jobs", lambda identity: found.jobs)
    return found


def test_a_watcher_hears_of_a_silence_once_and_of_its_end(folder, asked, monkeypatch):
    monkeypatch.setattr(queue, "_clock", lambda moment: str(round(moment)))
    watched, works = Queue(folder, on_slurm=True), {"1_0": QueuedJob("RUNNING")}
    answers = [works, *[Silence(f"`squeue` says {n}") for n in range(40)], works, {}]

    def ended():
        asked.jobs = answers.pop(0)
        asked.clock.now += 2.5
        return watched.nobody_works()

    class Nothing:
        def read(self):
            return []

    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr("launch.show.live.INTERVAL_S", 0)
    watch_lines(Watched(Nothing(), 10, 1, []), console, ended, watched.notices)
    assert console.file.getvalue().splitlines() == [
        "Slurm's queue: 1 running",
        "since 1005 Slurm has not answered: `squeue` says 0",
        "Slurm answers again since 1105",
    ]


def test_a_watcher_leaves_when_no_job_can_work_but_not_at_once(folder, asked):
    watched = Queue(folder, on_slurm=True)

    def after(seconds, jobs):
        asked.clock.now += seconds
        asked.jobs = jobs
        return watched.nobody_works()

    held, waits, ends = QueuedJob("PENDING", "JobHeldUser"), QueuedJob("PENDING", "Priority"), QueuedJob("COMPLETING")
    assert not after(0, {"1_0": waits, "1_1": held})
    assert not after(60, {"1_0": ends, "1_1": held})
    assert not after(5, {"1_1": held})
    assert not after(3, Silence("squeue"))
    assert not after(5, {"1_1": held})
    assert after(12, {"1_1": held})
    assert after(5, {})
    assert not after(60, Silence("squeue"))


def write_arrays(folder, *ids):
    (folder.slurm / "submission_0001_arrays.json").write_text(json.dumps(ids))


@pytest.fixture
def no_accounts(monkeypatch):
    monkeypatch.setattr(job_logs, "state_of", lambda folder, job: None)


def test_a_job_that_left_without_work_is_told_with_the_end_of_its_log(folder, asked, no_accounts):
    write_arrays(folder, "12")
    error = "Traceback (most recent call last):\n  1 %\r 99 %\n\x1b[31mImportError: no torch\x1b[0m\n"
    (folder.slurm / "12_0_0_log.err").write_text(error)
    (folder.slurm / "12_1_0_log.err").touch()
    (folder.slurm / "11_0_0_log.err").write_text("an earlier one\n")
    assert job_logs.why_nobody_works(folder, Queue(folder, on_slurm=True)) == [
        "no worker is left, and work is missing",
        f"job 12_0 left without any work to show; the end of its log {folder.slurm / '12_0_0_log.err'}:",
        "  Traceback (most recent call last):",
        "   99 %",
        "  \\x1b[31mImportError: no torch\\x1b[0m",
    ]
    asked.jobs = {"12_0": QueuedJob("RUNNING")}
    assert job_logs.why_nobody_works(folder, Queue(folder, on_slurm=True)) == []
    asked.jobs = Silence("squeue")
    assert job_logs.why_nobody_works(folder, Queue(folder, on_slurm=True)) == []


def test_a_job_that_tried_a_trial_has_something_to_show(folder, asked, no_accounts):
    write_arrays(folder, "12")
    (folder.slurm / "12_0_0_log.err").write_text("a warning\n")
    trial = folder.folder / "trial_0000"
    trial.mkdir()
    attempt = {"job": "12_0", "restart": 0, "node": "n1", "pid": 1, "ranks": 1, "started": 1.0}
    (trial / "attempts.json").write_text(json.dumps([attempt]))
    assert job_logs.why_nobody_works(folder, Queue(folder, on_slurm=True)) == []


@pytest.mark.parametrize(
    "state, told",
    [
        ("FAILED", "(Slurm: FAILED), and without a log"),
        ("COMPLETED", None),
        ("CANCELLED", None),
        (None, "and without a log"),
    ],
)
def test_a_job_without_a_log_is_told_unless_it_ended_well_or_was_cancelled(folder, asked, monkeypatch, state, told):
    monkeypatch.setattr(job_logs, "state_of", lambda folder, job: state)
    write_arrays(folder, "12")
    lines = job_logs.why_nobody_works(folder, Queue(folder, on_slurm=True))
    assert (told is None and lines == []) or told in lines[-1]


def test_a_log_is_shown_from_its_end(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"x" * 50_000 + b"\n" + b"\n".join(b"line %d \xff" % n for n in range(40)))
    lines = job_logs.last_lines(file)
    assert (len(lines), lines[-1]) == (job_logs.LINES, "line 39 �")
    file.write_bytes(b"x" * 50_000)
    assert [len(line) for line in job_logs.last_lines(file)] == [job_logs.LINE]
    assert job_logs.last_lines(tmp_path / "none") == []


def test_status_names_reasons_remedies_and_logs(all_states, slurm, capsys):
    slurm()
    study = all_states / "smoke"
    (study / "slurm").mkdir()
    study_file = study / "study.json"
    study_file.write_text(json.dumps(json.loads(study_file.read_text()) | {"id": "1a2b3c4d", "target": 9}))
    jobs = ("7_0|PENDING|Priority", "7_1|PENDING|JobHeldAdmin")
    rows = [f"{job}|fsr-smoke-1a2b3c4d|fsr 1a2b3c4d" for job in jobs]
    slurm.command("squeue", "\n".join([HEADER, *rows]))
    words = ["--study", "smoke", "--runs", str(all_states)]
    status.main(words)
    said = " ".join(capsys.readouterr().out.split())
    assert "Slurm's queue: 1 pending (JobHeldAdmin), 1 pending (Priority)" in said
    assert "ask your administrators to release them, or scancel 7_1" in said
    assert "logs of the workers: " in said and "slurm/7_0_0_log.err" in said
    status.main([*words, "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["queue"] == {"PENDING": 2} and content["silence"] is None
    assert [(job["job"], job["reason"], job["outlook"]) for job in content["jobs"]] == [
        ("7_0", "Priority", "works"),
        ("7_1", "JobHeldAdmin", "ask"),
    ]
    assert Path(content["logs"]) == study / "slurm"
    slurm.command("squeue", "", 0, LOST)
    status.main(words)
    assert f"Slurm's queue: unknown, Slurm does not answer: `squeue` says '{LOST}'" in " ".join(
        capsys.readouterr().out.split()
    )


def doctor_says(monkeypatch, capsys, settings, qos, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(commands, "presence", lambda: "answers")
    monkeypatch.setattr(commands, "settings", lambda: settings)
    monkeypatch.setattr(commands, "partitions", lambda: {"gpu": {"PreemptMode": "REQUEUE", "GraceTime": "0"}})
    monkeypatch.setattr(commands, "qos_settings", lambda: qos)
    monkeypatch.setattr(commands, "submit_limits", lambda *where: None)
    with pytest.raises(SystemExit):
        doctor.main(["--runs", str(tmp_path)])
    return [" ".join(line.split()) for line in capsys.readouterr().out.replace("│", " ").splitlines()]


def test_doctor_tells_who_is_signalled_and_what_preemption_does_to_each_qos(monkeypatch, capsys, tmp_path):
    settings = {"ProctrackType": "proctrack/linuxproc", "PreemptType": "preempt/qos", "PreemptMode": "REQUEUE"}
    qos = {
        "spot": {"Name": "spot", "PreemptMode": "cancel", "Preempt": "", "GraceTime": "00:01:30"},
        "high": {"Name": "high", "PreemptMode": "cluster", "Preempt": "spot", "GraceTime": "00:00:00"},
    }
    said = doctor_says(monkeypatch, capsys, settings, qos, tmp_path)
    tracked = "each process of a job is signalled by itself, loader workers too"
    assert f"ProctrackType proctrack/linuxproc {tracked}" in said
    assert "PreemptType preempt/qos the QOS says what happens to a preempted job (below)" in said
    assert [line for line in said if line.startswith("spot none SIGTERM, 90 s later SIGKILL, no requeue nothing")]
    assert [line for line in said if line.startswith("high spot SIGTERM, 0 s later SIGKILL and requeue")]
    assert "gpu preemption as the job's QOS says (above)" in said
    assert [line for line in said if line.startswith("submit limit unknown: the accounts do not answer")]
    settings |= {"ProctrackType": "proctrack/cgroup", "PreemptType": "preempt/partition_prio"}
    said = doctor_says(monkeypatch, capsys, settings, {}, tmp_path)
    assert "ProctrackType proctrack/cgroup a signal reaches all processes in a job's cgroup" in said
    assert [line for line in said if line.startswith("gpu preemption SIGTERM, 0 s later SIGKILL and requeue")]


@pytest.mark.parametrize(
    "slurm_version, sentence",
    [("24.11.5", "tried with 22.05 to 25.11"), ("20.02.1", "not tried, only 22.05 to 25.11; a word that is unknown")],
)
def test_doctor_notes_the_version_of_slurm(monkeypatch, capsys, tmp_path, slurm_version, sentence):
    said = doctor_says(monkeypatch, capsys, {"SLURM_VERSION": slurm_version}, {}, tmp_path)
    assert any(f"SLURM_VERSION {slurm_version} {sentence}" in line for line in said)


@pytest.mark.parametrize(
    "presence, sentence",
    [
        ("absent", "there is no sbatch"),
        (Silence("`scontrol ping` says ''"), "Slurm does not answer: `scontrol ping` says ''; sweeps are refused"),
    ],
)
def test_doctor_tells_no_slurm_from_a_silent_one(monkeypatch, capsys, tmp_path, presence, sentence):
    monkeypatch.setattr(commands, "presence", lambda: presence)
    with pytest.raises(SystemExit):
        doctor.main(["--runs", str(tmp_path)])
    assert sentence in capsys.readouterr().out


def test_a_second_train_tells_why_the_last_job_left(slurm, synthetic_folder, tmp_path, capsys, no_accounts):
    slurm()
    words = ["synthetic", "--data_folder", str(synthetic_folder), "--run_folder", str(tmp_path / "run")]
    train.main(words)
    assert "left without" not in capsys.readouterr().out
    (tmp_path / "run" / "slurm" / "77_0_0_log.err").write_text("ImportError: no torch\n")
    train.main(words)
    said = capsys.readouterr().out
    assert "job 77_0 left without any work to show; the end of its log" in said and "  ImportError: no torch" in said


@pytest.mark.parametrize(
    "said, works",
    [
        (Job("RUNNING"), True),  # a colleague's: squeue lists this user's jobs alone
        (Job("RUNNING", restarts=1), False),  # at another attempt by now
        (Job("COMPLETED"), False),
        (Job(GONE), False),
        (None, True),  # no answer
    ],
)
def test_the_attempt_of_a_colleague_is_asked_for_by_its_job(slurm, tmp_path, monkeypatch, said, works):
    slurm()
    asked = []
    monkeypatch.setattr(commands, "job", lambda *words: asked.append(words) or said)
    folder = StudyFolder(tmp_path / "smoke")
    write_json(folder.identity_file, {"id": "1a2b3c4d"})
    looked = Queue(folder, on_slurm=True)
    attempt = Attempt(job="7_1", restart=0, node="n1", pid=1, ranks=1, started=0.0)
    assert [looked.holds(attempt), looked.holds(attempt)] == [works, works]
    assert asked == [("7_1", "1a2b3c4d")]
