"""The text of the batch script, against golden files that are read by people; and how it is submitted."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_cluster import wait_for

from fsr.config import synthetic, voc
from fsr.errors import UserError
from launch import submit
from launch.slurm import bad_nodes, batch_script, commands, environment
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
        script = "\n".join([*batch_script.setup(study, study.folder / "code", 2, ""), command])
    path = f"{folder.parent / 'bin'}:/usr/bin:/bin"
    variables = {"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "PATH": path}
    array = {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_PARTITION": "gpu"}
    command = ["timeout", "2", "/bin/bash", "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, env=variables | array)
    logs = "".join(file.read_text() for file in sorted(study.slurm.glob("6_1_0_log.*")))
    return answer.returncode, answer.stdout + answer.stderr + logs, study.mistakes()


def slurm_that(folder, nodes, excluded="(null)"):
    """Commands of a Slurm for `prepared`: its nodes, and what the job is kept off. The file of what they are told."""
    (folder.parent / "bin").mkdir()
    show = f"echo 'JobId=7 ReqNodeList=(null) ExcNodeList={excluded} NodeList=n1'"
    words = {
        "sinfo": f"printf '%s\\n' {nodes}",
        "scontrol": f'echo "$@" >>{folder.parent}/told; [ $1 != show ] || {show}',
    }
    for name, command in words.items():
        (folder.parent / "bin" / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder.parent / "bin" / name).chmod(0o755)
    return folder.parent / "told"


def test_python_with_spaces_in_its_path_is_started(tmp_path):
    (tmp_path / "my venv").mkdir()
    python = tmp_path / "my venv" / "python"
    python.symlink_to(sys.executable)
    folder = tmp_path / "my runs" / "x"
    (folder / "code").mkdir(parents=True)
    (folder / "slurm").mkdir()
    command = 'echo "$PYTHONPATH $SRUN_CPUS_PER_TASK $FSR_GPUS"'
    assert prepared(folder, python, command) == (0, f"{folder / 'code'} 3 2\n", [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        line = next(line for line in lines_of() if line.startswith("srun "))
    assert f"'{python}' -u -m launch.worker.main" in line


def lacks(tmp_path, lacking):
    """A study's folder where a node finds no Python, or no code."""
    folder = tmp_path / "x"
    (folder / "slurm").mkdir(parents=True)
    if lacking == "python":
        (folder / "code").mkdir()
    return folder


def test_a_job_moves_off_the_node_that_lacks_something_while_there_are_others(tmp_path):
    folder = lacks(tmp_path, "python")
    told = slurm_that(folder, "n1 n2")
    code, _, mistakes = prepared(folder, tmp_path / "no python", "echo not reached")
    assert (code, mistakes) == (124, [])  # it waits to be killed
    assert told.read_text().splitlines()[1:3] == ["requeue 6_1", "update jobid=6_1 excnodelist=n1"]
    assert bad_nodes.bad_nodes(StudyFolder(folder)) == ["n1"]


@pytest.mark.parametrize("nodes, excluded", [("n1", "(null)"), ("n1 n2 n3", "n2")])
def test_what_is_missing_on_the_only_node_or_on_two_is_the_users_mistake(tmp_path, nodes, excluded):
    folder = lacks(tmp_path, "python")
    bad_nodes.mark_lacks(StudyFolder(folder), "n2")
    told = slurm_that(folder, nodes, excluded)
    code, _, mistakes = prepared(folder, tmp_path / "no python", "echo not reached")
    assert (code, len(mistakes)) == (2, 1)
    assert "requeue" not in told.read_text()
    assert bad_nodes.bad_nodes(StudyFolder(folder)) == []  # so it is no fault of theirs


def test_a_node_without_the_runs_folder_gets_no_files_in_its_place(tmp_path):
    code, said, mistakes = prepared(tmp_path / "mount" / "x", sys.executable, "echo not reached")
    assert (code, mistakes) == (2, [])
    assert "cannot enter" in said
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize("lacking", ["python", "code"])
def test_what_a_node_lacks_is_told_in_one_sentence_to_its_log_and_to_the_sweep(tmp_path, lacking):
    folder = lacks(tmp_path, lacking)
    code, said, mistakes = prepared(folder, tmp_path / "no python", "echo not reached")
    what = f"has no {tmp_path / 'no python'}" if lacking == "python" else f"cannot enter {folder / 'code'}"
    sentence = (
        f"node n1 {what}; the runs folder and the Python environment must be on a file system that all nodes share"
    )
    assert (code, mistakes) == (2, [sentence])
    assert f"error: {sentence}\n" in said


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


def loop_of(folder, work, answer, signal=None):
    """Exit code and number of starts of the golden script with other commands in the place of the ranks' and ours.

    The command `answer` decides by `$code`, `$start` and `$signals`, which are in the file `asked`. The script gets a
    signal once there is a file `up`.
    """
    (folder / "ask").write_text(f'#!/bin/bash\ncode=$2 start=$4; echo "$1 $2 ${{@:4}}" >>asked; {answer}\n')
    (folder / "ask").chmod(0o755)
    (folder / "work").write_text(f"#!/bin/bash\necho >>starts; {work}\n")
    (folder / "work").chmod(0o755)
    (folder / "starts").touch()
    text = (GOLDEN / "plain.sh").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("cd ", "[ -x ", "exec ", "log="))]
    lines = ["./work & ranks=$!" if line.startswith("srun ") else line for line in lines]
    script = "\n".join(lines).replace("/venv/bin/python -m launch.worker.after_crash", "./ask")
    script = script.replace("/venv/bin/python -m launch.worker.watchdog", "true")
    process = subprocess.Popen(["bash", "-c", script], cwd=folder)
    if signal:
        wait_for((folder / "up").exists)
        process.send_signal(signal)
    return process.wait(timeout=20), len((folder / "starts").read_text().splitlines())


def asked_of(folder):
    return [line.removeprefix(f"{SPEC} ") for line in (folder / "asked").read_text().splitlines()]


def test_the_script_ends_well_when_its_ranks_do(tmp_path):
    assert loop_of(tmp_path, "true", "exit 0") == (0, 1)


def test_the_script_starts_the_ranks_again_when_the_rules_say_so(tmp_path):
    assert loop_of(tmp_path, "[ $(wc -l < starts) -ge 3 ]", "exit 75") == (0, 3)


def test_the_script_fails_when_the_rules_say_no(tmp_path):
    assert loop_of(tmp_path, "false", "exit 0") == (1, 1)


def test_the_script_ends_with_2_for_a_mistake_of_the_user(tmp_path):
    assert loop_of(tmp_path, "exit 2", "exit 2") == (2, 1)


def test_the_rules_are_asked_with_job_spec_exit_code_and_number_of_the_start(tmp_path):
    assert loop_of(tmp_path, "exit 75", "[ $start = 2 ] || exit 75") == (1, 2)
    assert asked_of(tmp_path) == ["75 1", "75 2"]


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_the_script_outlives_a_signal_and_its_ranks_and_tells_the_rules_of_it(tmp_path, name):
    work = "touch up; sleep 0.2; exit 7"
    assert loop_of(tmp_path, work, "exit 0", getattr(signal, f"SIG{name}")) == (1, 1)
    assert asked_of(tmp_path) == [f"7 1 {name}"]


def test_ranks_that_end_well_after_a_signal_end_the_job_well(tmp_path):
    assert loop_of(tmp_path, "touch up; sleep 0.2", "exit 0", signal.SIGTERM) == (0, 1)


def test_the_notice_before_the_time_limit_is_passed_on_to_the_ranks(tmp_path):
    work = "trap 'exit 9' USR2; touch up; while :; do sleep 0.1; done"
    assert loop_of(tmp_path, work, "exit 0", signal.SIGUSR2) == (1, 1)
    assert asked_of(tmp_path) == ["9 1 USR2"]


def test_no_ranks_are_started_after_a_signal_that_came_while_the_rules_were_asked(tmp_path):
    answer = "touch up; sleep 0.2; [ -e again ] && exit 0; touch again; exit 75"
    assert loop_of(tmp_path, "exit 1", answer, signal.SIGTERM) == (1, 1)
    assert asked_of(tmp_path) == ["1 1", "0 2 TERM"]


def test_a_signal_that_the_rules_make_nothing_of_is_forgotten(tmp_path):
    work = "touch up; sleep 0.2; [ $(wc -l < starts) -ge 2 ]"
    assert loop_of(tmp_path, work, "exit 75", signal.SIGTERM) == (0, 2)
    assert asked_of(tmp_path) == ["1 1 TERM"]


def test_who_decides_does_not_die_of_the_signals(tmp_path):
    answer = "touch up; for name in TERM INT HUP USR2; do kill -$name $$; done; exit 0"
    assert loop_of(tmp_path, "exit 1", answer) == (1, 1)


def test_a_node_that_cannot_run_the_code_is_told(tmp_path):
    assert loop_of(tmp_path, "exit 1", "exit 1") == (2, 1)


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
