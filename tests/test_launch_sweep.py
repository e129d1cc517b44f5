"""`fsr sweep` as its users meet it: real processes, real signals, a method that only counts steps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from method_checkout import overlaid, surroundings, sweep_command

from fsr.errors import UserError
from launch.plan import Options
from launch.state.storage import open_storage
from launch.sweep import sweep

METHOD = Path(__file__).parent / "launch_stub.py"
SWEEP = Path(__file__).parent.parent / "launch" / "sweep.py"


class Sweep:
    """The study smoke in a private folder, swept by processes of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.study_folder = folder / "runs" / "smoke"

    def start(self, *options, command=None):
        command = [*(command or sweep_command(METHOD)), "--study", "smoke", "--data_folder", self.data]
        command += ["--runs", self.folder / "runs", "--iterations", "20", "--cluster", "local"]
        command = overlaid(command, options)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **surroundings(METHOD),
        )

    def run(self, *options, **more):
        process = self.start(*options, **more)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def trials(self):
        return optuna.load_study(study_name="smoke", storage=open_storage(self.study_folder)).trials

    def attempts(self, number):
        return [int(step) for step in (self.study_folder / f"trial_{number:04d}" / "attempts").read_text().split()]

    def step(self, number):
        file = self.study_folder / f"trial_{number:04d}" / "checkpoint.pt"
        return int(file.read_text()) if file.exists() else 0

    def wait_for(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    def processes(self, name=""):
        """Process numbers of everything that names this study's folder in its command."""
        listing = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
        return [int(line.split()[0]) for line in listing if str(self.folder) in line and name in line]

    def check_all_done(self, count=6):
        trials = self.trials()
        assert [trial.number for trial in trials] == list(range(count))
        assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
        for number in range(count):
            assert self.attempts(number) == sorted(self.attempts(number))


@pytest.fixture
def study(tmp_path):
    swept = Sweep(tmp_path)
    yield swept
    for process in swept.processes():
        os.kill(process, signal.SIGKILL)


def test_a_sweep_trains_what_was_ordered_then_nothing_then_what_is_missing(study):
    code, output = study.run()
    assert code == 0
    study.check_all_done()
    assert "trial 0 starts: mask_ratio 0.4  1-momentum 0.02\n" in output
    assert "trial 0 complete" in output
    best = max((t for t in study.trials() if t.state.name == "COMPLETE"), key=lambda trial: trial.value)
    assert f"best: trial {best.number}, val/seg_miou {best.value:.4f}" in output
    assert "fsr board --study smoke --runs " in output
    definition = json.loads((study.study_folder / "study.json").read_text())
    assert definition["target"] == 6
    assert definition["base"]["iterations"] == 20
    assert set(definition["space"]) == {"mask_ratio", "1-momentum"}
    assert {"optuna", "submitit", "torch"} <= set(definition["launched"]["versions"])
    assert study.processes() == []

    assert study.run()[0] == 0
    study.check_all_done(6)
    assert study.run("--trials", "8")[0] == 0
    study.check_all_done(8)
    assert json.loads((study.study_folder / "study.json").read_text()) == definition

    older = {name: value for name, value in definition["base"].items() if name != "augment"}
    (study.study_folder / "study.json").write_text(json.dumps(definition | {"base": older}))
    assert study.run("--trials", "8")[0] == 0  # launched by a version that did not know this setting

    code, output = study.run("--trials", "9", "--seed", "1")
    assert code == 2
    assert output.strip().endswith(
        "smoke was launched with seed 0, not 1; take the same settings or another --runs folder"
    )
    assert "Traceback" not in output
    study.check_all_done(8)


def test_the_best_settings_are_trained_again_with_fresh_seeds_once_each(study):
    code, output = study.run("--repeat", "3")
    assert (code, output.splitlines()[-1]) == (
        2,
        "error: --repeat takes the best settings of a finished search, and this one has 0 complete and 0 unfinished "
        "trials; run the command without --repeat first",
    )
    assert study.run()[0] == 0
    search = study.trials()
    complete = [trial for trial in search if trial.state.name == "COMPLETE"]
    best = sorted((trial for trial in complete if trial.number), key=lambda trial: -trial.value)[:2]
    assert "to be trained again: the settings of trials 0 and" in study.run("--repeat", "2", "--dry-run")[1]
    assert len(study.trials()) == 6

    (study.data / "step_s").write_text("0.1")
    process = study.start("--repeat", "2", "--best", "2")
    study.wait_for(lambda: study.step(7) >= 5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    for command in (["--repeat", "2", "--best", "2"], ["--repeat", "2", "--best", "2"], []):
        code, output = study.run(*command)
        assert code == 0
        assert "12 trials wanted" in output
        assert "fsr report --study smoke" in output
        assert re.search(r"more trials: \S+fsr sweep .* --trials 12$", output, re.MULTILINE)
    study.check_all_done(12)
    again = [(trial.params, trial.user_attrs["seed"]) for trial in study.trials()[6:]]
    assert again == [(trial.params, seed) for seed in (1, 2) for trial in (search[0], *best)]
    for number in range(12):
        config = json.loads((study.study_folder / f"trial_{number:04d}" / "config.json").read_text())
        assert config["seed"] == (0 if number < 6 else 1 + (number - 6) // 3)
    assert {trial.state.name for trial in study.trials()[6:]} == {"COMPLETE"}  # never pruned
    assert study.run("--trials", "8")[0] == 0
    assert [trial.number for trial in study.trials() if "seed" not in trial.user_attrs] == [0, 1, 2, 3, 4, 5, 12, 13]


def test_ctrl_c_leaves_no_process_and_loses_nothing(study):
    (study.data / "step_s").write_text("0.2")
    process = study.start()
    study.wait_for(lambda: min(study.step(0), study.step(1)) >= 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.search(r"nothing is lost, to resume: \S+fsr sweep --study smoke ", output)
    assert "waiting" in output
    assert study.processes() == []
    assert [trial.state.name for trial in study.trials()] == ["RUNNING", "RUNNING"]
    saved = [study.step(0), study.step(1)]
    assert min(saved) >= 5

    (study.data / "step_s").write_text("0")
    code, output = study.run()
    assert code == 0
    assert "trial 0 resumes at step " in output
    study.check_all_done()
    assert [study.attempts(number) for number in (0, 1)] == [[0, saved[0]], [0, saved[1]]]


def test_a_second_ctrl_c_does_not_wait(study):
    (study.data / "step_s").write_text("100")
    process = study.start()
    study.wait_for(lambda: len(list(study.study_folder.glob("trial_*/attempts"))) == 2)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
    assert process.wait(timeout=20) == 130
    study.wait_for(lambda: study.processes() == [], seconds=5)


def test_a_sweep_that_is_killed_takes_its_workers_with_it(study):
    (study.data / "step_s").write_text("0.2")
    process = study.start()
    study.wait_for(lambda: min(study.step(0), study.step(1)) >= 5)
    process.kill()
    process.wait()
    study.wait_for(lambda: study.processes() == [], seconds=10)
    (study.data / "step_s").write_text("0")
    assert study.run()[0] == 0
    study.check_all_done()
    assert min(study.attempts(0)[1], study.attempts(1)[1]) >= 5


def test_a_killed_workers_trial_resumes_under_its_number(study):
    (study.data / "step_s").write_text("0.1")
    process = study.start()
    study.wait_for(lambda: min(study.step(0), study.step(1)) >= 5)
    workers = study.processes("launch.worker.main")
    os.kill(workers[0], signal.SIGKILL)
    (study.data / "step_s").write_text("0")
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0  # the other worker took it over
    assert "a worker died; its log:" in output
    study.check_all_done()
    assert sorted(len(study.attempts(number)) for number in range(6)) == [1, 1, 1, 1, 1, 2]


def test_trials_of_dead_workers_wait_for_the_next_call(study):
    (study.data / "step_s").write_text("0.2")
    process = study.start()
    study.wait_for(lambda: min(study.step(0), study.step(1)) >= 5)
    for worker in study.processes("launch.worker.main"):
        os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "0 of 6 trials done" in output
    assert study.processes() == []
    (study.data / "step_s").write_text("0")
    assert study.run()[0] == 0
    study.check_all_done()


def test_failed_trials_are_reported_and_topped_up_by_the_next_call(study):
    (study.data / "fail").write_text("yes")
    code, output = study.run("--trials", "2")
    assert code == 1
    assert "trial 0 fail: not finite: loss nan at step 0" in output
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "FAIL"]
    (study.data / "fail").unlink()
    assert study.run("--trials", "2")[0] == 0
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_mistake_found_by_a_worker_is_told_in_one_sentence(study):
    (study.data / "mistake").write_text("no such list: train.txt")
    code, output = study.run("--trials", "3")
    assert code == 2
    assert output.strip().splitlines()[-1] == "error: no such list: train.txt"
    assert "Traceback" not in output


def test_one_study_is_swept_by_one_process(study):
    (study.data / "step_s").write_text("100")
    process = study.start()
    study.wait_for(lambda: (study.study_folder / "study.json").exists())
    code, output = study.run()
    assert code == 2
    assert f"process {process.pid} is sweeping" in output


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            ["--study", "nonsense"],
            "there is no study 'nonsense'; allowed: block_size, ingredients, joint, loss_weights, ",
        ),
        (["--study", "../smoke"], "there is no study '../smoke'; allowed: "),
        (["--trials", "0"], "--trials must be from 1 to 1000000, got 0"),
        (["--parallel", "-1"], "--parallel must be from 1 to 100000, got -1"),
        (["--gpus", "3", "--nodes", "2"], "--gpus must be a multiple of the nodes, 2, or 0, got 3"),
        (["--time-limit", "soon"], "--time_limit must be minutes, H:MM:SS or D-HH:MM:SS, got 'soon'"),
        (["--partition", "a; rm -r /"], "--partition must be what Slurm calls one, without spaces, got 'a; rm -r /'"),
        (["--sbatch", "mem"], "--sbatch must be key=value with a name of sbatch's options, got 'mem'"),
        (["--sbatch", "mem=1\n#SBATCH --wrap=x"], "--sbatch must be key=value with a name of sbatch's options, got "),
        (["--sbatch", "array=1-9"], "--sbatch cannot set array: workers are submitted as one array; say --parallel"),
        (["--cluster-file", "/nowhere.toml"], "there is no cluster file /nowhere.toml"),
        (
            ["--storage", "redis://u:secret@host/0"],
            "--storage must be postgresql://…, mysql://… or sqlite:///FILE, got redis://u:***@host/0",
        ),
        (["--data_folder", "FOLDER/nowhere"], "/nowhere; name it with --data_folder"),
        (["--study", "block_size", "--trials", "9"], "study block_size has only 5 different settings, got --trials 9"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_starts(study, options, sentence):
    options = [option.replace("FOLDER", str(study.folder)) for option in options]
    code, output = study.run(*options, command=[sys.executable, SWEEP])
    assert code == 2
    assert sentence in output
    assert "Traceback" not in output
    assert not (study.folder / "runs").exists()


def test_a_dry_run_writes_nothing(study):
    code, output = study.run("--dry_run", "--trials", "3", command=[sys.executable, SWEEP])
    assert code == 0
    assert "3 trials wanted" in output
    assert not (study.folder / "runs").exists()


def test_debug_sweeps_inside_this_process(study, stub_method, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launch/sweep.py"])
    options = {"study": "smoke", "data_folder": study.data, "runs": study.folder / "runs", "cluster": "debug"}
    assert sweep(Options(**options, trials=3, iterations=20)) == 0
    study.check_all_done(3)
    (study.data / "mistake").write_text("no such list: train.txt")
    with pytest.raises(UserError, match="no such list"):
        sweep(Options(**options, trials=4, iterations=20))


@pytest.mark.slow
def test_verify_resume_kills_a_run_by_each_signal_and_finds_it_equal(synthetic_folder, tmp_path):
    command = [sys.executable, SWEEP, "--study", "smoke", "--data_folder", synthetic_folder, "--cluster", "local"]
    answer = subprocess.run([*command, "--runs", tmp_path, "--verify-resume"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "BIT-IDENTICAL" in answer.stdout
    for name in ("SIGTERM", "SIGUSR2", "SIGKILL"):
        assert f"{name} after step " in answer.stdout
    attempts = json.loads((tmp_path / "smoke" / "verify" / "interrupted" / "attempts.json").read_text())
    assert sorted(attempt["cause"] for attempt in attempts) == ["cancelled", "cancelled", "finished", "killed"]
    assert not list((tmp_path / "smoke" / "verify").rglob("*.pt"))  # once they are equal, nobody needs them
