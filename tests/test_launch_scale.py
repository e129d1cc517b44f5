"""A large study to look at: ten thousand trials."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRIALS = 10_000


@pytest.mark.slow
def test_the_status_of_ten_thousand_trials_takes_two_seconds(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from finished_study import NAME, drawn, write_study

    made = write_study(tmp_path, TRIALS)
    command = [sys.executable, ROOT / "launch" / "status.py", "--json", "--study", NAME, "--runs", tmp_path]
    # Of the processor, not of the clock: what the machine does besides would fail this.
    # Busy neighbours still take cache and clock rate, up to 1.4 times as much of it, hence more than one try.
    seconds = []
    while len(seconds) < 6 and min(seconds, default=2) >= 2:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    status = json.loads(answer.stdout)
    assert len(status["trials"]) == TRIALS
    assert status["trials"][76]["causes"] == ["preempted", "finished"]
    repeated = sum(drawn(n, made.base).user_attrs["summary"]["gpu_seconds"]["repeated"] for n in range(TRIALS))
    assert status["gpu_hours"]["repeated"] == pytest.approx(repeated / 3600, abs=1e-3)
    print(f"\nstatus.py on {TRIALS} trials: CPU {min(seconds):.2f} s")
    assert min(seconds) < 2 * 1.4
