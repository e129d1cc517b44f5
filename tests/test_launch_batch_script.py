"""The text of the batch script, against golden files that are read by people; and how it is submitted."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fsr.config import synthetic, voc
from fsr.errors import UserError
from launch import submit
from launch.slurm import batch_script, commands, environment
from launch.slurm.answers import Limit, QueuedJob
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.paths import StudyFolder

GOLDEN = Path(__file__).parent / "golden_scripts"
FOLDER = StudyFolder(Path("/shared/my runs/mask_ratio"))
CODE, SPEC = FOLDER.code.snapshot("0123456789ab"), FOLDER.slurm / "submission_0001.json"
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
    monkeypatch.setattr(StudyFolder, "identity", "1a2b3c4d")
    text = batch_script.script(count, FOLDER, CODE, SPEC, resources, replace(config, workers=3), exclude)
    assert text == (GOLDEN / f"{name}.sh").read_text(), (
        "the batch script has changed: by us, or because submitit's private _make_sbatch_string did in a new version; "
        f"if it is meant, write it to {GOLDEN / f'{name}.sh'}"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_understands_the_script(name):
    assert subprocess.run(["bash", "-n", GOLDEN / f"{name}.sh"]).returncode == 0


def lines_of(config=None, exclude=(), **resources):
    text = batch_script.script(2, FOLDER, CODE, SPEC, Resources(**resources), config or synthetic(), list(exclude))
    return text.splitlines()


def asked(lines, *names):
    """The lines that ask for these options."""
    return [line for line in lines if line.startswith(tuple(f"#SBATCH --{name}" for name in names))]


@pytest.mark.parametrize(
    "resources, names, expected",
    [
        ({"sbatch": ("cpus-per-task=8",)}, ("cpus",), ["#SBATCH --cpus-per-task=8"]),
        ({"sbatch": ("c=8",)}, ("cpus",), ["#SBATCH --cpus-per-task=8"]),
        ({"sbatch": ("cpus-per-gpu=8",), "gpus": 1}, ("cpus",), ["#SBATCH --cpus-per-task=8"]),
        ({"sbatch": ("time=60",)}, ("time",), ["#SBATCH --time=60"]),
        ({"sbatch": ("time-min=60",)}, ("time",), ["#SBATCH --time-min=60"]),
        ({}, ("time", "gpus", "gres"), []),
        (
            {"gpus": "a100:4"},
            ("gpus", "gres", "ntasks"),
            ["#SBATCH --gpus-per-node=a100:4", "#SBATCH --ntasks-per-node=4"],
        ),
        (
            {"sbatch": ("gres=gpu:a100:2",), "nodes": 2},
            ("gpus", "gres", "nodes", "ntasks"),
            ["#SBATCH --gres=gpu:a100:2", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=2"],
        ),
        (
            {"sbatch": ("gpus-per-task=1",), "gpus": 4},
            ("gpus", "gres", "ntasks"),
            ["#SBATCH --gpus-per-task=1", "#SBATCH --ntasks-per-node=4"],
        ),
        (
            {"sbatch": ("gpus-per-node=0",), "gpus": 4},
            ("gpus", "gres", "ntasks"),
            ["#SBATCH --ntasks-per-node=4"],
        ),
        ({"sbatch": ("exclusive",)}, ("exclusive",), ["#SBATCH --exclusive"]),
        ({"sbatch": ("exclusive=user",)}, ("exclusive",), ["#SBATCH --exclusive=user"]),
        ({"sbatch": ("wckey=a #b",)}, ("wckey",), ["#SBATCH --wckey='a #b'"]),
    ],
)
def test_each_option_stands_in_the_script_once_and_as_the_user_gave_it(resources, names, expected):
    assert asked(lines_of(**resources), *names) == expected


@pytest.mark.parametrize(
    "bad, option, expected",
    [
        ([], (), []),
        (["n1"], (), ["#SBATCH --exclude=n1"]),
        ([], ("exclude=n7",), ["#SBATCH --exclude=n7"]),
        (["n1", "n7"], ("x=n7,m[1-3]",), ["#SBATCH --exclude='n7,m[1-3],n1'"]),
    ],
)
def test_bad_nodes_are_excluded_beside_those_of_the_user(bad, option, expected):
    assert asked(lines_of(exclude=bad, sbatch=option), "exclude") == expected


def prepared(folder, python, command):
    """Exit code, errors and mistakes of a script's setup in a folder, with a command in the place of the ranks."""
    study = StudyFolder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        script = "\n".join([*batch_script.setup(study, study.folder / "code", 2)[:-1], command])
    variables = {"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, env=variables)
    return answer.returncode, answer.stdout + answer.stderr, study.mistakes()


def test_python_with_spaces_in_its_path_is_started(tmp_path):
    (tmp_path / "my venv").mkdir()
    python = tmp_path / "my venv" / "python"
    python.symlink_to(sys.executable)
    folder = tmp_path / "my runs" / "x"
    (folder / "code").mkdir(parents=True)
    command = 'echo "$PYTHONPATH $SRUN_CPUS_PER_TASK $FSR_GPUS"'
    assert prepared(folder, python, command) == (0, f"{folder / 'code'} 3 2\n", [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        line = next(line for line in lines_of() if line.startswith("srun "))
    assert f"'{python}' -u -m launch.worker.main" in line


@pytest.mark.parametrize("lacking", ["python", "code"])
def test_what_a_node_lacks_is_told_in_one_sentence_to_its_log_and_to_the_sweep(tmp_path, lacking):
    if lacking == "python":
        (tmp_path / "code").mkdir()
    code, said, mistakes = prepared(tmp_path, tmp_path / "no python", "echo not reached")
    what = f"has no {tmp_path / 'no python'}" if lacking == "python" else f"cannot enter {tmp_path / 'code'}"
    sentence = (
        f"node n1 {what}; the runs folder and the Python environment must be on a file system that all nodes share"
    )
    assert (code, said, mistakes) == (2, f"error: {sentence}\n", [sentence])


def test_packages_of_a_loaded_module_come_after_the_code_of_the_study_and_other_checkouts_do_not_come(
    monkeypatch, tmp_path
):
    for folder in ("site packages", "checkout/fsr", "old/launch", "more"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site packages'}:{tmp_path / 'checkout'}:{tmp_path / 'old'}::more")
    packages = [str(tmp_path / "site packages"), str(tmp_path / "more")]
    assert environment.foreign_packages() == packages
    assert f"export PYTHONPATH=$PWD:'{packages[0]}':{packages[1]}" in lines_of()


def loop_of(folder, work, after_crash):
    """Exit code and number of starts of the golden script with other commands in the place of the ranks' and ours."""
    text = (GOLDEN / "plain.sh").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("cd ", "[ -x "))]
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
    assert (tmp_path / "asked").read_text() == f"{SPEC} 75 1\n{SPEC} 75 2\n"


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm that has no jobs of ours, a limit and largest array as given, and good nodes."""

    def answering(jobs=(), limit=None, largest="1001", own=0):
        there = None if jobs is None else dict.fromkeys(jobs, QueuedJob("RUNNING"))
        limits = [] if limit is None else [Limit(limit, "your account", ())]
        monkeypatch.setattr(Queue, "jobs", lambda self: there)
        monkeypatch.setattr(commands, "submit_limits", lambda *where: limits)
        monkeypatch.setattr(commands, "jobs_that_count", lambda limit: own)
        monkeypatch.setattr(commands, "settings", lambda: {"MaxArraySize": largest})
        monkeypatch.setattr(commands, "partition_nodes", lambda partition: {"n1", "n2"})

    return answering


def arrays(submission, folder):
    texts = submit.scripts(submission, folder, Resources(), synthetic())
    return [line for text in texts for line in text.splitlines() if "--array" in line]


def test_an_array_is_split_where_the_cluster_demands_it(slurm, tmp_path):
    slurm(largest="4")
    folder = StudyFolder(tmp_path)
    submission = submit.prepare(folder, 10, Resources())
    assert arrays(submission, folder) == [
        "#SBATCH --array=0-3%4",
        "#SBATCH --array=0-3%4",
        "#SBATCH --array=0-1%2",
    ]
    assert submission.workers == 10


def test_only_workers_that_are_not_there_are_submitted(slurm, tmp_path):
    slurm(jobs=("1_0", "1_1"))
    assert submit.prepare(StudyFolder(tmp_path), 3, Resources()).workers == 1
    assert submit.prepare(StudyFolder(tmp_path), 2, Resources()).sizes == []


def test_no_more_than_the_account_may_have_and_it_is_said(slurm, tmp_path):
    slurm(limit=5, own=3)
    submission = submit.prepare(StudyFolder(tmp_path), 8, Resources())
    assert submission.workers == 2
    assert submission.notes == ["your account may have 5 jobs in the queue: 2 workers are started, not 8"]


@pytest.mark.parametrize("name", ["50%j", "line\nbreak", "back\\slash"])
def test_a_path_that_slurm_reads_as_something_else_is_refused(slurm, tmp_path, name):
    slurm()
    with pytest.raises(UserError, match="Slurm cannot write logs below a path with %, a backslash or a line break"):
        submit.prepare(StudyFolder(tmp_path / name), 1, Resources())


def test_a_queue_that_does_not_answer_is_not_an_empty_one(slurm, tmp_path):
    slurm(jobs=None)
    with pytest.raises(UserError, match="squeue does not answer"):
        submit.prepare(StudyFolder(tmp_path), 1, Resources())


def test_what_sbatch_refuses_is_told_in_its_words(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        UserError, match=r"sbatch refuses .*script\.sh: sbatch: error: invalid partition specified: nope"
    ):
        batch_script.sbatch("#!/bin/bash\n", tmp_path / "script.sh")
