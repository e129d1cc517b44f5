"""How long a sweep of fixed trials takes on a real Slurm, against the bound of list scheduling.

    python benchmarks/sweep_makespan.py

The trials of sleeping_trials.py, 8 workers at a time, on four virtual nodes of this machine (Debian's slurm-wlm; root).
The last line is JSON.
"""

import heapq
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from machine import machine  # noqa: E402
from sleeping_trials import SECONDS  # noqa: E402
from slurm_cluster import MISSING, Cluster, Sweep, available, wait_for  # noqa: E402

WORKERS = 8


def list_scheduling(seconds: tuple[int, ...], workers: int) -> float:
    """Makespan where each worker takes the next trial the moment it is free."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


def main() -> None:
    """Sweep and measure."""
    if not available():
        sys.exit(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="makespan_"))
    cluster = Cluster(folder / "cluster")
    try:
        sweep = Sweep(cluster, folder / "sweep", ROOT / "benchmarks" / "sleeping_trials.py")
        submitted = time.time()
        sweep.submit(trials=len(SECONDS), parallel=WORKERS)
        wait_for(lambda: not cluster.ask("squeue", "--noheader"), 300)
        results = [json.loads((sweep.run_folder(n) / "result.json").read_text()) for n in range(len(SECONDS))]
    finally:
        cluster.down()
    first, last = min(r["began"] for r in results), max(r["ended"] for r in results)
    bound = list_scheduling(SECONDS, WORKERS)
    print(f"list scheduling {bound:.1f} s; first start to last end {last - first:.1f} s")
    print(
        json.dumps(
            {
                "ratio_to_bound": round((last - first) / bound, 3),
                "makespan_s": round(last - first, 2),
                "bound_s": bound,
                "submit_to_first_start_s": round(first - submitted, 2),
                "trials": len(SECONDS),
                "workers": WORKERS,
                "slurm": cluster.ask("sbatch", "--version").strip(),
            }
            | machine()
        )
    )


if __name__ == "__main__":
    main()
