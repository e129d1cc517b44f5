"""What a run records of itself, where it takes a GPU to know."""

from types import SimpleNamespace

import torch
from tiny import source_of, tiny_config

from fsr.run import Run
from fsr.run_log import RunLog, peak_memory_gb


def test_the_peak_of_memory_is_that_of_this_run_not_of_the_workers_trials_before(
    synthetic_folder, tmp_path, monkeypatch
):
    """A stub of torch's counters: 30 GB now, 70 GB at the most."""
    memory = {"now": 30e9, "peak": 70e9}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: memory.update(peak=memory["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: memory["peak"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "stub")
    config, device = tiny_config(synthetic_folder), torch.device("cuda", 0)
    run = Run(tmp_path / "run")
    run.start(config)
    RunLog(config, run, source_of(config), SimpleNamespace(step=0), device).close()
    assert peak_memory_gb(device) == 30
