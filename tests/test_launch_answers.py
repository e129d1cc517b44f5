"""What Slurm's answers mean, from texts of several versions: no test here needs a Slurm."""

import subprocess

import pytest

from launch.slurm import answers, commands
from launch.slurm.answers import Job, Limit, QueuedJob
from launch.slurm.commands import Silence
from launch.slurm.job_states import GONE, STAGES, Stage

ENDED = [word for word, stage in STAGES.items() if stage in (Stage.ENDING, Stage.ENDED)]
HEADER = "JOBID|STATE|REASON|NAME|COMMENT\n"

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


@pytest.mark.parametrize("state", [*ENDED, GONE])
def test_a_job_that_has_ended_neither_waits_nor_runs(state):
    assert not Job(state).waits_or_runs


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD"])
def test_any_other_job_waits_or_runs(state):
    assert Job(state).waits_or_runs


def test_the_jobs_of_a_folder_are_known_by_its_id_in_their_name_or_comment():
    listing = (
        HEADER + "1_0|RUNNING|None|fsr-smoke-1a2b3c4d|fsr 1a2b3c4d\n"
        "1_1|PENDING|Priority|fsr-smoke-1a2b3c4d|account=vision\n"  # a site that rewrites comments
        "2_0|RUNNING|None|renamed|site fsr 1a2b3c4d\n"  # one that renames jobs
        "3_0|RUNNING|None|fsr-smoke-ffffffff|fsr ffffffff\n"
        "4|RUNNING|None|wrap|(null)\n"
        "5|RUNNING|None|x-1a2b3c4d|a|b\n"
        "second line of a comment\n"
    )
    jobs = {"1_0": QueuedJob("RUNNING"), "1_1": QueuedJob("PENDING", "Priority"), "2_0": QueuedJob("RUNNING")}
    rows = answers.queue_rows(listing)
    assert len(rows) == 6
    assert answers.queued_jobs(rows, "1a2b3c4d") == jobs


# What squeue printed with exit code 0 where it had no answer, or not the whole of it.
@pytest.mark.parametrize(
    "listing",
    [
        "",
        "\n",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",  # 20.11
        "slurm_load_jobs error: Socket timed out on send/recv operation\n",  # 22.05
        "squeue: error: slurm_receive_msg: Socket timed out on send/recv operation\n",
        "squeue: error: RPC rate limit exceeded, try again later\n",  # 23.11, and a site's wrapper
        "This cluster is under maintenance until 18:00.\n",
        HEADER + "1_0|RUNNING|None|fsr-smoke-1a2b3c4d|fsr 1a2b3c4d\n1_1|PEND",
        HEADER + "1_0|RUNNING|None|fsr-smoke-1a2b3c4d|fsr 1a2b3c4d\n1_1|PEND\n",
        HEADER + "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        HEADER.rstrip("\n"),
        "JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)\n",
    ],
)
def test_a_listing_that_is_not_whole_is_no_answer(listing):
    assert answers.queue_rows(listing) is None


PINGS = [
    ("Slurmctld(primary) at ctl is UP\n", True),  # 20.11 and later
    ("Slurmctld(primary) at ctl is DOWN\n", False),
    ("Slurmctld(primary) at ctl is DOWN\nSlurmctld(backup) at ctl2 is UP\n", True),
    ("Slurmctld(primary) at ctl is DOWN\nSlurmctld(backup1) at ctl2 is DOWN\n", False),
    ("Slurmctld(primary/backup) at ctl/ctl2 are UP/DOWN\n", True),  # before 18.08
    ("Slurmctld(primary/backup) at ctl/ctl2 are DOWN/DOWN\n", False),
    ("slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)\n", False),
    ("", False),
]


@pytest.mark.parametrize("text, up", PINGS)
def test_a_backup_controller_that_is_up_will_do(text, up):
    assert answers.controller_is_up(text) is up


@pytest.mark.parametrize(
    "stdout, stderr, code, through",
    [
        ("", "slurm_load_jobs error: Invalid job id specified\n", 1, True),  # Slurm has answered
        ("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1, False),
        ("", "slurm_load_partitions: Socket timed out on send/recv operation\n", 1, False),
        ("", "sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent connection\n", 1, False),
        ("", "sacct: error: Problem talking to the database: Connection refused\n", 0, False),
        ("", "scontrol: error: Protocol authentication error\n", 0, False),
        ("", "Slurm backup controller in standby mode\n", 1, False),
        ("", "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n", 1, False),
        ("", "slurm_update error: Invalid user id\n", 1, True),
        (HEADER, "squeue: error: RPC rate limited 2 time(s), last sleep 1 s\n", 0, True),  # and then it got through
        (HEADER, "squeue: error: Ignoring obsolete FastSchedule=1 option.\n", 0, True),
    ],
)
def test_what_a_command_says_that_did_not_get_through(stdout, stderr, code, through):
    assert answers.got_through(stdout, stderr, code) is through


def test_foreign_text_is_shown_and_commands_no_terminal():
    assert answers.printable("\x1b[2Jred\x07 mIoU ≥ 0.5\x9b") == "\\x1b[2Jred\\x07 mIoU ≥ 0.5\\x9b"


def test_a_job_of_another_folder_with_the_same_number_is_gone():
    line = RUNNING.replace("JobName=wrap", "JobName=fsr-smoke-1a2b3c4d")
    assert answers.job(line, "1a2b3c4d").state == "RUNNING"
    assert answers.job(RUNNING.replace("fsr /runs/smoke", "fsr 1a2b3c4d of site"), "1a2b3c4d").state == "RUNNING"
    assert answers.job(line, "ffffffff") == answers.job(RUNNING, "ffffffff") == Job(GONE)
    assert answers.job(RUNNING).state == "RUNNING"
    assert answers.job("slurm_load_jobs error: whatever") is None
    listing = "COMPLETED|other\nTIMEOUT|fsr-smoke-1a2b3c4d\nRUNNING|fsr-smoke-1a2b3c4d\n"
    assert answers.past_states(listing, "1a2b3c4d") == ["TIMEOUT", "RUNNING"]
    assert answers.past_states(listing, "ffffffff") == ["COMPLETED", "TIMEOUT", "RUNNING"]  # a site renames its jobs


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


ACCOUNTS = """\
|vision||7||
me|vision||3||long
you|vision||9||
me|vision|gpu|2||
"""
RULES = """\
normal|||
long|||4
big|50||
part|5||
"""


def limits(account, partition, qos, accounts=ACCOUNTS, of_partitions=None):
    rows = answers.rows(accounts, answers.ASSOCIATION), answers.rows(RULES, answers.QOS)
    found = answers.submit_limits(*rows, "me", account, partition, qos, of_partitions or {})
    return [(limit.number, limit.filters, limit.of_user) for limit in found]


def test_the_limits_are_those_of_the_account_partition_and_qos_that_are_used():
    of_account = (3, ("--account=vision",), True)
    of_qos = (4, ("--qos=long",), False)  # the user's default one
    assert limits("vision", None, None) == [of_qos, of_account]
    assert limits("vision", "cpu", "normal") == [of_account]
    assert limits("vision", "gpu,cpu", "normal") == [(2, ("--account=vision", "--partition=gpu"), True)]
    assert limits("vision", None, "big") == [(50, ("--qos=big",), True)]  # goes before the association's
    assert limits("vision", "cpu", "big", of_partitions={"cpu": "part"}) == [(5, ("--qos=part",), True)]
    group = ACCOUNTS.replace("|vision||7||", "|vision||7|20|")
    assert limits("vision", None, "normal", group) == [of_account, (20, ("--account=vision",), False)]
    assert limits("vision", None, None, "") == limits("vision", None, "normal", "me|vision||||\n") == []


@pytest.fixture
def slurm_says(monkeypatch):
    """What every command of Slurm answers: exit code, output, errors; or what running it raises."""

    def say(code=0, stdout="", stderr="", error=None):
        def run(command, **options):
            if error:
                raise error
            return subprocess.CompletedProcess(command, code, stdout, stderr)

        monkeypatch.setattr(subprocess, "run", run)

    monkeypatch.setattr(commands, "PAUSE_S", (0, 0))
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
    assert isinstance(commands.queued_jobs("fsr /runs/a"), Silence)
    assert commands.past_states("7") is None
    assert commands.step_state("7.0") is None
    assert commands.node_is_up("n1") is None
    assert commands.partition_nodes("low") is None
    assert commands.submit_limits("vision", None, None) is None
    assert commands.jobs_that_count(Limit(3, "you", ())) is None
    assert (commands.settings(), commands.partitions()) == ({}, {})
    assert not commands.requeue("7")
    assert not commands.exclude("7", ["n1"])


def test_an_empty_queue_is_an_answer(slurm_says):
    slurm_says(0, HEADER)
    assert commands.queued_jobs("fsr /runs/a") == {}


def test_an_error_with_exit_code_0_is_no_answer(slurm_says):
    slurm_says(0, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    silence = commands.queued_jobs("1a2b3c4d")
    assert silence == Silence(
        "`squeue` says 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)'"
    )
    assert commands.job("7") is None and commands.past_states("7") is None and commands.step_state("7.0") is None
    assert commands.node_is_up("n1") is None and commands.partition_nodes(None) is None
    assert commands.settings() == commands.partitions() == commands.qos_settings() == {}
    assert not commands.requeue("7")
    slurm_says(0, "slurm_load_partitions: Unable to contact slurm controller (connect failure)\n")
    assert commands.partitions() == {} and commands.partition_nodes(None) is None and commands.node_is_up("n1") is None


def test_a_command_that_did_not_get_through_is_asked_again(monkeypatch, slurm_says):
    slurm_says(0, HEADER)
    run, calls = subprocess.run, []

    def flaky(command, **options):
        calls.append(command)
        if len(calls) < 3:
            return subprocess.CompletedProcess(command, 1, "", "slurm_load_jobs error: Socket timed out on send/recv\n")
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", flaky)
    assert commands.queued_jobs("1a2b3c4d") == {}
    assert len(calls) == 3


def test_what_is_an_answer_is_not_asked_again(monkeypatch):
    calls = []

    def no(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", "slurm_load_jobs error: Invalid job id specified\n")

    monkeypatch.setattr(subprocess, "run", no)
    assert commands.job("7") == Job(GONE)
    assert len(calls) == 1


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("text, up", PINGS)
def test_slurm_is_absent_answers_or_is_silent(monkeypatch, slurm_says, text, up, code):
    slurm_says(code, text)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert commands.presence() == "absent"
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert (commands.presence() == "answers") is up
    assert isinstance(commands.presence(), Silence) is not up


def test_commands_that_know_of_no_cluster_are_no_slurm(monkeypatch, slurm_says):
    slurm_says(1, stderr="scontrol: fatal: Could not establish a configuration source\n")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    assert commands.presence() == "absent"
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")  # somebody has told of one
    assert isinstance(commands.presence(), Silence)


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
    slurm_says(0, "normal|cluster||00:00:00\nhigh|cluster|spot,low|00:00:00\nspot|cancel||00:01:30\n")
    assert commands.qos_settings()["high"]["Preempt"] == "spot,low"
    assert commands.qos_settings()["spot"]["PreemptMode"] == "cancel"
    slurm_says(1, stderr="sacctmgr: error: slurm_persist_conn_open_without_init: failed to open\n")
    assert commands.qos_settings() == {}
