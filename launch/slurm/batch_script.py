"""The batch script of a Slurm job, and submitting it."""

import re
import shlex
import sys
from pathlib import Path

from submitit.slurm.slurm import _make_sbatch_string

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from fsr.files import write_atomically
from fsr.inference.config import InferConfig
from launch.slurm import commands, sbatch_options
from launch.slurm.environment import foreign_packages
from launch.slurm.resources import Resources
from launch.slurm.sbatch_options import CORES, GPUS
from launch.state.paths import LaunchFolder


def script(
    count: int,
    folder: LaunchFolder,
    code: Path,
    spec_file: Path,
    resources: Resources,
    config: TrainConfig | InferConfig,
    exclude: list[str],
) -> str:
    """The batch script of an array of `count` workers, each a step of one process a GPU (or a node) in a loop.

    The loop restarts the ranks when one of them died and the rules allow it; beside them a watchdog ends those that
    hang. SIGUSR2 goes to the ranks some time before the time limit, and Slurm may requeue the job. `code` is the folder
    of the code snapshot.
    """
    python, file, locks = (shlex.quote(str(path)) for path in (sys.executable, spec_file, folder.locks))
    gpus = resources.gpus_for(config)
    options = resources.sbatch_options()
    cores = sbatch_options.cores(options, config.cores, gpus)
    limit = options.pop("time", resources.time_limit)
    own = {name: value for name, value in options.items() if name not in (*CORES, *GPUS, "exclude")}
    asked: dict[str, str | None] = {"requeue": None, "time": limit} | own | resources.gpu_lines(gpus)
    text = _make_sbatch_string(
        command=f"{python} -u -m launch.worker.main {file}",
        folder=folder.slurm,
        job_name=folder.job_name,
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        exclude=commands.union(options.get("exclude"), exclude) or None,
        nodes=resources.nodes,
        ntasks_per_node=max(1, gpus // resources.nodes),
        cpus_per_task=cores,  # type: ignore[arg-type]  # submitit writes it as it is
        comment=folder.comment,
        wckey=None,  # type: ignore[arg-type]  # submitit leaves the line out for None
        signal_delay_s=resources.signal_before_s,
        map_count=count,
        array_parallelism=count,
        additional_parameters={name: True if value is None else value for name, value in asked.items()},
        srun_args=["--kill-on-bad-exit=1"],
        setup=setup(folder, code, gpus),
        teardown=[
            "}",
            "for ((start = 1; ; start++)); do",
            "  started=$(date +%s)",
            # No signal that tells the ranks to save ends the watchdog.
            f"  (trap '' TERM INT HUP USR1 USR2; exec {python} -m launch.worker.watchdog {locks} $((start - 1))) &",
            "  watchdog=$!",
            "  start_ranks; code=$?",
            "  { kill -KILL $watchdog; wait $watchdog; } 2>/dev/null",
            "  [ $code = 0 ] && exit 0",
            f'  {python} -m launch.worker.after_crash {file} "$code" "$started" "$start" || exit 1',
            "done",
        ],
    )
    # submitit always sets a limit; without one asked for, the partition's own is to hold.
    return text if limit else re.sub(r"#SBATCH --time\n", "", text)


def setup(folder: LaunchFolder, snapshot: Path, gpus: int) -> list[str]:
    """What the script does before it starts ranks. What is missing on a node is told in one sentence, to the sweep too.

    Ranks import the code snapshot before all else. srun reads the cores of a rank from a variable of its own. A rank
    that was promised a GPU must not work on the CPU in silence, and Slurm knows nothing of some clusters' GPUs.
    """
    code, python, mistakes = str(snapshot), sys.executable, shlex.quote(str(folder.mistakes_folder))
    shared = "the runs folder and the Python environment must be on a file system that all nodes share"
    return [
        "mistake() {",
        '  echo "error: node $SLURMD_NODENAME $1" >&2',
        f"  mkdir -p {mistakes} 2>/dev/null &&",
        f'    printf "node %s %s" "$SLURMD_NODENAME" "$1" >{mistakes}/"$SLURM_JOB_ID"',
        f"  exit {int(ExitCode.MISTAKE)}",
        "}",
        f"cd {shlex.quote(code)} 2>/dev/null || mistake {shlex.quote(f'cannot enter {code}; {shared}')}",
        f"[ -x {shlex.quote(python)} ] || mistake {shlex.quote(f'has no {python}; {shared}')}",
        f"export PYTHONPATH={':'.join(['$PWD', *map(shlex.quote, foreign_packages())])}",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        f"export FSR_GPUS={gpus}",
        "start_ranks() {",
    ]


def check_path(folder: Path) -> None:
    """Raise UserError for a folder whose path Slurm reads as something else, in the names of its jobs' logs.

    Slurm 22.05 expands `%j` also where it is escaped (`%%j`), in job arrays.
    """
    if re.search(r"[\n\r\\%]", str(folder)):
        raise UserError(
            f"Slurm cannot write logs below a path with %, a backslash or a line break, got {str(folder)!r}; "
            "take another --runs folder"
        )


def sbatch(text: str, file: Path) -> str:
    """Submit a batch script, which is kept as `file`; returns the array's id. Raises UserError with Slurm's words."""
    write_atomically(file, text.encode("utf-8", "surrogateescape"))
    answer = commands.run("sbatch", "--parsable", str(file), patience_s=None)
    if answer is None:
        raise UserError(f"there is no sbatch to submit {file}")
    if answer.returncode:
        raise UserError(f"sbatch refuses {file}: {' '.join(answer.stderr.split())}")
    return answer.stdout.split(";")[0].strip()
