"""What a dry run says of Slurm: the limits that apply, with their values and names, and each batch script once."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from fsr.config import TrainConfig
from launch.slurm import commands, sbatch_options
from launch.slurm.limits import Duration, array_size
from launch.slurm.resources import Resources
from launch.submit import Submission

MOST_CEILINGS = 5  # that are told: the lowest ones


def limit_lines(submission: Submission, resources: Resources, config: TrainConfig) -> Iterator[str]:
    """How many jobs an array, the queue and the machines take, for how long, and what says so."""
    settings = commands.settings()
    yield "limits, as scontrol show config and partition and sacctmgr show assoc and qos tell them:"
    size = array_size(settings)
    if size is not None:
        yield f"limit of an array: {size[0]} workers ({size[1]})"
    for limit, there in submission.limits:
        yield f"limit of the queue: {limit.number} jobs of {limit.whose} ({limit.name}), {there} are there"
    everybody = commands.cluster_limit(settings)
    if everybody and all(everybody != limit for limit, _ in submission.limits):
        yield f"limit of the queue: {everybody.number} jobs of {everybody.whose} ({everybody.name})"
    told = commands.account_rules(resources.account)
    if told is None:
        yield "the accounts do not answer (sacctmgr), so it is unknown how many workers may run at once"
        return
    rules = told.rules(resources.partition, resources.qos)
    ceilings = rules.ceilings(worker_resources(resources, config))
    for ceiling in ceilings[:MOST_CEILINGS]:
        yield f"limit at once: {ceiling.workers} workers, by {ceiling.words}"
    asked = resources.time_limit
    yield duration_line(rules.durations(asked), asked, settings)
    workers = submission.workers + submission.live
    if ceilings and ceilings[0].workers < workers:
        yield f"so of {workers} workers at most {ceilings[0].workers} run at once, and the others wait in the queue"


def duration_line(durations: Sequence[Duration], asked: str | None, settings: dict[str, str]) -> str:
    """How long a job runs, and what then becomes of its trial."""
    if not durations:
        return "limit of time: none; a job runs until no trial is left"
    shortest = durations[0]
    if asked and shortest.words != "asked for":
        enforced = settings.get("EnforcePartLimits", "unknown")
        return (
            f"limit of time: {shortest.limit} a job ({shortest.words}), less than --time_limit {asked}: Slurm refuses "
            f"such a job, or lets it wait for ever (EnforcePartLimits {enforced})"
        )
    return f"limit of time: {shortest.limit} a job ({shortest.words}); then it is requeued, and its trial resumes"


def worker_resources(resources: Resources, config: TrainConfig) -> dict[str, int]:
    """What a worker takes, by Slurm's names."""
    gpus = resources.gpus_for(config)
    ranks = resources.nodes * max(1, gpus // resources.nodes)
    taken = {"cpu": ranks * int(sbatch_options.cores(resources.sbatch_options(), config.cores, gpus)), "gres/gpu": gpus}
    kind = sbatch_options.typed_number(resources.gpus, "--gpus")[0] if isinstance(resources.gpus, str) else None
    return taken | ({f"gres/gpu:{kind}": gpus} if kind else {})


def script_lines(texts: Sequence[str]) -> Iterator[str]:
    """The first script, and of those that follow how many are the same, or in which lines they differ from it."""
    number = 1
    for text, same in groupby(texts):
        count = len(list(same))
        which = f"script {number}" if count == 1 else f"scripts {number} to {number + count - 1}, all the same,"
        if number == 1:
            yield f"{which} of {len(texts)}:" if len(texts) > 1 else "the script:"
            yield text
        else:
            others = zip(text.splitlines(), texts[0].splitlines(), strict=True)
            yield f"{which} of {len(texts)}: as the first, with {'; '.join(a for a, b in others if a != b)}"
        number += count
