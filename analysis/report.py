"""The study page: `fsr report --study mask_ratio [block_size …]`.

It says first what each study has shown and what to type next, then shows what that rests on. It needs nothing else: no
network, no scripts of others.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("report")

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from analysis.facts import facts
from analysis.load import RUNS, definition_of, load, load_search, named, study_folder
from analysis.page.build import StudyOnPage, page_of
from fsr.command import parse_flags
from fsr.errors import reports_user_errors
from fsr.files import atomic_file
from fsr.writable import check_file
from launch.state.damage import naming_repair
from launch.state.paths import StudyFolder
from launch.state.target import Target

LONGEST_NAMES = 200  # of several studies in one file's name, which may have 255 letters


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write one page of studies: what they have shown, what to type next, and what that rests on.

    Examples:
        --study mask_ratio
        --study mask_ratio block_size --out both.html
    """

    study: tuple[str, ...]
    """Names of the studies."""
    runs: Path = RUNS
    """Folder of all studies."""
    out: Path | None = None
    """Page to write; by default report.html in the study's folder, and of several report_A+B.html beside these."""


def default_page(folders: Sequence[StudyFolder]) -> Path:
    """Where the page of these studies goes: one of several takes no single one's place."""
    if len(folders) == 1:
        return folders[0].folder / "report.html"
    names = "+".join(folder.name for folder in folders)
    if len(names) > LONGEST_NAMES:
        names = f"{len(folders)}_studies_{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    return folders[0].folder.parent / f"report_{names}.html"


def target_of(folder: StudyFolder) -> int | None:
    """The number of trials wanted; None before the first sweep has said it. Raises DamagedError."""
    try:
        with naming_repair(folder):
            return Target.of(folder).trials
    except FileNotFoundError:
        return None


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "report", arguments)
    studies = named(options.study)
    folders = [study_folder(study, options.runs) for study in studies]
    out = options.out or default_page(folders)
    check_file(out, "--out")
    tables, about = load(*studies, runs=options.runs), facts(studies, options.runs)
    shown = [
        StudyOnPage(
            folder=folder,
            definition=definition_of(folder),
            search=load_search(folder.name, options.runs),
            target=target_of(folder),
            facts={str(name): value for name, value in about[folder.name].items()},
        )
        for folder in folders
    ]
    with atomic_file(out) as file:
        file.write(page_of(shown, tables).encode(errors="replace"))
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
