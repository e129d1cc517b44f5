"""The notebooks, on a study that was really swept and on one with a trial in every state."""

import os

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from notebook_cells import FOLDER, NOTEBOOKS, run_cells
from PIL import Image
from studies import new_study, write_run

from analysis.figures import main as figures


def test_notebooks_are_committed_without_outputs():
    assert {f"{name}.ipynb" for name in NOTEBOOKS} == {file.name for file in FOLDER.glob("*.ipynb")}
    for name in NOTEBOOKS:
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
            assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_runs_by_itself_on_a_real_study(name, swept):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    options = {"kernel_name": "python3", "resources": {"metadata": {"path": str(FOLDER)}}}
    client = NotebookClient(notebook, timeout=120, **options)
    with client.setup_kernel(env=os.environ | {"STUDY": "smoke", "RUNS": str(swept)}):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"], outputs


def test_all_run_on_a_study_with_a_trial_in_every_state(all_states, monkeypatch):
    shown = [part for name in NOTEBOOKS for part in run_cells(name, monkeypatch, "smoke", all_states)]
    assert sum(isinstance(part, Figure) for part in shown) >= 8


@pytest.mark.slow
def test_figures_are_pictures_of_each_study(swept, tmp_path, capsys):
    figures(["--study", "smoke", "--runs", str(swept), "--out", str(tmp_path)])
    for name in ("ranking_smoke.png", "effects_smoke.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 150
    with pytest.raises(SystemExit) as end:
        figures(["--study", "smoke", "--runs", str(swept), "--out", str(tmp_path), "--score", "val/x"])
    assert end.value.code == 2
    assert "no trial of study smoke has finished with a score val/x" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        figures(["--study", "smoke", "--runs", str(swept), "--out", str(tmp_path), "--score", "causes"])
    assert "with a score causes, a column of numbers" in capsys.readouterr().err


def test_a_study_without_parameters_has_a_ranking_and_no_effects(tmp_path):
    folder, study = new_study(tmp_path)
    study.tell(study.ask(), 0.2)
    write_run(folder.run(0))
    figures(["--study", "smoke", "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["ranking_smoke.png"]
