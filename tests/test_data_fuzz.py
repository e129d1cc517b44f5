"""A fuzzer over all that data sets hold: no traceback, no signal, no two sentences. FSR_FUZZ_S says for how long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "data_fuzz.py"
MEMORY_KB = 6_000_000  # of address space, of which torch takes the most


@pytest.mark.slow
def test_what_hypothesis_draws_is_read_or_told_in_one_sentence(tmp_path):
    seconds = float(os.environ.get("FSR_FUZZ_S", "600"))
    arguments = [sys.executable, str(FUZZER), str(tmp_path), str(seconds), os.environ.get("FSR_FUZZ_ROUND", "0")]
    limited = ["bash", "-c", f'ulimit -v {MEMORY_KB}; exec "$@"', "bash", *arguments]
    surroundings = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(limited, capture_output=True, text=True, timeout=seconds + 300, env=surroundings)
    last = (tmp_path / "round").read_text() if (tmp_path / "round").exists() else "none"
    assert answer.returncode == 0, f"round {last} ended with {answer.returncode}: {answer.stderr[-4000:]}"
    print(answer.stdout)
