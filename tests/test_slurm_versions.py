"""What Slurm 22.05 to 25.11 answered, through the parsers and rules: near-free, no Slurm needed.

`tests/slurm_answers/README.md` says which answers were recorded from a running Slurm, and which are from documents.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsr.errors import UserError
from launch import doctor
from launch.slurm import answers, batch_script, commands, job_reasons, requeue_rules, sbatch_options, version
from launch.slurm.answers import Job, QueuedJob
from launch.slurm.job_reasons import Outlook
from launch.slurm.job_states import GONE, STAGES, Stage, may_work, stage
from launch.state.attempts import Attempt
from launch.worker.after_crash import out_of_memory

ANSWERS = Path(__file__).parent / "slurm_answers"
VERSIONS = sorted(folder.name for folder in ANSWERS.iterdir() if folder.is_dir())
IDENTITY = "0123abcd"


@dataclass(frozen=True)
class Answer:
    """What a command said, as `record.py` keeps it."""

    head: str
    stdout: str
    stderr: str
    code: int

    @property
    def through(self):
        return answers.got_through(self.stdout, self.stderr, self.code)


def answer(version, name):
    text = (ANSWERS / version / f"{name}.txt").read_text()
    head, stdout, stderr = re.split(r"^--- (?:stdout|stderr)\n", text, flags=re.MULTILINE)
    return Answer(head, stdout, stderr, int(re.search(r"^exit code (\d+)$", head, re.MULTILINE)[1]))


@pytest.fixture(params=VERSIONS)
def slurm(request):
    """The answers of one version, by their names."""
    return lambda name: answer(request.param, name)


@pytest.fixture(params=[version for version in VERSIONS if (ANSWERS / version / "config.txt").exists()])
def recorded(request):
    """The answers of a version that was run."""
    return lambda name: answer(request.param, name)


def test_each_version_from_22_05_to_25_11_has_answers():
    assert {"22.05", "23.02", "23.11", "24.05", "24.11", "25.11"} <= set(VERSIONS)
    for folder in VERSIONS:
        for file in (ANSWERS / folder).iterdir():
            assert re.match(rf"slurm(-wlm)? {folder}", file.read_text()), f"{file} does not say its version"


def test_the_queue_and_what_becomes_of_each_job(slurm):
    listing = slurm("queue")
    rows = answers.queue_rows(listing.stdout)
    assert listing.through and len(rows) == 16
    jobs = answers.queued_jobs(rows, IDENTITY)
    assert "12" not in jobs  # somebody else's, whose name and comment look like rows
    assert {job_id: job.state for job_id, job in jobs.items() if job.state != "PENDING"} == {
        "2_0": "RUNNING", "2_1": "RUNNING", "7": "SPECIAL_EXIT", "8": "SUSPENDED", "9": "STOPPED", "10": "COMPLETING"
    }  # fmt: skip
    found = {job_id: job_reasons.outlook(job) for job_id, job in jobs.items()}
    assert {job_id: outlook for job_id, outlook in found.items() if outlook is not Outlook.WORKS} == {
        "3": Outlook.RELEASE, "5": Outlook.NEVER, "6": Outlook.RELEASE, "7": Outlook.RELEASE, "9": Outlook.CONTINUE,
        "10": Outlook.ENDS, "11": Outlook.ASK,
    }  # fmt: skip
    assert len(job_reasons.waits(jobs)) == 4  # BeginTime, JobArrayTaskLimit, Priority, Resources
    assert answers.queue_rows(slurm("queue_empty").stdout) == []


JOBS = {
    "running": Job("RUNNING"),
    "array_task_limit": Job("PENDING"),
    "resources": Job("PENDING"),
    "begin_time": Job("PENDING"),
    "never": Job("PENDING"),
    "held_by_user": Job("PENDING"),
    "held_by_admin": Job("PENDING"),
    "requeue_hold": Job("PENDING", 1),
    "special_exit": Job("SPECIAL_EXIT", 1),
    "suspended": Job("SUSPENDED"),
    "stopped": Job("STOPPED"),
    "completing": Job("COMPLETING"),
    "completed": Job("COMPLETED"),
    "cancelled": Job("CANCELLED"),
    "failed": Job("FAILED"),
    "out_of_memory": Job("FAILED"),  # a step was; the batch script ended with srun's exit code
    "preempted": Job("RUNNING", 0, True),
    "after_preemption": Job("PENDING", 1),
    "running_after_preemption": Job("RUNNING", 1),
    "after_node_loss": Job("PENDING", 2),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_as_the_controller_shows_it(slurm, name):
    shown = slurm(f"job_{name}")
    assert shown.through
    assert answers.job(shown.stdout) == answers.job(shown.stdout, IDENTITY) == JOBS[name]
    assert answers.job(shown.stdout, "ffffffff") == Job(GONE)
    assert answers.excluded(shown.stdout) is None


def test_a_job_that_slurm_does_not_know_is_gone(slurm, monkeypatch):
    said = slurm("job_unknown")
    process = subprocess.CompletedProcess([], said.code, said.stdout, said.stderr)
    monkeypatch.setattr(commands, "_run", lambda command, patience_s: process)
    assert commands.job("999999") == Job(GONE)


def test_what_users_wrote_is_none_of_slurms_fields():
    line = answer("25.11", "job_running").stdout
    forged = (
        "JobState=COMPLETED Restarts=7 PreemptTime=2026-11-27T09:00:00 ExcNodeList=n9 StartTime=2000-01-01T00:00:00"
    )
    assert "SubmitLine=" in line
    for name in ("SubmitLine=", "WorkDir=", "Command="):
        changed = line.replace(f" {name}", f" {name}/data/x {forged} ")
        assert answers.job(changed) == Job("RUNNING")
        assert answers.excluded(changed) is None


@pytest.mark.parametrize(
    "name, states",
    [
        ("cancelled", ["CANCELLED"]),
        ("failed", ["FAILED"]),
        ("completed", ["COMPLETED"]),
        ("unknown", None),
        ("node_lost", ["PREEMPTED", "NODE_FAIL"]),
    ],
)
def test_how_each_start_of_a_job_ended(slurm, name, states):
    listing = slurm(f"past_{name}")
    found = answers.past_states(listing.stdout, IDENTITY)
    assert listing.through
    assert (found and found[: len(states)]) == states


def test_the_accounts_speak_for_each_start_also_where_the_next_one_has_no_name_yet(slurm):
    found = answers.past_states(slurm("past_preempted").stdout, IDENTITY)  # 23.11 calls a new start `allocation`
    lost = Attempt(job="19", restart=0, node="n1", pid=1, ranks=1, started=0.0)
    assert requeue_rules.cause_of_lost_attempt(lost, found, None, None)[0] == "preempted"


def test_a_line_of_a_job_that_shrank_is_none_of_a_start():
    assert answers.past_states("RESIZING|fsr-x\nPREEMPTED|fsr-x\nRUNNING|fsr-x\n") == ["PREEMPTED", "RUNNING"]


def test_a_step_that_took_too_much_memory_is_known_by_the_accounts_or_by_the_log(slurm):
    log = slurm("log_out_of_memory")
    job = re.search(r"in job (\d+)", log.head)[1]
    assert answers.ran_out_of_memory(log.stderr, f"{job}.0")
    others = (f"{job}.1", f"{job}.00", f"1{job}.0", f"{job[1:]}.0", "2.0")
    assert not any(answers.ran_out_of_memory(log.stderr, step) for step in others)
    assert answers.past_states(slurm("step_out_of_memory").stdout) == ["OUT_OF_MEMORY"]


@pytest.mark.parametrize(
    "words",
    [
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=17.0. Some of your processes may have been killed",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=17.0. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Detected 24 oom_kill events in StepId=17.0. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: StepId=17.0 exceeded memory limit (629145600 > 314572800), being killed",
        "slurmstepd: error: StepId=17.0 exceeded virtual memory limit (629145600 > 314572800), being killed",
    ],
)
def test_every_word_for_too_much_memory(words):
    assert answers.ran_out_of_memory(words, "17.0")
    assert not answers.ran_out_of_memory(words, "17.1")
    assert not answers.ran_out_of_memory("StepId=17.0 hit memory limit at least once during execution", "17.0")


@pytest.mark.parametrize(
    "state, log, found",
    [
        ("OUT_OF_MEMORY", "", True),
        ("FAILED", "Detected 1 oom_kill event in StepId=12.0. Some", True),  # what 23.11 says at first
        ("FAILED", "", False),
        (None, "Detected 1 oom_kill event in StepId=12.0. Some", True),
        ("RUNNING", "Detected 1 oom_kill event in StepId=12.0. Some", True),  # they do not yet
        ("LATER_WORD", "Detected 1 oom-kill event(s) in StepId=12.0. Some", True),
        (None, "Detected 1 oom_kill event in StepId=12.1. Some", False),
    ],
)
def test_the_log_counts_where_the_accounts_do_not_know(tmp_path, monkeypatch, state, log, found):
    (tmp_path / "log").write_text(log)
    monkeypatch.setattr(commands, "step_state", lambda step: state)
    assert out_of_memory("12.0", tmp_path / "log") is found


@pytest.mark.parametrize("name, up", [("idle", True), ("down", False), ("drained", False), ("unknown", None)])
def test_whether_a_node_can_work(recorded, name, up):
    assert answers.node_is_up(recorded(f"node_{name}").stdout) is up


@pytest.mark.parametrize("name", ["queue", "job", "node", "requeue", "accounts", "accounts_manager"])
def test_a_silent_daemon_gives_no_answer(recorded, name):
    assert not recorded(f"silence_{name}").through


@pytest.mark.parametrize("name", ["requeue_refused", "requeue_unknown", "job_unknown", "sbatch_no_partition"])
def test_a_refusal_is_an_answer(recorded, name):
    assert recorded(name).through and recorded(name).code != 0


def test_whether_a_controller_is_up_and_whether_there_is_one(recorded):
    assert answers.controller_is_up(recorded("ping").stdout)
    assert not answers.controller_is_up(recorded("silence_ping").stdout)
    assert answers.is_unconfigured(recorded("no_cluster").stderr)


def test_settings_partitions_nodes_and_limits(recorded):
    found, partitions = answers.settings(recorded("config").stdout), answers.partitions(recorded("partitions").stdout)
    assert found["ClusterName"] == "mini" and found["PreemptType"] == "preempt/partition_prio"
    assert "slurmdbd" in found["AccountingStorageType"] and found["MaxArraySize"] == "1001"
    assert [answers.preempt_mode(found, partitions[name], None) for name in ("main", "low")] == ["OFF", "REQUEUE"]
    assert answers.time_limit(partitions["low"]) is None
    assert answers.names(recorded("nodes").stdout) == {"n1", "n2", "n3", "n4"}
    associations = answers.rows(recorded("associations").stdout, answers.ASSOCIATION)
    qos = answers.rows(recorded("qos").stdout, answers.QOS)
    limits = answers.submit_limits(associations, qos, "root", "vision", "low", "narrow", {})
    assert [(limit.number, limit.whose) for limit in limits] == [(1, "you in QOS narrow")]
    limits = answers.submit_limits(associations, qos, "root", "vision", "low", None, {})
    assert [(limit.number, limit.whose) for limit in limits] == [(3, "your account vision")]
    names = ("Name", "PreemptMode", "Preempt", "GraceTime")
    grace = {row["Name"]: row["GraceTime"] for row in answers.rows(recorded("qos_preemption").stdout, names)}
    assert doctor.seconds(grace["narrow"]) == "90"


@pytest.mark.parametrize("place", ["batch", "step"])
def test_what_a_job_finds_in_its_environment(recorded, place):
    lines = recorded(f"environment_{place}").stdout.splitlines()
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_PARTITION", "CPUS_PER_TASK"):
        assert f"SLURM_{name}" in variables, name
    assert variables["SLURM_CPUS_PER_TASK"] == "2" and "SLURMD_NODENAME" in variables
    assert not commands.without_job(variables).keys() - {"SLURM_CONF"}


def test_states_are_told_as_text_as_their_json_has_changed(recorded):
    assert '"job_state": ' in recorded("states_in_json").stdout


# The words of job_state_string() in src/common/slurm_protocol_defs.c, 22.05.8 to 25.11.2.
OF_SOURCES = [
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED",
    "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "COMPLETING", "STAGE_OUT", "CONFIGURING", "RESIZING", "REQUEUED",
    "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STOPPED", "REVOKED", "RESV_DEL_HOLD", "SIGNALING", "EXPEDITING",
]  # fmt: skip


def test_every_state_of_the_sources_is_known():
    assert not set(OF_SOURCES) - STAGES.keys()
    assert not any(stage(state) is Stage.UNKNOWN for state in OF_SOURCES)


@pytest.mark.parametrize("state", ["?", "HIBERNATING", "RUNNING,COMPLETING", "running", ""])
def test_an_unknown_state_is_taken_for_no_known_one(state):
    job, lost = Job(state), Attempt(job="1", restart=0, node="n1", pid=1, ranks=1, started=0.0)
    assert stage(state) is Stage.UNKNOWN and may_work(state)
    assert requeue_rules.still_runs(lost, job)  # its trial goes to nobody else
    assert job_reasons.outlook(QueuedJob(state)) is Outlook.WORKS  # no worker is submitted in its place
    assert requeue_rules.cause_of_stop(False, False, job, 0) == "preempted"  # it does not end itself
    assert requeue_rules.cause_of_end(1, [], False, job, 0) is None
    assert requeue_rules.cause_of_lost_attempt(lost, [state], job, None)[0] == "killed"


def test_a_job_whose_processes_are_stopped_or_signalled_keeps_its_trial():
    lost = Attempt(job="1", restart=0, node="n1", pid=1, ranks=1, started=0.0)
    kept = {state for state in OF_SOURCES if requeue_rules.still_runs(lost, Job(state))}
    assert kept == {"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"}


def test_a_count_of_restarts_that_is_no_number_is_no_answer():
    assert answers.job("JobId=1 JobState=RUNNING Restarts=N/A") is None


@pytest.mark.parametrize(
    "reason, outlook",
    [
        ("ReservationInvalid", Outlook.NEVER),
        ("launch failure limit exceeded requeued held", Outlook.RELEASE),
        ("user env retrieval failed requeued held", Outlook.RELEASE),
        ("job_requeued_in_held_state", Outlook.RELEASE),
        ("NvidiaImexChannels", Outlook.WORKS),
        ("MpiPortsBusy", Outlook.WORKS),
        ("SomeReasonOfTheFuture", Outlook.WORKS),
    ],
)
def test_reasons_of_newer_versions(reason, outlook):
    assert job_reasons.outlook(QueuedJob("PENDING", reason)) is outlook


@pytest.mark.parametrize(
    "restarts, signals, shown, told",
    [
        ("", "", "0", False),  # never preempted: Slurm is not asked
        ("", " TERM", "0", True),  # ends within the grace time
        ("1", "", "1", True),  # preempted in an earlier start
        ("1", "", "2", False),  # Slurm has it at work in a later one
    ],
)
def test_a_batch_script_that_ends_by_itself_is_not_requeued(tmp_path, restarts, signals, shown, told):
    """Slurm 24.05 and later requeue a job that ends after it was preempted, once, unless it does not ask for it."""
    scontrol = (
        f'[ $1 = show ] && echo "JobId=7 Requeue=1 Restarts={shown} BatchFlag=1" || echo "$@" >>{tmp_path}/told\n'
    )
    (tmp_path / "scontrol").write_text("#!/bin/sh\n" + scontrol)
    (tmp_path / "scontrol").chmod(0o755)
    script = "\n".join(["job=7_1 known=", f"signals='{signals}'", *batch_script.STAYS_ENDED, "(exit 0)", "exit 3"])
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_RESTART_COUNT": restarts}
    assert subprocess.run(["bash", "-c", script], env=variables).returncode == 3
    assert (tmp_path / "told").exists() is told
    if told:
        assert (tmp_path / "told").read_text() == "update jobid=7_1 requeue=0\n"


@pytest.mark.parametrize("option", ["requeue=expedite", "requeue", "external"])
def test_options_of_newer_versions_that_would_break_the_protocol_are_refused(option):
    with pytest.raises(UserError, match=f"--sbatch cannot set {option.split('=')[0]}: "):
        sbatch_options.parse([option])


def test_options_of_newer_versions_are_passed_on():
    given = ["oom-kill-step", "consolidate-segments", "resources=power:3"]
    assert list(sbatch_options.parse(given)) == ["oom-kill-step", "consolidate-segments", "resources"]


@pytest.mark.parametrize(
    "said, tried",
    [
        ("22.05.8", True),
        ("23.02.0-0rc1", True),
        ("25.11.2", True),
        ("25.11", True),
        ("21.08.5", False),
        ("27.05.0", False),
        ("", None),
        ("unknown", None),
    ],
)
def test_which_versions_were_tried(said, tried):
    assert version.was_tried(said) is tried


def test_the_doctor_reads_the_version_of_the_settings(recorded):
    said = answers.settings(recorded("config").stdout)["SLURM_VERSION"]
    assert version.was_tried(said) is True
    assert "tried" in version.note(said)
