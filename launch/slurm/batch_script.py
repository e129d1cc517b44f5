"""The batch script of a Slurm job, and submitting it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from submitit.slurm.slurm import _make_sbatch_string

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import write_atomically
from fsr.inference.config import InferConfig
from launch.slurm.resources import Resources
from launch.state.paths import LaunchFolder


def script(
    name: str,
    count: int,
    folder: LaunchFolder,
    resources: Resources,
    config: TrainConfig | InferConfig,
    exclude: list[str],
) -> str:
    """The batch script of an array of `count` workers, each a step of one process a GPU (or a node) in a loop.

    The loop restarts the ranks when one of them died and the rules allow it. SIGUSR2 goes to the ranks some time before
    the time limit, and Slurm may requeue the job.
    """
    python, file = shlex.quote(sys.executable), shlex.quote(str(folder.job_spec_file))
    gpus = resources.gpus_for(config) // resources.nodes
    text = _make_sbatch_string(
        command=f"{python} -u -m launch.worker.main {file}",
        folder=folder.slurm,
        job_name=name,
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        exclude=",".join(exclude) or None,
        nodes=resources.nodes,
        ntasks_per_node=max(1, gpus),
        gpus_per_node=gpus or None,
        cpus_per_task=config.cores,
        comment=folder.comment,
        wckey=None,  # type: ignore[arg-type]  # submitit leaves the line out for None
        signal_delay_s=resources.signal_before_s,
        map_count=count,
        array_parallelism=count,
        additional_parameters={"requeue": True, "time": resources.time_limit} | resources.sbatch_options(),
        srun_args=["--kill-on-bad-exit=1"],
        setup=[f"cd {shlex.quote(str(folder.code))} || exit 1", "export PYTHONPATH=$PWD", "start_ranks() {"],
        teardown=[
            "}",
            "for ((start = 1; ; start++)); do",
            "  started=$(date +%s)",
            "  start_ranks && exit 0",
            f'  {python} -m launch.worker.after_crash {file} "$?" "$started" "$start" || exit 1',
            "done",
        ],
    )
    # submitit always sets a limit; without one asked for, the partition's own is to hold.
    return text if resources.time_limit else re.sub(r"#SBATCH --time=.*\n", "", text)


def sbatch(text: str, file: Path) -> str:
    """Submit a batch script, which is kept as `file`; returns the array's id. Raises UserError with Slurm's words."""
    write_atomically(file, text.encode())
    answer = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True)
    if answer.returncode:
        raise UserError(f"sbatch refuses {file}: {' '.join(answer.stderr.split())}")
    return answer.stdout.split(";")[0].strip()
