"""Simulated campaigns: the real protocol on a simulated cluster, what must hold of it, and what the command prints.

Each mutation below breaks one rule of the protocol, and an invariant must catch it.
"""

import json
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import simulate
from benchmarks.campaign.clock import START, Clock, Killed, Process
from benchmarks.campaign.invariants import BrokenInvariant
from benchmarks.campaign.locks import Locks
from benchmarks.campaign.options import Campaign
from benchmarks.campaign.simulation import Simulation
from fsr.errors import UserError
from fsr.lock import FileLock
from launch.slurm import commands, requeue_rules
from launch.slurm.environment import SlurmEnvironment
from launch.slurm.requeue_rules import RULES, Action
from launch.state.attempts import AttemptLog
from launch.worker.claim import Claim

ROOT = Path(__file__).parent.parent
TINY = Campaign(trials=5, nodes=3, iterations=600, queue_min=1.0, preempt_every=15.0)
STORM = replace(TINY, trials=8, preempt_every=10.0, breaks_every=1.0, node_fails_every=10.0, broken_settings=0.2)


def play(options, tmp_path, write_s=0.0):
    return Simulation(options, tmp_path / "runs" / "campaign", write_s).run()


def drawn(seed):
    """A campaign of some kind, in bad weather; and how long a durable write takes."""
    pick = random.Random(seed).choice
    options = Campaign(
        trials=pick([10, 30, 60]),
        nodes=pick([3, 8, 20]),
        gpus=pick([1, 2, 4]),
        seed=seed,
        preempt_every=pick([0, 10, 40]),
        notice_s=pick([0, 3, 30, 120]),
        preemption=pick(["requeue", "cancel"]),
        queue_min=pick([0, 3]),
        breaks_every=pick([1, 3, 50]),
        node_fails_every=pick([2, 20, 0]),
        bad_nodes=pick([0, 0, 1]),
        broken_settings=pick([0, 0.05, 0.3]),
        time_limit=pick([0.25, 1, 0]),
        away_every=pick([0, 0.5]),
        accounts=pick([True, False]),
        sampler=pick(["random", "tpe"]),
        pruner=pick(["median", "none"]),
    )
    return options, pick([0.0, 0.02, 1.0])


# Time, processes, locks


def test_processes_take_turns_in_the_order_of_the_simulated_clock():
    clock, said = Clock(), []

    def work(name, pause):
        for _ in range(3):
            clock.sleep(pause)
            said.append((name, clock.time() - START))

    for name, pause in (("a", 2.0), ("b", 3.0)):
        process = Process(clock, {}, lambda name=name, pause=pause: work(name, pause))
        clock.at(START, process.start)
    clock.run(START + 100, lambda: False)
    assert said == [("a", 2), ("b", 3), ("a", 4), ("b", 6), ("a", 6), ("b", 9)]


def test_a_killed_process_does_nothing_more_and_frees_its_locks(tmp_path):
    clock, said = Clock(), []
    locks = Locks(clock)

    def work(name):
        lock = FileLock(tmp_path / "lock")
        locks.take(lock, 0)
        said.append(f"{name} has it")
        try:
            clock.sleep(50)
        except Exception:
            said.append("no process sees its own SIGKILL")
        said.append(f"{name} is done")

    first, second = (Process(clock, {}, lambda name=name: work(name)) for name in ("first", "second"))
    for process in (first, second):
        clock.at(START, process.start)

    def kill():
        first.throw(Killed())
        locks.free(first)

    clock.at(START + 10, kill)
    clock.run(START + 1000, lambda: False)
    assert said == ["first has it", "second has it", "second is done"] and clock.now == START + 60


# Campaigns


@pytest.mark.parametrize("write_s", [0.0, 0.5])
def test_a_campaign_reaches_its_target_and_breaks_no_invariant(tmp_path, write_s):
    measures = play(TINY, tmp_path, write_s)
    assert measures.reached and measures.finished + measures.pruned == TINY.trials
    assert measures.useful + measures.repeated + measures.lost + measures.idle == pytest.approx(measures.occupied)
    assert measures.ends["preempted"] > 0 and measures.repeated < measures.useful < measures.occupied


def test_a_campaign_is_the_same_again(tmp_path):
    first, second = (play(replace(STORM, trials=4), tmp_path / name) for name in "ab")
    assert replace(first, cpu_s=0) == replace(second, cpu_s=0)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_breaks_no_invariant(tmp_path, seed):
    measures = play(replace(STORM, seed=seed, accounts=seed == 1, away_every=0.5), tmp_path, write_s=0.2)
    assert measures.reached and sum(measures.ends.values()) > STORM.trials


def test_fewer_checkpoints_repeat_more_under_the_same_failures(tmp_path):
    rare, often = (
        play(replace(TINY, notice_s=0.0, preempt_every=8.0, checkpoint_every=every), tmp_path / str(every))
        for every in (600, 50)
    )
    assert rare.repeated > 3 * often.repeated and rare.goodput < often.goodput


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_campaigns_of_all_kinds_break_no_invariant(tmp_path, seed):
    options, write_s = drawn(seed)
    measures = play(options, tmp_path, write_s)
    assert measures.reached, measures.reason


# Rules that are broken on purpose


def ignore_locks(patch):
    """And Slurm, which would still say whose job works on."""
    patch.setattr(Locks, "take", lambda self, lock, how: True)
    patch.setattr(commands, "job", lambda *_: None)


def forget_to_close(patch):
    patch.setattr(AttemptLog, "close_lost", lambda self, find_cause: False)


def ignore_budgets(patch):
    for cause, rule in RULES.items():
        patch.setitem(RULES, cause, replace(rule, budget=None))


def exit_when_preempted(patch):
    patch.setattr(SlurmEnvironment, "leave", lambda self, cause: None)


def give_up_after_a_preemption(patch):
    patch.setitem(RULES, "preempted", requeue_rules.Rule(Action.STAY_ENDED))


def hold_locks_of_the_dead(patch):
    patch.setattr(Locks, "free", lambda self, process: None)
    patch.setattr(Claim, "let_go", lambda claimed: None)


def count_all_as_useful(patch):
    patch.setattr(AttemptLog, "gpu_seconds", lambda self, failed=False: {"useful": 1.0, "repeated": 0.0, "lost": 0.0})


MUTATIONS = [
    (ignore_locks, {}, "is trained by|was given to|and it lives"),
    (forget_to_close, {"notice_s": 0.0}, "a claim did not close it|has no cause"),
    (ignore_budgets, {"broken_settings": 1.0, "trials": 4}, "is tried again after"),
    (exit_when_preempted, {}, "nobody brings it back|was given a trial"),
    (give_up_after_a_preemption, {}, "nobody brings it back|was given a trial"),
    (hold_locks_of_the_dead, {}, "is to wait for others|a claim did not close it"),
    (count_all_as_useful, {}, "which were made"),
]


@pytest.mark.parametrize("mutation, weather, sentence", MUTATIONS, ids=[name.__name__ for name, *_ in MUTATIONS])
def test_a_broken_rule_breaks_an_invariant(tmp_path, monkeypatch, mutation, weather, sentence):
    mutation(monkeypatch)
    threads = threading.active_count()
    with pytest.raises(BrokenInvariant, match=sentence):
        play(replace(STORM, **weather), tmp_path)
    assert threading.active_count() == threads


# The command


def test_the_command_prints_a_row_for_each_value(tmp_path, capsys):
    flags = ["--trials", "3", "--nodes", "2", "--iterations", "300", "--folder", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        simulate.main([*flags, "--checkpoint-every", "50", "300", "--seeds", "2"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "checkpoint_every 300 against checkpoint_every 50: makespan h" in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        simulate.main([*flags, "--pruner", "none", "median", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == ["pruner none", "pruner median"]
    assert {"goodput", "makespan_h", "useful", "repeated", "lost", "waiting", "ends"} <= rows["pruner none"][0].keys()


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--nodes", "0"], "--nodes must be from 1 to 10000"),
        (["--gpus", "4", "8"], "--gpus must be at most --gpus_per_node, which is 4, got 8"),
        (["--bad_nodes", "30"], "--bad_nodes must be at most --nodes, which is 20, got 30"),
        (["--preempt_every", "-1"], "--preempt_every must be in [0, 1e+06]"),
        (["--pruner", "best"], "Expected one of ('median', 'none')"),
        (["--node", "3"], "unknown option --node; nearest allowed: --nodes"),
        (["7"], "takes flags alone, got 7"),
        (["--folder", "/nowhere"], "--folder must be a folder that can be written to, got /nowhere"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(flags, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        simulate.main(flags)
    assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_every_number_has_its_range():
    for field, value in (("scaling", 0.0), ("broken_settings", 1.5), ("days", float("nan")), ("gpus", 65)):
        with pytest.raises(UserError, match=field):
            replace(TINY, **{field: value})


@pytest.mark.slow
def test_ten_thousand_trials_on_two_hundred_nodes_take_minutes(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "simulate.py", "--trials", "10000", "--nodes", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ((measures,),) = json.loads(done.stdout).values()
    print({name: value for name, value in measures.items() if name in ("makespan_h", "goodput", "cpu_s", "events")})
    assert measures["reached"]
