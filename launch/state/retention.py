"""Which weights a trial leaves behind: a finished run of ViT-B has 4.25 GB of them, and nobody needs most."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from fsr.files import open_file, write_json
from fsr.json_file import read_json
from fsr.run import Run
from launch.state.paths import Keep, StudyFolder
from launch.state.study_storage import StudyStorage

# What stays of the weights of a trial that has ended so; one that failed keeps everything, for whoever looks for why.
LEFT: dict[tuple[Keep, TrialState], Literal["best.pt", "nothing"]] = {
    ("best", TrialState.COMPLETE): "best.pt",
    ("best", TrialState.PRUNED): "nothing",
    ("none", TrialState.COMPLETE): "nothing",
    ("none", TrialState.PRUNED): "nothing",
}


@dataclass(frozen=True)
class Retention:
    """What a study keeps of its trials; in `keep.json`, so that a later sweep may change it."""

    keep: Keep
    freed: int = 0
    """Bytes of trials that were removed after their summaries had told how many they have."""

    def __post_init__(self) -> None:
        if self.freed < 0:
            raise ValueError(f"freed must be at least 0, got {self.freed}")

    @classmethod
    def of(cls, folder: StudyFolder) -> "Retention":
        """What the study says; a study from before this could be said keeps all. Raises DamagedError."""
        try:
            return read_json(folder.keep_file, cls, newer=True)
        except FileNotFoundError:
            return cls("all")

    def write(self, folder: StudyFolder) -> None:
        """Let all workers go by this from their next trial's end on. The sweep lock must be held."""
        write_json(folder.keep_file, asdict(self))

    def bytes_left(self, run: Run, state: TrialState) -> int:
        """Bytes that a run has once its trial has ended in this state and is cleaned up."""
        going = run.weight_files(best=LEFT[self.keep, state] == "nothing") if (self.keep, state) in LEFT else []
        return run.bytes() - sum(file.stat().st_size for file in going)


def announce_end(folder: StudyFolder, number: int, state: TrialState) -> None:
    """Leave a mark that the trial is about to be told: whoever finds it, and the trial told, removes its weights.

    The mark is there before the score is told, so a worker that is killed between the two, or before the last file is
    removed, leaves nothing for ever.
    """
    if (Retention.of(folder).keep, state) in LEFT:
        open_file(folder.ended_mark(number), "a").close()


def clean_up(folder: StudyFolder, number: int, state: TrialState) -> int:
    """Remove what is not kept of a trial that was told; the bytes that this frees. Its lock must be held."""
    keep = Retention.of(folder).keep
    freed = 0
    if (keep, state) in LEFT:
        freed = folder.run(number).remove_weights(best=LEFT[keep, state] == "nothing", why=f"--keep {keep}")
    folder.ended_mark(number).unlink(missing_ok=True)
    return freed


def clean_up_announced(folder: StudyFolder, storage: StudyStorage) -> None:
    """Finish what killed workers left: clean up after each trial whose end was announced and told."""
    marks = folder.ended_marks()
    if marks:
        study_id = storage.get_study_id_from_name(folder.name)
        trials = storage.ask(study_id, lambda trials: trials.get_all(n for n in marks if n < len(trials)))
        clean_up_all(folder, trials)


def clean_up_all(folder: StudyFolder, trials: Iterable[FrozenTrial]) -> int:
    """Clean up after those of these trials that have ended and that nobody holds; the bytes that this frees."""
    freed = 0
    for trial in trials:
        lock = folder.trial_lock(trial.number)
        if trial.state.is_finished() and lock.try_acquire():
            try:
                freed += clean_up(folder, trial.number, trial.state)
            finally:
                lock.release()
    return freed
