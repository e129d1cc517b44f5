"""The claims table: each claim of the method tested over paired seeds on the test bed.

    python -m benchmarks.claims
    python -m benchmarks.claims --table ingredients --parallel 8 --first_seed 300 --seeds 16
    python -m benchmarks.claims synthetic --arms none     from another preset, the rows with this arm alone

Any field of a training run is a flag, too, and changes the bed: `--iterations 1440`. Runs stay in --runs, so that an
interrupted comparison resumes, and what they came to in --out, whose results are not trained again even where the runs
are gone. Beside the JSON file come the tables (.md) and a plot (.png).
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.claims.comparison import Comparison
from benchmarks.claims.trained import Trained
from fsr.bounds import COUNT, POSITIVE, SEED, Bounded
from fsr.config import PRESETS, TrainConfig
from fsr.errors import reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.score_names import CAM_MIOU, SEG_MIOU, score_text


@dataclass(frozen=True)
class Options(Bounded):
    """Compare arms of the test bed over paired seeds."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig]
    table: Literal["claims", "ingredients", "released"] = "claims"
    """Which rows."""
    arms: tuple[str, ...] = ()
    """Only rows that have one of these arms, on either side; by default all."""
    first_seed: Annotated[int, SEED] = 200
    """The first of the seeds. The bed was chosen with 100 to 103."""
    seeds: Annotated[int, COUNT] = 8
    """Seeds of each arm."""
    parallel: Annotated[int, COUNT] = 1
    """Runs at a time; each gets its share of the cores."""
    runs: Path = Path("runs/claims")
    """Where the runs are."""
    out: Path | None = None
    """File of the results, .json; by default TABLE.json in --runs. What it knows is not trained again."""
    minutes: Annotated[float | None, POSITIVE] = None
    """Time after which all runs are saved; the same command resumes."""


def train_missing(comparison: Comparison, parallel: int, minutes: float | None) -> int | None:
    """Train what is missing, and say how far it is. The signal that stopped it, if one did."""
    jobs = comparison.missing()
    comparison.write()
    total = len(comparison.jobs())
    print(f"{total} runs, {total - len(jobs)} of them are there", flush=True)
    if not jobs:
        return None
    limit_s = math.inf if minutes is None else 60 * minutes
    started, trained = time.monotonic(), Trained(jobs, parallel, limit_s, comparison.runs)
    for number, (job, found) in enumerate(trained, 1):
        said = f"{total - len(jobs) + number} of {total}  {job.arm} seed {job.seed}"
        if isinstance(found, str):
            print(f"{said} failed: {found}", file=sys.stderr, flush=True)
            continue
        comparison.add(job, found)
        comparison.write()
        left_min = (time.monotonic() - started) / number * (len(jobs) - number) / 60
        scores = f"segmentation {score_text(found[SEG_MIOU])}, CAM {score_text(found[CAM_MIOU])} mIoU"
        print(f"{said}: {scores} in {found['seconds']:.0f} s; {left_min:.0f} min left", flush=True)
    return trained.signal


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Train, compare, print."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    preset = words.pop(0) if words and words[0] in PRESETS else "test_bed"
    default = Options(PRESETS[preset]())
    options = tyro.cli(Options, args=words, default=default, description=__doc__, use_underscores=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    file = options.out or options.runs / f"{options.table}.json"
    comparison = Comparison(options.table, options.config, options.arms, seeds, options.runs, file)
    received = train_missing(comparison, options.parallel, options.minutes)
    comparison.show()
    print(f"results: {file}")
    if received is not None:
        sys.exit(128 + received)
    missing = len(comparison.missing())
    if missing:
        print(f"{missing} runs are missing; the same command trains them", file=sys.stderr)
        sys.exit(ExitCode.INCOMPLETE)


if __name__ == "__main__":
    main()
