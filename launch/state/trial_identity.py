"""Which trial of which study a run folder belongs to: a file in it says so. Nothing in the folder of another trial is
ever taken for a trial's own."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.config import PLACES, TrainConfig
from fsr.errors import UserError
from fsr.files import make_folder, write_json
from fsr.json_file import DamagedError, read_json
from fsr.run import Run
from launch.state.paths import StudyFolder
from launch.state.trials import SEED

IDENTITY_FILE = "trial.json"


@dataclass(frozen=True, kw_only=True)
class TrialIdentity:
    """What trial.json of a run folder says."""

    study: str
    id: str | None
    """The study's id; a study of the same name that is defined anew has another one."""
    definition: str | None
    """Hash of what defined the study when the run began: base configuration, space, metric. `--renew_code` may change
    it, so it is told, and not compared."""
    trial: int
    params: dict[str, Any]
    """As Optuna knows them."""
    seed: int

    @classmethod
    def of(cls, folder: StudyFolder, trial: FrozenTrial | optuna.Trial, base_seed: int) -> "TrialIdentity":
        """That of a trial, as the study's definition and its storage tell it."""
        study = cls(
            study=folder.name,
            id=folder.identity,
            definition=definition_hash(folder),
            trial=trial.number,
            params={},
            seed=base_seed,
        )
        return study.with_trial(trial)

    def with_trial(self, trial: FrozenTrial | optuna.Trial) -> "TrialIdentity":
        """That of another trial of the study; a trial of the search has the base's seed, which `self` must have."""
        params: dict[str, Any] = json.loads(json.dumps(trial.params))
        return replace(self, trial=trial.number, params=params, seed=trial.user_attrs.get(SEED, self.seed))

    def difference(self, other: "TrialIdentity") -> str | None:
        """What `other` has of another kind, in a few words; None if it is the same trial."""
        for name in ("study", "id", "trial", "seed", "params"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                return f"{name} {there}, not {here}"
        return None


def definition_hash(folder: StudyFolder) -> str | None:
    """SHA-256, shortened, of a study's definition; where its data lies does not matter. None before it is defined."""
    try:
        definition = read_json(folder.study_file, dict[str, Any])
    except FileNotFoundError:
        return None
    base = {name: value for name, value in definition["base"].items() if name not in PLACES}
    said = [definition.get("metric"), base, definition.get("space")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class Strangers:
    """For readers: which run folders of a study belong to another trial than the one whose number they have.

    A folder of an earlier version does not say whose it is, and counts as the trial's.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder

    @cached_property
    def _study(self) -> TrialIdentity:
        any_trial = optuna.trial.create_trial(state=TrialState.WAITING)
        return TrialIdentity.of(self._folder, any_trial, self._folder.definition()["base"]["seed"])

    def stranger_in(self, run: Run, trial: FrozenTrial) -> str | None:
        """That the run folder of a trial belongs to another one, or that it cannot be told whose it is; or None."""
        try:
            found = read_json(run.folder / IDENTITY_FILE, TrialIdentity)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            return str(error)
        difference = self._study.with_trial(trial).difference(found)
        return f"{run.folder} belongs to another trial: {difference}" if difference else None


def take_folder(folder: StudyFolder, own: TrialIdentity, config: TrainConfig) -> str | None:
    """Let a trial's run folder belong to it; a sentence if another run's was there, which is set aside.

    The trial's lock must be held.
    """
    run = folder.run(own.trial)
    file = run.folder / IDENTITY_FILE
    found, problem = None, None
    try:
        found = read_json(file, TrialIdentity)
        problem = own.difference(found)
    except FileNotFoundError:  # new, or of an earlier version
        pass
    except DamagedError:  # the configuration tells
        pass
    if problem is None:
        try:
            run.check(config)
        except UserError as error:
            # A folder that says it is this trial's own loses no progress: training itself refuses other settings.
            if found is None or isinstance(error, DamagedError):
                problem = str(error).split(";")[0]
    sentence = None
    if problem is not None:
        aside = folder.aside(own.trial)
        make_folder(aside.parent)
        run.folder.rename(aside)
        sentence = f"{run.folder} is not of this trial ({problem}); it is {aside} now, and the trial starts anew"
    if found is None or problem is not None:
        write_json(file, asdict(own))
    return sentence
