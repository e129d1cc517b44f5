"""Builds the op, runs the tests that need a GPU, and measures everything that a GPU does: `make gpu`.

    python -m benchmarks.gpu --minutes 9

Each row of each stage is written at once to FOLDER/gpu-CARD-DATE.json, and the page of tables to the .md beside it. A
later call on the same day goes on with the rows that are missing or failed; without the file it starts anew. Ends with
1 if something failed or has other bits than it should.
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks.gpu import ROOT, before


@dataclass(frozen=True)
class Options:
    """Measure all that a GPU does."""

    minutes: float = 60
    """Time after which no stage goes on; call again for the rest."""
    folder: Path = ROOT / "docs" / "results"
    """Where the results go."""
    anew: bool = False
    """Forget what was measured today."""
    dry: bool = False
    """Tiny sizes on the CPU: tries this code."""


def main() -> None:
    """Measure, write, print."""
    started = time.monotonic()
    options = tyro.cli(Options)
    name, driver, capability = ("dry", "none", None) if options.dry else before.card()
    short = re.sub(r"\W+", "-", name.lower().removeprefix("nvidia "))
    file = options.folder / f"gpu-{short}-{time.strftime('%Y-%m-%d')}.json"
    options.folder.mkdir(parents=True, exist_ok=True)
    log = ROOT / "build" / "gpu.log"
    log.parent.mkdir(exist_ok=True)
    results: dict[str, Any] = {"card": name, "driver": driver, "date": time.strftime("%Y-%m-%d"), "commit": commit()}
    results |= {"seconds": {}, "stages": {}}
    if file.exists() and not options.anew:
        results = json.loads(file.read_text())

    def left_s() -> float:
        return 60 * options.minutes - (time.monotonic() - started)

    def tell(stage: str, row: str, values: dict[str, Any]) -> None:
        results["stages"].setdefault(stage, {})[row] = values
        write(file, results)
        short = {name: value for name, value in values.items() if name not in ("top", "bytes")}
        print(f"{time.monotonic() - started:4.0f} s  {stage}: {row}: {short}", flush=True)

    def took(stage: str, since: float) -> None:
        results["seconds"][stage] = round(results["seconds"].get(stage, 0) + time.monotonic() - since, 1)
        write(file, results)

    for stage, work in (("build", partial(before.build, capability, log)), ("tests", partial(before.tests, log))):
        since = time.monotonic()
        if stage == "build" or "said" not in results["stages"].get(stage, {}).get("all", {}):
            tell(stage, "all", work())
            took(stage, since)

    # Only now is the op there to be imported.
    from benchmarks.gpu import own_process
    from benchmarks.gpu.report import report, wrong
    from benchmarks.gpu.size import DRY, REAL
    from benchmarks.gpu.stages import STAGES

    for stage in STAGES:
        rows = results["stages"].get(stage.name, {})
        good = {row for row, values in rows.items() if "failed" not in values}
        if stage.name in results["seconds"] and len(good) == len(rows):
            continue
        since, limit_s = time.monotonic(), min(stage.limit_s, left_s())
        if limit_s <= 0:
            break
        late = own_process.run(stage, DRY if options.dry else REAL, good, limit_s, log, partial(tell, stage.name))
        if late and limit_s < stage.limit_s:
            break
        if late:
            tell(stage.name, late, {"failed": f"stopped after the {limit_s:.0f} s of its stage"})
        took(stage.name, since)

    page = report(results)
    file.with_suffix(".md").write_text(page)
    print(page)
    if any(stage.name not in results["seconds"] for stage in STAGES):
        print(f"{options.minutes:g} minutes are over; the same command goes on")
    if problems := wrong(results["stages"]):
        sys.exit(f"not as it should be: {'; '.join(problems)}")


def write(file: Path, results: dict[str, Any]) -> None:
    """Write the results atomically."""
    from fsr.files import write_json

    write_json(file, results)


def commit() -> str:
    """Of the checkout, where it is one."""
    if not (ROOT / ".git").exists():
        return "unknown"
    ask = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(ask, cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
