"""Finished runs of one or several studies as tidy tables: `load("mask_ratio")`, or as CSV files on the command line.

fsr load --study mask_ratio block_size --out FOLDER
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("load")

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd

from analysis import cache
from analysis.search import WithSearch, search_name
from analysis.tables import CATEGORIES, COLUMNS, Tables, read_tables, with_categories
from fsr.command import parse_flags
from fsr.csv_cells import cell
from fsr.errors import UserError, reports_user_errors
from fsr.files import open_file
from fsr.records import read_records
from fsr.score_names import is_score
from fsr.setting_text import setting_text
from fsr.writable import check_folder
from launch.state.attempts import cost_shares
from launch.state.damage import naming_repair
from launch.state.journal import JOURNAL
from launch.state.paths import Definition, StudyFolder
from launch.state.storage import load_launched, open_launched
from launch.state.trial_identity import IDENTITY_FILE, Strangers

RUNS = Path("runs")
READERS = (
    Tables,
    setting_text,
    read_records,
    is_score,
    cost_shares,
    Strangers,
)  # if the file of one of these changes, cached tables are stale


def load(*studies: str, runs: Path = RUNS) -> Tables:
    """The tables of all `studies` (folders in `runs`) together.

    Half-finished, pruned, failed and damaged runs are in them, and marked. What was read is cached
    (`analysis/cache.py`) until a file of the study changes; a study in a database is read anew each time. Raises
    UserError for a study that is not there, or whose definition or storage cannot be read.

    >>> from analysis.load import load
    >>> tables = load("smoke")
    >>> tables.finished("smoke")[["trial", "setting", "seed", "param/mask_ratio", "value"]]
       trial  setting  seed  param/mask_ratio  value
    0      0        0     0               0.4   0.20
    4      4        0     1               0.4   0.25
    5      5        5     0               0.6   0.30

    Here trial 4 is the setting of trial 0 again, with another seed.
    """
    if not studies:
        raise UserError("name at least one study")
    parts = [_load_study(study_folder(study, runs)) for study in studies]
    tables = {}
    for field in dataclasses.fields(Tables):
        frames = [part[field.name] for part in parts]
        tables[field.name] = frames[0] if len(frames) == 1 else _together(frames)
    return Tables(**tables)


def load_search(study: str, runs: Path = RUNS) -> optuna.Study:
    """A study's search as Optuna knows it: without repeats, for its statistics and plots. Raises as `load` does."""
    storage = WithSearch(load_study(study, runs)._storage, study)
    return optuna.load_study(study_name=search_name(study), storage=storage)


def load_study(study: str, runs: Path = RUNS) -> optuna.Study:
    """The study as Optuna knows it, with its repeats. Raises UserError as `load` does."""
    folder = study_folder(study, runs)
    with naming_repair(folder):
        folder.definition()
        return load_launched(folder)


def named(studies: Sequence[str]) -> list[str]:
    """The studies that a command line names, each once. Raises UserError if it names none."""
    names = dict.fromkeys(name for words in studies for name in words.split())
    if not names:
        raise UserError("name at least one study with --study")
    return list(names)


def study_folder(study: str, runs: Path = RUNS) -> StudyFolder:
    """The folder of a study. Raises UserError if there is none."""
    folder = StudyFolder.in_runs(Path(runs), study)
    if not folder.study_file.exists():
        with naming_repair(folder):
            open_launched(folder)  # which says what is there instead
    return folder


def definition_of(folder: StudyFolder) -> Definition:
    """What study.json says. Raises DamagedError that names the command which restores it."""
    with naming_repair(folder):
        return folder.definition()


def _load_study(folder: StudyFolder) -> dict[str, pd.DataFrame]:
    definition = definition_of(folder)
    if definition.get("storage", JOURNAL) != JOURNAL:
        return read_tables(folder, load_study(folder.name, folder.folder.parent), definition)
    # The stamp is taken before anything is read: if a file changes meanwhile, the tables that are cached now carry the
    # stamp of its old state, and the next call reads it again.
    place, stamp = hashlib.sha256(os.fsencode(folder.folder)).hexdigest()[:16], _stamp(folder)
    tables = cache.cached(place, stamp, COLUMNS)
    if tables is None:
        tables = read_tables(folder, load_study(folder.name, folder.folder.parent), definition)
        cache.keep(place, stamp, tables)
    return tables


def _stamp(folder: StudyFolder) -> str:
    """Changes whenever a record of the study changes, or the code that reads it."""
    digest = hashlib.sha256(b"".join(Path(inspect.getfile(part)).read_bytes() for part in READERS))
    names = ("metrics.jsonl", "quality.json", "attempts.json", "result.json", "config.json", IDENTITY_FILE)
    records = (f"{trial}/{name}" for trial in folder.trial_folders() for name in names)
    paths: list[str | Path] = [folder.study_file, folder.folder / JOURNAL, *records]
    for path in paths:
        try:
            seen = os.stat(path)
        except OSError:  # none; or one whose reader says what is wrong
            continue
        digest.update(os.fsencode(path) + f" {seen.st_size} {seen.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _together(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of several. Pandas would make objects of categories that differ, so they are made anew.

    The columns of an empty table have no kind of their own, and would make objects of all others.
    """
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    plain = [frame.astype({name: object for name in CATEGORIES if name in frame}) for frame in frames]
    return with_categories(pd.concat(plain, ignore_index=True))


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each text, and each column's name, such that no spreadsheet takes it for a formula."""
    texts = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    told: pd.DataFrame = table.assign(**{str(name): table[name].astype(object).map(cell) for name in texts})
    told.columns = [cell(name) for name in told.columns]
    return told


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the tables of studies as CSV files.

    Examples:
        --study mask_ratio --out tables
        --study mask_ratio block_size --out tables --runs DIR
    """

    study: tuple[str, ...]
    """Names of the studies."""
    out: Path
    """Folder for trials.csv, curves.csv, cam_quality.csv, class_iou.csv, attempts.csv and space.csv."""
    runs: Path = RUNS
    """Folder of all studies."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "load", arguments)
    check_folder(options.out, "--out")
    tables = load(*named(options.study), runs=options.runs)
    for field in dataclasses.fields(tables):
        table = for_spreadsheets(getattr(tables, field.name))
        with open_file(options.out / f"{field.name}.csv", "w") as file:
            table.to_csv(file, index=False, float_format="%.6g")
        print(f"wrote {options.out / field.name}.csv ({len(table)} rows)")


if __name__ == "__main__":
    main()
