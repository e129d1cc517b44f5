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


def test_preemption_cancels_where_the_partition_says_so(slurm_says):
    slurm_says(0, "PartitionName=low PreemptMode=CANCEL\nPartitionName=main PreemptMode=REQUEUE\n")
    assert commands.preemption_cancels("low")
    assert not commands.preemption_cancels("main")
    assert not commands.preemption_cancels(None)
