"""All notebooks as one page: `fsr report --study mask_ratio [block_size …]`.

The page needs nothing else: no network, no scripts of others.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("report")

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from analysis.load import RUNS, load, named, study_folder
from fsr.command import parse_flags
from fsr.errors import reports_user_errors
from fsr.files import atomic_file
from fsr.progress import with_progress
from fsr.writable import check_file
from launch.state.paths import StudyFolder

FOLDER = Path(__file__).parent
NOTEBOOKS = ("overview", "masking", "cam_quality", "efficiency", "paper")
CELL_S = 600
LONGEST_NAMES = 200  # of several studies in one file's name, which may have 255 letters


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the notebooks on studies and write one page of all.

    Examples:
        --study mask_ratio
        --study mask_ratio block_size --out both.html
    """

    study: tuple[str, ...]
    """Names of the studies."""
    runs: Path = RUNS
    """Folder of all studies."""
    out: Path | None = None
    """Page to write; by default report.html in the study's folder, and of several report_NAMES.html beside these."""


def together() -> nbformat.NotebookNode:
    """The cells of all notebooks in one; each begins with its own title."""
    # nbformat and nbconvert say that they have types, and leave many functions without.
    whole: nbformat.NotebookNode = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    for name in NOTEBOOKS:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
        whole.metadata = notebook.metadata
        whole.cells += notebook.cells
    return whole


def execute(notebook: nbformat.NotebookNode, studies: Sequence[str], runs: Path) -> None:
    """Run all cells on these studies, in one kernel; raises CellExecutionError for the first that fails."""
    environment = os.environ | {"STUDY": " ".join(studies), "RUNS": str(runs.absolute())}
    resources = {"metadata": {"path": str(FOLDER)}}
    with TemporaryDirectory() as sockets:
        # Unix sockets: by default a kernel listens on TCP ports, for every user of this machine.
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(notebook, timeout=CELL_S, resources=resources, km=kernel)
        try:
            with client.setup_kernel(env=environment):
                cells = list(enumerate(notebook.cells))
                for index, cell in with_progress(cells, len(cells), "running the notebooks"):
                    client.execute_cell(cell, index)
        finally:
            kernel.shutdown_kernel(now=True)


def page(notebook: nbformat.NotebookNode, title: str) -> str:
    """The notebook's text and results as HTML, without its code."""
    elsewhere = ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "jupyter_widgets_base_url")
    without_code = dict.fromkeys(("exclude_input", "exclude_input_prompt", "exclude_output_prompt"), True)
    exporter = HTMLExporter(**without_code, **dict.fromkeys(elsewhere, ""))  # type: ignore[no-untyped-call]
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return html


def default_page(folders: Sequence[StudyFolder]) -> Path:
    """Where the page of these studies goes: one of several takes no single one's place."""
    if len(folders) == 1:
        return folders[0].folder / "report.html"
    names = "_".join(folder.name for folder in folders)
    if len(names) > LONGEST_NAMES:
        names = f"{len(folders)}_studies_{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    return folders[0].folder.parent / f"report_{names}.html"


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse_flags(Options, "report", arguments)
    studies = named(options.study)
    folders = [study_folder(study, options.runs) for study in studies]
    load(*studies, runs=options.runs)  # what cannot be read is said here, not by a notebook
    out = options.out or default_page(folders)
    check_file(out, "--out")
    notebook = together()
    try:
        execute(notebook, studies, options.runs)
    except CellExecutionError as error:
        sys.exit(f"error: a notebook failed: {error}")
    with atomic_file(out) as file:
        file.write(page(notebook, ", ".join(studies)).encode())
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
