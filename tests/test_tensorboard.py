"""A real study in TensorBoard, as a browser shows it; of its trials some were preempted, killed, pruned, or failed."""

import json
import shlex
import subprocess
import sys
import urllib.parse

import pytest
from browser import screenshot
from served import opened, served
from slurm_cluster import MISSING, ROOT, TESTS, Cluster, Sweep, available, kill, wait_for

from fsr.run import Run

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)
PREEMPTED, KILLED, PRUNED, UNDISTURBED, FAILED = range(5)
TRIALS = [f"trial_{number:04d}" for number in range(5)]
STATES = ["complete", "complete", "pruned", "complete", "fail"]
METRICS = ["val/seg_miou", "val/cam_miou", "val/aux_cam_miou"]
STEPS = 20
GROUP = "tf-category-paginated-view"
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def study(synthetic_folder, tmp_path_factory):
    """Five trials of the real method, made tiny, on a real Slurm; two of them are interrupted and resume."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").mkdir()
    (folder / "data" / "VOCdevkit").symlink_to(synthetic_folder / "VOCdevkit")
    for number, word in ((PREEMPTED, "slow"), (KILLED, "slow"), (PRUNED, "prune"), (FAILED, "fail")):
        (folder / "data" / TRIALS[number]).write_text(word)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        sweep = Sweep(cluster, folder, TESTS / "tiny.py", folder / "data")
        sweep.submit(trials=5, iterations=STEPS)
        for number in (PREEMPTED, KILLED):
            sweep.wait_for_step(number, 1, 90)
        (rank,) = sweep.pids(KILLED)
        wait_for(lambda: sweep.step(KILLED) > 5 and sweep.step(KILLED) % 5 in (2, 3))  # the last checkpoint lies behind
        kill(rank)
        wait_for(lambda: sweep.causes(KILLED)[0] is not None)
        cluster.ask("sbatch", "--partition=main", "--exclusive", "-N4", "--output=/dev/null", "--wrap", "sleep 1")
        wait_for(lambda: sweep.causes(PREEMPTED)[0] is not None, 60)
        (folder / "data" / TRIALS[PREEMPTED]).unlink()  # what is left of it may be fast
        sweep.wait_for_no_jobs()
        assert [trial["state"] for trial in sweep.status()["trials"]] == STATES
    finally:
        cluster.down()
    return sweep


@pytest.fixture(scope="module")
def names(study):
    """The trials' names in TensorBoard, by number."""
    settings = [trial["parameters"].replace("  ", " ") for trial in study.status()["trials"]]
    return [f"{number:04d} {setting}" for number, setting in enumerate(settings)]


@pytest.fixture(scope="module")
def board(study, tmp_path_factory):
    """Address of the TensorBoard that `make board` starts, with everything read."""
    make = ["make", "--no-print-directory", "--dry-run", "board", "STUDY=smoke", f"RUNS={study.folder / 'runs'}"]
    said = subprocess.run(make, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    _, *words = shlex.split(said.splitlines()[-1])
    words = [{"$STUDY": "smoke", "$RUNS": str(study.folder / "runs")}.get(word, word) for word in words]
    command = [sys.executable, "-m", "launch.commands", *words]
    with served(command, tmp_path_factory.mktemp("board") / "log", cwd=ROOT) as url:
        wait_for(lambda: len(session_groups(url)) == 5 and len(ask(url, "images/tags")) == 5, 60)
        yield url


def ask(url, question, **parameters):
    """What TensorBoard's own pages ask it for."""
    status, answer = url.ask(f"data/plugin/{question}?{urllib.parse.urlencode(parameters)}")
    assert status == 200
    return json.loads(answer)


def session_groups(url):
    """The trials as HParams knows them."""
    states = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    question = {"experimentName": "", "allowedStatuses": states, "colParams": [], "startIndex": 0, "sliceSize": 100}
    _, answer = url.ask("data/plugin/hparams/session_groups", json.dumps(question).encode(), "POST")
    return json.loads(answer).get("sessionGroups", [])


# Elements also inside of other elements' shadows.
FOUND = """const found = []
    const look = (root) => {
        found.push(...root.querySelectorAll(arguments[0]))
        for (const node of root.querySelectorAll("*")) if (node.shadowRoot) look(node.shadowRoot)
    }
    look(document)
    const text = (node) => node.textContent.trim()
"""


def texts(page, selector):
    """Text of each element that is not hidden."""
    return page.execute_script(f"{FOUND} return found.filter((node) => node.checkVisibility()).map(text)", selector)


def picture(page, name):
    """Keep what the page shows, to be looked at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    screenshot(page, str(SCREENSHOTS / f"{name}.png"), height=860)


def test_the_study_had_what_the_others_look_for(study):
    first, *_, last = study.causes(PREEMPTED)
    assert (first, last) == ("preempted", "finished")
    first, *_, last = study.attempts(KILLED)
    assert (first["cause"], last["cause"]) == ("killed", "finished")
    again = Run(study.run_folder(KILLED)).starts()[1]["first_step"]  # it may have been preempted after that
    assert again < first["reached"]  # steps that were recorded twice
    assert study.causes(FAILED) == ["not finite"]


def test_each_trial_is_a_run_with_each_step_once(board, browser, names):
    ends = {"pruned": STEPS // 2, "fail": STEPS // 2, "complete": STEPS}
    for trial, state in zip(names, STATES, strict=True):
        steps = [step for _, step, _ in ask(board, "scalars/scalars", run=trial, tag="train/loss")]
        assert steps == list(range(1, ends[state] + 1)), trial
        evaluations = [step for _, step, _ in ask(board, "scalars/scalars", run=trial, tag="val/seg_miou")]
        assert evaluations == list(range(STEPS // 2, ends[state] + 1, STEPS // 2)), trial
    with opened(browser, board, "#scalars&_smoothingWeight=0") as page:
        wait_for(lambda: sorted(texts(page, ".item-label-container span")) == names, 60)
        lines = f"{FOUND} return found.map((chart) => chart.shadowRoot.querySelectorAll('path.line').length)"
        wait_for(lambda: set(page.execute_script(lines, "vz-line-chart2")) == {5}, 60)
        groups = page.execute_script(f"{FOUND} return found.map((node) => node.category.name)", GROUP)
        assert groups == ["", "train", "val", "~perf"]  # what was learned before how fast; the first is of the search
        picture(page, "scalars")


@pytest.mark.parametrize(
    "who, method, status",
    [
        ({}, "GET", 200),
        ({"Cookie": None}, "GET", 401),
        ({"Host": "rebound.example"}, "GET", 403),
        ({"Origin": "http://elsewhere"}, "POST", 403),
        ({}, "DELETE", 403),
        ({}, "PUT", 403),
    ],
)
def test_the_board_answers_to_its_own_browser_alone(board, who, method, status):
    assert board.ask("data/runs", method=method, **who)[0] == status


def test_pictures_of_trials_can_be_compared(board, names):
    tags = ask(board, "images/tags")
    shown = {trial: sorted(tags[trial]) for trial in names}
    assert set(map(tuple, shown.values())) == {tuple(shown[names[UNDISTURBED]])}
    for trial, state in zip(names, STATES, strict=True):
        for tag in shown[trial]:
            steps = [image["step"] for image in ask(board, "images/images", run=trial, tag=tag, sample=0)]
            assert steps == ([STEPS // 2, STEPS] if state == "complete" else [STEPS // 2]), trial


@pytest.mark.slow
def test_hparams_has_what_was_searched_and_what_came_out(board, browser, study, names):
    trials = study.status()["trials"]
    groups = {group["name"]: group for group in session_groups(board)}
    assert sorted(groups) == names
    for trial, name in zip(trials, names, strict=True):
        group, config = groups[name], Run(study.run_folder(trial["number"])).config()
        assert group["hparams"] == {
            "mask_ratio": config.mask_ratio,
            "1-momentum": pytest.approx(1 - config.momentum),
            "seed": config.seed,
            "state": trial["state"],
        }
        values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        assert values == {name: pytest.approx(trial["scores"][name]) for name in METRICS}
        (session,) = group["sessions"]
        assert session["status"] == ("STATUS_FAILURE" if trial["state"] == "fail" else "STATUS_SUCCESS")
        assert session["endTimeSecs"] > session["startTimeSecs"]

    with opened(browser, board, "#hparams") as page:
        wait_for(lambda: len(rows(page, names)) == 5, 60)
        for trial, row in zip(trials, sorted(rows(page, names)), strict=True):
            parameters = groups[row[0]]["hparams"]
            numbers = [parameters[name] for name in ("1-momentum", "mask_ratio", "seed")]
            numbers += [trial["scores"][name] for name in METRICS]
            assert (row[0], row[4]) == (names[trial["number"]], trial["state"])
            assert [float(row[i]) for i in (1, 2, 3, 5, 6, 7)] == pytest.approx(numbers, rel=1e-3)
        picture(page, "hparams_table")
        click_tab(page, "PARALLEL COORDINATES VIEW")
        wait_for(lambda: len(texts(page, "g.foreground path")) == 5, 60)  # a line for each trial
        axes = texts(page, "text")
        assert [name for name in axes if name in {*METRICS, "1-momentum", "mask_ratio", "seed", "state"}] == [
            *("1-momentum", "mask_ratio", "seed", "state"),
            *METRICS,
        ]
        picture(page, "hparams_parallel_coordinates")


def rows(page, names):
    """The table of HParams without its head: a trial's name, parameters by name, and scores."""
    cells = [text for text in texts(page, "vaadin-grid-cell-content") if text]
    starts = [i for i, text in enumerate(cells) if text in names]
    return [cells[i : i + 8] for i in starts if len(cells) >= i + 8]


def click_tab(page, name):
    script = f"{FOUND} found.find((node) => text(node).toUpperCase() === arguments[1]).click()"
    page.execute_script(script, "paper-tab", name)
