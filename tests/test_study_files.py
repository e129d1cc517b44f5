"""What is wrong with a study's file is one sentence with file and line, before anything is submitted."""

# ruff: noqa: E501  # a row of the table is one case, with its whole sentence

import importlib
import subprocess
import sys
from typing import NamedTuple

import pytest
from method_checkout import command_of, private_checkout, surroundings_of
from tiny import __file__ as METHOD

from fsr.errors import UserError
from launch.plan import Options, plan

HEAD = "from launch.study import Study\n\n\n"
SUGGEST = """def suggest(trial, base):
    return {"mask_ratio": trial.suggest_float("ratio", 0.1, 0.9)}


"""
KNOWN = 'known=lambda base: [{"ratio": base.mask_ratio}]'
GOOD = f'{HEAD}{SUGGEST}study = Study(name="mine", suggest=suggest, {KNOWN}, trials=4, dataset="synthetic")\n'


def returning(line, known='[{"ratio": base.mask_ratio}]', more=""):
    """A study whose suggest ends with this line, which is its line 6."""
    draw = '    ratio = trial.suggest_float("ratio", 0.1, 0.9)\n'
    arguments = f'name="mine", suggest=suggest, known=lambda base: {known}, trials=4, dataset="synthetic"{more}'
    return f"{HEAD}def suggest(trial, base):\n{draw}    {line}\n\n\nstudy = Study({arguments})\n"


class Wrong(NamedTuple):
    kind: str
    text: str
    sentence: str


SWEPT = 'study = Study(name="mine", suggest=suggest, '
WRONG = (
    Wrong("a field of suggest misspelt", GOOD.replace('"mask_ratio"', '"mask_ratoi"'), "sweeps/mine.py, line 5: suggest changes mask_ratoi, which is no field of a training configuration; did you mean mask_ratio?"),
    Wrong("a field like no other", GOOD.replace('"mask_ratio"', '"zzz"'), "line 5: suggest changes zzz, which is no field of a training configuration; allowed: dataset, "),
    Wrong("a parameter of known misspelt", GOOD.replace('[{"ratio"', '[{"ratoi"'), "line 8: known[0] is {'ratoi': 0.4}, without 'ratio', which suggest asks for"),
    Wrong("a parameter of known too many", GOOD.replace('[{"ratio"', '[{"lr": 1, "ratio"'), "line 8: known[0] has lr, which suggest does not ask for; it asks for ratio"),
    Wrong("a second known setting in part", returning('return {"mask_ratio": ratio}', '[{"ratio": 0.4}, {}]'), "line 9: known[1] is {}, without 'ratio', which suggest asks for"),
    Wrong("known out of the range", GOOD.replace("base.mask_ratio", "0.95"), "line 8: known[0] has ratio 0.95, which lies outside of its range, from 0.1 to 0.9"),
    Wrong("known of another kind", GOOD.replace("[{", "{").replace("}]", "}"), "line 8: known must return a list of parameters as dicts, the first the base's own, got {'ratio': 0.4}"),
    Wrong("known without any", GOOD.replace('[{"ratio": base.mask_ratio}]', "[]"), "line 8: known must return a list of parameters as dicts, the first the base's own, got []"),
    Wrong("known as a list", GOOD.replace("lambda base: ", "").replace("base.mask_ratio", "0.4"), "line 8 (`study = Study(name=\"mine\", suggest=suggest, known=[{\"ratio\": 0.4}], trials=4, da`): the study's known is [{'ratio': 0.4}]: it is no function"),
    Wrong("known is missing", GOOD.replace(f"{KNOWN}, ", ""), "line 8 (`study = Study(name=\"mine\", suggest=suggest, trials=4, dataset=\"synthetic\")`): Study missing 1 required keyword-only argument: 'known'"),
    Wrong("a field of Study misspelt", GOOD.replace("trials=4", "trails=4"), "line 8 (`study = Study(name=\"mine\", suggest=suggest, known=lambda base: [{\"ratio\": base.m`): Study got an unexpected keyword argument 'trails'"),
    Wrong("a field of settings misspelt", returning('return {"mask_ratio": ratio}', more=', settings={"iteratons": 9}'), "line 9: settings changes iteratons, which is no field of a training configuration; did you mean iterations?"),
    Wrong("a value of settings of another kind", returning('return {"mask_ratio": ratio}', more=', settings={"lr": "fast"}'), "line 9: settings gives lr the value 'fast' (str); it must be float"),
    Wrong("a value of settings out of bounds", returning('return {"mask_ratio": ratio}', more=', settings={"lr": -1.0}'), "line 9: settings: lr must be in (0, 1e+06], got -1.0"),
    Wrong("no such data set", GOOD.replace('"synthetic"', '"vco"'), "study mine: dataset must be one of voc, coco, synthetic, test_bed, got vco"),
    Wrong("no such score", returning('return {"mask_ratio": ratio}', more=', metric="miou"'), "study mine: metric must be a score such as val/seg_miou, "),
    Wrong("trials as text", GOOD.replace("trials=4", 'trials="4"'), "the study's trials is '4': "),
    Wrong("no trial", GOOD.replace("trials=4", "trials=0"), "study mine: trials must be from 1 to 1000000, got 0"),
    Wrong("a syntax error", GOOD.replace("def suggest(trial, base):", "def suggest(trial, base)"), "sweeps/mine.py, line 4 (`def suggest(trial, base)`): SyntaxError: expected ':'"),
    Wrong("indentation", GOOD.replace("    return", "  pass\n    return"), "sweeps/mine.py, line 6 (`return {\"mask_ratio\": trial.suggest_float(\"ratio\", 0.1, 0.9)}`): IndentationError: unexpected indent"),
    Wrong("an exception in suggest", GOOD.replace("suggest_float", "suggest_flot"), "sweeps/mine.py, line 5 (`return {\"mask_ratio\": trial.suggest_flot(\"ratio\", 0.1, 0.9)}`): AttributeError: 'FixedTrial' object has no attribute 'suggest_flot'"),
    Wrong("an exception of some trials", returning('return {"mask_ratio": 1 / 0 if ratio != base.mask_ratio else ratio}'), "line 6 (`return {\"mask_ratio\": 1 / 0 if ratio != base.mask_ratio else ratio}`): ZeroDivisionError: division by zero"),
    Wrong("a range the wrong way round", GOOD.replace("0.1, 0.9", "0.9, 0.1"), "ValueError: "),
    Wrong("a field of base misspelt in known", GOOD.replace("base.mask_ratio", "base.mask_rate"), "line 8 (`study = Study("),
    Wrong("an exception at import", GOOD.replace("trials=4", "trials=FOUR"), "NameError: name 'FOUR' is not defined"),
    Wrong("a module that is missing", "import skopt_of_mine\n" + GOOD, f"sweeps/mine.py, line 1 (`import skopt_of_mine`): there is no module skopt_of_mine; install it ({sys.executable} -m pip install skopt_of_mine) or mend the name"),
    Wrong("a name that a module lacks", "from launch.study import Sudy\n" + GOOD, "line 1 (`from launch.study import Sudy`): ImportError: cannot import name 'Sudy'"),
    Wrong("no study", HEAD + SUGGEST, "sweeps/mine.py: it must define a Study, `study = Study(name='mine', …)`, and it defines none"),
    Wrong("a study of another type", f"{HEAD}study = dict(name='mine')\n", "and its study is {'name': 'mine'} (dict)"),
    Wrong("an empty file", "", "and it defines none"),
    Wrong("another name", GOOD.replace('name="mine"', 'name="yours"'), "sweeps/mine.py, line 8: its study is named 'yours', and must have the name of its file, 'mine'; mend the name, or rename the file to yours.py"),
    Wrong("a name that can be none", GOOD.replace('name="mine"', 'name="My Study"'), "a study's name consists of a-z, 0-9, _ and -, got 'My Study'"),
    Wrong("text for a number", returning('return {"mask_ratio": str(ratio)}'), "line 6: suggest gives mask_ratio the value '0.4' (str); it must be float"),
    Wrong("a fraction for a whole number", returning('return {"block_size": 16 * ratio}'), "line 6: suggest gives block_size the value 6.4 (float); it must be int"),
    Wrong("a word that is none of those", returning('return {"precision": "fp16"}'), "line 6: suggest gives precision the value 'fp16' (str); it must be one of fp32, tf32, bf16"),
    Wrong("a value out of a field's bounds", returning('return {"mask_ratio": 3 * ratio}'), "line 6: suggest, of known[0] {'ratio': 0.4}: mask_ratio must be in (0, 1], got 1.2"),
    Wrong("a value that other fields forbid", returning('return {"block_size": 20}'), "line 6: suggest, of known[0] {'ratio': 0.4}: block_size must be a multiple of the patch size 8 that divides the crop size 96 (allowed: "),
    Wrong("NaN", returning('return {"lr": float("nan")}'), "line 6: suggest gives lr the value nan (float); it must be float"),
    Wrong("nothing returned", returning('{"mask_ratio": ratio}'), "suggest must give the fields that it changes as a dict, got nothing: its last line must return them"),
    Wrong("a number returned", returning("return ratio"), "suggest must give the fields that it changes as a dict, got 0.4"),
    Wrong("a suggest of one argument", GOOD.replace("(trial, base)", "(trial)"), "the study's suggest is <function suggest"),
    Wrong("settings by chance", "import random\n" + returning('return {"mask_ratio": random.random()}'), "suggest must give the same settings for the same parameters, or no trial could resume"),
    Wrong("choices that change", returning('return {"mask_ratio": ratio, "seed": trial.suggest_categorical("seed", [0, int(1e6 * ratio)])}', '[{"ratio": 0.4, "seed": 0}]'), "ValueError: CategoricalDistribution does not support dynamic value space."),
    Wrong("it ends the program", GOOD + "raise SystemExit(3)\n", "it ends the program (sys.exit), and a study's file must only define the study"),
    Wrong("a sampler that cannot be made", returning('return {"mask_ratio": ratio}', more=", sampler=lambda seed: 1 // 0"), "ZeroDivisionError: "),
    Wrong("a pruner that cannot be made", returning('return {"mask_ratio": ratio}', more=", pruner=lambda base: base.steps"), "AttributeError: "),
)  # fmt: skip


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    """A folder of studies in the place of sweeps/."""
    package = importlib.import_module("sweeps")
    folder = tmp_path / "sweeps"
    folder.mkdir()
    before = list(package.__path__)
    package.__path__[:] = [str(folder)]
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("sweeps.")}
    for name in loaded:
        del sys.modules[name]
    importlib.invalidate_caches()
    yield folder
    package.__path__[:] = before
    for name in [name for name in sys.modules if name.startswith("sweeps.")]:
        del sys.modules[name]
    sys.modules.update(loaded)


def planned(folder, text, name="mine"):
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return plan(Options(study=name, data_folder=folder, runs=folder / "runs", cluster="local"))


def test_a_sound_study_is_planned_without_a_note(sweeps):
    assert planned(sweeps, GOOD).notes == ()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.kind)
def test_what_is_wrong_is_one_sentence(sweeps, wrong):
    with pytest.raises(UserError) as raised:
        planned(sweeps, wrong.text)
    assert wrong.sentence in str(raised.value)
    assert str(raised.value).startswith(("sweeps/mine.py", "study mine"))
    assert "\n" not in str(raised.value)


def test_other_parameters_in_other_trials_are_said(sweeps):
    line = 'return {"mask_ratio": ratio, **({} if ratio < 0.5 else {"lr": trial.suggest_float("lr", 1e-5, ratio)})}'
    assert planned(sweeps, returning(line)).notes == (
        "not every trial has the parameters lr; the sampler draws those by themselves",
    )


def test_a_range_that_changes_is_said(sweeps):
    line = 'return {"mask_ratio": ratio, "lr": trial.suggest_float("lr", 1e-5, ratio)}'
    known = '[{"ratio": 0.4, "lr": 1e-3}]'
    assert "the range of lr is not the same in each trial" in planned(sweeps, returning(line, known)).notes[0]


@pytest.mark.parametrize("name", ["2nd-try", "_mine", "class", "random"])
def test_a_file_may_be_named_as_no_variable_could(sweeps, name):
    assert planned(sweeps, GOOD.replace('name="mine"', f'name="{name}"'), name).study.name == name


@pytest.mark.parametrize("name", ["MyStudy", "my study", "ü"])
def test_a_file_whose_name_no_study_can_have_is_named(sweeps, name):
    with pytest.raises(UserError, match=f"sweeps/{name}.py, line 8: its study is named 'mine', and must have the name"):
        planned(sweeps, GOOD, name)


def test_a_helper_beside_the_packages_is_in_no_snapshot(sweeps, monkeypatch, tmp_path):
    monkeypatch.setattr("launch.study_check.ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helper_of_mine.py").write_text("RATIO = 0.9\n")
    with pytest.raises(
        UserError, match=r"sweeps/mine.py, line 1: helper_of_mine lies in .*, and workers run a snapshot"
    ):
        planned(sweeps, "from helper_of_mine import RATIO\n" + GOOD.replace("0.9", "RATIO"))
    sys.modules.pop("helper_of_mine")


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_the_command_says_it_and_leaves_nothing(tmp_path, options):
    checkout = private_checkout(tmp_path / "checkout", METHOD)
    command = [*command_of(checkout), "--study", "mine", "--data_folder", tmp_path, "--runs", tmp_path / "runs"]
    for wrong in WRONG:
        (checkout / "sweeps" / "mine.py").write_text(wrong.text)
        answer = subprocess.run(
            [*command, "--cluster", "local", *options], capture_output=True, text=True, **surroundings_of(checkout)
        )
        assert answer.returncode == 2, wrong.kind
        assert answer.stderr.startswith("error: ") and wrong.sentence in answer.stderr, (wrong.kind, answer.stderr)
        assert len(answer.stderr.splitlines()) == 1, (wrong.kind, answer.stderr)
        assert not (tmp_path / "runs").exists()
