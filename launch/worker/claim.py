"""Which trial a worker may train: never one that another has, never more than wanted, never a gap in the numbers."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from fsr.config import TrainConfig
from fsr.lock import FileLock
from fsr.run import Run
from launch.slurm.requeue_rules import blames_setting, given_up
from launch.state.attempts import AttemptLog
from launch.state.hparams import write_hparams
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
from launch.state.retention import Retention, announce_end, clean_up, clean_up_announced
from launch.state.same_failure import failure_of_all, stop_study, that_count
from launch.state.study_storage import Considered, StudyStorage
from launch.state.target import Target
from launch.state.trial_store import TrialStore
from launch.state.trials import CODE, DONE, ERROR, SEED, SUMMARY, Summary, damage_of, summary_of
from launch.study import Settings, Study
from launch.worker.interrupted import LOOKED_AT, Interrupted, interrupted, is_ending, overlooked

TURNS = 4  # at the claim lock
LITTLE = 1 << 16  # bytes of new records that are read under it
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Claim:
    """A trial that only this process may train until it lets go. A resumed trial keeps its number and parameters."""

    study: optuna.Study
    """With sampler and pruner, which see the trials that the study considers."""
    trial: optuna.Trial
    storage: StudyStorage
    folder: StudyFolder
    base: TrainConfig
    settings: Settings
    lock: FileLock
    run: Run

    @property
    def attempt_log(self) -> AttemptLog:
        """The attempts on it."""
        return AttemptLog(self.run)

    def tell(self, value: float | None = None, state: TrialState = TrialState.COMPLETE) -> None:
        """Record how the trial ended, and what it took; then remove the weights that the study does not keep."""
        attempts, progress = self.attempt_log.attempts(), Progress.of(self.run)
        summary: Summary = {
            "causes": [attempt.cause for attempt in attempts],
            "node": attempts[-1].node if attempts else "",
            "seconds": round(sum(attempt.seconds for attempt in attempts), 1),
            "gpu_seconds": self.attempt_log.gpu_seconds(failed=state == TrialState.FAIL),
            "bytes": Retention.of(self.folder).bytes_left(self.run, state),
            "step": progress.step,
            "evaluated": progress.evaluated,
            "scores": progress.scores,
            "steps_per_s": progress.steps_per_s,
        }
        seed = self.trial.user_attrs.get(SEED, self.base.seed)
        write_hparams(self.run, self.trial, seed, state)
        announce_end(self.folder, self.trial.number, state)
        with self.storage.together():
            self.trial.set_user_attr(SUMMARY, summary)
            self.study.tell(self.trial, value, None if state is TrialState.COMPLETE else state)
        # Optuna itself says what becomes of a score that is none.
        clean_up(self.folder, self.trial.number, self.storage.get_trial(self.trial._trial_id).state)

    def fail(self, reason: str) -> None:
        """Record that the trial is given up."""
        self.trial.set_user_attr(ERROR, reason)
        self.tell(state=TrialState.FAIL)

    def let_go(self) -> None:
        """Leave the trial. If its end was not told, the next worker resumes it."""
        self.lock.release()


def claim(
    study: Study, base: TrainConfig, folder: StudyFolder, storage: StudyStorage, job: str, code: str
) -> Claim | Literal["wait", "ending", "nothing left", "stopped"]:
    """A trial for the worker of a job to train: an interrupted one before a new one.

    A trial whose attempts used up their budget is told as failed on the way. "wait" while others train the last ones,
    because one of them may be killed; "ending" if one of them is an earlier start of this job, which is being killed;
    "stopped" if the first attempts have all failed in the same way, and this stopped the study.
    The trial records that it is trained by the code version `code`.

    What takes long is done before and after the claim lock is held: looking for interrupted trials, and suggesting
    parameters. So two workers may suggest at once, and each sees what the others have written down.
    """
    choice = _Choice(study, base, folder, storage, job, code)
    chosen = choice.choose()
    if isinstance(chosen, str):
        return chosen
    trial_id, lock = chosen
    try:
        storage.hold(trial_id)
        number = storage.get_trial(trial_id).number
        session = optuna.load_study(
            study_name=study.name,
            storage=Considered(storage, study.considered),
            sampler=study.sampler_for(number, base),
            pruner=study.pruner(base),
        )
        with storage.together():
            trial = optuna.Trial(session, trial_id)
            settings = study.settings_of(trial, base)
            versions = trial.user_attrs.get(CODE, [])
            if versions[-1:] != [code]:
                trial.set_user_attr(CODE, [*versions, code])
    except BaseException:
        lock.release()
        raise
    if SEED in trial.user_attrs:
        settings |= {"seed": trial.user_attrs[SEED]}
    return Claim(session, trial, storage, folder, base, settings, lock, folder.run(number))


class _Choice:
    """What one worker chooses of, and how."""

    def __init__(
        self, study: Study, base: TrainConfig, folder: StudyFolder, storage: StudyStorage, job: str, code: str
    ) -> None:
        self._study, self._base, self._folder = study, base, folder
        self._storage, self._job, self._code = storage, job, code
        self._session = optuna.load_study(study_name=study.name, storage=storage)
        self._study_id = storage.get_study_id_from_name(study.name)

    def choose(self) -> tuple[int, FileLock] | Literal["wait", "ending", "nothing left", "stopped"]:
        """The id of a trial that is this worker's now, with its lock; or why there is none."""
        clean_up_announced(self._folder, self._storage)
        self._known()  # so that little is left to be looked at under the lock
        all_of_them = False
        for turn in itertools.count():
            running = self._running()
            # Where all that is wanted is begun, an interrupted one must not be overlooked.
            begun = self._ask(lambda trials: trials.count(*DONE)) + len(running)
            all_of_them = all_of_them or begun >= Target.of(self._folder).trials or len(running) <= LOOKED_AT
            candidates = interrupted(self._folder, running, self._job, all_of_them=all_of_them)
            with self._claim_lock():
                running = self._running()
                # Read now: a worker tells before it lets go, so the state of each free trial is the last word.
                free = [one for one in candidates if one.is_free(self._folder) and one.number in running]
                busy = len(running) - len(free)
                chosen = self._choose_of(free, busy)
                resumed = any(one.number == chosen for one in free)
                again = not resumed and all_of_them and turn < TURNS and overlooked(self._folder, running, candidates)
                if isinstance(chosen, int) and not again:
                    lock = self._folder.trial_lock(chosen)
                    lock.acquire()
                    return self._begin(chosen), lock
            if chosen == "stopped":
                return "stopped"
            if again:
                continue
            if all_of_them:
                others = set(self._running()) - {one.number for one in free}
                if is_ending(self._folder, others, self._job):
                    return "ending"
                return "wait" if busy else "nothing left"
            all_of_them = True
        raise AssertionError("a loop without an end has ended")

    @contextmanager
    def _claim_lock(self) -> Iterator[None]:
        """Hold the claim lock, with little left to be read: what others wrote while this one waited for it is read
        without it, so that it does not make those wait who come after."""
        lock = self._folder.claim_lock()
        for turn in range(TURNS):
            self._storage.catch_up()
            lock.acquire()
            if self._storage.unread() < LITTLE or turn == TURNS - 1:
                break
            lock.release()
        try:
            yield
        finally:
            lock.release()

    def _ask(self, question: Callable[[TrialStore], Answer]) -> Answer:
        return self._storage.ask(self._study_id, question)

    def _running(self) -> list[int]:
        return self._ask(lambda trials: trials.numbers([TrialState.RUNNING]))

    def _choose_of(self, free: Sequence[Interrupted], busy: int) -> int | Literal["stopped"] | None:
        """Number of the trial to be trained, which may be a new one."""
        for one in free:
            one.close(self._folder)
        target = Target.of(self._folder)
        # Where nothing has failed, nobody need look for what failures have in common.
        any_failed = bool(free) or self._ask(lambda trials: trials.count(TrialState.FAIL)) > 0
        since = target.since
        failure = failure_of_all(self._folder, self._storage, self._code, since) if any_failed else None
        if failure and failure.stops:
            stop_study(self._folder, failure, time.time())
            return "stopped"
        suspended = {}  # trials that are not given up before another one has shown whether they are to blame
        last: set[int] = set()  # those that failed as others did: another setting tells more than another attempt
        left = set()
        for number in sorted(one.number for one in free):
            attempts = self._folder.attempt_log(number).attempts()
            reason = given_up(that_count(self._folder, attempts))
            alike = failure is not None and bool(attempts) and failure.waits_for_more(attempts[-1])
            if reason and alike:
                suspended[number] = reason
            elif reason:
                self._give_up(number, reason)
            else:
                left.add(number)
                if alike:
                    last.add(number)
        done, there, waiting = self._ask(
            lambda trials: (trials.count(*DONE), len(trials), trials.first(TrialState.WAITING))
        )
        if done + busy < target.trials:
            new = there if there < target.limit else None
            numbers = [number for number in (*left - last, waiting) if number is not None]
            chosen = min(numbers, default=new)
            chosen = min(left, default=None) if chosen is None else chosen
            if chosen is not None:
                return chosen
        if not busy:
            for number, reason in suspended.items():
                self._give_up(number, reason)
        return None

    def _give_up(self, number: int, reason: str) -> None:
        trial, run = optuna.Trial(self._session, self._trial_id(number)), self._folder.run(number)
        with self._folder.trial_lock(number) as lock:
            Claim(self._session, trial, self._storage, self._folder, self._base, {}, lock, run).fail(reason)

    def _known(self) -> Settings | None:
        """The known setting that is to be tried next."""
        known = self._study.known_settings(self._base, self._code)
        return self._ask(lambda trials: known.untried(trials, lambda trial: _fails_again(trial, self._code)))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _begin(self, number: int) -> int:
        """The id of the trial of this number, which runs: an interrupted one, one that waited, or a new one.

        A new one gets a known setting while one is left.
        """
        if number < self._ask(len):
            trial_id = self._trial_id(number)
            if self._storage.get_trial(trial_id).state == TrialState.WAITING:
                self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            return trial_id
        params = self._known()
        asked = {} if params is None else {"fixed_params": params}
        made = self._storage.create_new_trial(
            self._study_id,
            create_trial(state=TrialState.RUNNING, user_attrs={CODE: [self._code]}, system_attrs=asked),
        )
        assert made == self._trial_id(number), f"trial {number} was made twice"
        return made


def _fails_again(trial: FrozenTrial, code: str) -> bool:
    if damage_of(trial):
        return False
    return trial.user_attrs.get(CODE, [])[-1:] == [code] and blames_setting(summary_of(trial).get("causes", []))
