"""Fixtures that several test modules share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import launch_stub
import pytest
import slurm_cluster
import torch
from inference import resize_some, save_checkpoint
from real_sets import as_real
from selenium.webdriver import Chrome
from slurm_cluster import Cluster, Sweep
from studies import add_trial, attempt, new_study, sweep_for_real, write_run
from tiny import tiny_config

from fsr.data.synthetic import synthesise
from fsr.stop_signals import SIGNALS
from launch.worker import method

# Files that take minutes, mostly waiting: two run at a time, and a long one that begins last runs alone.
LONG = (
    *("test_slurm", "test_tensorboard", "test_train", "test_slurm_identity", "test_launch_sweep", "test_docs"),
    *(
        "test_ranks",
        "test_launch_code_versions",
        "test_slurm_environment",
        "test_slurm_infer",
        "test_analysis_notebooks",
    ),
    *("test_infer_faults", "test_infer", "test_launch_claim"),
)


def pytest_report_header() -> str:
    """Which Slurm the tests of Slurm run on."""
    if not slurm_cluster.available():
        return "Slurm: none"
    return f"Slurm: {slurm_cluster.version()} of {shutil.which('slurmctld')}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command that a test runs inside this process leaves its handlers behind, which forked processes inherit: one
    that is to be terminated would note it and live on."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """Tables that tests cache do not go to the cache of whoever runs them; others' caches (fonts) are found there."""
    folder = tmp_path_factory.mktemp("cache")
    real = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for entry in real.iterdir() if real.is_dir() else ():
        if entry.name != "fsr":
            (folder / entry.name).symlink_to(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def stub_method() -> Iterator[None]:
    """Workers inside this process train by launch_stub. Not pytest's monkeypatch, which a test may undo."""
    patch = pytest.MonkeyPatch()
    patch.setattr(method, "train", launch_stub.train)
    yield
    patch.undo()


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


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    """A data folder in VOC's layout with 24 training images of three sizes. Do not change it."""
    folder = tmp_path_factory.mktemp("voc")
    synthesise(folder, images=24, seed=1)
    as_real(folder)
    resize_some(folder / "VOCdevkit/VOC2012", "JPEGImages", "SegmentationClass", "SegmentationClassAug")
    return folder


@pytest.fixture(scope="session")
def coco(tmp_path_factory) -> Path:
    """The same in COCO's layout. Do not change it."""
    folder = tmp_path_factory.mktemp("coco")
    synthesise(folder, "coco", images=24, seed=2)
    as_real(folder)
    for split in ("train2014", "val2014"):
        resize_some(folder / "COCO", f"JPEGImages/{split}", f"SegmentationClass/{split}")
    return folder


@pytest.fixture
def own_voc(synthetic_folder, tmp_path) -> Path:
    """A set in VOC's layout that a test may change, without its prepared lists: 24 training images, 2 of val."""
    shutil.copytree(synthetic_folder, tmp_path / "voc")
    shutil.rmtree(tmp_path / "voc/VOCdevkit/VOC2012/ImageSets/fsr")
    return as_real(tmp_path / "voc")


@pytest.fixture(scope="session")
def coco_of_six(tmp_path_factory) -> Path:
    """A set in COCO's layout: 6 training images, 2 of val. Do not change it."""
    folder = tmp_path_factory.mktemp("people") / "coco"
    synthesise(folder, "coco", images=6, seed=1)
    return as_real(folder)


@pytest.fixture
def own_coco(coco_of_six, tmp_path) -> Path:
    """The same, which a test may change, without its prepared lists."""
    shutil.copytree(coco_of_six, tmp_path / "coco")
    shutil.rmtree(tmp_path / "coco/COCO/ImageSets")
    return tmp_path / "coco"


@pytest.fixture(scope="session")
def checkpoint(voc, tmp_path_factory) -> Path:
    """A tiny network for 8 classes and background."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pt", tiny_config(voc))


@pytest.fixture
def all_states(tmp_path: Path) -> Path:
    """Folder of a study smoke with trials in every state: two attempts, a repeat, pruned, failed, running, waiting; and
    one without files."""
    folder, study = new_study(tmp_path)
    for state in ("complete", "pruned", "fail", "running"):
        add_trial(study, 0.4, state)
    add_trial(study, 0.4, "complete", 0.25, seed=1, repeats=0)
    add_trial(study, 0.6, "complete", 0.3)
    add_trial(study, 0.7, "waiting")
    write_run(folder.run(0), attempts=[attempt(0, 3600, 0, 100, "preempted"), attempt(3600, 5400, 50, 200, "finished")])
    write_run(folder.run(1), 10, [attempt(0, 36, 0, 100, "pruned")])
    write_run(folder.run(2), 1, [attempt(0, 72, 0, 10, "not finite")])
    write_run(folder.run(3), 5, [attempt(0, None, None, None, None)])
    write_run(folder.run(4), attempts=[attempt(9, 18, 0, 200, "finished")], **{"val/seg_miou": 0.25})
    return tmp_path


@pytest.fixture(scope="session")
def swept(synthetic_folder, tmp_path_factory) -> Path:
    """The folder of a study smoke that was really swept. Do not change it."""
    runs = tmp_path_factory.mktemp("swept")
    sweep_for_real(synthetic_folder, runs)
    return runs
