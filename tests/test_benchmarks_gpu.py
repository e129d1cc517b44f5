"""`make gpu` can be tried without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_all_that_a_gpu_is_asked_runs_on_a_cpu_in_tiny_sizes(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--folder", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stdout + first.stderr
    (file,) = tmp_path.glob("gpu-dry-*.json")
    results = json.loads(file.read_text())
    assert len(results["seconds"]) == 12
    assert not [row for rows in results["stages"].values() for row in rows.values() if "failed" in row]
    assert "**no**" not in file.with_suffix(".md").read_text()

    # What is missing is measured again, and nothing else.
    missing = results["stages"]["machine"].pop("copy")
    del results["seconds"]["machine"]
    file.write_text(json.dumps(results))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    again = json.loads(file.read_text())["stages"]
    assert again["machine"].pop("copy") != missing
    assert again["machine"] == results["stages"]["machine"] and again["input"] == results["stages"]["input"]
