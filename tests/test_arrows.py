"""Who may import whom, read from the source of every file of every package: no circle, and nothing upward."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("fsr", "launch", "sweeps", "analysis")
# From below to above: a file imports from its own room and from those before it.
ROOMS = (
    ("launch.state",),
    ("launch.study",),  # what a study is: imported by sweeps/ as well
    ("launch.slurm", "launch.show"),
    ("launch.worker",),
    ("launch.sweep_options", "launch.train_options", "launch.infer_options", "launch.infer_study_options"),
    ("launch.plan", "launch.local_workers"),
    ("launch.submit", "launch.verify_resume", "launch.repair"),
    ("launch.node_probe", "launch.file_probe", "launch.lock_probe"),
    ("launch.sweep_local", "launch.sweep_slurm", "launch.infer_study"),
    ("launch.sweep", "launch.train", "launch.infer", "launch.status", "launch.doctor"),
)


def module_of(file):
    """The dotted name of a source file."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def imports(file, top_only=False):
    """Modules that a file imports; of `from package import name` it is `package.name` where we have such a module."""
    tree = ast.parse(file.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            for name in node.names:
                module = f"{node.module}.{name.name}"
                yield module if module in FILES else node.module


ARROWS = {name: {other for other in imports(file) if other in FILES and other != name} for name, file in FILES.items()}


def packages(folder, **options):
    """Pairs of file and package that it imports from, of a folder and all below it."""
    return {
        (file.name, module.split(".")[0])
        for file in (ROOT / folder).rglob("*.py")
        for module in imports(file, **options)
    }


def height(module):
    """The place of a module's room in ROOMS."""
    return next(place for place, rooms in enumerate(ROOMS) if module.startswith(rooms))


def test_every_file_of_every_room_is_looked_at():
    assert {"launch.worker.main", "launch.slurm.commands", "fsr.lock", "launch.show.table"} <= set(FILES)
    assert {"fsr.inference.journal", "fsr.data.voc", "analysis.load", "sweeps.joint"} <= set(FILES)
    assert sum(len(arrows) for arrows in ARROWS.values()) > 300


def test_there_is_no_circle():
    tuple(graphlib.TopologicalSorter(ARROWS).static_order())  # raises CycleError, which names one


@pytest.mark.parametrize("module", [module for module in FILES if module.startswith("launch.")])
def test_nothing_in_launch_imports_upward(module):
    rooms = {"launch.state", "launch.slurm", "launch.show", "launch.worker"}
    if module in rooms:  # an empty __init__.py
        return
    for other in {other for other in ARROWS[module] - rooms if other.startswith("launch.")}:
        assert height(other) <= height(module), f"{module} imports {other}"


def test_rooms_of_one_height_do_not_know_each_other():
    assert not {other for name in FILES if name.startswith("launch.show") for other in ARROWS[name] if "slurm" in other}
    assert not {other for name in FILES if name.startswith("launch.slurm") for other in ARROWS[name] if "show" in other}


@pytest.mark.parametrize("stranger", ["launch", "sweeps", "analysis", "submitit", "optuna"])
def test_the_method_knows_nothing_of_its_launcher(stranger):
    assert stranger not in {package for _, package in packages("fsr")}


def test_the_launcher_imports_no_study():
    assert not {"sweeps", "analysis"} & {package for _, package in packages("launch")}


def test_the_analysis_knows_the_method_and_what_is_kept():
    of_launch = {other for name in FILES if name.startswith("analysis") for other in ARROWS[name] if "launch." in other}
    assert {".".join(other.split(".")[:2]) for other in of_launch} == {"launch.state"}


def test_a_study_imports_what_a_study_is():
    of_launch = {other for name in FILES if name.startswith("sweeps") for other in ARROWS[name] if "launch." in other}
    assert of_launch == {"launch.study"}


def test_nobody_imports_the_analysis():
    assert "analysis" not in {package for folder in ("fsr", "launch", "sweeps") for _, package in packages(folder)}


def test_the_launcher_imports_no_torch():
    assert not {"torch", "timm"} & {package for _, package in packages("launch")}
    everything = [name for name in FILES if name.startswith("launch.")]
    code = f"import importlib, sys\nfor name in {everything}: importlib.import_module(name)\n"
    code += "import launch.study; launch.study.load('joint'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_one_file_imports_submitit():
    assert {file for file, package in packages("launch") if package == "submitit"} == {"batch_script.py"}


def test_finished_runs_are_looked_at_without_torch():
    code = "import analysis.compare, analysis.plots, analysis.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
