"""The main plots of studies as PNG files: `fsr figures --study mask_ratio momentum --out FOLDER`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("figures")

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd

from analysis import plots
from analysis.load import RUNS, load, named
from analysis.notebook import begin
from analysis.ranking import ranking
from fsr.command import parse_flags
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.score_names import SEG_MIOU
from fsr.writable import check_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write ranking_STUDY.png (settings with intervals) and effects_STUDY.png (score against each parameter).

    Examples:
        --study mask_ratio --out figures
        --study mask_ratio momentum --out figures --score val/cam_miou
    """

    study: tuple[str, ...]
    """Names of the studies."""
    out: Path
    """Folder for the files."""
    runs: Path = RUNS
    """Folder of all studies."""
    score: str = SEG_MIOU
    """What is shown, a column of the trials."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse_flags(Options, "figures", arguments)
    check_folder(options.out, "--out")
    matplotlib.use("agg")
    begin()
    studies = named(options.study)
    tables = load(*studies, runs=options.runs)
    for study in studies:
        trials = tables.finished(study)
        if options.score not in trials or pd.to_numeric(trials[options.score], errors="coerce").isna().all():
            raise UserError(f"no trial of study {study} has finished with a score {options.score}, a column of numbers")
        drawn = {
            "ranking": plots.intervals(ranking(tables, study, options.score), options.score),
            "effects": plots.effects(tables, study, options.score),
        }
        for name, figure in drawn.items():
            if figure is None:  # this study searches no parameter that could have an effect
                continue
            path = options.out / f"{name}_{study}.png"
            with atomic_file(path) as file:
                figure.savefig(file, format="png")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
