"""Whether two runs are bit-identical."""

import json
from typing import Any

import torch

from fsr.checkpoint import load_file
from fsr.run import Run

COSTS = ("seconds", "perf/steps_per_s", "perf/stall_fraction", "perf/peak_memory_gb")
PLACES = ("data_folder", "list_folder", "workers")


def first_difference(run: Run, other: Run) -> str | None:
    """The first difference in checkpoint, best weights, metrics and result; None if only costs and paths differ.

    Raises UserError if a checkpoint is missing or cannot be read.
    """
    for name in ("checkpoint_file", "best_file"):
        ours, theirs = (_flat(load_file(getattr(r, name))) for r in (run, other))
        if ours.keys() != theirs.keys():
            return f"{name} has other entries: {min(ours.keys() ^ theirs.keys())}"
        for key, value in ours.items():
            same = torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key]
            if not same and key.split("/")[-1] not in (*COSTS, *PLACES):
                return f"{name}: {key}"
    records = [[_without_costs(record) for record in r.metrics()] for r in (run, other)]
    for ours, theirs in zip(*records, strict=False):
        if ours != theirs:
            return f"metrics at step {ours['step']}: {json.dumps(ours)} against {json.dumps(theirs)}"
    if len(records[0]) != len(records[1]):
        return f"{len(records[0])} records of metrics against {len(records[1])}"
    results = [_without_costs(r.result() or {}) for r in (run, other)]
    return None if results[0] == results[1] else f"results: {results[0]} against {results[1]}"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every tensor and value of nested dictionaries and lists, by path."""
    if not isinstance(value, dict | list | tuple):
        return {path: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: part for key, entry in entries for name, part in _flat(entry, f"{path}/{key}").items()}


def _without_costs(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in COSTS}
