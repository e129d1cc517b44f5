"""The rules of what follows the end of an attempt: a table and pure functions, so no test here needs a Slurm."""

import re
from pathlib import Path
from typing import get_args

import pytest

from launch.slurm import requeue_rules as rules
from launch.slurm.answers import Job
from launch.slurm.job_states import GONE
from launch.slurm.requeue_rules import RULES, Action
from launch.state.attempts import Attempt, Cause

README = Path(__file__).parent.parent / "README.md"
RUNNING, PREEMPTED = Job("RUNNING"), Job("RUNNING", preempted=True)


def attempt(cause=None, first_step=0, reached=10, detail="", seconds=100.0, job="7_0", restart=0):
    times = {"started": 1000.0, "ended": 1000.0 + seconds}
    steps = {"first_step": first_step, "reached": reached}
    return Attempt(job=job, restart=restart, node="n1", pid=1, ranks=2, cause=cause, detail=detail, **times, **steps)


def test_every_cause_has_a_rule():
    assert set(RULES) == set(get_args(Cause))


def test_the_readme_tells_the_rules():
    rows = [line.split("|")[1:-1] for line in README.read_text().splitlines() if line.startswith("|")]
    told = {}
    for cells in rows:
        cause = re.fullmatch(r" `(.+)` ", cells[1]) if len(cells) == 4 else None
        action = re.match(r" \*\*(.+?)\*\*", cells[2]) if cause else None
        if cause and action:
            told[cause[1]] = (action[1], cells[3].strip())
    budgets = {cause: "any" if rule.budget is None else str(rule.budget) for cause, rule in RULES.items()}
    assert told == {cause: (rule.action.value, budgets[cause]) for cause, rule in RULES.items()}


@pytest.mark.parametrize(
    "near_time_limit, by_file, job, restarts, cause",
    [
        (True, False, None, 0, "time limit"),
        (True, True, PREEMPTED, 0, "time limit"),
        (False, True, PREEMPTED, 0, "cancelled"),
        (False, False, PREEMPTED, 0, "preempted"),
        (False, False, RUNNING, 0, "preempted"),  # a plain SIGTERM: the job is meant to work on
        (False, False, None, 0, "preempted"),  # no answer is not "cancelled"
        (False, False, Job("CANCELLED"), 0, "cancelled"),
        (False, False, Job("COMPLETING"), 0, "cancelled"),
        (False, False, Job("COMPLETING", restarts=1), 0, "preempted"),  # requeued meanwhile
        (False, False, Job(GONE), 0, "cancelled"),
    ],
)
def test_why_a_job_was_asked_to_stop(near_time_limit, by_file, job, restarts, cause):
    assert rules.cause_of_stop(near_time_limit, by_file, job, restarts) == cause


@pytest.mark.parametrize(
    "cause, cancels, action",
    [
        ("preempted", False, Action.WAIT_TO_BE_KILLED),
        ("preempted", True, Action.REQUEUE),
        ("time limit", False, Action.REQUEUE),
        ("cancelled", False, Action.STAY_ENDED),
        ("cancelled", True, Action.STAY_ENDED),
    ],
)
def test_what_a_job_does_once_it_has_saved(cause, cancels, action):
    assert rules.after_stop(cause, cancels) is action


def test_a_job_that_nobody_will_kill_does_not_wait_for_ever():
    assert rules.nobody_will_kill(RUNNING)
    assert not rules.nobody_will_kill(PREEMPTED)
    assert not rules.nobody_will_kill(Job("COMPLETING"))
    assert not rules.nobody_will_kill(None)


@pytest.mark.parametrize(
    "exit_code, out_of_memory, cause, words",
    [
        (137, True, "out of memory", "--sbatch mem="),
        (137, False, "killed", "signal 9 (SIGKILL)"),
        (134, False, "killed", "signal 6 (SIGABRT)"),
        (135, False, "killed", "signal 7 (SIGBUS)"),
        (139, False, "killed", "signal 11 (SIGSEGV)"),
        (143, False, "killed", "signal 15 (SIGTERM)"),
        (253, False, "killed", "signal 125"),  # no signal of this system
        (255, False, "killed", "srun lost its ranks"),
        (126, False, "node", "cannot be run there"),
        (127, False, "node", "is not there"),
        (1, False, "exception", "exit code 1"),
        (2, False, "exception", "exit code 2"),
    ],
)
def test_the_cause_of_ranks_that_could_not_say_why(exit_code, out_of_memory, cause, words):
    found, detail = rules.cause_of_exit(exit_code, out_of_memory)
    assert (found, words in detail) == (cause, True)


@pytest.mark.parametrize(
    "past_states, job, node_is_up, cause",
    [
        (["PREEMPTED"], None, None, "preempted"),
        (["TIMEOUT"], None, None, "time limit"),
        (["NODE_FAIL", "RUNNING"], RUNNING, True, "node"),
        (["OUT_OF_MEMORY"], None, None, "out of memory"),
        (["CANCELLED"], None, None, "cancelled"),
        (["COMPLETED"], Job("COMPLETED"), True, "killed"),
        (None, None, None, "killed"),
        (None, Job(GONE), True, "killed"),
        (None, Job("TIMEOUT"), True, "time limit"),
        (None, Job("FAILED"), True, "killed"),
        (None, Job("PENDING", restarts=1), True, "preempted"),
        (None, Job("PENDING", restarts=1), False, "node"),
        (None, Job("PENDING", restarts=1), None, "preempted"),
    ],
)
def test_the_cause_of_an_attempt_that_could_not_say_why(past_states, job, node_is_up, cause):
    assert rules.cause_of_lost_attempt(attempt(), past_states, job, node_is_up)[0] == cause


def test_a_later_start_of_the_job_does_not_speak_for_an_earlier_attempt():
    states = ["PREEMPTED", "TIMEOUT"]
    assert rules.cause_of_lost_attempt(attempt(restart=0), states, None, None)[0] == "preempted"
    assert rules.cause_of_lost_attempt(attempt(restart=1), states, None, None)[0] == "time limit"
    assert rules.cause_of_lost_attempt(attempt(restart=2), states, RUNNING, True)[0] == "killed"


def test_a_local_attempt_was_killed():
    assert rules.cause_of_lost_attempt(attempt(job="local"), None, None, None) == ("killed", "the process is gone")


@pytest.mark.parametrize(
    "exit_code, signals, by_file, job, restarts, cause",
    [
        (1, [], False, RUNNING, 0, None),
        (137, [], False, None, 0, None),  # no answer is not "ended"
        (1, [], False, PREEMPTED, 0, "preempted"),
        (1, [], False, Job("COMPLETING"), 0, "cancelled"),
        (1, [], False, Job("CANCELLED"), 0, "cancelled"),
        (1, [], False, Job("RUNNING", restarts=1), 0, "preempted"),
        (1, [], False, Job("RUNNING", restarts=1), 1, None),
        (143, [], False, PREEMPTED, 0, "preempted"),  # a rank that was still importing
        (143, [], False, RUNNING, 0, None),  # somebody's plain SIGTERM
        (143, [], False, None, 0, "preempted"),  # no answer: wait, rather than end
        (0, ["TERM"], False, PREEMPTED, 0, "preempted"),  # before the ranks were started
        (0, ["TERM"], False, Job("CANCELLED"), 0, "cancelled"),
        (0, ["TERM"], False, RUNNING, 0, None),
        (0, ["TERM"], False, None, 0, "preempted"),
        (140, [], False, RUNNING, 0, "time limit"),  # a rank that was still importing
        (0, ["USR2"], False, RUNNING, 0, "time limit"),  # between two starts
        (1, ["TERM", "USR2"], False, None, 0, "time limit"),
        (137, [], True, RUNNING, 0, "cancelled"),
    ],
)
def test_why_a_job_ends_whose_ranks_ended_or_were_not_started(exit_code, signals, by_file, job, restarts, cause):
    assert rules.cause_of_end(exit_code, signals, by_file, job, restarts) == cause


def test_ranks_are_started_again_as_long_as_attempts_are_made():
    for start in (1, 10, 1000):
        assert rules.after_crash(1, start, had_attempt=True) is Action.RESTART
        assert rules.after_crash(1, start, had_attempt=False) is Action.STAY_ENDED


def test_ranks_that_were_not_started_are_and_a_mistake_of_the_user_starts_none():
    assert rules.after_crash(0, 1, had_attempt=False) is Action.RESTART
    assert rules.after_crash(2, 1, had_attempt=True) is Action.STAY_ENDED


def test_ranks_that_a_signal_killed_before_an_attempt_get_a_few_more_starts():
    starts = [rules.after_crash(137, start, had_attempt=False) for start in range(1, 6)]
    assert starts == [Action.RESTART] * 3 + [Action.STAY_ENDED] * 2


def test_a_running_job_keeps_its_trial_although_the_lock_is_free():
    assert rules.still_runs(attempt(restart=1), Job("RUNNING", restarts=1))
    assert not rules.still_runs(attempt(restart=0), Job("RUNNING", restarts=1))
    assert not rules.still_runs(attempt(), Job("PENDING"))
    assert not rules.still_runs(attempt(), None)


@pytest.mark.parametrize("cause", [cause for cause, rule in RULES.items() if rule.budget is not None])
def test_a_run_is_given_up_when_a_causes_budget_is_used_up(cause):
    budget = RULES[cause].budget
    attempts = [attempt(cause, 10 * n, 10 * n + 10, f"detail {n}") for n in range(budget)]
    assert rules.given_up(attempts[:-1]) is None
    times = f" {budget} times" if budget > 1 else ""
    assert rules.given_up(attempts) == f"{cause}{times}: detail {budget - 1}"


@pytest.mark.parametrize("cause", [cause for cause, rule in RULES.items() if rule.budget is None])
def test_a_cause_without_a_budget_never_gives_a_run_up(cause):
    assert rules.given_up([attempt(cause, 10 * n, 10 * n + 10) for n in range(100)]) is None


def test_other_causes_between_do_not_refill_a_budget():
    attempts = [attempt("exception", 0, 5, "ValueError: x")]
    attempts += [attempt("preempted", step, step + 10) for step in range(5, 60, 10)]
    attempts += [attempt("exception", 65, 70, "ValueError: y")]
    assert rules.given_up(attempts) == "exception 2 times: ValueError: y"


def test_no_progress_twice_in_a_row_gives_a_run_up_unless_others_are_to_blame():
    stuck = attempt("time limit", 5, 5, "too short")
    assert rules.given_up([stuck]) is None
    assert rules.given_up([stuck, stuck]) == "no progress twice in a row (time limit, time limit): too short"
    assert rules.given_up([stuck, attempt("preempted", 5, 5)]) is None
    assert rules.given_up([stuck, attempt("cancelled", 5, 5)]) is None
    assert rules.given_up([stuck, attempt("node", None, None)]) is None
    assert rules.given_up([stuck, attempt("killed", 5, 5, seconds=10)]) is None  # it had no time to save
    assert rules.given_up([stuck, attempt("killed", 5, 5, seconds=100)]) is not None
    assert rules.given_up([stuck, attempt("time limit", 5, 9)]) is None


def test_a_run_without_attempts_is_not_given_up():
    assert rules.given_up([]) is None


@pytest.mark.parametrize(
    "causes, blamed",
    [
        ([], True),  # it made no configuration
        (["not finite"], True),
        (["preempted", "exception", "exception"], True),
        (["out of memory", "out of memory"], True),
        (["exception", "killed"], False),
        (["node"] * 8, False),
        (["disk full"] * 8, False),
        ([None], False),
    ],
)
def test_which_failed_trials_failed_of_their_setting(causes, blamed):
    assert rules.blames_setting(causes) == blamed
