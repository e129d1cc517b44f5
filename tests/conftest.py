"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from slurm_cluster import Cluster, Sweep

from fsr.data.synthetic import synthesise


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory) -> Path:
    """A data folder with a synthetic set in VOC's layout: 24 training and 2 validation images. Do not change it."""
    folder = tmp_path_factory.mktemp("synthetic")
    synthesise(folder, images=24, seed=1)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Runs in this process and in others sum in the same order; small tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Iterator[Sweep]:
    """A study on the module's own Slurm, with nothing else in its queue."""
    cluster.clear()
    yield Sweep(cluster, tmp_path)
    cluster.clear()
