"""Everything that only a machine with an NVIDIA GPU can tell: `make gpu`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The other benchmarks and the tests' references are scripts' neighbours, imported by their bare names.
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests")]
