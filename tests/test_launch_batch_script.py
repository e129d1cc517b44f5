"""The text of the batch script, against golden files that are read by people; and how it is submitted."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fsr.config import synthetic, voc
from fsr.errors import UserError
from launch import submit
from launch.slurm import batch_script, commands
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.paths import StudyFolder

GOLDEN = Path(__file__).parent / "golden_scripts"
FOLDER = StudyFolder(Path("/shared/my runs/mask_ratio"))
SETTING = {"partition": "gpu", "account": "vision", "qos": "high", "constraint": "a100|h100", "time_limit": "12:00:00"}
SCRIPTS = {
    "plain": (Resources(), synthetic(), 2, []),
    "gpus": (Resources(gpus=4, **SETTING, sbatch=("mem=64G", "reservation=mine")), voc(), 8, ["n1", "n7"]),
    "nodes": (Resources(gpus=8, nodes=2, partition="gpu"), replace(voc(), ranks=8), 1, []),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_the_golden_one(name, monkeypatch):
    resources, config, count, exclude = SCRIPTS[name]
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    text = batch_script.script("fsr-mask_ratio", count, FOLDER, resources, replace(config, workers=3), exclude)
    assert text == (GOLDEN / f"{name}.sh").read_text(), (
        "the batch script has changed: by us, or because submitit's private _make_sbatch_string did in a new version; "
        f"if it is meant, write it to {GOLDEN / f'{name}.sh'}"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_understands_the_script(name):
    assert subprocess.run(["bash", "-n", GOLDEN / f"{name}.sh"]).returncode == 0


def loop_of(folder, work, after_crash):
    """Exit code and number of starts of the golden script with other commands in the place of the ranks' and ours."""
    text = (GOLDEN / "plain.sh").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("cd ")]
    lines = [f"echo >> starts; {work}" if line.startswith("srun ") else line for line in lines]
    script = "\n".join(lines).replace("/venv/bin/python -m launch.worker.after_crash", after_crash)
    code = subprocess.run(["bash", "-c", script], cwd=folder).returncode
    return code, len((folder / "starts").read_text().splitlines())


def test_the_script_ends_well_when_its_ranks_do(tmp_path):
    assert loop_of(tmp_path, "true", "false") == (0, 1)


def test_the_script_starts_the_ranks_again_when_the_rules_say_so(tmp_path):
    assert loop_of(tmp_path, "[ $(wc -l < starts) -ge 3 ]", "true") == (0, 3)


def test_the_script_fails_when_the_rules_say_no(tmp_path):
    assert loop_of(tmp_path, "false", "false") == (1, 1)


def test_the_rules_are_asked_with_job_spec_exit_code_and_number_of_the_start(tmp_path):
    (tmp_path / "ask").write_text('#!/bin/sh\necho "$1 $2 $4" >> asked\n[ $4 -lt 2 ]\n')
    (tmp_path / "ask").chmod(0o755)
    assert loop_of(tmp_path, "(exit 75)", "./ask") == (1, 2)
    spec = FOLDER.job_spec_file
    assert (tmp_path / "asked").read_text() == f"{spec} 75 1\n{spec} 75 2\n"


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm that has no jobs of ours, a limit and largest array as given, and good nodes."""

    def answering(jobs=(), limit=None, largest="1001", own=0):
        monkeypatch.setattr(Queue, "jobs", lambda self: None if jobs is None else dict.fromkeys(jobs, "RUNNING"))
        monkeypatch.setattr(commands, "submit_limit", lambda: limit)
        monkeypatch.setattr(commands, "own_jobs", lambda: own)
        monkeypatch.setattr(commands, "settings", lambda: {"MaxArraySize": largest})
        monkeypatch.setattr(commands, "partition_nodes", lambda partition: {"n1", "n2"})

    return answering


def arrays(submission):
    return [line for text in submission.scripts for line in text.splitlines() if "--array" in line]


def test_an_array_is_split_where_the_cluster_demands_it(slurm, tmp_path):
    slurm(largest="4")
    submission = submit.prepare(StudyFolder(tmp_path), 10, Resources(), synthetic())
    assert arrays(submission) == ["#SBATCH --array=0-3%4", "#SBATCH --array=0-3%4", "#SBATCH --array=0-1%2"]
    assert submission.workers == 10


def test_only_workers_that_are_not_there_are_submitted(slurm, tmp_path):
    slurm(jobs=("1_0", "1_1"))
    assert submit.prepare(StudyFolder(tmp_path), 3, Resources(), synthetic()).workers == 1
    assert submit.prepare(StudyFolder(tmp_path), 2, Resources(), synthetic()).scripts == []


def test_no_more_than_the_account_may_have_and_it_is_said(slurm, tmp_path):
    slurm(limit=5, own=3)
    submission = submit.prepare(StudyFolder(tmp_path), 8, Resources(), synthetic())
    assert submission.workers == 2
    assert submission.notes == ["your account may have 5 jobs in the queue: 2 workers are started, not 8"]


def test_a_queue_that_does_not_answer_is_not_an_empty_one(slurm, tmp_path):
    slurm(jobs=None)
    with pytest.raises(UserError, match="squeue does not answer"):
        submit.prepare(StudyFolder(tmp_path), 1, Resources(), synthetic())


def test_what_sbatch_refuses_is_told_in_its_words(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        UserError, match=r"sbatch refuses .*script\.sh: sbatch: error: invalid partition specified: nope"
    ):
        batch_script.sbatch("#!/bin/bash\n", tmp_path / "script.sh")
