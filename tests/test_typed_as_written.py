"""A new user types README and docs from top to bottom: every command, in its order, in one new checkout.

A command is typed as it is written, except for what `typed` replaces: real data by the synthetic set, long runs by
runs of two steps, a cluster by this machine. NOT_TYPED names what is left out, with the reason.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_docs import copy_of_the_repository, file_of, read

from fsr.data.synthetic import synthesise

PAGES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("training", "inference", "studies", "cluster", "analysis", "results")),
)
NOT_TYPED = {
    "git clone ": "the test stands in a checkout",
    "make setup": "it takes 6 GB and minutes: typed by hand, and by .ci/run",
    "make gpu": "it needs a GPU",
    "make notebooks": "it opens an editor in the browser",
    "pip install ": "it installs packages",
    ".venv/bin/pip install ": "it installs packages",
    "FSR_CUDA=auto pip install ": "it installs packages",
    "export FSR_STORAGE": "it needs a PostgreSQL, which tests/test_launch_database.py starts",
    ".venv/bin/fsr pretrained ": "it needs a network",
    ".venv/bin/python benchmarks/": "it takes hours",
    "FSR_FAULT_SEEDS": "it takes hours",
    ".venv/bin/python -m pytest": "it takes hours",
}
ENDED_BY_CTRL_C = re.compile(r"fsr (board|dashboard)|--watch")
LIMIT_S = 300


def lines(text: str) -> list[str]:
    """The commands of a block, without their comments."""
    whole = text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in whole) if line]


def typed(line: str) -> str:
    """A command as it is typed here."""
    if re.search(r"fsr prepare coco DIR", line):
        return line.replace("DIR", "data/coco")
    line = line.replace("DIR", "data/synthetic")
    if re.search(r"fsr (sweep|submit-)", line):  # no cluster: this machine
        line = re.sub(r" --(partition|gpus|time_limit|account) \S+| --detach", "", line)
        line += "" if "--cluster local" in line else " --cluster local"
    if re.search(r"fsr sweep .*--study (?!smoke|student_temp)", line):
        line += " --dataset synthetic --iterations 2" + ("" if "--trials" in line else " --trials 2")
    if re.search(r"fsr (train|submit-train)|-m fsr.train", line):
        line = re.sub(r"(train) +(voc|coco)", r"\1 synthetic", line).replace("--nproc_per_node 4", "--nproc_per_node 2")
        line += " --ranks 2" + ("" if "--iterations" in line else " --iterations 2 --eval_every 2")
    if re.search(r"fsr (infer|submit-infer)|-m fsr.infer", line):
        line = re.sub(r"(infer) +(voc|coco)", r"\1 synthetic", line).replace("--nproc_per_node 4", "--nproc_per_node 2")
        line = line.replace("student.pth", "runs/coco/best.pt").replace("train_aug", "train")
    return line


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A new checkout, and data sets."""
    folder = tmp_path_factory.mktemp("new") / "fsr"
    drawn = tmp_path_factory.mktemp("drawn")
    copy_of_the_repository(folder, drawn)
    (folder / "data/synthetic").unlink()
    synthesise(folder / "data/synthetic", images=24, seed=1)
    synthesise(folder / "data/coco", "coco", images=24, seed=2)
    return folder


@pytest.fixture(scope="module")
def environment(checkout, tmp_path_factory):
    """That of a user who has just logged in: nothing activated, no Slurm, no files of his own."""
    foreign = ("SLURM_", "FSR_", "STUDY", "RUNS", "DATA", "PYTHON", "VIRTUAL_ENV", "MAKE")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    places = [place for place in variables["PATH"].split(":") if ".venv" not in place]
    home = tmp_path_factory.mktemp("home")
    # PYTHONPATH, for the installed package is another checkout's.
    return variables | {
        "PATH": ":".join(places),
        "PYTHONPATH": str(checkout),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }


def answer_to(line: str, checkout: Path, environment: dict[str, str], log: Path) -> tuple[int, str]:
    """Exit code and output of a command; Ctrl-C ends those that wait for it, once they have shown something."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=checkout,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if ENDED_BY_CTRL_C.search(line):
                limit = time.monotonic() + 30  # a table that is drawn again and again is not told to a file
                while process.poll() is None and not log.stat().st_size and time.monotonic() < limit:
                    time.sleep(0.2)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
            code = process.wait(LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return code, log.read_text(errors="replace")


@pytest.mark.slow
def test_every_command_of_the_pages_in_their_order(checkout, environment, tmp_path):
    wrong, count = [], 0
    others = ".venv/bin/fsr sweep --study block_size --data_folder DIR"  # which the page of analysis compares
    assert answer_to(typed(others), checkout, environment, tmp_path / "log")[0] == 0
    for page in PAGES:
        for block in read(page).blocks:
            if file_of(block):
                (checkout / file_of(block)).write_text(f"{block.text}\n")
            for line in lines(block.text) if block.words[:1] == ["bash"] else ():
                if line.startswith(tuple(NOT_TYPED)):
                    continue
                begun, command = time.monotonic(), typed(line)
                code, said = answer_to(command, checkout, environment, tmp_path / "log")
                count += 1
                print(f"{page}:{block.line} {code} {time.monotonic() - begun:.0f} s: {command}")
                if code not in ((0, 130, -signal.SIGINT) if ENDED_BY_CTRL_C.search(line) else (0,)):
                    wrong.append(f"{page}, block of line {block.line}: {command}\nended with {code}:\n{said[-2000:]}")
    assert not wrong, "\n\n".join(wrong)
    assert count > 40


def test_what_is_not_typed_stands_in_the_pages():
    commands = [line for page in PAGES for block in read(page).blocks for line in lines(block.text)]
    unused = [start for start in NOT_TYPED if not any(line.startswith(start) for line in commands)]
    assert unused in ([], ["make notebooks"])
