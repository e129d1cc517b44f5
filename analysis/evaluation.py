"""The table of a study's checkpoints: `fsr table --study mask_ratio`, after `fsr infer --study mask_ratio`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("table")

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis.load import RUNS, definition_of, for_spreadsheets, load, study_folder
from analysis.paper_table import PaperTable, Row, compared, paper_table
from analysis.published import SETS, published
from analysis.scores import Scores, read_scores
from analysis.tables import Tables
from fsr.command import parse_flags
from fsr.console import console
from fsr.errors import UserError, reports_user_errors
from fsr.files import open_file, write_json
from fsr.next_command import next_command, study_words
from fsr.writable import check_folder
from launch.state.paths import EvaluationFolder

STYLES = {"better": "green", "worse": "red"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show what a study's checkpoints come to, as a paper's table; published numbers stand beside it.

    CAM seed and pseudo label, segmentation at a single scale, at several, class-gated, and with CRF, of student and
    teacher; differences from trial 0 seed by seed. Writes table.csv, checkpoints.csv and table.json, too.

    Examples:
        --study mask_ratio
        --study mask_ratio --runs DIR --out tables
    """

    study: str
    """The study's name."""
    runs: Path = RUNS
    """Folder of all studies."""
    evaluation: Path | None = None
    """Folder of its inferences; by default evaluation in the study's folder."""
    out: Path | None = None
    """Folder for the files; by default that of the inferences."""


@dataclass(frozen=True)
class Evaluation:
    """A study's table, with what it was made of."""

    scores: Scores
    compared: pd.DataFrame
    """`analysis.paper_table.compared`."""
    table: PaperTable

    @classmethod
    def of(cls, tables: Tables, study: str, folder: EvaluationFolder) -> "Evaluation":
        """Read it; empty where nothing was inferred."""
        scores, trials = read_scores(folder), tables.trials[tables.trials["study"] == study]
        numbers = compared(tables, study, scores.checkpoints)
        return cls(scores, numbers, paper_table(numbers, trials))


def drawn(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    """Rows of a paper's table for a terminal."""
    table = Table("setting", "network", "seeds", *columns, title=title)
    for number, column in enumerate(table.columns):
        column.justify, column.no_wrap = ("right", False) if number > 2 else ("left", number > 0)
    before = None
    for row in rows:
        if before not in (None, row.trial):
            table.add_section()
        cells = (Text(cell.text, STYLES.get(cell.verdict, "")) for cell in row.cells)
        table.add_row("" if row.trial == before else row.setting, row.network, row.seeds, *cells)
        before = row.trial
    return table


def drawn_published(title: str, rows: pd.DataFrame) -> Table:
    """Published numbers for a terminal."""
    table = Table("method", "venue", "pretraining", "backbone", *SETS.values(), "source", "read on", title=title)
    for _, row in rows.iterrows():
        numbers = ("–" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in SETS)
        table.add_row(*row[["method", "venue", "pretraining", "backbone"]], *numbers, row["source"], row["date"])
    return table


def write_files(out: Path, study: str, dataset: str, found: Evaluation) -> None:
    """Write table.csv, checkpoints.csv and table.json, as fractions; published numbers stay percent."""
    tables = {"table": found.compared, "checkpoints": found.scores.checkpoints}
    for name, table in tables.items():
        with open_file(out / f"{name}.csv", "w") as file:
            for_spreadsheets(table).to_csv(file, index=False)
    content = {name: as_json(table) for name, table in (tables | {"published": published()}).items()}
    archives = list(map(str, found.scores.archives))
    about = {"study": study, "dataset": dataset, "archives": archives, "notes": list(found.scores.notes)}
    write_json(out / "table.json", about | content)


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON values, None for what was not measured."""
    plain = table.astype(object)
    rows: list[dict[str, Any]] = plain.where(table.notna(), None).to_dict("records")
    return rows


def tell(found: Evaluation, study: str, runs: Path, dataset: str) -> None:
    """Print the table, what is missing from it, and the published numbers."""
    out, table = console(), found.table
    if table.means:
        out.print(drawn(f"study {study}: mIoU in %, mean ± 95 % over fresh seeds", table.columns, table.means))
    if table.differences:
        title = "differences from trial 0, seed by seed, ± 95 % for all settings of a column at once"
        out.print(drawn(title, table.columns, table.differences))
    elif table.means:
        again = next_command("infer", *study_words(study, runs), "--repeats")
        print(f"no differences from trial 0: no other setting shares fresh seeds with it here (repeats: {again})")
    for group, rows in published().groupby("group", sort=False):
        out.print(drawn_published(f"published: {group}; mIoU in %, multi-scale + CRF", rows))
    if dataset not in ("voc", "coco"):
        print(f"the published numbers are of other data than {dataset}, and say nothing about this study's")
    for archive in found.scores.archives:
        print(f"archive for VOC's evaluation server: {archive}")
    for note in found.scores.notes:
        print(f"note: {note}")


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: Options = parse_flags(Options, "table", arguments)
    folder = study_folder(options.study, options.runs)
    place = EvaluationFolder(options.evaluation) if options.evaluation else EvaluationFolder.of(folder)
    found = Evaluation.of(load(options.study, runs=options.runs), options.study, place)
    if found.compared.empty and not found.scores.archives:
        infer = next_command("infer", *study_words(options.study, options.runs))
        what = f": {found.scores.notes[0]}" if found.scores.notes else ""
        raise UserError(f"{place.folder} holds no scores of finished inferences{what}; to infer: {infer}")
    out = options.out or place.folder
    check_folder(out, "--out")
    dataset = definition_of(folder)["base"]["dataset"]
    write_files(out, options.study, dataset, found)
    tell(found, options.study, options.runs, dataset)
    print(f"wrote table.csv, checkpoints.csv and table.json in {out}")


if __name__ == "__main__":
    main()
