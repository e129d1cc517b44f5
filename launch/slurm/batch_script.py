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
from launch.slurm.bad_nodes import LACKS
from launch.slurm.environment import foreign_packages
from launch.slurm.resources import Resources
from launch.slurm.sbatch_options import CORES, GPUS
from launch.state.paths import LaunchFolder

SHARED = "the runs folder and the Python environment must be on a file system that all nodes share"


def script(
    count: int,
    folder: LaunchFolder,
    code: Path,
    spec_file: Path,
    resources: Resources,
    config: TrainConfig | InferConfig,
    exclude: list[str],
    logs_apart: bool = False,
) -> str:
    """The batch script of an array of `count` workers, each a step of one process a GPU (or a node) in a loop.

    The script outlives its ranks, whatever signal comes when: `launch.worker.after_crash` decides what follows their
    end, and the loop starts them again where it says so. A watchdog beside the ranks ends those that hang. SIGUSR2 goes
    to the script some time before the time limit, as there may be no ranks just then; it passes it on. Slurm may
    requeue the job. `code` is the folder of the code snapshot. With `logs_apart` the logs of the array have a folder of
    their own, and a mistake that all of its jobs find is told once.
    """
    python, file, locks = (shlex.quote(str(path)) for path in (sys.executable, spec_file, folder.locks))
    gpus = resources.gpus_for(config)
    options = resources.sbatch_options()
    cores = sbatch_options.cores(options, config.cores, gpus)
    limit = options.pop("time", resources.time_limit)
    own = {name: value for name, value in options.items() if name not in (*CORES, *GPUS, "exclude")}
    asked: dict[str, str | None] = {"requeue": None, "time": limit} | own | resources.gpu_lines(gpus)
    # Where Slurm cannot open a job's log, the job is gone without a word. The script opens it, and can tell.
    asked |= {"output": "/dev/null", "error": "/dev/null", "signal": f"B:USR2@{resources.signal_before_s}"}
    left_out = commands.union(options.get("exclude"), exclude)
    text = _make_sbatch_string(
        command=f"{python} -u -m launch.worker.main {file} & ranks=$!",
        folder=folder.slurm,
        job_name=folder.job_name,
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        exclude=left_out or None,
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
        setup=[*SIGNALS, *setup(folder, code, gpus, left_out, logs_apart), "start_ranks() {"],
        teardown=[
            "}",
            *loop(f"{python} -m launch.worker.watchdog {locks}", f"{python} -m launch.worker.after_crash {file}"),
        ],
    )
    # submitit always sets a limit; without one asked for, the partition's own is to hold.
    return text if limit else re.sub(r"#SBATCH --time\n", "", text)


SIGNALS = [
    "# Signals are remembered from the first line on: nobody else may be there to see them.",
    "signals=",
    "for name in TERM INT HUP; do trap \"signals+=' $name'\" $name; done",
    "trap 'signals+=\" USR2\"; pass_on &' USR2",
    "# Again and again, because ranks that srun is just starting get no signal.",
    'pass_on() { while kill -USR2 "$ranks" 2>/dev/null; do sleep 10; done; }',
]
# A job that is to start again never ends by itself, so one that does is to stay ended. From 24.05 on, Slurm requeues it
# all the same, once, if it was preempted before (in this start or an earlier one) and waited to be killed. Where Slurm
# lost sight of this start, the job may be at work in another one, which is left alone.
STAYS_ENDED = [
    "stay_ended() {",
    '  [ "${SLURM_RESTART_COUNT:-0}" = 0 ] && [ -z "$known$signals" ] && return',
    '  scontrol show job -o $job | grep -q " Restarts=${SLURM_RESTART_COUNT:-0} " &&',
    "    scontrol update jobid=$job requeue=0",
    "}",
    "trap stay_ended EXIT",
]


def setup(folder: LaunchFolder, snapshot: Path, gpus: int, left_out: str, logs_apart: bool = False) -> list[str]:
    """What the script does before it starts ranks.

    What a node lacks may be its own fault alone. So the job moves to another node, once. If something is missing there,
    too, it is the user's mistake, told in one sentence in the log and to the sweep. `left_out` are the nodes that the
    job was kept off from the beginning: who is kept off others has moved.

    Ranks import the code snapshot before all else. srun reads the cores of a rank from a variable of its own. A rank
    that was promised a GPU must not work on the CPU in silence, and Slurm knows nothing of some clusters' GPUs.
    """
    code, python = str(snapshot), sys.executable
    told_by = "SLURM_ARRAY_JOB_ID" if logs_apart else "SLURM_JOB_ID"
    paths = folder.folder, folder.mistakes_folder, folder.bad_nodes
    place, mistakes, bad = (shlex.quote(str(path)) for path in paths)
    return [
        "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        *STAYS_ENDED,
        "mistake() {",
        '  echo "error: node $SLURMD_NODENAME $1" >&2',
        "  excluded=$(scontrol show job -o $job | sed -n 's/.* ExcNodeList=\\([^ ]*\\).*/\\1/p')",
        "  excluded=${excluded#(null)}",
        f'  if [ "$excluded" = {shlex.quote(left_out)} ] &&',
        '    sinfo -hNo %N -p "$SLURM_JOB_PARTITION" | grep -qvxF "$SLURMD_NODENAME" && scontrol requeue $job; then',
        f'    [ -d {place} ] && mkdir -p {bad}/"$SLURMD_NODENAME" && : >{bad}/"$SLURMD_NODENAME"/{LACKS}',
        "    # Until Slurm, which requeues it, kills the job.",
        "    while :; do",
        '      sleep 1; scontrol update jobid=$job excnodelist="${excluded:+$excluded,}$SLURMD_NODENAME"',
        "    done",
        "  fi",
        f"  [ -d {place} ] && rm -f {bad}/*/{LACKS} && mkdir -p {mistakes} &&",
        f'    printf "node %s %s" "$SLURMD_NODENAME" "$1" >{mistakes}/"${told_by}"',
        f"  exit {int(ExitCode.MISTAKE)}",
        "}",
        f"cd {shlex.quote(code)} 2>/dev/null || mistake {shlex.quote(f'cannot enter {code}; {SHARED}')}",
        f"log={shlex.quote(str(folder.slurm))}/{'$SLURM_ARRAY_JOB_ID/' if logs_apart else ''}${{job}}_0_log",
        *(['mkdir -p "${log%/*}" 2>/dev/null'] if logs_apart else []),
        f'exec >>"$log.out" 2>>"$log.err" || mistake {shlex.quote(f"cannot write to {folder.slurm}; {SHARED}")}',
        f"[ -x {shlex.quote(python)} ] || mistake {shlex.quote(f'has no {python}; {SHARED}')}",
        f"export PYTHONPATH={':'.join(['$PWD', *map(shlex.quote, foreign_packages())])}",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        f"export FSR_GPUS={gpus}",
    ]


def loop(watchdog: str, after_crash: str) -> list[str]:
    """Starts ranks until the rules, which the command `after_crash` asks, say that the job is to end.

    Beside each start of theirs runs the command `watchdog`, with the number of their step.
    """
    broken = f"cannot run the study's code with {sys.executable}, or its snapshot is not whole"
    remedy = f"{SHARED}, and --renew_code takes a new snapshot"
    return [
        "start=1 known=",
        "while :; do",
        "  code=0 started=$(date +%s) known=$signals",
        '  if [ -z "$signals" ]; then',
        f'    (trap "" TERM INT HUP USR1 USR2; exec {watchdog} $((start - 1))) &',
        "    watchdog=$!",
        "    start_ranks",
        "    # A signal ends the waiting, not the ranks.",
        '    while wait "$ranks"; code=$?; [ "$known" != "$signals" ]; do known=$signals; done',
        "    { kill -KILL $watchdog; wait $watchdog; } 2>/dev/null",
        "    [ $code = 0 ] && exit 0",
        "  fi",
        f'  (trap "" TERM INT HUP USR2; exec {after_crash} "$code" "$started" "$start" $known)',
        "  case $? in",
        f"    {int(ExitCode.BROKEN)}) ;;",
        "    0) exit 1 ;;",
        f"    {int(ExitCode.MISTAKE)}) exit {int(ExitCode.MISTAKE)} ;;",
        f'    *) mistake {shlex.quote(broken)}": $(tail -n 1 "$log.err"); "{shlex.quote(remedy)} ;;',
        "  esac",
        '  signals=${signals#"$known"}',
        "  [ $code = 0 ] || ((start++))",
        "done",
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


def is_too_many(error: UserError) -> bool:
    """Whether Slurm refused an array because of its number of jobs: a smaller one may have room."""
    return re.search(r"Submit\w*Limit|submit limit|unable to accept job", str(error)) is not None


def sbatch(text: str, file: Path) -> str:
    """Submit a batch script, which is kept as `file`; returns the array's id. Raises UserError with Slurm's words."""
    write_atomically(file, text.encode("utf-8", "surrogateescape"))
    answer = commands.run("sbatch", "--parsable", str(file), patience_s=None)
    if answer is None:
        raise UserError(f"there is no sbatch to submit {file}")
    if answer.returncode:
        raise UserError(f"sbatch refuses {file}: {' '.join(answer.stderr.split())}")
    return answer.stdout.split(";")[0].strip()
