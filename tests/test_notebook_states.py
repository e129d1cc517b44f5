"""The notebooks on studies in every state: what is there is shown, and what is missing is one sentence."""

import json

import nbformat
import pytest
from notebook_cells import FOLDER, NOTEBOOKS, run_cells
from studies import add_trial, new_study

from analysis.notebook import choose, in_one_sentence
from fsr.errors import UserError


def empty(runs):
    new_study(runs)


def none_finished(runs):
    folder, study = new_study(runs)
    for state in ("running", "fail", "pruned", "waiting"):
        add_trial(study, 0.4, state)


STATES = {"no trial at all": empty, "no finished trial": none_finished}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_study_without_a_finished_trial_is_shown_as_far_as_it_is(name, state, tmp_path, monkeypatch):
    STATES[state](tmp_path)
    shown = run_cells(name, monkeypatch, "smoke", tmp_path)
    assert shown
    if name != "efficiency":
        assert any("finished" in str(getattr(part, "data", part)) for part in shown), shown


def no_study(runs):
    pass


def damaged_journal(runs):
    folder, study = new_study(runs)
    add_trial(study, 0.4)
    (folder.folder / "journal.log").write_text("{}\n" * 3)


def damaged_definition(runs):
    folder, _ = new_study(runs)
    folder.study_file.write_text("{")


REFUSED = {
    no_study: "there is no study in {runs}; set RUNS to a folder of studies, or make one: ",
    damaged_journal: "line 1 is damaged",
    damaged_definition: "study.json is damaged",
}


@pytest.mark.parametrize("state", REFUSED, ids=lambda state: state.__name__)
def test_what_cannot_be_shown_is_one_sentence(state, tmp_path, monkeypatch):
    state(tmp_path)
    with pytest.raises(UserError) as error:
        run_cells("overview", monkeypatch, None, tmp_path)
    assert REFUSED[state].format(runs=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path, monkeypatch):
    new_study(tmp_path, "a")
    with pytest.raises(UserError, match=r"there is no study in .*/typo; studies there: a; "):
        run_cells("overview", monkeypatch, "typo", tmp_path)


def test_what_is_sound_is_shown_beside_what_is_not(tmp_path, monkeypatch):
    damaged_journal(tmp_path)
    add_trial(new_study(tmp_path, "sound")[1], 0.4)
    shown = run_cells("overview", monkeypatch, "smoke sound", tmp_path)
    texts = [part.data for part in shown if hasattr(part, "data")]
    assert any(text.startswith("**Left out:** ") and "journal.log" in text for text in texts)
    assert "### sound" in texts and "### smoke" not in texts


def test_the_first_cell_lists_what_there_is_and_takes_what_was_launched_last(tmp_path, monkeypatch):
    for name, day in (("a", 1), ("b", 3), ("c", 2)):
        folder, _ = new_study(tmp_path, name)
        definition = json.loads(folder.study_file.read_text()) | {"launched": {"started": f"2026-01-0{day}T00:00"}}
        folder.study_file.write_text(json.dumps(definition))
    damaged_definition(tmp_path)
    shown = []
    monkeypatch.setattr("analysis.notebook.display", lambda *parts: shown.extend(parts))
    monkeypatch.delenv("STUDY", raising=False)
    assert choose(None, tmp_path) == (["b"], tmp_path)
    table = shown[1]
    assert table.index.tolist() == ["a", "b", "c", "smoke"]
    assert table["shown"].tolist() == ["", "✓", "", ""]
    assert "study.json is damaged" in table["searched"]["smoke"]
    assert choose("a c", tmp_path)[0] == choose(["a", "c"], str(tmp_path))[0] == ["a", "c"]
    monkeypatch.setenv("STUDY", "c")
    assert choose(None, tmp_path)[0] == ["c"]
    monkeypatch.setenv("RUNS", str(tmp_path / "none"))
    with pytest.raises(UserError, match="there is no study in .*none; set RUNS"):
        choose()


def test_a_mistake_in_a_cell_is_a_sentence_without_a_traceback(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.set_custom_exc((UserError,), in_one_sentence)
    result = shell.run_cell("from fsr.errors import UserError\nraise UserError('no such thing')")
    assert isinstance(result.error_in_exec, UserError)  # the cells that follow are not run
    assert "".join(capsys.readouterr()).strip() == "error: no such thing"


def test_the_notebooks_name_the_projects_kernel():
    for name in NOTEBOOKS:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        assert notebook.metadata.kernelspec.name == "fsr"
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert first.source.splitlines()[-1] == "studies, runs = choose(STUDY, RUNS)"
