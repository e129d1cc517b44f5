"""A study's runs under names that say what each tried: a folder of links, as TensorBoard shows the names of folders."""

import threading
from contextlib import suppress
from pathlib import Path

from fsr.json_file import UNREADABLE, read_json
from fsr.setting_text import settings_text
from launch.state.paths import StudyFolder, entries_of_trials, folders_of_trials, place_of_trial
from launch.state.trial_identity import IDENTITY_FILE, TrialIdentity

LONGEST = 150  # letters; a file's name may have 255 bytes
REFRESH_S = 5.0  # as often as TensorBoard looks for new runs


def run_name(folder: Path, study: str, base_seed: int | None) -> str | None:
    """`0004 mask_ratio 0.8 seed 1`: number, setting, and the seed where it is not the search's.

    A run of an earlier version, a damaged one or another trial's has its folder's name. None before a worker has
    written what the trial is.
    """
    try:
        told = read_json(folder / IDENTITY_FILE, TrialIdentity)
    except FileNotFoundError:
        return folder.name if (folder / "config.json").exists() else None
    except UNREADABLE:
        return folder.name
    if told.study != study or folder.name != f"trial_{told.trial:04d}":
        return folder.name
    seed = f" seed {told.seed}" if told.seed != base_seed else ""
    text = f"{told.trial:04d} {settings_text(told.params)}".replace("  ", " ").replace("/", "_").replace("\0", "_")
    text = text.strip()
    return (text if len(text) + len(seed) <= LONGEST else f"{text[: LONGEST - len(seed) - 1]}…") + seed


class NamedRuns:
    """Keeps the links of a study's runs in a folder, while new trials begin and set-aside ones begin anew."""

    def __init__(self, study: StudyFolder, links: Path) -> None:
        self._study = study
        self._links = links
        try:
            self._base_seed: int | None = study.definition()["base"]["seed"]
        except UNREADABLE:  # the names then tell each seed
            self._base_seed = None

    def refresh(self) -> None:
        """Link the runs that are there, each by its name."""
        wanted = {}
        for number, folder in folders_of_trials(self._study.folder).items():
            name = run_name(folder, self._study.name, self._base_seed)
            if name is not None:
                wanted[place_of_trial(self._links, number, name)] = folder
        for link in map(Path, entries_of_trials(self._links)):
            if wanted.get(link) != link.readlink():
                link.unlink()
        for link, folder in wanted.items():
            if not link.is_symlink():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(folder)

    def keep_fresh(self, ended: threading.Event) -> None:
        """Refresh them until it has ended."""
        while not ended.wait(REFRESH_S):
            with suppress(OSError):  # a shared file system that is away for a moment; the next time will do
                self.refresh()
