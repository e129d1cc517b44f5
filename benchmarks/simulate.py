"""What would a campaign have cost? Plays studies with the project's own workers on a simulated cluster and clock.

    python benchmarks/simulate.py --nodes 20 --preempt_every 40
    python benchmarks/simulate.py --checkpoint_every 50 200 800 --seeds 5     one row each, which meet the same failures
    python benchmarks/simulate.py --trials 10000 --nodes 200 --gpus 4 --seeds 1 --json

Claims, attempts, causes and requeue rules are the real code; time, Slurm and training are simulated, so a day takes
minutes. Invariants are checked all along (benchmarks/campaign/invariants.py); a broken one ends the command. A flag
that takes several values makes a row of each, or of each combination. Give it what you know of your cluster: the
seconds of a step, the minutes in the queue and between preemptions.

Each study's folder lies in memory (/dev/shm) where there is one, as its files are small and many, and is removed.
"""

import io
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.campaign.measures import Measures  # noqa: E402
from benchmarks.campaign.options import GPUS, HOURS, MINUTES, NODES, SECONDS, Campaign  # noqa: E402
from benchmarks.campaign.simulation import Simulation  # noqa: E402
from benchmarks.campaign.table import differences, drawn, ends  # noqa: E402
from fsr.bounds import STEPS, Bounds  # noqa: E402
from fsr.command import asks_for_help, read_words, reason_of  # noqa: E402
from fsr.errors import UserError, reports_user_errors  # noqa: E402
from fsr.exit_codes import ExitCode  # noqa: E402
from fsr.flags import flags_of  # noqa: E402

HELP = "(all flags: python benchmarks/simulate.py --help)"
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Options(Campaign):
    """Play campaigns."""

    nodes: Annotated[tuple[int, ...], NODES] = (20,)
    """Nodes of the cluster."""
    gpus: Annotated[tuple[int, ...], GPUS] = (4,)
    """GPUs of a job, all on one node."""
    preempt_every: Annotated[tuple[float, ...], MINUTES] = (40.0,)
    """Minutes until a node is taken by jobs of higher priority, on average; 0 is never."""
    notice_s: Annotated[tuple[float, ...], SECONDS] = (30.0,)
    """Seconds from SIGTERM to SIGKILL at a preemption; 0 kills at once."""
    time_limit: Annotated[tuple[float, ...], HOURS] = (12.0,)
    """Hours of a job's time limit; 0 is none."""
    checkpoint_every: Annotated[tuple[int, ...], STEPS] = (200,)
    """Steps between two checkpoints."""
    pruner: tuple[Literal["median", "none"], ...] = ("median",)
    """Whether the study stops trials below the median from the middle of a run on."""
    seeds: Annotated[int, Bounds(1, 1000)] = 1
    """Campaigns of each row, with seeds that follow each other."""
    json: bool = False
    """Print JSON instead of a table."""
    folder: Path | None = None
    """Where the studies are played; by default in memory."""


def parse(arguments: Sequence[str]) -> Options:
    """The flags. Raises UserError for a line that is not accepted."""
    if asks_for_help(arguments):
        return tyro.cli(Options, args=["--help"], description=__doc__, use_underscores=True)
    others, words = read_words(flags_of(Options), arguments)
    if others:
        raise UserError(f"simulate.py takes flags alone, got {others[0]} {HELP}")
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(Options, args=words, use_underscores=True)
    except SystemExit:
        raise UserError(f"{reason_of(complaint.getvalue())} {HELP}") from None


def campaigns(options: Options) -> dict[str, list[Campaign]]:
    """By the name of its row: the campaigns that are asked for, which differ in their seeds alone."""
    names = [field.name for field in fields(Campaign)]
    asked = {name: getattr(options, name) for name in names}
    lists = {name: value for name, value in asked.items() if isinstance(value, tuple)}
    several = [name for name, values in lists.items() if len(values) > 1]
    rows = {}
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        name = ", ".join(f"{name} {chosen[name]}" for name in several)
        seeds = range(options.seed, options.seed + options.seeds)
        rows[name] = [Campaign(**(asked | chosen | {"seed": seed})) for seed in seeds]
    return rows


def play(campaign: Campaign, folder: Path | None) -> Measures:
    """One campaign, in a folder that is removed."""
    place = folder or (MEMORY if MEMORY.is_dir() else None)
    try:
        study = Path(tempfile.mkdtemp(prefix="campaign_", dir=place))
    except OSError as error:
        raise UserError(f"--folder must be a folder that can be written to, got {place} ({error.strerror})") from None
    try:
        return Simulation(campaign, study / "campaign").run()
    finally:
        shutil.rmtree(study)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Play and print."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    rows = {name: [play(one, options.folder) for one in each] for name, each in campaigns(options).items()}
    everything = [measures for each in rows.values() for measures in each]
    if options.json:
        print(json.dumps({name: [one.as_json() for one in each] for name, each in rows.items()}))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        console.print(drawn(list(rows.items())))
        for sentence in differences(list(rows.items())):
            console.print(sentence, soft_wrap=True)
        for name, (one, *_) in rows.items():
            said = f"{name}: " if name else ""
            times = "once" if one.sweeps == 1 else f"{one.sweeps} times"
            console.print(f"{said}{ends(one)}; swept {times}, {one.claims} claims; {one.reason}", soft_wrap=True)
        seconds = sum(one.cpu_s for one in everything)
        console.print(f"{sum(one.events for one in everything)} events in {seconds:.0f} s of CPU; no invariant broken")
    sys.exit(ExitCode.DONE if all(one.reached for one in everything) else ExitCode.INCOMPLETE)


if __name__ == "__main__":
    main()
