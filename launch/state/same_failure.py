"""The circuit breaker: where the first attempts of a study all fail in the same way, no setting is to blame, and no
retry mends it. The worker that sees it stops the study, with one sentence on what to mend.

Nothing counts against the trials that were stopped so: the same sweep command resumes them.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from optuna.trial import TrialState

from fsr.errors import UserError
from fsr.files import look_again, write_atomically, write_json
from fsr.json_file import UNREADABLE, read_json
from fsr.next_command import next_command
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder, StudyFolder
from launch.state.progress import Progress
from launch.state.study_storage import StudyStorage
from launch.state.trials import CODE

SAME = 3  # failures that stop a study
SLOWER = 1.5  # a trial at work for so many times longer than failures took has come further than they did
LEAST_S = 1.0  # that failures of less than a moment are taken to have lasted
NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")
# What mends a failure, by what it says, and the command that does; the first row that fits counts.
REMEDIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "No module named|ImportError",
        "install what is missing in the workers' Python, or mend the code and add --renew_code",
        (),
    ),
    (
        r"huggingface|offline|LocalEntryNotFound|MaxRetry|Failed to resolve|name resolution",
        "put the weights where the nodes find them, from where there is a network",
        ("pretrained", "fetch"),
    ),
    (
        "FileNotFoundError|NotADirectoryError|UnidentifiedImageError|No such file",
        "look at the data folder",
        ("prepare", "--help"),
    ),
    ("", "mend what it names; where that is code, --renew_code lets the workers run the mended one", ()),
)


def remedy(said: str) -> str:
    """What mends a failure that said this."""
    text, command = next((text, command) for words, text, command in REMEDIES if re.search(words, said))
    return f"{text} ({next_command(*command)})" if command else text


class StoppedError(UserError):
    """The study was stopped so: what was begun stays, and is resumed once the user has mended the cause."""


@dataclass(frozen=True)
class Tried:
    """What has come so far of a trial that this code version has worked on."""

    number: int
    attempts: Sequence[Attempt]
    step: int = 0
    """The last step of its records; 0 if this code version has added none."""
    evaluated: bool = False
    """Whether it has come through an evaluation, with this code version."""


@dataclass(frozen=True)
class SameFailure:
    """Attempts that failed in the same way, before any trial had come further than they did."""

    signature: str
    failures: Sequence[tuple[int, Attempt]]
    """Each with the number of its trial, in the order in which they ended."""
    open: bool = False
    """Whether a trial at work may still show that its setting is sound."""

    @property
    def stops(self) -> bool:
        """Whether these are enough to stop the study."""
        return len(self.failures) >= SAME and not self.open

    def waits_for_more(self, attempt: Attempt) -> bool:
        """Whether this attempt is one of them, and its trial not to be given up yet: others may fail so, too."""
        return not self.stops and signature(attempt) == self.signature

    def sentence(self, folder: StudyFolder) -> str:
        """What happened in the study of this folder, and what mends it."""
        numbers = sorted({number for number, _ in self.failures})
        number, last = self.failures[-1]
        whose = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(map(str, numbers))}"
        where = f" ({last.place})" if last.place else ""
        is_mistake = last.cause == "cancelled"  # whose sentence says what to do
        mend = "mend that" if is_mistake else remedy(last.detail)
        traceback = "" if is_mistake else f" (traceback: {folder.run(number).folder}/error.txt)"
        return (
            f"{len(self.failures)} attempts on {whose} ended in the same way, and no trial has come further, so the "
            f"study was stopped: {last.detail}{where}; {mend}, then run the same command again: every trial is tried "
            f"anew, and none of these attempts counts{traceback}"
        )


@dataclass(frozen=True)
class Stopped:
    """A study that was stopped so, as `stopped.json` lists it."""

    signature: str
    at: float
    """Unix seconds."""
    sentence: str


def signature(attempt: Attempt) -> str | None:
    """What failures that are the same have in common: place and words without numbers. None if it did not fail of an
    exception or a mistake of the user: memory, nodes and signals are no mistakes that all trials would meet."""
    failed = attempt.cause == "exception" or (attempt.cause == "cancelled" and attempt.place)
    return f"{attempt.place} {NUMBERS.sub('#', attempt.detail)}" if failed else None


def same_failure(tried: Sequence[Tried], since: float) -> SameFailure | None:
    """The failure that most attempts since then (Unix seconds) had in common.

    None if there is none, or if any trial has come further than they did: it was evaluated, took a later step, or is
    still at work after a longer time than each of them took. It is open while another trial is at work that had begun
    when enough of them had failed, and has not had that time yet.
    """
    groups: dict[str, list[tuple[int, Attempt]]] = {}
    for trial in tried:
        for attempt in trial.attempts:
            found = signature(attempt) if attempt.started >= since else None
            if found is not None:
                groups.setdefault(found, []).append((trial.number, attempt))
    if not groups or any(trial.evaluated for trial in tried):
        return None
    found, failures = max(groups.items(), key=lambda group: len(group[1]))
    failures.sort(key=lambda failure: failure[1].ended or failure[1].started)
    furthest = max(attempt.reached or 0 for _, attempt in failures)
    patience = SLOWER * max(LEAST_S, *(attempt.seconds for _, attempt in failures))
    enough = failures[:SAME][-1][1].ended or 0.0
    failed, is_open = {number for number, _ in failures}, False
    for trial in tried:
        reached = max([trial.step, *(attempt.reached or 0 for attempt in trial.attempts if _went_on(attempt))])
        at_work = [attempt for attempt in trial.attempts if attempt.ended is None]
        if reached > furthest or any(attempt.seconds > patience for attempt in at_work):
            return None
        # Of a trial that has failed so, another attempt shows nothing new.
        is_open = is_open or (trial.number not in failed and any(attempt.started <= enough for attempt in at_work))
    return SameFailure(found, failures, is_open)


def _went_on(attempt: Attempt) -> bool:
    """Whether an attempt took a step: one that resumes starts where another had come to."""
    return attempt.first_step is not None and (attempt.reached or 0) > attempt.first_step


def failure_of_all(folder: StudyFolder, storage: StudyStorage, code: str, since: float) -> SameFailure | None:
    """The `same_failure` of the trials that this code version has worked on; None once it has finished one of them."""
    study_id = storage.get_study_id_from_name(folder.name)
    if storage.ask(study_id, lambda trials: trials.has_done(code)):
        return None
    states = (TrialState.RUNNING, TrialState.FAIL)
    trials = storage.ask(study_id, lambda trials: trials.get_all(trials.numbers(states)))
    renewed, tried = min(since, folder.code.renewed()), []
    for trial in trials:
        if trial.user_attrs.get(CODE, [])[-1:] == [code]:
            with suppress(*UNREADABLE):  # whoever works on it says what is damaged; it is no evidence here
                progress = Progress.of(folder.run(trial.number))
                attempts = folder.attempt_log(trial.number).attempts()
                is_new = trial.user_attrs[CODE] == [code]
                tried.append(what_came(trial.number, attempts, progress, 0.0 if is_new else renewed))
                if tried[-1].evaluated:  # so there is none, whatever the others say
                    return None
    return same_failure(tried, since)


def what_came(number: int, attempts: Sequence[Attempt], progress: Progress, since: float) -> Tried:
    """What has come of a trial since then (Unix seconds): what earlier code versions did speaks for no later one."""
    before = max((attempt.reached or 0 for attempt in attempts if attempt.started < since), default=0)
    step = progress.step if progress.step > before else 0
    own = [attempt for attempt in attempts if attempt.started >= since]
    return Tried(number, own, step, progress.evaluated > before)


def stops_of(folder: StudyFolder) -> list[Stopped]:
    """How often a study was stopped so, oldest first. Raises DamagedError."""
    try:
        return read_json(folder.stopped_file, list[Stopped], newer=True)
    except FileNotFoundError:
        return []


def stop_study(folder: StudyFolder, failure: SameFailure, now: float) -> None:
    """Let all workers of a study end, and say why. The claim lock must be held: the first of several says it."""
    if not folder.stop_file.exists():
        sentence = failure.sentence(folder)
        stops = [*stops_of(folder), Stopped(failure.signature, now, sentence)]
        write_json(folder.stopped_file, [asdict(stop) for stop in stops])
        write_atomically(folder.stop_file, sentence.encode())


def that_count(folder: StudyFolder, attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts of a trial that count against its budgets: all but those that stopped the study. Raises
    DamagedError."""
    stops = stops_of(folder)
    return [
        attempt
        for attempt in attempts
        if not any(signature(attempt) == stop.signature and attempt.started <= stop.at for stop in stops)
    ]


def raise_mistakes(folder: LaunchFolder) -> None:
    """Raise UserError if a worker met something that the user has to mend: why it stopped the study goes first."""
    for place in (folder.folder, folder.mistakes_folder):
        look_again(place)  # the last worker has only just ended, on another node
    reason = folder.stop_reason()
    if reason:
        raise StoppedError(reason)
    for mistake in folder.mistakes():
        raise UserError(mistake)
