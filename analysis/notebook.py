"""What the notebooks begin with: the studies that the environment names, and how figures look."""

import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import optuna
import pandas as pd

from analysis.load import definition_of, study_folder
from fsr.config import TrainConfig


def chosen() -> tuple[list[str], Path]:
    """The studies named by STUDY (several with spaces between; else smoke) and the folder of all, RUNS (else runs/)."""
    runs = Path(os.environ.get("RUNS", Path(__file__).parent.parent / "runs"))
    return os.environ.get("STUDY", "smoke").split(), runs


def begin() -> None:
    """Let figures be sharp and plain, tables whole, and Optuna silent."""
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


def facts(studies: list[str], runs: Path) -> pd.DataFrame:
    """What each study searched, on which data and for how long: a row a study."""
    rows = {}
    for study in studies:
        definition = definition_of(study_folder(study, runs))
        base, launched = definition["base"], definition.get("launched", {})
        config = TrainConfig.from_json(base)
        rows[study] = {
            "data": f"{base['dataset']} ({base['train_set']} → {base['val_set']})",
            "searched": ", ".join(definition["space"]),
            "metric": definition["metric"],
            "steps": base["iterations"],
            "batch": config.ranks * config.batch_size,
            "backbone": base["backbone"],
            "precision": base["precision"],
            "launched": launched.get("started", "")[:10],
            "commit": str(launched.get("git_commit"))[:8] + (" + changes" if launched.get("git_dirty") else ""),
        }
    table: pd.DataFrame = pd.DataFrame(rows)
    return table
