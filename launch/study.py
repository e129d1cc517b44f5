"""A study: which settings of a run are tried, in what order, and by which score they are compared."""

import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast, get_origin, get_type_hints

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from typeguard import TypeCheckError, check_type

from fsr.bounds import COUNT, WORKERS, check_bounds
from fsr.config import PRESETS, TrainConfig
from fsr.data.source import with_own_classes
from fsr.errors import UserError
from fsr.score_names import SEG_MIOU, TITLES, is_score
from fsr.setting_text import stored
from launch.state.known_settings import KnownSettings
from launch.state.paths import check_study_name
from launch.study_errors import naming_line, place_of, shown_path, study_file
from launch.study_grid import Grid
from launch.study_settings import checked

Settings = dict[str, Any]


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator; counts running trials as bad, so that workers spread out."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def joint_tpe(seed: int) -> optuna.samplers.BaseSampler:
    """The same over all parameters together."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=16, multivariate=True, constant_liar=True)


def median(base: TrainConfig) -> optuna.pruners.BasePruner:
    """From the middle of the run, stop what is below the median of the finished trials at the same step."""
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=base.iterations // 2)


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study. A file `sweeps/NAME.py` defines it as `study`; its docstring is the lab record.

    >>> from fsr.config import synthetic
    >>> study = Study(
    ...     name="momentum",
    ...     suggest=lambda trial, base: {"momentum": trial.suggest_float("momentum", 0.9, 0.999)},
    ...     known=lambda base: [{"momentum": base.momentum}],
    ...     trials=16,
    ... )
    >>> study.first_settings(synthetic())
    {'momentum': 0.98}
    """

    name: str
    """Its identity and the name of its folder: a-z, 0-9, _ and -."""
    suggest: Callable[[optuna.Trial, TrainConfig], Settings]
    """The fields of the base configuration that this trial changes."""
    known: Callable[[TrainConfig], Sequence[Settings]]
    """Parameters to try first, in this order. The first are the base's own, so that trial 0 is the paper's setting."""
    trials: Annotated[int, COUNT]
    """Trials that are to finish or be pruned."""
    parallel: Annotated[int, WORKERS] = 4
    """Workers at a time."""
    dataset: str = "voc"
    """Preset of fsr.config that the study is meant for."""
    settings: Settings = field(default_factory=dict)
    """What the base changes of the preset."""
    metric: str = SEG_MIOU
    """Score to maximise."""
    sampler: Callable[[int], optuna.samplers.BaseSampler] = tpe
    """Sampler for a seed."""
    pruner: Callable[[TrainConfig], optuna.pruners.BasePruner] = median
    """Pruner for a base configuration."""

    considered: Annotated[int, COUNT] = 500
    """Sampler and pruner see so many of the newest trials that run, and of those that have ended, and the 100 best of
    all: each more would cost time at every claim. A sampler that counts trials, as a grid does, needs as many as the
    study has."""

    def __post_init__(self) -> None:
        hints = get_type_hints(Study)
        for each in fields(self):
            value = getattr(self, each.name)
            try:
                check_type(value, hints[each.name])
            except TypeCheckError as error:
                function = get_origin(hints[each.name]) is get_origin(Callable[[], Any])
                wrong = str(error) if callable(value) or not function else "it is no function"
                raise UserError(f"the study's {each.name} is {value!r:.60}: {wrong}") from None
        check_study_name(self.name)
        check_bounds(type(self), vars(self), f"study {self.name}: ")
        if self.dataset not in PRESETS:
            raise UserError(f"study {self.name}: dataset must be one of {', '.join(PRESETS)}, got {self.dataset}")
        if not is_score(self.metric):
            raise UserError(f"study {self.name}: metric must be a score such as {', '.join(TITLES)}, got {self.metric}")

    def base(self, dataset: str, data_folder: Path | None, iterations: int | None, seed: int | None) -> TrainConfig:
        """The configuration that every trial starts from. A shorter run is evaluated as often as a whole one."""
        preset = PRESETS[dataset]
        preset_config = preset() if data_folder is None else preset(data_folder)
        settings = checked(self.settings, "settings", self.suggest, self.file)
        config = self.configured(preset_config, settings, "settings", self.suggest)
        if "num_classes" not in settings:
            config = with_own_classes(config)
        if iterations is not None:
            eval_every = max(1, config.eval_every * iterations // config.iterations)
            config = replace(config, iterations=iterations, eval_every=eval_every)
        return config if seed is None else replace(config, seed=seed)

    def space(self, base: TrainConfig) -> dict[str, Any]:
        """The parameters and their ranges, as JSON values."""
        return {name: json.loads(distribution_to_json(range_)) for name, range_ in self._distributions(base).items()}

    def size(self, base: TrainConfig) -> int | None:
        """Number of different settings, or None where a parameter is continuous."""
        size = 1
        for range_ in self._distributions(base).values():
            if not isinstance(range_, CategoricalDistribution):
                return None
            size *= len(range_.choices)
        return size

    def sampler_for(self, number: int, base: TrainConfig) -> optuna.samplers.BaseSampler:
        """The sampler of one trial: its draws depend on study, seed and number, not on the worker."""
        digest = hashlib.sha256(f"{self.name}/{base.seed}/{number}".encode()).digest()
        return self.sampler(int.from_bytes(digest[:4], "little"))

    def settings_of(self, trial: optuna.Trial, base: TrainConfig) -> Settings:
        """What `suggest` says of a trial. Its choices may be tuples, too, which Optuna itself cannot store.

        Raises UserError, with file and line, for what it raises and for what are no fields of a configuration.
        """
        with naming_line(self.file):
            settings = self.suggest(cast(optuna.Trial, _AnyChoices(trial)), base)
        return checked(settings, "suggest", self.suggest, self.file)

    def all_params(self, base: TrainConfig, trials: int) -> Sequence[Settings]:
        """The parameters of so many trials, where all of them are known beforehand; else nothing."""
        known = self.known_params(base)
        if len(known) == trials:
            return known
        return known[:trials] if len(known) > trials else []

    def known_params(self, base: TrainConfig) -> Sequence[Settings]:
        """What `known` says, as the study's storage has it. Raises UserError as `settings_of` does."""
        with naming_line(self.file):
            known = self.known(base)
        if isinstance(known, Grid):  # perhaps of millions of cells, which nobody needs at once
            return known.with_values(stored)
        if not (isinstance(known, list | tuple) and all(isinstance(each, dict) for each in known)):
            raise self.wrong_known(known)
        return [{name: stored(value) for name, value in params.items()} for params in known]

    def known_settings(self, base: TrainConfig, code: str) -> KnownSettings:
        """The same, of which a code version tries one after the other: one object for all claims of a process."""
        if (base, code) not in self._known_settings:
            self._known_settings[base, code] = KnownSettings(self.known_params(base))
        return self._known_settings[base, code]

    @cached_property
    def _known_settings(self) -> dict[tuple[TrainConfig, str], KnownSettings]:
        return {}

    def wrong_known(self, known: Any) -> UserError:
        """What is said of known parameters that are none."""
        return UserError(
            f"{place_of(self.known, 'known', self.file)}: known must return a list of parameters as dicts, the first "
            f"the base's own, got {known!r:.100}"
        )

    def configured(self, base: TrainConfig, settings: Settings, said: str, function: Callable[..., Any]) -> TrainConfig:
        """The base with these settings, which a function or field of the study said. Raises UserError, with file and
        line, for a value that is not allowed."""
        try:
            return replace(base, **settings)
        except UserError as error:
            word = str(error).partition(" ")[0]  # the field that is refused
            raise UserError(f"{place_of(function, word, self.file)}: {said}: {error}") from error

    @property
    def file(self) -> Path:
        """Where it is defined."""
        return study_file(self.name)

    def first_settings(self, base: TrainConfig) -> Settings:
        """What trial 0 changes of the base configuration."""
        return self._suggest_first(base)[0]

    def _distributions(self, base: TrainConfig) -> dict[str, BaseDistribution]:
        return self._suggest_first(base)[1]

    def _suggest_first(self, base: TrainConfig) -> tuple[Settings, dict[str, BaseDistribution]]:
        trial = optuna.trial.FixedTrial(self.known_params(base)[0])
        settings = self.settings_of(cast(optuna.Trial, trial), base)  # it suggests as a Trial does
        return settings, trial.distributions


class _AnyChoices:
    """A trial to which choices of any kind may be suggested: its storage gets what it can hold of them."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        kept = [stored(choice) for choice in choices]
        return choices[kept.index(self._trial.suggest_categorical(name, kept))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def together(*parts: Study) -> dict[str, Any]:
    """Fields `suggest` and `known` of a study that searches the spaces of several at once."""

    def suggest(trial: optuna.Trial, base: TrainConfig) -> Settings:
        return {name: value for part in parts for name, value in part.suggest(trial, base).items()}

    def known(base: TrainConfig) -> list[Settings]:
        return [{name: value for part in parts for name, value in part.known(base)[0].items()}]

    return {"suggest": suggest, "known": known}


def unpruned(base: TrainConfig) -> optuna.pruners.BasePruner:
    """No pruner: every trial is trained to its end."""
    return optuna.pruners.NopPruner()


def grid(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Fields `suggest`, `known` and `pruner` of a study that tries every combination of some fields' values, unpruned.

    The base's own values come first, wherever they are in the grid; then each other value alone; then what changes the
    most fields, down to the fewest. So the first trials tell what each does alone, and all of them together.
    """

    def of(base: TrainConfig) -> dict[str, list[Any]]:
        return {name: list(dict.fromkeys([getattr(base, name), *others])) for name, others in values.items()}

    def suggest(trial: optuna.Trial, base: TrainConfig) -> Settings:
        return {name: trial.suggest_categorical(name, choices) for name, choices in of(base).items()}

    def known(base: TrainConfig) -> Grid:
        return Grid(of(base))

    return {"suggest": suggest, "known": known, "pruner": unpruned}


def load(name: str) -> Study:
    """The study of `sweeps/NAME.py`. Raises UserError, with file and line, if there is none or it cannot be read."""
    sweeps = importlib.import_module("sweeps")  # found by name: sweeps imports launch, not the other way round
    names = sorted(module.name for module in pkgutil.iter_modules(sweeps.__path__))
    if name not in names:
        raise UserError(f"there is no study {name!r}; allowed: {', '.join(names)}")
    file = study_file(name)
    with naming_line(file):
        study = getattr(importlib.import_module(f"sweeps.{name}"), "study", None)
    if not isinstance(study, Study):
        got = "it defines none" if study is None else f"its study is {study!r:.60} ({type(study).__name__})"
        raise UserError(f"{shown_path(file)}: it must define a Study, `study = Study(name={name!r}, …)`, and {got}")
    if study.name != name:
        raise UserError(
            f"{place_of(load, 'name', file)}: its study is named {study.name!r}, and must have the name of its file, "
            f"{name!r}; mend the name, or rename the file to {study.name}.py"
        )
    return study
