"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest
import torch
from selenium.webdriver import Chrome
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Chrome]:
    """A headless Chromium, started once."""
    if not chromium.available():
        pytest.skip(chromium.MISSING)
    driver = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Iterator[Sweep]:
    """A study on the module's own Slurm, with nothing else in its queue."""
    cluster.clear()
    yield Sweep(cluster, tmp_path)
    cluster.clear()
