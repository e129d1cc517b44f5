"""What situations start from, made once a session: data, runs, studies and results of the smallest size."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from studies import add_trial, attempt, new_study, write_run
from tiny import flags, tiny_config

from fsr import distributed
from fsr.config import TrainConfig
from fsr.data.synthetic import synthesise
from fsr.run import Run
from fsr.train import train

ROOT = Path(__file__).parent.parent.parent
SEARCH = ("--study", "smoke", "--iterations", "2", "--cluster", "debug")
INFER = ("--workers", "0", "--threads", "1", "--scales", "1.0", "--crf", "false")


def train_to(config: TrainConfig, folder: Path, steps: int = 1000) -> None:
    """Train a run to its end, or stop it after so many steps."""
    asked = itertools.count()
    train(config, Run(folder), stop_requested=lambda: next(asked) >= steps)
    distributed.stop()


class Stock:
    """The folder of the stock: a checkout that all users may read, and in it what each situation may copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {name: folder / name for name in ("checkout", *PARTS)}
        for package in ("fsr", "launch", "sweeps", "analysis"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, self.paths["checkout"] / package, ignore=ignored)
        shutil.copy(ROOT / "Makefile", self.paths["checkout"])
        (self.paths["checkout"] / ".venv").symlink_to(sys.prefix)
        for make in PARTS.values():
            make(self)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)

    def run(self, *words: object) -> None:
        """A command of the checkout that must succeed."""
        environment = os.environ | {"PYTHONPATH": str(self.paths["checkout"]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def data(self) -> None:
        """A synthetic set in VOC's layout: 4 training and 2 validation images."""
        synthesise(self.paths["data"], images=4, seed=1)

    def coco(self) -> None:
        """The same in COCO's layout."""
        synthesise(self.paths["coco"], "coco", images=4, seed=2)

    def whole(self) -> None:
        """A run of ten steps that was finished."""
        train_to(tiny_config(self.paths["data"]), self.paths["run"])

    def half(self) -> None:
        """The same, stopped at its sixth step."""
        train_to(tiny_config(self.paths["data"]), self.paths["half"], steps=6)

    def runs(self) -> None:
        """A study smoke with two finished trials."""
        self.run(self.paths["checkout"] / "launch/sweep.py", *SEARCH, *self.places(), "--trials", "2")

    def places(self) -> list[object]:
        """Where the study is."""
        return ["--runs", self.paths["runs"], "--data_folder", self.paths["data"]]

    def states(self) -> None:
        """A study smoke with a generated trial in every state, and a study momentum with two."""
        folder, study = new_study(self.paths["states"])
        (folder.folder / "target.json").write_text(json.dumps({"trials": 7, "limit": 8}))
        for state in ("complete", "pruned", "fail", "running"):
            add_trial(study, 0.4, state)
        add_trial(study, 0.4, "complete", 0.25, seed=1, repeats=0)
        add_trial(study, 0.6, "complete", 0.3)
        ends = [attempt(0, 3600, 0, 100, "preempted"), attempt(3600, 5400, 50, 200, "finished")]
        write_run(folder.run(0), attempts=ends)
        write_run(folder.run(1), 10, [attempt(0, 36, 0, 100, "pruned")])
        write_run(folder.run(2), 1, [attempt(0, 72, 0, 10, "not finite")])
        write_run(folder.run(3), 5, [attempt(0, None, None, None, None)])
        write_run(folder.run(4), attempts=[attempt(9, 18, 0, 200, "finished")])
        write_run(folder.run(5), attempts=[attempt(9, 18, 0, 200, "finished")])
        other, study = new_study(self.paths["states"], "momentum")
        for number in range(2):
            add_trial(study, 0.3 + number / 10)
            write_run(other.run(number), attempts=[attempt(0, 36, 0, 200, "finished")])

    def results(self) -> None:
        """The results of an inference."""
        where = ["--checkpoint", self.paths["run"] / "best.pt", "--data_folder", self.paths["data"]]
        self.run("-m", "fsr.infer", "synthetic", *where, "--output_folder", self.paths["results"], *INFER)

    def partial(self) -> None:
        """The same with one image to be done."""
        shutil.copytree(self.paths["results"], self.paths["partial"])
        for name in ("scores.json", "scores.csv", "cam_quality.json"):
            (self.paths["partial"] / name).unlink()
        (journal,) = (self.paths["partial"] / "images").glob("*.jsonl")
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))

    def train_words(self, name: str) -> list[str]:
        """The command that trains in a run folder."""
        return ["-m", "fsr.train", *flags(tiny_config(self.paths["data"])), "--run_folder", f"{{{name}}}"]


PARTS = {
    "data": Stock.data,
    "coco": Stock.coco,
    "run": Stock.whole,
    "half": Stock.half,
    "runs": Stock.runs,
    "states": Stock.states,
    "results": Stock.results,
    "partial": Stock.partial,
}
