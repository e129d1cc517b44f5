"""Tries a study before anything is submitted: what its file says of the first trials must make configurations."""

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution

from fsr.config import TrainConfig
from fsr.errors import UserError
from launch.state.code_snapshot import PACKAGES, ROOT
from launch.study import Settings, Study
from launch.study_errors import naming_line, place_of, shown_path, sweeps_folder

DRAWS = 10
TRIED = 500  # of the known settings, a second of computing: more are those of a grid, whose cells are alike


def check_study(study: Study, base: TrainConfig) -> list[str]:
    """What a user should know of the study's file, after its known settings and ten of the sampler's made
    configurations; nothing where there is nothing to say. Of more than 500 known settings the first and some of the
    others are tried, which are told.

    Raises UserError, with file and line, for what would end each trial, or the workers.
    """
    check_imports(study)
    known = study.known_params(base)
    if not known:
        raise study.wrong_known(known)
    numbers = tried(len(known))
    spaces = [check_known(study, base, number, known[number]) for number in numbers]
    with naming_line(study.file):
        study.pruner(base)
    spaces += draws(study, base)
    some = (
        [f"of the study's {len(known)} known settings, {len(numbers)} were tried"] if len(numbers) < len(known) else []
    )
    return [*differing(spaces), *some]


def tried(known: int) -> list[int]:
    """Which of so many known settings are tried: all, or the first, in a grid each value alone, and as many others."""
    if known <= TRIED:
        return [*range(known)]
    first = TRIED // 2
    return [*range(first), *(first + (known - first) * place // first for place in range(first))]


def check_known(study: Study, base: TrainConfig, number: int, params: Settings) -> dict[str, BaseDistribution]:
    """The parameters and ranges of the trial that is to get these known parameters."""
    trial = optuna.trial.FixedTrial(params)
    which, said = f"known[{number}]", f"suggest, of known[{number}] {params}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what is out of range, which is refused below
        try:
            settings = study.settings_of(cast(optuna.Trial, trial), base)
        except UserError as error:
            missing = next(_missing(error, params), None)
            if missing is None:
                raise
            place = place_of(study.known, "known", study.file)
            raise UserError(f"{place}: {which} is {params}, without {missing!r}, which suggest asks for") from None
    for name, value in params.items():
        place = place_of(study.known, name, study.file)
        if name not in trial.distributions:
            asked = ", ".join(trial.distributions) or "nothing"
            raise UserError(f"{place}: {which} has {name}, which suggest does not ask for; it asks for {asked}")
        space = trial.distributions[name]
        if not space._contains(space.to_internal_repr(value)):
            raise UserError(
                f"{place}: {which} has {name} {value!r}, which lies outside of its range, {in_words(space)}"
            )
    study.configured(base, settings, said, study.suggest)
    again = study.settings_of(cast(optuna.Trial, optuna.trial.FixedTrial(params)), base)
    if again != settings:
        raise UserError(
            f"{place_of(study.suggest, 'return', study.file)}: suggest must give the same settings for the same "
            f"parameters, or no trial could resume; of {params} it gave {settings}, and then {again}"
        )
    return trial.distributions


def draws(study: Study, base: TrainConfig) -> Iterator[dict[str, BaseDistribution]]:
    """The parameters and ranges of trials as the study's sampler draws them; each makes a configuration."""
    session = optuna.create_study(direction="maximize")
    for number in range(DRAWS):
        with naming_line(study.file):
            session.sampler = study.sampler_for(number, base)
            trial = session.ask()
        settings = study.settings_of(trial, base)
        study.configured(base, settings, f"suggest, with {trial.params}", study.suggest)
        yield trial.distributions


def differing(spaces: list[dict[str, BaseDistribution]]) -> list[str]:
    """Where trials have other parameters, or other ranges, than the first."""
    first = spaces[0]
    others = sorted({name for space in spaces for name in space.keys() ^ first.keys()})
    ranges = sorted({name for space in spaces for name in space.keys() & first.keys() if space[name] != first[name]})
    notes = []
    if others:
        notes.append(f"not every trial has the parameters {', '.join(others)}; the sampler draws those by themselves")
    if ranges:
        notes.append(f"the range of {', '.join(ranges)} is not the same in each trial; study.json has that of trial 0")
    return notes


def in_words(space: BaseDistribution) -> str:
    """A range for people: from 0.1 to 1, or its choices."""
    choices = getattr(space, "choices", None)
    return f"one of {', '.join(map(str, choices))}" if choices else f"from {space.low:.6g} to {space.high:.6g}"  # type: ignore[attr-defined]


def check_imports(study: Study) -> None:
    """Raise UserError if a file of sweeps/ imports what lies in this checkout and in no snapshot of its code."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("sweeps.")]
    for file in [Path(module.__file__) for module in loaded if module.__file__]:
        for line, imported in _imports(ast.parse(file.read_bytes())):
            origin = Path(getattr(sys.modules.get(imported), "__file__", None) or "/")
            inside = origin.parent.is_relative_to(ROOT) and "site-packages" not in origin.parts
            if inside and imported not in PACKAGES:
                raise UserError(
                    f"{shown_path(file)}, line {line}: {imported} lies in {origin.parent}, and workers run a snapshot "
                    f"of {', '.join(PACKAGES)} alone; move it to {sweeps_folder()}"
                )


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The top packages that a source imports, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.partition(".")[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def _missing(error: UserError, params: Mapping[str, Any]) -> Iterator[str]:
    """The parameter that Optuna did not find among these, if that was the error."""
    said = str(error.__cause__)
    if isinstance(error.__cause__, ValueError) and said.startswith("The value of the parameter '"):
        name = said.split("'")[1]
        if name not in params:
            yield name
