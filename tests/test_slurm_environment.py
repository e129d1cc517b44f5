"""A sweep on a real Slurm from inside a job, and with every variable of Slurm's commands set to nonsense: as ever."""

import json
import shlex
import subprocess
import sys
import time

import pytest
from slurm_cluster import MISSING, ROOT, Cluster, Sweep, available, wait_for

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)

SBATCH = """
ACCOUNT ACCTG_FREQ ARRAY_INX BATCH CLUSTERS CONSTRAINT CORE_SPEC CPUS_PER_GPU DEBUG DELAY_BOOT DISTRIBUTION ERROR
EXCLUSIVE EXPORT GET_USER_ENV GPUS GPUS_PER_NODE GPUS_PER_TASK GPU_BIND GPU_FREQ GRES GRES_FLAGS HINT IGNORE_PBS INPUT
JOB_NAME MEM_BIND MEM_PER_CPU MEM_PER_GPU MEM_PER_NODE NETWORK NO_KILL NO_REQUEUE OPEN_MODE OUTPUT OVERCOMMIT
PARTITION POWER PROFILE QOS REQUEUE REQ_SWITCH RESERVATION SIGNAL SPREAD_JOB THREADS_PER_CORE THREAD_SPEC TIMELIMIT
USE_MIN_NODES WAIT WAIT4SWITCH WAIT_ALL_NODES WCKEY
"""
SQUEUE = """
ACCOUNT ALL ARRAY FEDERATION FORMAT FORMAT2 LICENSES LOCAL NAMES PARTITION QOS SIBLING SORT STATES USERS
"""
SLURM = """
ACCOUNT BITSTR_LEN CONSTRAINT CPU_BIND CPUS_PER_TASK DEBUG_FLAGS DEPENDENCY DISTRIBUTION EXACT EXCLUSIVE EXIT_ERROR
EXPORT_ENV GPUS GRES HINT HOSTFILE JOB_NAME KILL_BAD_EXIT LABELIO MEM_PER_CPU MPI_TYPE NNODES NPROCS NTASKS
NTASKS_PER_NODE OPEN_MODE OVERCOMMIT PARTITION PROCID QOS RESERVATION STDERRMODE STDINMODE STDOUTMODE STEP_NUM_TASKS
TASKS_PER_NODE THREADS TIMELIMIT TIME_FORMAT UMASK WAIT WCKEY WORKING_DIR
"""
NONSENSE = {
    **{f"SBATCH_{name}": "nonsense" for name in SBATCH.split()},
    **{f"SQUEUE_{name}": "nonsense" for name in SQUEUE.split()},
    **{f"SLURM_{name}": "nonsense" for name in SLURM.split()},
    **{f"{tool}_{name}": "nonsense" for tool in ("SINFO", "SACCT", "SCONTROL") for name in ("ALL", "FORMAT", "LOCAL")},
    **{"SRUN_CPUS_PER_TASK": "nonsense", "SRUN_EXPORT_ENV": "NONE", "SRUN_CONTAINER": "/nowhere"},
    **{"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm_environment"))
    yield started
    started.down()


@pytest.fixture
def quick(sweep):
    """A study whose trials take a second."""
    sweep.set("step_s", 0.02)
    return sweep


def test_nonsense_in_every_variable_changes_nothing_and_is_said(quick):
    clean = quick.cluster.environment
    try:
        quick.cluster.environment = clean | NONSENSE
        output = quick.submit("--sbatch", "begin=now+1hour", trials=2)
        note = next(line for line in output.splitlines() if line.startswith("note: not passed on to Slurm"))
        assert {"SBATCH_PARTITION", "SQUEUE_FORMAT", "SLURM_HINT"} <= set(note.partition("are): ")[2].split(", "))
        assert output.count("SBATCH_PARTITION") == 1
        assert "0 workers in 0 sbatch calls; 2 were there already" in quick.submit(trials=2)
        assert sum(quick.status()["queue"].values()) == 2
        doctor = [sys.executable, ROOT / "launch" / "doctor.py", "--partition", "low"]
        answer = subprocess.run(doctor, capture_output=True, text=True, env=quick.cluster.environment)
        assert "note: not passed on to Slurm" in answer.stdout
        assert (answer.returncode, "SIGTERM, 5 s later SIGKILL and requeue" in answer.stdout) == (0, True)
    finally:
        quick.cluster.environment = clean
    jobs = quick.cluster.ask("squeue", "--noheader", "--array", "--format=%P %j").splitlines()
    assert [job.split()[0] for job in jobs] == ["low", "low"]
    assert "nonsense" not in "".join(jobs)
    quick.finish(2)
    assert {attempt["ranks"] for number in (0, 1) for attempt in quick.attempts(number)} == {1}


def test_a_sweep_from_inside_an_allocation_is_submitted_as_from_outside(quick):
    inside = ["salloc", "--quiet", "--partition=main", "--nodes=2", "--ntasks=4", "--mem=100M", "--time=5"]
    step = ["srun", "--overlap", "--ntasks=1", "--nodes=1"]
    for command in (inside, [*inside, *step]):  # as salloc's shell, and as `srun --pty` in it
        answer = quick.run([*command, *quick.command("--detach", trials=2)])
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "were there already" in answer.stdout  # or have been: the second may come after their last trial
        assert "not passed on" not in answer.stdout  # nobody had asked for any of it
    wait_for(lambda: quick.attempts(0))
    assert quick.attempts(0)[0]["ranks"] == 1
    batch = quick.cluster.ask("scontrol", "show", "job", "-o", quick.job_of(0)).split()
    assert {"Partition=low", "NumNodes=1", "NumTasks=1"} <= set(batch)
    assert "TimeLimit=00:05:00" not in batch
    quick.finish(2)


def test_the_users_options_reach_the_job(quick):
    quick.set("step_s", 0.2)
    options = (
        "--sbatch",
        "comment=project 7",
        "--sbatch",
        "cpus-per-task=3",
        "--sbatch",
        "x=n2",
        "--sbatch",
        "exclusive",
        "--sbatch",
        "t=7",
    )
    quick.submit(*options, trials=1, parallel=1)
    wait_for(lambda: quick.attempts(0))
    job = quick.cluster.ask("scontrol", "show", "job", "-o", quick.job_of(0)).split()
    assert {"CPUs/Task=3", "ExcNodeList=n2", "OverSubscribe=NO", "TimeLimit=00:07:00"} <= set(job)
    assert any(word.startswith("MinMemoryNode=300M") for word in job)  # of the first --sbatch
    assert "Comment=project" in job
    assert "1 were there already" in quick.submit(trials=1, parallel=1)
    quick.finish(1)


def test_a_python_that_the_nodes_lack_is_told_in_one_sentence(quick):
    code = "import sys; from launch.sweep import main; sys.executable = '/nowhere/my venv/python'; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *quick.command(trials=1, parallel=1)[2:]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **quick.surroundings) as sweep:
        while sweep.poll() is None:  # the job moves to a second node first
            quick.cluster.release()
            time.sleep(1)
        errors = sweep.stderr.read()
    assert (sweep.returncode, errors.count("\n")) == (2, 1), errors
    assert "has no /nowhere/my venv/python; the runs folder and the Python environment must be" in errors


def test_a_folder_with_spaces_and_quotes_is_known_again_and_its_command_can_be_pasted(sweep):
    odd = Sweep(sweep.cluster, sweep.folder / 'it\'s "my" $HOME #1')
    output = odd.submit("--sbatch", "begin=now+1days", trials=1, parallel=1)
    assert "0 workers in 0 sbatch calls; 1 were there already" in odd.submit(trials=1, parallel=1)
    command = next(line for line in output.splitlines() if line.startswith("look at it: ")).removeprefix("look at it: ")
    words = shlex.split(command)
    answer = odd.run([*words, "--json"])
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["queue"] == {"PENDING": 1}
