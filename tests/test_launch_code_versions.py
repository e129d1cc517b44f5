"""A study means its own code: what a changed checkout does to it, by the commands that users type."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from method_checkout import overlaid, private_checkout

from analysis.load import load
from analysis.ranking import ranking
from launch.state.storage import open_storage

METHOD = Path(__file__).parent / "launch_stub.py"


class Place:
    """A private checkout, and the study smoke that is swept from it on this machine."""

    def __init__(self, folder):
        self.folder = folder
        self.checkout = private_checkout(folder / "checkout", METHOD)
        self.runs, self.study = folder / "runs", folder / "runs" / "smoke"
        (folder / "data").mkdir()

    def command(self, *options, name="sweep.py"):
        words = [sys.executable, self.checkout / "launch" / name, "--study", "smoke", "--runs", self.runs]
        if name == "sweep.py":
            words += ["--data_folder", self.folder / "data", "--iterations", "20", "--cluster", "local"]
        return overlaid(words, options)

    def run(self, *options, **more):
        there = {"cwd": self.checkout, "env": os.environ | {"PYTHONPATH": str(self.checkout)}}
        answer = subprocess.run(self.command(*options, **more), capture_output=True, text=True, **there)
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer.returncode, answer.stdout + answer.stderr

    def change(self, file, before, after):
        path = self.checkout / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def trials(self):
        return optuna.load_study(study_name="smoke", storage=open_storage(self.study)).trials

    def versions(self):
        return json.loads((self.study / "code" / "versions.json").read_text())


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_new_config_field_in_the_checkout_is_said_and_kills_no_worker(place):
    assert place.run("--trials", "2")[0] == 0
    place.change("fsr/config.py", "    data_folder: Path", "    colour: str = 'blue'\n    data_folder: Path")
    code, output = place.run("--trials", "4")
    assert code == 0, output
    assert f"note: the checkout differs from the code version {place.versions()[0]} in fsr/config.py" in output
    assert "--renew_code takes the checkout's" in output
    assert [trial.state.name in ("COMPLETE", "PRUNED") for trial in place.trials()] == [True] * 4
    assert "colour" not in json.loads((place.study / "trial_0003" / "config.json").read_text())

    code, output = place.run("--trials", "6", "--renew-code")
    assert code == 0, output
    old, new = place.versions()
    assert f"new code version {new} (before: {old}); changed: fsr/config.py" in output
    assert json.loads((place.study / "trial_0005" / "config.json").read_text())["colour"] == "blue"
    assert [trial.user_attrs["code"] for trial in place.trials()] == [[old]] * 4 + [[new]] * 2


def test_a_mended_bug_is_taken_on_request_and_every_trial_says_by_which_code_it_was_trained(place):
    place.change(
        "launch/worker/method.py",
        'write_json(run.result_file, {"val/seg_miou": score',
        'write_json(run.result_file, {"val/seg_miou": score / 1000',
    )
    assert place.run("--trials", "2")[0] == 0
    place.change("launch/worker/method.py", "score / 1000", "score")
    _, output = place.run("--trials", "3")
    assert "in launch/worker/method.py; workers run that version" in output
    assert all(trial.value < 0.001 for trial in place.trials() if trial.state.name == "COMPLETE")
    assert place.run("--trials", "5", "--renew-code")[0] == 0
    finished = [trial for trial in place.trials()[3:] if trial.state.name == "COMPLETE"]
    assert finished and all(trial.value > 0.001 for trial in finished)

    old, new = place.versions()
    _, status = place.run(name="status.py")
    assert f"code version {old}: trials 0, 1, 2" in status
    assert f"code version {new}: trials 3, 4" in status
    tables = load("smoke", runs=place.runs)
    assert set(tables.trials["code"]) == {old, new}
    assert set(ranking(tables, "smoke")["code"]) <= {old, new}


def test_an_edited_suggest_does_not_mix_two_definitions(place):
    assert place.run("--trials", "2")[0] == 0
    place.change("sweeps/mask_ratio.py", "0.05, 0.95", "0.05, 0.5")
    code, output = place.run("--trials", "4")
    assert code == 0, output
    assert "and defines the range of mask_ratio in another way; workers run that version" in output
    ranges = {trial.distributions["mask_ratio"].high for trial in place.trials()}
    assert ranges == {0.95}
    code, output = place.run("--trials", "6", "--renew-code")
    assert code == 0, output
    assert [trial.distributions["mask_ratio"].high for trial in place.trials()] == [0.95] * 4 + [0.5] * 2
    assert json.loads((place.study / "study.json").read_text())["space"]["mask_ratio"]["attributes"]["high"] == 0.5


def test_an_option_that_differs_is_refused_whatever_the_code(place):
    assert place.run("--trials", "1")[0] == 0
    place.change("launch/worker/method.py", "import time", "import time  # edited")
    code, output = place.run("--trials", "1", "--seed", "7")
    assert (code, "was launched with seed 0, not 7" in output) == (2, True)
    code, output = place.run("--trials", "1", "--iterations", "24")
    assert (code, "was launched with iterations 20, not 24" in output) == (2, True)


def test_a_local_sweep_whose_workers_cannot_begin_pins_nothing(place):
    (place.folder / "data" / "mistake").write_text("no such list: train.txt")
    code, output = place.run("--trials", "1")
    assert (code, "no such list" in output) == (2, True)
    assert {file.parent.name for file in place.study.rglob("*") if file.is_file()} <= {"locks", "local", "mistakes"}
    (place.folder / "data" / "mistake").unlink()
    assert place.run("--trials", "1", "--seed", "7")[0] == 0


def test_a_snapshot_that_a_purge_thinned_out_is_one_sentence(place):
    assert place.run("--trials", "2")[0] == 0
    (snapshot,) = (place.study / "code").glob("*/fsr")
    (snapshot / "cam.py").unlink()
    code, output = place.run("--trials", "3")
    assert code == 2
    assert (
        "was changed after it was taken: fsr/cam.py; restore it, or take the checkout's code with --renew_code"
        in output
    )
    shutil.copy(place.checkout / "fsr" / "cam.py", snapshot / "cam.py")
    assert place.run("--trials", "3")[0] == 0


def test_a_checkout_that_is_moved_away_meanwhile_harms_no_worker(place):
    (place.folder / "data" / "step_s").write_text("0.1")
    there = {"cwd": place.checkout, "env": os.environ | {"PYTHONPATH": str(place.checkout)}}
    process = subprocess.Popen(place.command("--trials", "2"), stdout=subprocess.PIPE, text=True, **there)
    deadline = time.monotonic() + 60
    while len(list(place.study.glob("trial_*/attempts"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    place.change("launch/worker/method.py", "import time", "raise SystemExit('edited while it runs')")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(place.trials()) == 2


def test_ctrl_c_in_a_changed_checkout_resumes_by_the_studys_code(place):
    (place.folder / "data" / "step_s").write_text("0.1")
    there = {"cwd": place.checkout, "env": os.environ | {"PYTHONPATH": str(place.checkout)}}
    process = subprocess.Popen(place.command("--trials", "1"), stdout=subprocess.PIPE, text=True, **there)
    deadline = time.monotonic() + 60
    while not (place.study / "trial_0000" / "checkpoint.pt").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    place.change("launch/worker/method.py", "import time", "import time  # edited")
    assert place.run("--trials", "1")[0] == 0
    (trial,) = place.trials()
    assert trial.user_attrs["code"] == place.versions()
    place.change("launch/worker/method.py", "# edited", "# edited again")


def test_every_path_to_a_study_is_that_study(place):
    assert place.run("--trials", "2")[0] == 0
    (place.folder / "link").symlink_to(place.runs)
    place.runs = place.folder / "checkout" / ".." / "link"
    code, output = place.run("--trials", "2")
    assert code == 0
    assert "there are: 2 done" in output
    assert json.loads((place.study / "study.json").read_text())["id"]
