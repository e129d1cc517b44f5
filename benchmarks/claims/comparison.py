"""A comparison: rows, the runs of their arms, and what is known of these, in one file that grows run by run."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console

from benchmarks.claims.arms import RELEASED, TABLES, arms_of
from benchmarks.claims.table import drawn_arms, drawn_rows, plot, rows_of
from benchmarks.claims.trained import Job
from benchmarks.machine import machine
from fsr.config import PLACES, TrainConfig
from fsr.console import console
from fsr.errors import UserError
from fsr.files import atomic_file, write_atomically, write_json
from fsr.json_file import read_json
from fsr.score_names import MAIN_SCORES, TEACHER_SEG_MIOU

RECORDED = (*MAIN_SCORES, TEACHER_SEG_MIOU, "val/cam_best_miou", "val/class_f1", "best/seg_miou", "seconds")
UNLIMITED = 1000  # columns of a page, of which no cell is broken


class Known(TypedDict):
    """What a file of results tells the next comparison."""

    bed: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, dict[str, float | None]]]  # by arm and seed


class Comparison:
    """Rows of a table on a test bed, over these seeds. Raises UserError for an arm or a row that there is not."""

    def __init__(self, table: str, bed: TrainConfig, arms: Sequence[str], seeds: range, runs: Path, file: Path) -> None:
        self.table, self.bed, self.seeds, self.runs, self.file = table, bed, seeds, runs, file
        # What differs from the bed, and nothing else: arms that come to the same are trained once, under one name.
        self.changes = {
            arm: {name: value for name, value in fields.items() if getattr(bed, name) != value}
            for arm, fields in arms_of(bed).items()
        }
        for arm in arms:
            if arm not in self.changes:
                raise UserError(f"--arms must name arms, got {arm}; allowed: {', '.join(self.changes)}")
        self.rows = [row for row in TABLES[table](bed) if not arms or {row.arm, row.counterpart} & set(arms)]
        if not self.rows:
            raise UserError(f"table {table} has no row with {' or '.join(arms)}")
        self.arms = [arm for arm in self.changes if any(arm in (row.arm, row.counterpart) for row in self.rows)]
        self.known = self._read()

    def trained_as(self, arm: str) -> str:
        """The first arm that comes to the same runs."""
        if arm == RELEASED:
            return arm
        return next(other for other in self.changes if self.changes[other] == self.changes[arm])

    def jobs(self) -> list[Job]:
        """All runs of the comparison, those of a seed together: pairs are there early."""
        arms = dict.fromkeys(map(self.trained_as, self.arms))
        configs = {arm: dataclasses.replace(self.bed, **self.changes[arm]) for arm in arms}
        return [
            Job(arm, dataclasses.replace(configs[arm], seed=seed), self.runs / f"{arm}_{seed}", arm == RELEASED)
            for seed in self.seeds
            for arm in arms
        ]

    def missing(self) -> list[Job]:
        """The runs of which nothing is known, after a look into the folder of runs.

        Raises UserError if a run there is another one.
        """
        for job in self.jobs():
            if job.seed not in self.known.get(job.arm, {}):
                result = job.result()
                if result is not None:
                    self.add(job, result)
        return [job for job in self.jobs() if job.seed not in self.known.get(job.arm, {})]

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """A run has ended."""
        self.known.setdefault(job.arm, {})[job.seed] = {name: result[name] for name in RECORDED}

    def results(self) -> dict[str, dict[int, dict[str, Any]]]:
        """What is known of the runs of each arm, by seed."""
        return {arm: self.known.get(self.trained_as(arm), {}) for arm in self.arms}

    def _read(self) -> dict[str, dict[int, dict[str, Any]]]:
        """What the file of results knows. Raises UserError if it is of another bed, or no such file."""
        try:
            before = read_json(self.file, Known, newer=True)
        except FileNotFoundError:
            return {}
        now = comparable(self.bed)
        name = next((name for name in now if before["bed"].get(name) != now[name]), None)
        if name is not None and before["runs"]:
            raise UserError(
                f"{self.file} holds results with {name} {before['bed'].get(name)}, not {now[name]}; "
                "choose another --out, or remove it"
            )
        return {
            arm: {int(seed): run for seed, run in runs.items()}
            for arm, runs in before["runs"].items()
            if arm in self.changes and before["arms"].get(arm) == in_json(self.changes[arm])
        }

    def write(self) -> None:
        """Write what is known."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        runs = {arm: dict(sorted(found.items())) for arm, found in self.known.items()}
        seconds = sum(run["seconds"] for found in runs.values() for run in found.values())
        content = {
            "table": self.table,
            "seeds": list(self.seeds),
            "rows": rows_of(self.rows, self.results(), self.seeds),
            "hours_of_runs": round(seconds / 3600, 2),
            "bed": comparable(self.bed),
            "arms": {arm: in_json(self.changes[arm]) for arm in dict.fromkeys([*self.arms, *runs])},
            "runs": runs,
        }
        write_json(self.file, content | machine())

    def show(self) -> None:
        """Print the tables, and write them and their plot beside the results."""
        title = f"{self.table}, seeds {self.seeds[0]} to {self.seeds[-1]}"
        rows, page = rows_of(self.rows, self.results(), self.seeds), io.StringIO()
        changes = {arm: self.changes[arm] for arm in self.arms}
        for out in (console(), Console(file=page, width=UNLIMITED)):
            out.print(f"{title}: means ± 95 %, differences seed by seed")
            out.print(drawn_rows(rows))
            out.print(drawn_arms(changes, self.results(), self.seeds))
        write_atomically(self.file.with_suffix(".md"), page.getvalue().encode())
        with atomic_file(self.file.with_suffix(".png")) as file:
            plot(rows, title).savefig(file, format="png", dpi=110)


def comparable(config: TrainConfig) -> dict[str, Any]:
    """What the scores of runs with this configuration rest on, but for the seed."""
    return {name: value for name, value in config.to_json().items() if name not in (*PLACES, "seed")}


def in_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as a JSON file gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
