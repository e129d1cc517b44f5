"""What a terminal of any size shows of a study: one line a trial, none too wide, and always what matters most."""

# ruff: noqa: E501  # a row is a case

import io
import random

import pytest
from rich.cells import cell_len
from rich.console import Console

from launch.show.live import on_console
from launch.show.picture import Standing, bar, picture
from launch.show.table import Row
from launch.show.trial_lines import shortened, trial_lines, wrapped
from launch.state.progress import Progress

SCORES = {"val/seg_miou": 0.41234, "val/cam_miou": 0.5}
WIDTHS, HEIGHTS = (60, 80, 100, 200), (24, 50)
PLAIN = {"mask_ratio": 0.925, "1-momentum": 0.04507}
TEXTS = {
    "precision": "bf16",
    "backbone": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "cls_attends": "unmasked",
    "drop_path_in_targets": False,
    "teacher_temp": "(0.04, 0.07)",
}
LONG = {f"a_parameter_with_a_very_long_name_{number}": random.Random(number).random() for number in range(9)}
ERROR = (
    "exception 2 times: RuntimeError: The size of tensor a (512)\nmust match the size of tensor b (768) at \x1b[31m 1"
)


def row(number, state, settings, **more):
    step = {"complete": 20_000, "pruned": 10_000, "waiting": 300}.get(state, 12_345)
    rate = {"steps_per_s": 1.75} if state == "running" else {}
    progress = Progress(step=step, evaluated=2_000, scores=SCORES, **rate)
    value = {"complete": 0.4 + number / 1e5}.get(state)
    more = {"error": ERROR} | more if state == "fail" else more
    node = "gpu-node-with-a-long-name-0017.cluster.example.org" if state == "running" else ""
    causes = ("preempted", "finished") if state == "complete" else ("preempted",) if state == "waiting" else ()
    parameters = "  ".join(f"{name} {value}" for name, value in settings.items())
    return Row(number, state, parameters, progress, causes, node, 18_720.0, value=value, settings=settings, **more)


def study(count, settings=PLAIN):
    """So many trials, a few of them failed or waiting and the last ones running."""
    states = ["complete"] * count
    for number in range(count):
        if number >= count - 4:
            states[number] = "running"
        elif number % 7 == 3:
            states[number] = "fail"
        elif number % 11 == 5:
            states[number] = "waiting" if number % 2 else "pruned"
    return [row(number, state, settings) for number, state in enumerate(states)]


STUDIES = {
    "none yet": [],
    "one": [row(0, "running", PLAIN)],
    "six": study(6),
    "forty": study(40),
    "a thousand": study(1_000),
    "settings that are text": study(6, TEXTS),
    "long names": study(40, LONG),
    "all failed": [row(number, "fail", PLAIN, error=f"Error: kind {number % 9}") for number in range(40)],
    "nothing claimed": [Row(number, "waiting", "", Progress()) for number in range(6)],
    "no time left to tell": [Row(0, "running", "mask_ratio 0.4", Progress(step=3), settings=PLAIN)],
    "one that is damaged": [Row(0, "damaged", "", Progress(), error="metrics.jsonl: line 3 is no JSON")],
    "wide letters": [row(0, "running", {"名前": "日本語のとても長い値です"}), row(1, "fail", {"名前": "短"}, error="錯誤" * 90)],
}  # fmt: skip
NOTICES = [
    "Slurm's queue: 4 running, 12 pending (Priority)",
    "12 jobs wait (Priority): jobs of higher priority go first",
    f"jobs {', '.join(f'1234567_{n}' for n in range(9))} cannot work by themselves, pending (JobHeldUser): scontrol release",
]


def standing(rows, **more):
    best = next((each.number for each in rows if each.state == "complete"), None)
    logs = "/lustre/a/very/long/path/to/the/folder/of/all/runs/of/this/study/loss_weights/trial_0003/error.txt"
    return Standing(rows, 20_000, 1_000, **({"left_s": 61_234.0, "best": best, "log_of": lambda row: logs} | more))


@pytest.mark.parametrize("notices", [[], NOTICES], ids=["alone", "with notices"])
@pytest.mark.parametrize("kind", STUDIES)
def test_no_line_is_wider_than_the_terminal_and_all_fit_into_it(kind, notices):
    for width in WIDTHS:
        for height in HEIGHTS:
            for more in ({}, {"left_s": None}):
                lines = picture(standing(STUDIES[kind], **more), notices, width, height)
                assert max(cell_len(line.plain) for line in lines) <= width, (width, [line.plain for line in lines])
                assert len(lines) <= height
                assert "of 1000 trials" in lines[0].plain and lines[1].plain.startswith("trial  state")
                assert not any("\n" in line.plain or "\x1b" in line.plain for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_drawn_is_what_was_laid_out(width):
    for rows in STUDIES.values():
        lines = picture(standing(rows), NOTICES, width, 24)
        plain = [line.plain for line in lines]
        console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
        console.print(on_console(lines, console))
        assert console.file.getvalue().splitlines() == plain


def test_running_failed_and_best_trials_are_shown_and_the_rest_is_summarised():
    rows = STUDIES["a thousand"]
    lines = [line.plain for line in picture(standing(rows), [], 80, 24)]
    numbers = [int(line.split()[0]) for line in lines if line.startswith(" ") and line.split()[0].isdigit()]
    assert numbers == sorted(numbers) and {0, 996, 997, 998, 999} <= set(numbers)
    assert {rows[number].state for number in numbers} >= {"running", "fail", "complete"}
    (more,) = [line for line in lines if line.startswith("…")]
    assert "more done" in more and "more fail" in more
    shown = sum(int(part.split()[0]) for part in more.removeprefix("… ").split(", "))
    assert shown + len(numbers) == 1_000


def test_all_trials_are_shown_where_they_have_room():
    assert not any(line.plain.startswith("…") for line in picture(standing(study(6)), [], 80, 24))
    assert len(picture(standing(study(1_000)), [], 10_000)) > 1_000


def test_bar_and_time_left_stand_in_the_first_line():
    text = bar(standing(study(40)), 80).plain
    assert text.startswith("29 of 1000 trials, 4 running, 5 fail, 2 waiting  -") and text.endswith("17 h 00 min left")
    assert "left" not in bar(standing(study(40), left_s=None), 80).plain
    assert "left" not in bar(Standing(study(4)[:0], 10, 0, 5.0), 80).plain


def test_names_are_short_only_where_the_whole_ones_have_no_room():
    narrow, wide = ([line.plain for line in trial_lines(study(6), 20_000, width)] for width in (80, 200))
    assert "mask_ratio" in wide[0] and "1-momentum" in wide[0]
    assert narrow[-1] == "ma_ra = mask_ratio, 1_mom = 1-momentum"
    assert "ma_ra" in narrow[0] and len(narrow) == 8 and len(wide) == 7


def test_settings_without_room_are_named():
    text = " ".join(line.plain.strip() for line in trial_lines(study(6, LONG), 20_000, 60))
    assert "no room for" in text
    assert all(name in text for name in LONG)


def test_short_names_are_different():
    names = ["w_class", "w_patch", "w_seg", "w_reg", "w_aff", "mask_ratio", "mask_range", "m_r", "state"]
    short = shortened(names, dict.fromkeys(names, 5))
    assert len(set(short.values())) == len(names)
    assert all(cell_len(name) <= 5 for name in short.values())
    assert short["w_seg"] == "w_seg" and short["state"] != "state"


def test_a_failed_trial_says_why_and_where_its_log_is():
    lines = [line.plain for line in picture(standing(study(6)), [], 80, 24)]
    failed = "trial 3 failed: exception 2 times: RuntimeError: The size of tensor a (512) mus…"
    rows = [row(3, "fail", PLAIN), row(4, "running", PLAIN)]
    lines = [line.plain for line in picture(standing(rows), [], 80, 24)]
    assert failed in lines
    assert lines[lines.index(failed) + 1].startswith("  log: …") and lines[-1].endswith("/trial_0003/error.txt")


def test_failures_of_one_kind_are_told_once():
    lines = [line.plain for line in picture(standing(STUDIES["all failed"]), [], 100, 24)]
    assert "5 trials (21, 30, 39) failed: Error: kind 3" in lines
    assert "… and 6 other errors" in lines


def test_a_running_trial_says_its_node():
    (line,) = [line.plain for line in trial_lines([row(0, "running", PLAIN)], 20_000, 200)[1:]]
    assert "on gpu-node-with-a-long-name-0017.cluster.example.org" in line


def test_a_command_in_a_notice_is_wrapped_and_never_cut():
    words = " ".join(line.plain.strip() for line in wrapped(NOTICES[2], 60))
    assert words == NOTICES[2]
