"""sweeps → launch → fsr, and never back; who may import what, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imports(file, top_only=False):
    """Modules that a file names in its import statements."""
    tree = ast.parse(file.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def packages(folder, **options):
    return {
        (file.name, module.split(".")[0])
        for file in (ROOT / folder).rglob("*.py")
        for module in imports(file, **options)
    }


@pytest.mark.parametrize("stranger", ["launch", "sweeps", "analysis", "submitit", "optuna"])
def test_the_method_knows_nothing_of_its_launcher(stranger):
    assert stranger not in {package for _, package in packages("fsr")}


def test_the_launcher_imports_no_study():
    assert not {"sweeps", "analysis"} & {package for _, package in packages("launch")}


def test_the_launcher_takes_from_the_method_what_needs_no_torch():
    modules = ("config", "inference.config", "command", "run", "inference.journal", "errors", "files")
    allowed = tuple(f"fsr.{module}" for module in modules)
    for file in (ROOT / "launch").rglob("*.py"):
        for module in imports(file, top_only=True):
            assert not module.startswith("fsr.") or module.startswith(allowed), f"{file.name} imports {module}"
    assert not {"torch", "timm"} & {package for _, package in packages("launch")}


def test_two_files_import_submitit():
    importers = {file for file, package in packages("launch") if package == "submitit"}
    assert importers == {"local_workers.py", "batch_script.py"}


def test_a_sweep_imports_no_torch():
    code = "import launch.sweep, launch.study, sys; launch.study.load('joint'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_finished_runs_are_looked_at_without_torch():
    code = "import analysis.compare, analysis.plots, analysis.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_nobody_imports_the_analysis():
    assert "analysis" not in {package for folder in ("fsr", "launch", "sweeps") for _, package in packages(folder)}
