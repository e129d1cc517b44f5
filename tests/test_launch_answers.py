"""What Slurm's answers mean, from texts of several versions: no test here needs a Slurm."""

import subprocess

import pytest

from launch.slurm import answers, commands
from launch.slurm.answers import GONE, Job

# As Slurm 22.05 printed it, shortened in the middle.
RUNNING = (
    "JobId=3 ArrayJobId=1 ArrayTaskId=0 JobName=wrap UserId=root(0) GroupId=root(0) MCS_label=N/A Account=(null) "
    "QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "StartTime=2026-11-26T08:07:09 EndTime=2027-11-26T08:07:09 Deadline=N/A PreemptEligibleTime=2026-11-26T08:07:09 "
    "PreemptTime=None SuspendTime=None Partition=low NodeList=n1 Comment=fsr /runs/smoke StdOut=/x.out Power= "
)
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-26T08:07:14")
# After a requeue PreemptTime is not printed any more, or still that of the earlier start.
REQUEUED = (
    "JobId=1 ArrayJobId=1 ArrayTaskId=1 JobName=wrap JobState=PENDING Reason=BeginTime Requeue=1 Restarts=1 "
    "StartTime=2026-11-26T08:09:13 EndTime=Unknown Deadline=N/A SuspendTime=None Partition=low NodeList= "
)
RUNS_AGAIN = PREEMPTED.replace("Restarts=0", "Restarts=1").replace(
    "StartTime=2026-11-26T08:07:09", "StartTime=2026-11-26T09:00:00"
)
# 23.11 and later have more fields, and fields within fields.
NEWER = RUNNING.replace("TRES=", "ReqTRES=cpu=1,mem=5000M AllocTRES=cpu=1 SubmitLine=sbatch_x ")


@pytest.mark.parametrize(
    "line, job",
    [
        (RUNNING, Job("RUNNING", 0, False)),
        (PREEMPTED, Job("RUNNING", 0, True)),
        (REQUEUED, Job("PENDING", 1, False)),
        (RUNS_AGAIN, Job("RUNNING", 1, False)),
        (NEWER, Job("RUNNING", 0, False)),
        ("JobId=7 JobState=PENDING StartTime=Unknown", Job("PENDING")),
        ("JobId=7 JobState=PENDING StartTime=N/A PreemptTime=N/A", Job("PENDING")),
    ],
)
def test_a_job_as_the_controller_shows_it(line, job):
    assert answers.job(line) == job


@pytest.mark.parametrize("state", [*answers.ENDED, "COMPLETING", GONE])
def test_a_job_that_has_ended_neither_waits_nor_runs(state):
    assert not Job(state).waits_or_runs


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD"])
def test_any_other_job_waits_or_runs(state):
    assert Job(state).waits_or_runs


def test_the_jobs_of_a_folder_are_known_by_its_id_in_their_name_or_comment():
    listing = (
        "1_0|RUNNING|fsr-smoke-1a2b3c4d|fsr 1a2b3c4d\n"
        "1_1|PENDING|fsr-smoke-1a2b3c4d|account=vision\n"  # a site that rewrites comments
        "2_0|RUNNING|renamed|site fsr 1a2b3c4d\n"  # one that renames jobs
        "3_0|RUNNING|fsr-smoke-ffffffff|fsr ffffffff\n"
        "4|RUNNING|wrap|(null)\n"
        "5|RUNNING|x-1a2b3c4d|a|b\n"
    )
    states = {"1_0": "RUNNING", "1_1": "PENDING", "2_0": "RUNNING"}
    assert answers.job_states(listing, "1a2b3c4d") == states
    assert answers.job_states("", "1a2b3c4d") == {}


@pytest.mark.parametrize(
    "listing, states",
    [
        ("PREEMPTED\nTIMEOUT\nRUNNING\n", ["PREEMPTED", "TIMEOUT", "RUNNING"]),
        ("CANCELLED by 1000\n", ["CANCELLED"]),
        ("\nNODE_FAIL\n\n", ["NODE_FAIL"]),
        ("", None),
        ("\n", None),
    ],
)
def test_how_each_start_of_a_job_ended(listing, states):
    assert answers.past_states(listing) == states


@pytest.mark.parametrize(
    "listing, up",
    [
        ("idle\n", True),
        ("allocated\n", True),
        ("mixed-\n", True),
        ("down*\n", False),
        ("DOWN\n", False),
        ("drained\n", False),
        ("draining\n", False),
        ("fail\n", False),
        ("unknown\n", False),
        ("", None),
    ],
)
def test_whether_a_node_can_work(listing, up):
    assert answers.node_is_up(listing) is up


def test_settings_of_the_cluster():
    text = "Configuration data as of 2026-11-26T08:07:11\nMaxArraySize            = 1001\nKillWait = 30 sec\nX=\n"
    assert answers.settings(text) == {"MaxArraySize": "1001", "KillWait": "30 sec"}
    assert answers.settings("") == {}


def test_settings_of_the_partitions():
    text = "PartitionName=main GraceTime=0 PreemptMode=OFF Nodes=n[1-4]\nPartitionName=low PreemptMode=REQUEUE\n"
    partitions = answers.partitions(text)
    assert partitions["main"]["PreemptMode"] == "OFF"
    assert partitions["low"]["PreemptMode"] == "REQUEUE"


@pytest.mark.parametrize("listing, limit", [("100|\n|50\n", 50), ("|\n", None), ("", None), ("200|\n", 200)])
def test_the_smallest_limit_of_the_accounts_counts(listing, limit):
    assert answers.submit_limit(listing) == limit


@pytest.fixture
def slurm_says(monkeypatch):
    """What every command of Slurm answers: exit code, output, errors; or what running it raises."""

    def say(code=0, stdout="", stderr="", error=None):
        def run(command, **options):
            if error:
                raise error
            return subprocess.CompletedProcess(command, code, stdout, stderr)

        monkeypatch.setattr(subprocess, "run", run)

    return say


def test_a_job_that_slurm_has_forgotten_is_gone_and_an_error_is_no_answer(slurm_says):
    slurm_says(1, stderr="slurm_load_jobs error: Invalid job id specified\n")
    assert commands.job("7") == Job(GONE)
    slurm_says(1, stderr="slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    assert commands.job("7") is None


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("squeue", 10)])
def test_a_command_that_is_missing_or_hangs_is_no_answer(slurm_says, error):
    slurm_says(error=error)
    assert commands.job("7") is None
    assert commands.job_states("fsr /runs/a") is None
    assert commands.past_states("7") is None
    assert commands.step_state("7.0") is None
    assert commands.node_is_up("n1") is None
    assert commands.partition_nodes("low") is None
    assert commands.submit_limit() is None
    assert (commands.settings(), commands.partitions()) == ({}, {})
    assert not commands.requeue("7")
    assert not commands.exclude("7", ["n1"])


def test_an_empty_queue_is_an_answer(slurm_says):
    slurm_says(0, "")
    assert commands.job_states("fsr /runs/a") == {}


BY_PARTITION = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"}
BY_QOS = {"PreemptType": "preempt/qos", "PreemptMode": "GANG,SUSPEND"}


@pytest.mark.parametrize(
    "settings, partition, qos, mode",
    [
        (BY_PARTITION, {"PreemptMode": "CANCEL"}, None, "CANCEL"),
        (BY_PARTITION, {"PreemptMode": "CANCEL"}, {"PreemptMode": "requeue"}, "CANCEL"),
        (BY_PARTITION, {}, {"PreemptMode": "cancel"}, "REQUEUE"),
        (BY_PARTITION, {"PreemptMode": "GANG,SUSPEND"}, None, "SUSPEND"),
        (BY_PARTITION, None, None, None),
        (BY_QOS, {"PreemptMode": "REQUEUE"}, {"PreemptMode": "cancel"}, "CANCEL"),
        (BY_QOS, {"PreemptMode": "CANCEL"}, {"PreemptMode": "within,requeue"}, "REQUEUE"),
        (BY_QOS, {"PreemptMode": "CANCEL"}, {"PreemptMode": "cluster"}, "SUSPEND"),
        (BY_QOS, {"PreemptMode": "CANCEL"}, None, None),
        ({"PreemptType": "preempt/none", "PreemptMode": "OFF"}, {"PreemptMode": "CANCEL"}, None, "OFF"),
        ({"PreemptType": "(null)", "PreemptMode": "OFF"}, {}, None, "OFF"),  # 24.05 and later
        ({}, {"PreemptMode": "CANCEL"}, {"PreemptMode": "cancel"}, None),
    ],
)
def test_what_preemption_does_to_a_job(settings, partition, qos, mode):
    assert answers.preempt_mode(settings, partition, qos) == mode


def test_whether_preemption_cancels_is_unknown_where_slurm_does_not_say(monkeypatch):
    monkeypatch.setattr(commands, "settings", lambda: BY_QOS)
    monkeypatch.setattr(commands, "partitions", lambda: {"low": {"PreemptMode": "REQUEUE"}})
    monkeypatch.setattr(commands, "qos_settings", lambda: {"spot": {"PreemptMode": "cancel"}})
    assert commands.preemption_cancels("low", "spot") is True
    assert commands.preemption_cancels("low", "other") is None
    monkeypatch.setattr(commands, "settings", lambda: BY_PARTITION)
    assert commands.preemption_cancels("low", "spot") is False


def test_qos_by_name(slurm_says):
    slurm_says(0, "normal|cluster|\nhigh|cluster|spot,low\nspot|cancel|\n")
    assert commands.qos_settings()["high"] == {"Name": "high", "PreemptMode": "cluster", "Preempt": "spot,low"}
    slurm_says(1, stderr="sacctmgr: error: slurm_persist_conn_open_without_init: failed to open\n")
    assert commands.qos_settings() == {}
