"""What a sweep prints: rows of trials as a table, changes as lines, the live view. Made from rows, without a sweep."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from launch.show import live
from launch.show.live import Watched, changes, show, watch_lines
from launch.show.messages import say
from launch.show.picture import Standing, picture, worth
from launch.show.table import Row, counted, duration, left
from launch.state.paths import relative
from launch.state.progress import Progress

SCORES = {"val/seg_miou": 0.41234, "val/cam_miou": 0.5}
RUNNING = Row(number=3, state="running", parameters="mask_ratio 0.4", progress=Progress(step=40, steps_per_s=2.0))
EVALUATED = replace(RUNNING, progress=Progress(step=50, evaluated=50, scores=SCORES, steps_per_s=2.0))
WAITING = replace(EVALUATED, state="waiting", causes=("preempted",))
ENDING = replace(WAITING, causes=("not finite",))
COMPLETE = replace(EVALUATED, state="complete", seconds=185.0, value=0.41234)


@pytest.mark.parametrize(
    "seconds, text",
    [(None, ""), (0, "0 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (18_720, "5 h 12 min")],
)
def test_seconds_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_causes_are_counted_in_the_order_of_their_first_coming():
    assert counted(("preempted", "killed", "preempted", "finished")) == "preempted ×2, killed, finished"
    assert counted(()) == ""


def test_what_is_left_is_known_of_a_running_trial_with_a_rate():
    assert left(RUNNING, 100) == 30.0
    assert left(replace(RUNNING, progress=Progress(step=40)), 100) is None
    assert left(COMPLETE, 100) is None


def test_there_is_a_line_a_trial():
    rows = [RUNNING, WAITING, replace(COMPLETE, causes=("killed", "finished"))]
    lines = [line.plain for line in picture(Standing(rows, 100, 3), [], 140)]
    assert len(lines) == 5
    assert "40/100" in lines[2] and "30 s" in lines[2]
    assert "0.412" in lines[4] and "killed, finished" in lines[4]


def test_where_not_all_trials_are_told_the_best_is_and_the_others_are_counted():
    ended = [replace(COMPLETE, number=number) for number in range(50)]
    plain = Console(file=io.StringIO(), width=100)
    show(Standing(ended, 100, 50, best=7), [], plain, most=10)
    lines = plain.file.getvalue().splitlines()
    assert len(lines) == 10 and lines[-1] == "… 43 more done"
    assert [line.split()[0] for line in lines[2:-1]] == ["7", *map(str, range(44, 50))]
    show(Standing(ended, 100, 50, best=7), [], plain)
    assert len(plain.file.getvalue().splitlines()) == 10 + 52


@pytest.mark.parametrize(
    "before, now, lines",
    [
        (None, RUNNING, ["trial 3 starts: mask_ratio 0.4"]),
        (RUNNING, RUNNING, []),
        (RUNNING, EVALUATED, ["trial 3 step 50/100: seg mIoU 0.412, cam mIoU 0.500"]),
        (EVALUATED, WAITING, ["trial 3 is interrupted at step 50: preempted"]),
        (WAITING, EVALUATED, ["trial 3 resumes at step 50: mask_ratio 0.4"]),
        (EVALUATED, COMPLETE, ["trial 3 complete after 3 min 05 s"]),
        (  # all between two looks
            WAITING,
            replace(COMPLETE, causes=(*WAITING.causes, "finished")),
            ["trial 3 resumes at step 50: mask_ratio 0.4", "trial 3 complete after 3 min 05 s"],
        ),
        (EVALUATED, replace(COMPLETE, state="fail", error="not finite"), ["trial 3 fail: not finite"]),
        (COMPLETE, COMPLETE, []),
        (EVALUATED, ENDING, []),  # its worker has yet to tell the study
        (ENDING, replace(COMPLETE, state="fail", error="not finite"), ["trial 3 fail: not finite"]),
    ],
)
def test_each_change_is_one_line(before, now, lines):
    assert changes(before, now, 100) == lines


def test_work_done_is_counted_in_trials():
    rows = [COMPLETE, replace(COMPLETE, state="pruned"), replace(COMPLETE, state="fail"), RUNNING]
    assert sum(worth(row, 100) for row in rows) == pytest.approx(2.4)


def test_the_time_left_is_told_from_what_was_done_since_the_sweep_began():
    rows = [replace(COMPLETE, number=number) for number in range(50)] + [replace(RUNNING, number=50)]
    watched = Watched(Reading(rows), 100, 60, rows[:40], started=time.monotonic() - 52.0)
    assert watched.standing().left_s == pytest.approx(48.0, abs=0.5)  # 10.4 trials in 52 s, 9.6 to go


class Reading:
    """Rows that change from one reading to the next."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def read(self):
        return self.readings.pop(0)

    def log_of(self, row):
        return ""


def test_lines_are_printed_until_the_end_and_once_more(monkeypatch):
    monkeypatch.setattr(live, "INTERVAL_S", 0)
    unclaimed = replace(RUNNING, number=4, state="waiting", parameters="")
    rows = Reading([unclaimed], [RUNNING, unclaimed], [COMPLETE, unclaimed])
    console = Console(file=io.StringIO(), width=80)
    watch_lines(Watched(rows, 100, 1, []), console, lambda: len(rows.readings) == 1)
    printed = console.file.getvalue().splitlines()
    assert printed[0] == "trial 3 starts: mask_ratio 0.4"
    assert printed[-1] == "trial 3 complete after 3 min 05 s"


def test_each_notice_is_a_line_once_and_stands_below_the_live_view(monkeypatch):
    monkeypatch.setattr(live, "INTERVAL_S", 0)
    notices = [["4 pending (Priority)"], ["4 pending (Priority)"], ["4 running"], ["4 pending (Priority)"], []]
    expected = ["4 pending (Priority)", "4 running"]
    for terminal in (False, True):
        left, rows = list(notices), Reading(*[[RUNNING]] * 5)
        console = Console(file=io.StringIO(), width=140, height=30, force_terminal=terminal)
        live.watch(
            Watched(rows, 100, 4, [RUNNING]), console, lambda left=left: len(left) == 1, lambda left=left: left.pop(0)
        )
        printed = console.file.getvalue()
        if terminal:
            assert all(notice in printed for notice in expected)
        else:
            assert printed.splitlines() == expected


def test_a_line_is_printed_as_it_is():
    console = Console(file=io.StringIO(), width=20)
    say(console, "[red]brackets[/red] of a long path: /a/b/c/d/e/f")
    assert console.file.getvalue() == "[red]brackets[/red] of a long path: /a/b/c/d/e/f\n"


def test_a_path_is_shown_as_short_as_it_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "smoke") == "runs/smoke"
    assert str(relative(type(tmp_path)("/x"))) == "/x"
