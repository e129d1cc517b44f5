"""The options of sbatch that a user may give, and what becomes of each: pure functions of their text.

One rule: what the user gives replaces what the commands would ask for; what would break their protocol is refused by
name, with the reason.
"""

import re
from collections.abc import Iterable

from fsr.errors import UserError

Options = dict[str, str | None]
"""Values by the options' long names; None where an option has no value."""

LETTERS = {
    "A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "F": "nodefile", "G": "gpus", "H": "hold",
    "J": "job-name", "L": "licenses", "M": "clusters", "N": "nodes", "O": "overcommit", "Q": "quiet", "S": "core-spec",
    "V": "version", "W": "wait", "a": "array", "b": "begin", "c": "cpus-per-task", "d": "dependency", "e": "error",
    "h": "help", "i": "input", "k": "no-kill", "m": "distribution", "n": "ntasks", "o": "output", "p": "partition",
    "q": "qos", "s": "oversubscribe", "t": "time", "v": "verbose", "w": "nodelist", "x": "exclude",
}  # fmt: skip
OTHER_NAMES = {"tasks-per-node": "ntasks-per-node", "share": "oversubscribe", "workdir": "chdir", "cluster": "clusters"}

WITHOUT_VALUE = {
    "contiguous", "external", "help", "hold", "ignore-pbs", "no-requeue", "overcommit", "oversubscribe", "parsable",
    "quiet", "reboot", "requeue", "spread-job", "stepmgr", "test-only", "usage", "use-min-nodes", "verbose", "version",
    "wait", "consolidate-segments", "spread-segments",
}  # fmt: skip
MAY_HAVE_VALUE = {"exclusive", "get-user-env", "nice", "no-kill", "oom-kill-step", "propagate", "resv-ports", "x11"}
WITH_VALUE = {
    "account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters",
    "comment", "constraint", "container", "container-id", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu",
    "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude", "export",
    "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint", "input", "job-name", "kill-on-invalid-dep",
    "licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus",
    "network", "nodefile", "nodelist", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node",
    "ntasks-per-socket", "open-mode", "output", "partition", "power", "prefer", "priority", "profile",
    "qos", "reservation", "resources", "segment", "signal", "sockets-per-node", "switches", "thread-spec",
    "threads-per-core", "time", "time-min", "tmp", "tres-bind", "tres-per-task", "uid", "wait-all-nodes", "wckey",
    "wrap",
}  # fmt: skip
KNOWN = WITHOUT_VALUE | MAY_HAVE_VALUE | WITH_VALUE

_RANKS = "there is one rank a GPU, or a node without GPUs; say --gpus and --nodes"
_LOGS = "logs go to the slurm folder beside the results, where the cause of a crash is looked up"
_SUBMITS = "a job must be submitted, and its number read; --dry_run shows what would be"
_ENVIRONMENT = "a job needs the environment of this command (PATH, FSR_STORAGE, loaded modules)"
REFUSED = {
    "array": "workers are submitted as one array; say --parallel",
    "output": _LOGS,
    "error": _LOGS,
    "open-mode": "a requeued job appends to its log",
    "signal": "this signal tells a job to save; say --signal_before_s",
    "requeue": "every job asks for it already, and what `expedite` (25.11) asks for ends in a held job",
    "external": "such a job runs no batch script",
    "no-requeue": "an interrupted job resumes because Slurm requeues it",
    "job-name": "the jobs of a folder are known by it in the queue",
    "nodes": "say --nodes",
    **dict.fromkeys(
        ("ntasks", "ntasks-per-node", "ntasks-per-gpu", "ntasks-per-socket", "ntasks-per-core", "tres-per-task"), _RANKS
    ),
    "gpus-per-socket": "it leaves the number of ranks unclear; say --gpus, or --sbatch gpus-per-node",
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "wrap": "the batch script is this command's own",
    "no-kill": "a job that outlives a lost node would hold its trial for ever",
    "clusters": "only sbatch would read it, and not squeue; set the variable SLURM_CLUSTERS, which all of them read",
    **dict.fromkeys(("uid", "gid"), "the queue is asked for your own jobs"),
    **dict.fromkeys(("parsable", "test-only", "wait", "help", "usage", "version"), _SUBMITS),
}
# Flags of their own, by the option that says the same.
FLAGS = {"partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint", "time": "time_limit"}
GPUS = ("gres", "gpus", "gpus-per-node", "gpus-per-task")
CORES = ("cpus-per-task", "cpus-per-gpu")
# Of each group, Slurm takes one.
GROUPS = (("mem", "mem-per-cpu", "mem-per-gpu"), CORES, ("exclusive", "oversubscribe"))


def parse(texts: Iterable[str]) -> Options:
    """The options by their long names. Raises UserError for one that is none, is refused or is given twice."""
    options: Options = {}
    for text in texts:
        written, equals, value = text.partition("=")
        name = long_name(written, text)
        if name in REFUSED:
            raise UserError(f"--sbatch cannot set {name}: {REFUSED[name]} (got {text!r})")
        lacking = not value if equals else name in WITH_VALUE
        if lacking or not value.isprintable() or re.search(r"['\"\\]", value):
            raise UserError(
                f"--sbatch must be key=value with a name of sbatch's options, got {text!r}; a value has no quotes, "
                "backslashes and line breaks"
            )
        if name in options:
            raise UserError(f"--sbatch {name} is given twice; give it once (got {text!r})")
        options[name] = value if equals else None
    for group in GROUPS:
        both = [name for name in group if name in options]
        if len(both) > 1:
            raise UserError(f"--sbatch {both[0]} and --sbatch {both[1]} exclude each other; give only one of them")
    gpus = [name for name in GPUS if name in options and asks_for_gpus(name, options[name])]
    if len(gpus) > 1:
        raise UserError(f"--sbatch {gpus[0]} and --sbatch {gpus[1]} both ask for GPUs; give only one of them")
    per_task = options.get("gpus-per-task") or "1"
    if typed_number(per_task, "--sbatch gpus-per-task")[1] > 1:
        raise UserError(f"--sbatch gpus-per-task must be 1, as a rank has one GPU, got {per_task!r}; say --gpus")
    for name in CORES:
        if name in options and not re.fullmatch("[1-9][0-9]*", options[name] or ""):
            raise UserError(f"--sbatch {name} must be a whole number from 1, got {options[name]!r}")
    return options


def long_name(written: str, text: str) -> str:
    """The long name of an option. Raises UserError for an abbreviation, and for what is no name."""
    name = written.lstrip("-")
    name = LETTERS.get(name, name.replace("_", "-"))
    name = OTHER_NAMES.get(name, name)
    if not re.fullmatch("[a-z][a-z0-9-]*", name):
        raise UserError(f"--sbatch must be key=value with a name of sbatch's options, got {text!r}")
    # sbatch understands the beginning of a name, too, and so what is refused by its name.
    longer = sorted(known for known in (*KNOWN, *OTHER_NAMES) if known.startswith(name))
    if longer and name not in KNOWN:
        raise UserError(f"--sbatch takes names in full, got {text!r}; allowed: {', '.join(longer)}")
    return name


def overlaid(below: Options, above: Options) -> Options:
    """The options of `above`, and those of `below` that they do not replace."""
    replaced = set(above)
    for group in GROUPS:
        if replaced & set(group):
            replaced |= set(group)
    return {name: value for name, value in below.items() if name not in replaced} | above


def asks_for_gpus(name: str, value: str | None) -> bool:
    """Whether an option says how many GPUs there are, 0 included; `gres` may be about something else alone."""
    return name != "gres" or any(_is_gpu(entry) or entry == "none" for entry in str(value).split(","))


def _is_gpu(entry: str) -> bool:
    return re.fullmatch(r"(gres/)?gpu([:=].*)?", entry) is not None


def typed_number(text: str, said: str) -> tuple[str | None, int]:
    """Type and number of `a100:4` or `4`. Raises UserError, with `said` in its sentence."""
    match = re.fullmatch(r"(?:([A-Za-z][\w.-]*):)?([0-9]{1,6})", text)
    if match is None:
        raise UserError(f"{said} must be a number of GPUs, or type and number as in a100:4, got {text!r}")
    return match[1], int(match[2])


def number_of_gpus(options: Options, nodes: int) -> int | None:
    """GPUs a trial, where an option says it; None where none does, or where Slurm is asked for no GPU.

    Raises UserError where the number stays unclear.
    """
    for name in ("gpus", "gpus-per-node"):
        if name in options:
            said = f"--sbatch {name}"
            number = sum(typed_number(entry, said)[1] for entry in str(options[name]).split(","))
            if name == "gpus" and nodes > 1 and number:
                raise UserError(
                    f"{said} leaves it unclear how many GPUs each node has; say gpus-per-node (--nodes > 1)"
                )
            return (number * (1 if name == "gpus" else nodes)) or None
    entries = [entry for entry in str(options.get("gres") or "").split(",") if _is_gpu(entry)]
    number = sum(_number_in_gres(entry) for entry in entries)
    return number * nodes or None


def _number_in_gres(entry: str) -> int:
    """GPUs a node of `gpu`, `gpu:4`, `gpu:a100`, `gpu:a100:4`."""
    parts = re.split("[:=]", entry)[1:]
    number = int(parts.pop()) if parts and parts[-1].isdigit() else 1
    if len(parts) > 1 or not all(re.fullmatch(r"[A-Za-z][\w.-]*", part) for part in parts):
        raise UserError(f"--sbatch gres must be gpu, gpu:4 or gpu:a100:4, for the number of ranks, got {entry!r}")
    return number


def gpu_lines(options: Options, kind: str | None, gpus: int, nodes: int) -> Options:
    """What Slurm is asked for: the user's own options of GPUs, or gpus-per-node; nothing where they say 0.

    Raises UserError where --gpus-per-task has no GPUs to hand out.
    """
    own = {name: options[name] for name in GPUS if name in options}
    if not any(asks_for_gpus(name, value) for name, value in own.items()):
        return own | ({"gpus-per-node": f"{kind}:{gpus // nodes}" if kind else str(gpus // nodes)} if gpus else {})
    if "gres" in own:
        kept = [entry for entry in str(own.pop("gres")).split(",") if entry != "none" and not _is_none(entry)]
        own |= {"gres": ",".join(kept)} if kept else {}
    if not gpus and typed_number(own.get("gpus-per-task") or "0", "--sbatch gpus-per-task")[1]:
        raise UserError("--sbatch gpus-per-task=1 leaves it unclear how many GPUs there are; say --gpus")
    return {name: value for name, value in own.items() if name == "gres" or not asks_for_none(str(value))}


def asks_for_none(value: str) -> bool:
    """Whether an option says that Slurm is asked for no GPU."""
    return re.fullmatch("0+|none", value) is not None


def _is_none(entry: str) -> bool:
    return _is_gpu(entry) and _number_in_gres(entry) == 0


def cores(options: Options, default: int, gpus: int) -> str:
    """Cores a rank: the user's, or the `default`. Raises UserError for cores of GPUs that are not there."""
    if "cpus-per-gpu" in options and not gpus:
        raise UserError("--sbatch cpus-per-gpu has no meaning without GPUs; say cpus-per-task")
    return options.get("cpus-per-task") or options.get("cpus-per-gpu") or str(default)


def seconds(time_limit: str) -> float:
    """Seconds of a time limit as Slurm writes it; infinite for 0 and UNLIMITED."""
    if not time_limit[0].isdigit():
        return float("inf")
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:  # D-H, D-H:M, D-H:M:S, H:M:S
        hours, minutes, rest_s = (*parts, 0, 0)[:3]
    else:  # M, M:S
        hours, (minutes, rest_s) = 0, (*parts, 0)[:2]
    total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + rest_s
    return total or float("inf")


def texts(options: Options) -> tuple[str, ...]:
    """The inverse of `parse`."""
    return tuple(name if value is None else f"{name}={value}" for name, value in options.items())
