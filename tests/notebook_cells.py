"""Runs a notebook's cells inside this process: without a kernel, which takes seconds to start."""

import ast
import contextlib
import io
from pathlib import Path

import matplotlib
import nbformat
from matplotlib import pyplot as plt

import analysis

FOLDER = Path(analysis.__file__).parent
NOTEBOOKS = ("overview", "masking", "cam_quality", "errors", "efficiency", "paper")


def run_cells(name, monkeypatch, study, runs):
    """Run a notebook on a study, None for the one launched last; what it showed, as objects and printed lines."""
    monkeypatch.setenv("RUNS", str(runs))
    monkeypatch.delenv("STUDY", raising=False)
    if study:
        monkeypatch.setenv("STUDY", study)
    shown, printed, names = [], io.StringIO(), {}
    matplotlib.use("agg")
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    monkeypatch.setattr("analysis.notebook.display", lambda *parts: shown.extend(parts))
    with contextlib.redirect_stdout(printed), plt.rc_context():
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                body = ast.parse(cell.source).body
                last = body.pop() if isinstance(body[-1], ast.Expr) else None
                exec(compile(ast.Module(body, []), f"{name} {cell.id}", "exec"), names)
                if last is not None:
                    shown.append(eval(compile(ast.Expression(last.value), f"{name} {cell.id}", "eval"), names))
        plt.close("all")
    return shown + printed.getvalue().splitlines()
