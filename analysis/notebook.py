"""What the notebooks begin with: the studies that are looked at, and how figures, tables and mistakes look."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import matplotlib.pyplot as plt
import optuna
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display

from analysis.load import RUNS, load
from fsr.errors import UserError
from fsr.json_file import UNREADABLE
from fsr.next_command import next_command
from launch.state.paths import StudyFolder, studies_in


def choose(study: str | Sequence[str] | None = None, runs: str | Path | None = None) -> tuple[list[str], Path]:
    """The studies to look at and the folder that they are in.

    Without names it is those of STUDY in the environment (several with spaces between), else the one that was launched
    last; without a folder that of RUNS, else `runs` of this checkout. Unless the environment has chosen, it shows which
    studies there are. What cannot be read is said and left out. Raises UserError if nothing is left.
    """
    folder = Path(runs or os.environ.get("RUNS") or Path(__file__).parent.parent / RUNS)
    there = studies_there(folder)
    if there.empty:
        sweep = next_command("sweep", "--study", "smoke", "--data_folder", "data/synthetic")
        raise UserError(f"there is no study in {folder}; set RUNS to a folder of studies, or make one: {sweep}")
    named = study or os.environ.get("STUDY") or str(there["launched"].idxmax())
    names = list(dict.fromkeys(named.split() if isinstance(named, str) else named))
    if study or "STUDY" not in os.environ:
        shown = ["✓" if name in names else "" for name in there.index]
        show(f"Studies in `{folder}`:", there.assign(shown=shown))
    sound, damage = [], []
    for name in names:
        try:
            load(name, runs=folder)
            sound.append(name)
        except UserError as error:
            damage.append(str(error))
    if not sound:
        raise UserError("; ".join(damage))
    for sentence in damage:
        show(f"**Left out:** {sentence}")
    return sound, folder


def studies_there(runs: Path) -> pd.DataFrame:
    """The studies of a folder: what each searches, when it was launched, how many of its trials have begun."""
    rows = {}
    for name in studies_in(runs):
        folder = StudyFolder(runs / name)
        try:
            definition = folder.definition()
            told = {
                "searched": ", ".join(definition["space"]),
                "launched": str(definition.get("launched", {}).get("started", ""))[:16],
            }
        except UNREADABLE as error:
            told = {"searched": str(error), "launched": ""}
        rows[name] = told | {"trials begun": len(folder.trial_folders())}
    table: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index", columns=["searched", "launched", "trials begun"])
    return table


def show(text: str, *parts: object) -> None:
    """Display Markdown, and what stands below it."""
    display(Markdown(text), *parts)  # type: ignore[no-untyped-call]  # IPython


def begin() -> None:
    """Let figures be sharp and plain, tables whole, Optuna silent, and a mistake of the user one sentence."""
    plt.rcParams |= {
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "font.size": 9,
    }
    pd.options.display.max_columns = pd.options.display.max_rows = 200
    pd.options.display.precision = 3
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # its matplotlib plots all are
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((UserError,), in_one_sentence)  # type: ignore[no-untyped-call]


def in_one_sentence(
    shell: Any, kind: type[UserError], error: UserError, traceback: TracebackType, tb_offset: int | None = None
) -> list[str]:
    """What IPython shows of a user's mistake, in the place of its traceback."""
    sentence = f"error: {error}"
    print(sentence)
    return [sentence]
