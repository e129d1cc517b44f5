"""Restores a study's damaged files from what else is known: `fsr doctor --study NAME --repair`.

Each damaged file stays, beside its place, under a name that says so. Nothing that can be read is changed.
"""

import calendar
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import aside, write_atomically
from fsr.json_file import UNREADABLE, DamagedError, read_json, read_whole
from fsr.records import check_record, complete_lines, is_evaluation, read_records
from fsr.run import Removed, Run, provenance
from fsr.score_names import SEG_MIOU, is_score
from launch.show.messages import say
from launch.slurm.job_logs import last_arrays
from launch.state.attempts import Attempt, AttemptLog
from launch.state.code_snapshot import VERSION, manifest_of, version_of
from launch.state.journal import JOURNAL, parse_lines
from launch.state.journal_repair import mend
from launch.state.packed_trials import PACKED, PackedTrials
from launch.state.paths import IDENTITY, Definition, StudyFolder, new_identity
from launch.state.retention import Retention
from launch.state.same_failure import stops_of
from launch.state.storage import load_launched, recorded_storage
from launch.state.target import Target
from launch.state.trials import SEED, damage_of, summary_of
from launch.study import load
from launch.worker.job_spec import JobSpec

SAID = "restored by doctor"


@dataclass(frozen=True)
class Repair:
    """A damaged file, and what is to stand in its place."""

    file: Path
    wrong: str
    """What is wrong with it."""
    remedy: str
    """What it is restored from, in words; or that it cannot be."""
    content: bytes | None = None
    """What it is to hold; None: nothing, it is only set aside."""
    lines: list[tuple[int, str, bytes]] = field(default_factory=list)
    """Of a file of lines, those that are damaged: number, what is wrong, content."""
    notes: list[str] = field(default_factory=list)
    """What else is to be known, line by line."""
    possible: bool = True

    def do(self) -> str:
        """Restore it; where the damaged one is now."""
        kept = aside(self.file) if os.path.lexists(self.file) else None
        if self.lines:
            told = [{"line": number, "wrong": wrong, "content": repr(line)[2:-1]} for number, wrong, line in self.lines]
            beside = (kept or self.file).with_name(f"{(kept or self.file).name}.lines")
            write_atomically(beside, "".join(json.dumps(line) + "\n" for line in told).encode())
        if self.content is not None:
            write_atomically(self.file, self.content)
            if self.file.name == JOURNAL:
                PackedTrials(self.file.with_name(PACKED)).remove()
        return f"; the damaged one is {kept.name}" if kept else ""


def repair(folder: StudyFolder, really: bool, console: Console) -> bool:
    """Say of each damaged file what would restore it, or restore it and say so; whether nothing is damaged any more.

    Raises UserError while somebody works on the study.
    """
    sound = True
    with ExitStack() as stack:
        if really:
            stack.enter_context(alone(folder))
        for find in (code, study_file, small_files, journal, runs):
            try:
                for found in find(folder):
                    where = found.do() if really and found.possible else ""
                    word = "repaired" if really and found.possible else "damaged"
                    say(console, f"{word}: {found.file}: {found.wrong}; {found.remedy}{where}")
                    for number, wrong, _ in found.lines:
                        say(console, f"  line {number} is set aside: {wrong}")
                    for note in found.notes:
                        say(console, f"  {note}")
                    sound = sound and really and found.possible
            except (DamagedError, FileNotFoundError):  # of a file that was told of above, and that this one needs
                sound = False
    if not sound and not really:
        say(console, "nothing was changed; --repair restores what can be")
    return sound


@contextmanager
def alone(folder: StudyFolder) -> Iterator[None]:
    """Hold the locks of a study, so that nobody writes while its files are replaced. Raises UserError if one does."""
    with ExitStack() as stack:
        for lock in (folder.sweep_lock(), folder.claim_lock(), *folder.trial_locks()):
            if not lock.try_acquire(1.0):
                raise UserError(
                    f"process {lock.holder()} works on study {folder.name} and holds {lock.path.name}; "
                    "--repair needs it to end first (Ctrl-C of the sweep, or scancel of its jobs: both save)"
                )
            stack.callback(lock.release)
        yield


def damage(read: Callable[[], object]) -> str | None:
    """What comes of reading a file: what is wrong with it; None if nothing is, or if there is none."""
    try:
        read()
    except FileNotFoundError:
        return None
    except DamagedError as error:
        return str(error).partition(" is damaged: ")[2] or str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def as_file(value: Any) -> bytes:
    """What `write_json` would write."""
    return (json.dumps(value, indent=2, default=str) + "\n").encode()


def code(folder: StudyFolder) -> Iterator[Repair]:
    """The list of code versions, and the manifests of snapshots that are as they were taken."""
    wrong = damage(folder.code.versions)
    there = [path for path in folder.code.folder.glob("*") if VERSION.fullmatch(path.name) and path.is_dir()]
    there.sort(key=lambda path: path.stat().st_mtime)
    if wrong:
        names = [path.name for path in there]
        remedy = f"restored from the snapshots that are there: {', '.join(names)}" if names else "no snapshot is there"
        yield Repair(folder.code.versions_file, wrong, remedy, as_file(names) if names else None)
    for snapshot in there:
        file = folder.code.manifest_file(snapshot.name)
        wrong = damage(partial(read_json, file, dict[str, str])) or (None if file.exists() else "it is gone")
        if wrong:
            manifest = manifest_of(snapshot)
            whole = version_of(manifest) == snapshot.name
            remedy = "restored from the snapshot, whose hash is right" if whole else "the snapshot itself was changed"
            yield Repair(file, wrong, remedy, as_file(manifest) if whole else None, possible=whole)


def study_file(folder: StudyFolder) -> Iterator[Repair]:
    """study.json: from the job specs or the first trial, the study's own file in sweeps/, and the batch scripts."""
    file = folder.study_file
    wrong = damage(folder.definition)
    if wrong is None and file.exists():
        return
    if wrong is None and not (folder.trial_folders() or (folder.folder / JOURNAL).exists()):
        return
    wrong = wrong or "it is gone"
    specs = [spec for spec, _ in job_specs(folder) if spec is not None]
    try:
        study = load(folder.name)
        base = specs[-1].config if specs else read_json(folder.run(0).config_file, dict[str, Any])
        config = TrainConfig.from_json(base)
    except (UserError, OSError) as error:
        yield Repair(file, wrong, f"it cannot be restored: {error}", possible=False)
        return
    if specs and specs[-1].database:
        yield Repair(
            file, wrong, "its study lies in a database; run the sweep's command with FSR_STORAGE", possible=False
        )
        return
    target = study.trials
    with suppress(*UNREADABLE):
        target = Target.of(folder).trials
    restored = {
        "id": identity_of(folder) or new_identity(),
        **({"code": versions[0]} if (versions := readable_versions(folder)) else {}),
        "study": folder.name,
        "metric": study.metric,
        "base": base,
        "space": study.space(config),
        "storage": JOURNAL,
        "target": target,
        "launched": provenance() | {"restored": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
    }
    source = "the last job spec" if specs else f"{folder.run(0).config_file}, as trial 0 trains the base itself"
    remedy = f"restored from {source} and sweeps/{folder.name}.py"
    notes = [] if identity_of(folder) else ["its id is new: jobs that are in the queue do not know it"]
    yield Repair(file, wrong, remedy, as_file(restored), notes=notes)


def identity_of(folder: StudyFolder) -> str | None:
    """The study's id as its batch scripts have it in the jobs' names."""
    for script in sorted(folder.slurm.glob("submission_*.sh"), reverse=True):
        with suppress(*UNREADABLE):
            found = re.search(rb"--job-name=[^\n]*-([0-9a-f]{8})\b", read_whole(script))
            if found and IDENTITY.fullmatch(found[1].decode()):
                return found[1].decode()
    return None


def readable_versions(folder: StudyFolder) -> list[str]:
    """The code versions, as far as they are known."""
    with suppress(*UNREADABLE):
        return folder.code.versions()
    return []


def job_specs(folder: StudyFolder) -> Iterator[tuple[JobSpec | None, Path]]:
    """The job specs, oldest first; None for one that cannot be read."""
    files = [path for place in (folder.slurm, folder.folder / "local") for path in place.glob("submission_????.json")]
    for path in sorted(files, key=lambda path: path.lstat().st_mtime):
        try:
            yield JobSpec.read(path), path
        except UNREADABLE:
            yield None, path


def small_files(folder: StudyFolder) -> Iterator[Repair]:
    """What a sweep writes anew when it is called again."""
    wrong = damage(partial(Target.of, folder))
    if wrong:
        number = folder.definition().get("target", load(folder.name).trials)
        remedy = f"restored from study.json: {number} trials; the next sweep says what it wants"
        yield Repair(folder.target_file, wrong, remedy, as_file(asdict(Target(number, number))))
    wrong = damage(partial(Retention.of, folder))
    if wrong:
        yield Repair(
            folder.keep_file, wrong, "all is kept until a sweep names --keep", as_file(asdict(Retention("all")))
        )
    wrong = damage(partial(stops_of, folder))
    if wrong:
        remedy = "it is set aside: the attempts that stopped the study count against their trials"
        yield Repair(folder.stopped_file, wrong, remedy)
    for spec, path in job_specs(folder):
        if spec is None:
            wrong = damage(partial(JobSpec.read, path)) or ""
            yield Repair(
                path, wrong, "it is set aside: jobs that were submitted with it end, the next sweep submits anew"
            )
    wrong = damage(partial(last_arrays, folder))
    if wrong:
        last = max(folder.slurm.glob("submission_????_arrays.json"))
        yield Repair(last, wrong, "it is set aside: what became of these jobs is not told")


def journal(folder: StudyFolder) -> Iterator[Repair]:
    """The journal: damaged lines are set aside, and what they told is told again from the runs."""
    file = folder.folder / JOURNAL
    if recorded_storage(folder) != JOURNAL:
        return
    try:
        content = read_whole(file)
    except FileNotFoundError:
        content = b""
    except UNREADABLE as error:
        remedy = "written again from the trials' folders"
        mended = mend(b"", folder, folder.definition())
        yield Repair(file, damage(partial(read_whole, file)) or str(error), remedy, mended.content(), notes=mended.done)
        return
    if not content and not folder.trial_folders():
        return  # killed before its first record: the next sweep begins it
    mended = mend(content, folder, folder.definition())
    if not mended.is_sound:
        count = len(mended.damaged)
        wrong = "it is gone" if not file.exists() else f"{count} damaged lines" if count else "records are missing"
        remedy = "restored from the lines that are sound and the trials' folders"
        yield Repair(file, wrong, remedy, mended.content(), mended.damaged, mended.done)


def runs(folder: StudyFolder) -> Iterator[Repair]:
    """The files of each trial's run."""
    trials = {trial.number: trial for trial in load_launched(folder).get_trials(deepcopy=False)}
    definition = folder.definition()
    for path in folder.trial_folders():
        number = int(path.name.removeprefix("trial_"))
        yield from run_files(folder, folder.run(number), trials.get(number), definition)


def run_files(folder: StudyFolder, run: Run, trial: FrozenTrial | None, definition: Definition) -> Iterator[Repair]:
    """The files of a run, each from the others and from what the study was told of its trial."""
    records: list[dict[str, Any]] = []
    with suppress(*UNREADABLE):
        records, problems = read_records(run.metrics_file)
        if problems:
            yield metrics(run, records)
    wrong = damage(lambda: read_records(run.metrics_file))
    if wrong:
        yield Repair(run.metrics_file, wrong, "it is set aside: the run records what it trains from now on")
    wrong = damage(run.config)
    if wrong:
        config = config_of(folder, trial, definition) if trial else None
        remedy = (
            "restored from the trial's parameters" if config else "it cannot be restored, as its parameters are lost"
        )
        yield Repair(run.config_file, wrong, remedy, config, possible=config is not None)
    log = AttemptLog(run)
    starts_wrong, attempts_wrong = damage(run.starts), damage(log.attempts)
    if starts_wrong:
        known = [] if attempts_wrong else log.attempts()
        starts = [start_of(attempt) for attempt in known if attempt.first_step is not None]
        remedy = f"{len(starts)} starts are restored from attempts.json"
        yield Repair(run.provenance_file, starts_wrong, remedy, as_file({"attempts": starts}))
    if attempts_wrong:
        attempts = attempts_of(run, trial, records) if not starts_wrong else []
        remedy = f"{len(attempts)} attempts are restored from provenance.json"
        yield Repair(log.file, attempts_wrong, remedy, as_file([asdict(attempt) for attempt in attempts]))
    wrong = damage(run.result) or contradiction(run, trial, definition)
    if wrong:
        yield result(run, trial, records, wrong, definition)
    wrong = damage(partial(read_json, run.quality_file, dict[str, Any]))
    if wrong:
        yield Repair(run.quality_file, wrong, "it is set aside: only another evaluation would tell it again")
    wrong = damage(partial(read_json, run.removed_file, Removed))
    if wrong:
        names = [file.name for file in (run.checkpoint_file, run.best_file) if not file.exists()]
        removed = {"why": f"{SAID}: removed.json was damaged", "bytes": dict.fromkeys(names, 0)}
        yield Repair(run.removed_file, wrong, f"restored from what is not there: {', '.join(names)}", as_file(removed))


def metrics(run: Run, records: list[dict[str, Any]]) -> Repair:
    """metrics.jsonl without its damaged lines."""
    lines = complete_lines(run.metrics_file)
    damaged = []
    for number, line in enumerate(lines, 1):
        wrong = line_damage(line)
        if wrong:
            damaged.append((number, wrong, line))
    left = {number for number, *_ in damaged}
    kept = b"".join(line + b"\n" for number, line in enumerate(lines, 1) if number not in left)
    return Repair(run.metrics_file, f"{len(damaged)} damaged lines", f"{len(records)} records stay", kept, damaged)


def line_damage(line: bytes) -> str | None:
    """What is wrong with a line of metrics.jsonl."""
    wrong = damage(partial(parse_lines, [line], "line"))
    return wrong or check_record(json.loads(line))


def config_of(folder: StudyFolder, trial: FrozenTrial, definition: Definition) -> bytes | None:
    """The configuration of a trial: the base with what the study makes of the trial's parameters."""
    try:
        base = TrainConfig.from_json(definition["base"])
        settings = load(folder.name).settings_of(FixedTrial(trial.params), base)  # type: ignore[arg-type]  # as Study does
    except (UserError, ValueError):
        return None
    if SEED in trial.user_attrs:
        settings |= {"seed": trial.user_attrs[SEED]}
    return as_file(replace(base, **settings).to_json())


def start_of(attempt: Attempt) -> dict[str, Any]:
    """What provenance.json would say of an attempt, as far as it is known."""
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(attempt.started))
    start = {"started": started, "host": attempt.node, "pid": attempt.pid, "first_step": attempt.first_step}
    return start | {"device": f"{attempt.ranks} × unknown", "restored": SAID}


def attempts_of(run: Run, trial: FrozenTrial | None, records: list[dict[str, Any]]) -> list[Attempt]:
    """The attempts on a run by its starts. What ended them the trial's summary says, if it has as many."""
    starts = run.starts()
    causes = summary_of(trial).get("causes", []) if trial and damage_of(trial) is None else []
    last = max((record["step"] for record in records), default=None)
    attempts = []
    for index, start in enumerate(starts):
        began = moment(start.get("started"))
        following = starts[index + 1] if index + 1 < len(starts) else None
        ends = moment(following.get("started")) if following else max(began, modified(run.metrics_file))
        ranks = re.match(r"\d{1,6}", str(start.get("device", "")))
        attempts.append(
            Attempt(
                job="local",
                restart=0,
                node=start["host"],
                pid=start["pid"],
                ranks=max(1, int(ranks[0])) if ranks else 1,
                started=began,
                first_step=start["first_step"],
                reached=max(start["first_step"], following["first_step"] if following else last or 0),
                ended=max(began, ends),
                cause=(causes[index] if len(causes) == len(starts) else None) or "cancelled",
                detail=f"{SAID} from provenance.json",
            )
        )
    return attempts


def moment(text: Any) -> float:
    """Unix seconds of a time in provenance.json; 0 if it is none."""
    try:
        return float(max(0, calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))))
    except (ValueError, TypeError):
        return 0.0


def modified(file: Path) -> float:
    """When a file was written last; 0 if there is none."""
    return file.stat().st_mtime if file.exists() else 0.0


def contradiction(run: Run, trial: FrozenTrial | None, definition: Definition) -> str | None:
    """What a result says in another way than the study was told: it is another trial's."""
    metric, found = definition["metric"], run.result() or {}
    if trial is None or trial.state != TrialState.COMPLETE or found.get(metric, trial.value) == trial.value:
        return None
    return f"its {metric} is {found[metric]}, but the study was told {trial.value}"


def result(
    run: Run, trial: FrozenTrial | None, records: list[dict[str, Any]], wrong: str, definition: Definition
) -> Repair:
    """result.json from the last evaluation, if that is the run's end; else it is set aside, and the run trained to its
    end again."""
    metric, evaluations = definition["metric"], [record for record in records if is_evaluation(record)]
    last = evaluations[-1] if evaluations else {}
    told = trial.value if trial and trial.state == TrialState.COMPLETE else None
    whole = last.get("step") == definition["base"]["iterations"] and told in (None, last.get(metric))
    if not whole:
        again = "the study has its score" if told is not None else "the next worker trains the run to its end again"
        return Repair(run.result_file, wrong, f"it is set aside: {again}")
    scores = {name: value for name, value in last.items() if is_score(name)}
    best = max(record[SEG_MIOU] for record in evaluations if SEG_MIOU in record)
    seconds = 0.0
    with suppress(*UNREADABLE):
        seconds = sum(attempt.seconds for attempt in AttemptLog(run).attempts())
    content = scores | {"step": last["step"], "seconds": seconds, "best/seg_miou": best}
    return Repair(run.result_file, wrong, "restored from the last evaluation in metrics.jsonl", as_file(content))
