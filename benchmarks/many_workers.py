"""A thousand workers on one study: what waiting for the shared locks costs them, and whether any trial suffers.

    python benchmarks/many_workers.py
    python benchmarks/many_workers.py --workers 100 --finished 0 --every_s 10 --postgresql

The workers are forked processes that claim, log and tell as those of a job do, and sleep instead of training
(light_worker.py). They start within a minute and train trials of 100 s; a few train trials of 5 s. One in five is
killed (SIGKILL) at a random moment, as is every process of one node at once; each comes back as a requeued job does:
the same id, started once more. Slurm's answers are those of the model here.

At the end every number must be there once, each trial finished and trained to its end once, and no more than wanted;
the command fails otherwise. The last line is JSON.
"""

import gc
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import tyro
from finished_study import NAME, FinishedStudy, write_study
from light_worker import MARK
from optuna.trial import TrialState
from postgresql import Server
from worker_swarm import Options, Swarm, trials_of

from launch.state.paths import StudyFolder
from launch.state.storage import STORAGE_VARIABLE, open_storage
from launch.state.target import Target
from launch.worker.claim import Claim, claim


def in_another_process(work: Any) -> None:
    """Do something whose memory is not to stay in this process."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        sys.exit("the study could not be written")


def warm_up(folder: Path, database: bool) -> None:
    """Claim and tell once in a study of its own, so that workers share all imports."""
    url = f"sqlite:///{folder}/warm.db" if database else None
    before = os.environ.pop(STORAGE_VARIABLE, None)
    if url:
        os.environ[STORAGE_VARIABLE] = url
    made = write_study(folder / "warm", 20, storage=url)
    storage = open_storage(made.folder.folder, database)
    claimed = claim(made.study, made.base, made.folder, storage, "local", made.code)
    assert isinstance(claimed, Claim)
    claimed.attempt_log.begin("local", 0, "n1", 1)
    claimed.attempt_log.end("finished")
    claimed.tell(0.5)
    claimed.let_go()
    if before is not None:
        os.environ[STORAGE_VARIABLE] = before


def faults(made: FinishedStudy, options: Options, events: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the study at the end."""
    wanted = range(options.finished, options.finished + trials_of(options))
    storage = open_storage(made.folder.folder, made.database)
    trials = optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)
    numbers = Counter(trial.number for trial in trials)
    new = trials[options.finished :]
    told = Counter(event["number"] for event in events if event["what"] == "tell")
    marked = {number for number in wanted if (made.folder.run(number).folder / MARK).exists()}
    logs = {number: made.folder.attempt_log(number).attempts() for number in wanted}
    wrong = {
        "numbers that are not there once": [n for n in range(options.finished + len(wanted)) if numbers[n] != 1],
        "trials more than wanted": [n for n in numbers if n >= wanted.stop],
        "trials that have not finished": [t.number for t in new if t.state != TrialState.COMPLETE],
        "trials that were not trained to their end": [n for n in wanted if n not in marked],
        "trials that two workers trained": [e["number"] for e in events if e["what"] == "doubled"],
        "trials that were told twice": [n for n, times in told.items() if times > 1],
        "trials whose last attempt has not finished": [
            n for n in wanted if [a.cause for a in logs[n]][-1:] != ["finished"]
        ],
        "attempts that nobody closed": [n for n, log in logs.items() if any(a.cause is None for a in log)],
    }
    return [f"{what}: {numbers[:10]} ({len(numbers)})" for what, numbers in wrong.items() if numbers]


def latencies(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that workers waited: for their first trial; later, for tell and the claim after it together."""
    first: dict[tuple[str, int], float] = {}
    pairs, told, reports, starts = [], {}, [], []
    cpu: dict[str, list[float]] = {name: [] for name in ("start", "claim", "tell", "report")}
    for event in sorted(events, key=lambda event: event["at"]):
        start = event["job"], event["restart"]
        what = "start" if event["what"] == "claim" and start not in first else event["what"]
        cpu.get(what, []).append(1e3 * event["cpu_s"])
        if event["what"] == "report":
            reports.append(event["seconds"])
        elif event["what"] == "tell":
            told[start] = event["seconds"]
        elif event["what"] == "claim" and start not in first:
            first[start] = event["seconds"]
            starts += [event["at"]] if event["restart"] == 0 else []
        elif event["what"] == "claim":
            pairs.append((event["at"], told.pop(start) + event["seconds"]))
    if not starts:
        return {}
    steady = sorted(seconds for at, seconds in pairs if at > max(starts))
    return {
        "last_starter_s": max(s for (_, restart), s in first.items() if restart == 0),
        "median_starter_s": statistics.median(s for (_, restart), s in first.items() if restart == 0),
        "restarted_p99_s": quantile([s for (_, restart), s in first.items() if restart], 0.99),
        "claim_and_tell_p50_s": quantile(steady, 0.5),
        "claim_and_tell_p99_s": quantile(steady, 0.99),
        "claim_and_tell_max_s": quantile(steady, 1.0),
        "calls": len(steady),
        **{f"{name}_cpu_ms": round(quantile(values, 0.5), 1) for name, values in cpu.items()},
        "report_p50_s": quantile(reports, 0.5),
        "report_p99_s": quantile(reports, 0.99),
    }


def quantile(values: list[float], share: float) -> float:
    """The value below which this share of them lies; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def main() -> None:
    """Let them work, and print what came of it."""
    options = tyro.cli(Options)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="many_workers_", dir=options.folder))
    try:
        with Server() if options.postgresql else nullcontext() as server:
            result, wrong = measured(folder, options, server)
    finally:
        shutil.rmtree(folder)
    from machine import machine  # imports torch, which no worker may

    print(json.dumps(result | machine()))
    sys.exit("; ".join(wrong) if wrong else 0)


def measured(folder: Path, options: Options, server: Server | None) -> tuple[dict[str, Any], list[str]]:
    """The figures of a run, and what went wrong."""
    url = server.new_database() if server else None
    os.environ.pop(STORAGE_VARIABLE, None)
    if url:
        os.environ[STORAGE_VARIABLE] = url
    runs, events_file, total = folder / "runs", folder / "events.jsonl", options.finished + trials_of(options)

    def write() -> None:
        made = write_study(runs, options.finished, storage=url)
        open_storage(made.folder.folder, made.database)  # the workers meet the study as others have left it

    in_another_process(write)
    made = FinishedStudy.of(StudyFolder(runs / NAME), url is not None)
    Target(total, total, time.time()).write(made.folder)
    warm_up(folder, url is not None)
    assert "torch" not in sys.modules
    gc.collect()
    gc.freeze()  # else each collection of a worker would write to, and so copy, all that it shares with the others
    swarm, began = Swarm(made, options, events_file), time.monotonic()
    end = swarm.run()
    took_s, cpu = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in events_file.read_text().splitlines()] if events_file.exists() else []
    wrong = [end] if end else faults(made, options, events)
    told = sum(event["what"] == "tell" for event in events)
    return {
        "storage": "postgresql" if server else "journal",
        "workers": options.workers,
        "finished_before": options.finished,
        "trained": told,
        "killed": swarm.kills,
        "seconds": round(took_s, 1),
        "trials_per_s": round(told / took_s, 2),
        "cpu_s": round(cpu.ru_utime + cpu.ru_stime, 1),
        "private_mb": round(statistics.median(swarm.memory_mb), 1) if swarm.memory_mb else None,
        **latencies(events),
        "faults": wrong,
    }, wrong


if __name__ == "__main__":
    main()
