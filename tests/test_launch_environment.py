"""What a caller's environment may do to Slurm's commands, jobs and local workers: nothing that nobody sees."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from method_checkout import surroundings, sweep_command

from launch.show.messages import more_than_parallel
from launch.slurm import answers, batch_script, commands
from launch.slurm.answers import Job, Limit
from launch.slurm.environment import SlurmEnvironment, current_environment, leave_job
from launch.worker.rendezvous import Rendezvous

OURS = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
OF_COMMANDS = ("SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SQUEUE_FORMAT", "SACCT_LOCAL", "SINFO_SORT", "SCONTROL_ALL")
OF_SRUN = ("SRUN_CPUS_PER_TASK", "SLURM_CPU_BIND", "SLURM_EXPORT_ENV")
OF_JOBS = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURMD_NODENAME", "SLURM_TIME_FORMAT", "SALLOC_PARTITION")
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


@pytest.fixture
def variables(monkeypatch):
    """Sets these variables, and no other one of Slurm and torchrun."""
    for name in set(os.environ) - set(commands.without_job(os.environ)):
        monkeypatch.delenv(name)
    for name in OURS:
        monkeypatch.delenv(name, raising=False)

    def given(*names, value="3"):
        for name in names:
            monkeypatch.setenv(name, value)

    return given


def test_commands_of_slurm_get_none_of_its_variables_but_those_that_say_which_slurm(variables):
    variables(*OURS, *OF_COMMANDS, *OF_SRUN, *OF_JOBS, *OF_TORCHRUN)
    environment = commands.environment()
    assert environment["SLURM_TIME_FORMAT"] == "standard"
    theirs = {name for name in environment if name.startswith(("S", "RANK", "LOCAL", "WORLD", "MASTER", "TORCH"))}
    assert theirs & {*OURS, *OF_COMMANDS, *OF_SRUN, *OF_JOBS, *OF_TORCHRUN} == {*OURS, "SLURM_TIME_FORMAT"}
    assert environment["PATH"] == os.environ["PATH"]


def test_devices_of_the_job_around_are_not_those_of_the_job_that_is_submitted(variables):
    variables("CUDA_VISIBLE_DEVICES")
    assert commands.environment()["CUDA_VISIBLE_DEVICES"] == "3"
    variables("SLURM_JOB_ID")
    assert "CUDA_VISIBLE_DEVICES" not in commands.environment()


def test_what_is_overridden_is_named(variables):
    assert commands.notes() == []
    variables(*OURS, "SLURM_TIME_FORMAT")
    assert commands.notes() == []
    variables("SBATCH_PARTITION", "SQUEUE_FORMAT", "SLURM_HINT")
    assert commands.notes() == [
        "not passed on to Slurm (flags and --sbatch are): SBATCH_PARTITION, SLURM_HINT, SQUEUE_FORMAT"
    ]
    variables(*OF_JOBS)  # inside a job, SLURM_* is Slurm's own
    assert commands.overridden() == ["SALLOC_PARTITION", "SBATCH_PARTITION", "SQUEUE_FORMAT"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: commands.job("7"),
        lambda: commands.queued_jobs("x"),
        lambda: commands.past_states("7"),
        lambda: commands.step_state("7.0"),
        lambda: commands.node_is_up("n1"),
        lambda: commands.partition_nodes("low"),
        lambda: commands.requeue("7"),
        lambda: commands.exclude("7", ["n1"]),
        commands.partitions,
        commands.settings,
        lambda: commands.submit_limits("vision", "low", None),
        lambda: commands.jobs_that_count(Limit(3, "you", ())),
        commands.qos_settings,
        commands.presence,
        "sbatch",
    ],
)
def test_every_command_goes_through_the_clean_environment(variables, monkeypatch, tmp_path, ask):
    seen = []

    def run(command, **options):
        seen.append(options["env"])
        return subprocess.CompletedProcess(command, 0, "PartitionName=low JobState=RUNNING ExcNodeList=n9\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: name)
    variables(*OURS, *OF_COMMANDS, *OF_JOBS)
    if ask == "sbatch":
        batch_script.sbatch("#!/bin/bash\n", tmp_path / "script.sh")
    else:
        ask()
    assert seen
    for environment in seen:
        assert not set(environment) & (set(OF_COMMANDS) | set(OF_JOBS) - {"SLURM_TIME_FORMAT"})
        assert set(OURS) <= set(environment)


def test_a_local_worker_is_alone_whatever_the_job_around_it_is(variables, tmp_path):
    variables(*OF_JOBS, "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", *OF_TORCHRUN, "SLURM_CONF", "CUDA_VISIBLE_DEVICES")
    assert Rendezvous(tmp_path).count == 3
    assert isinstance(current_environment(), SlurmEnvironment)
    leave_job()
    assert (Rendezvous(tmp_path).rank, Rendezvous(tmp_path).count) == (0, 1)
    assert current_environment().job == "local"
    assert not set(os.environ) & {*OF_TORCHRUN, *OF_JOBS}
    assert (os.environ["SLURM_CONF"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("3", "3")


class Killed(Exception):
    """In the place of Slurm's SIGKILL."""


@pytest.mark.parametrize(
    "answers, job, end",
    [
        ([True], "RUNNING", "killed"),
        ([False, False, False, True], None, "killed"),  # no answer is asked again
        ([False, False], "RUNNING", "ended"),  # refused
    ],
)
def test_a_job_near_its_time_limit_asks_until_slurm_answers(monkeypatch, answers, job, end):
    def wait(seconds):
        if not answers:
            raise Killed

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(commands, "requeue", lambda _: answers.pop(0))
    monkeypatch.setattr(commands, "job", lambda _: job and Job(job))
    monkeypatch.setattr("time.sleep", wait)
    environment = SlurmEnvironment()
    if end == "killed":
        with pytest.raises(Killed):
            environment.leave("time limit")
    else:
        environment.leave("time limit")
    assert answers == []


def test_leaving_a_bad_node_keeps_the_job_off_the_users_nodes_too(monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "JobId=7 JobState=PENDING ExcNodeList=n7,m[1-3] Nodes=1\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert commands.exclude("7", ["n1", "n7"])
    assert asked[-1] == ("scontrol", "update", "jobid=7", "excnodelist=n7,m[1-3],n1")


@pytest.mark.parametrize(
    "line, nodes", [("JobId=7 ExcNodeList=(null)", None), ("JobId=7", None), ("ExcNodeList=n[1-2] NodeList=", "n[1-2]")]
)
def test_nodes_that_a_job_is_kept_off(line, nodes):
    assert answers.excluded(line) == nodes


def test_headings_of_clusters_are_no_jobs_and_no_nodes():
    header = "JOBID|STATE|REASON|NAME|COMMENT\n"
    listing = f"CLUSTER: a\n{header}1_0|RUNNING|None|fsr-x-1a2b|fsr 1a2b\n\nCLUSTER: b\n{header}"
    assert answers.queue_rows(listing) == [["1_0", "RUNNING", "None", "fsr-x-1a2b", "fsr 1a2b"]]
    assert answers.names("CLUSTER: a\nn1\nn2\n\nCLUSTER: b\nn1\n") == {"n1", "n2"}


@pytest.mark.parametrize(
    "row, limit",
    [
        ({"DefaultTime": "NONE", "MaxTime": "1-00:00:00"}, "1-00:00:00"),
        ({"DefaultTime": "01:00:00", "MaxTime": "1-00:00:00"}, "01:00:00"),
        ({"DefaultTime": "NONE", "MaxTime": "UNLIMITED"}, None),
        ({}, None),
    ],
)
def test_the_time_limit_of_a_partition(row, limit):
    assert answers.time_limit(row) == limit


@pytest.mark.parametrize("live, parallel, said", [(4, 4, False), (0, 1, False), (6, 4, True)])
def test_fewer_workers_than_there_are_stops_none_and_this_is_said(live, parallel, said):
    notes = more_than_parallel(live, parallel)
    assert bool(notes) == said
    if said:
        assert "6 workers are there, more than --parallel 4, and none is stopped; to stop 2 of them now" in notes[0]


def test_a_local_sweep_in_a_step_of_many_tasks_does_not_wait_for_other_ranks(variables, tmp_path):
    variables(*OF_JOBS, "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", *OF_TORCHRUN)
    (tmp_path / "data").mkdir()
    method = Path(__file__).parent / "launch_stub.py"
    numbers = ["--trials", "2", "--iterations", "5", "--cluster", "local", "--runs", tmp_path, "--data_folder"]
    command = [*sweep_command(method), "--study", "smoke", *numbers, tmp_path / "data"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, **surroundings(method))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    attempts = json.loads((tmp_path / "smoke" / "trial_0000" / "attempts.json").read_text())
    assert [(attempt["job"], attempt["ranks"]) for attempt in attempts] == [("local", 1)]


SAYS = """
from fsr.console import console
from fsr.errors import UserError, reports_user_errors
from rich.table import Table

@reports_user_errors
def main():
    table = Table("cause")
    table.add_row("preempted ×2 ± 3 …")
    console().print(table)
    print("×±…→é")
    raise UserError("got '×'")

main()
"""


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "TERM": "dumb"},
        {},
    ],
)
def test_a_terminal_without_unicode_is_shown_what_it_can_show(tmp_path, locale):
    (tmp_path / "says.py").write_text(SAYS, encoding="utf-8")
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("LC_", "LANG", "PYTHONIOENCODING"))}
    answer = subprocess.run([sys.executable, tmp_path / "says.py"], capture_output=True, env=plain | locale)
    assert answer.returncode == 2, answer.stderr
    assert b"Traceback" not in answer.stderr
    if "PYTHONIOENCODING" in locale or "PYTHONUTF8" in locale:
        assert b"preempted x2 +- 3 ..." in answer.stdout
        assert rb"x+-...->\xe9" in answer.stdout
        assert answer.stderr == b"error: got 'x'\n"
    else:
        assert "preempted ×2".encode() in answer.stdout


@pytest.mark.parametrize("program", ["sweep.py", "status.py", "doctor.py", "train.py voc", "infer.py"])
def test_help_is_shown_on_an_ascii_terminal(program):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    name, *more = program.split()
    command = [sys.executable, f"{root}/launch/{name}", *more, "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert answer.returncode == 0, answer.stderr
    assert "--study" in answer.stdout or "--sbatch" in answer.stdout or "--partition" in answer.stdout
