"""Too little shared memory is said before loader workers start, and ends nothing in silence when it runs out."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import flags, tiny_config

from fsr.checkpoint import TrainState, save_best
from fsr.data import loader_processes, shared_memory
from fsr.data.loaders import batch_bytes, train_loader
from fsr.data.shared_memory import PAGE, bytes_of, check_shared_memory, is_full
from fsr.data.source import open_source
from fsr.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of shared memory are free."""
    return lambda count: monkeypatch.setattr(shared_memory, "free_bytes", lambda: count)


def test_what_the_workers_load_ahead_must_fit_beside_their_semaphores(free):
    free(9 * 10**6 + 20 * PAGE)
    check_shared_memory(4, 10**6, "batches")
    check_shared_memory(0, 10**9, "batches")
    free(9 * 10**6 + 20 * PAGE - 1)
    with pytest.raises(UserError, match=r"4 loader workers need 9\.1 MB .* for batches, and /dev/shm has 9\.1 MB free"):
        check_shared_memory(4, 10**6, "batches")


def test_ranks_of_one_machine_share_it(free, monkeypatch):
    free(9 * 10**6 + 20 * PAGE)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"give fewer --workers \(0 needs none\)"):
        check_shared_memory(4, 10**6, "batches")


@pytest.mark.parametrize(
    "changes", [{}, {"augment": "device"}, {"local_crops": 2, "local_crop_size": 16}, {"ranks": 2, "batch_size": 3}]
)
def test_the_bytes_of_a_batch_are_those_of_its_tensors(synthetic_folder, changes):
    config = tiny_config(synthetic_folder, **changes)
    source = open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)
    batch = next(iter(train_loader(config, source, 0, 1, 0, 1)))
    draws = 200 * config.batch_size if config.augment == "device" else 0
    assert batch_bytes(config, 1) <= bytes_of(batch) <= batch_bytes(config, 1) + draws


def test_training_and_evaluation_ask_before_workers_start(synthetic_folder, free, monkeypatch):
    config = tiny_config(synthetic_folder, workers=3)
    source = open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)
    monkeypatch.setattr(loader_processes, "_start", lambda loader: pytest.fail("workers start"))
    free(20_000 + 17 * PAGE)
    from fsr.data.loaders import evaluation_images

    with pytest.raises(UserError, match="for batches of this size"):
        train_loader(config, source, 0, 1, 0, 1)
    with pytest.raises(UserError, match="for pictures like the first one"):
        next(evaluation_images(config, source, config.val_set, 0, 1))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"), True),
        (OSError(28, "No space left on device"), True),
        (RuntimeError("anything else"), False),
    ],
)
def test_which_errors_of_handing_over_mean_that_it_is_full(error, wanted):
    assert is_full(error) == wanted


class TooLarge:
    """An element that finds no room in shared memory."""

    def __reduce__(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


class Growing(torch.utils.data.Dataset):
    """Elements of which the later ones find no room."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.zeros(3) if index < 4 else TooLarge()


def test_a_worker_that_cannot_hand_over_its_element_ends_and_one_sentence_says_why():
    with pytest.raises(UserError, match="shared memory is full: 2 loader workers need more"):
        list(loader_processes.load(Growing(), 2, batch_size=None, collate_fn=lambda element: element))


class WithoutRoom(Growing):
    """Elements that are made in shared memory, of which there is none."""

    def __getitem__(self, index):
        raise RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)")


def test_a_worker_that_has_no_room_to_make_its_element_is_told_in_the_same_sentence():
    with pytest.raises(UserError, match="shared memory is full: 2 loader workers need more"):
        list(loader_processes.load(WithoutRoom(), 2, batch_size=None))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_which_not_all_can_be_started_are_ended(monkeypatch):
    starts = []

    def start(self, original=multiprocessing.Process.start):
        starts.append(self)
        if len(starts) == 3:
            raise OSError(28, "No space left on device")
        original(self)

    monkeypatch.setattr(multiprocessing.Process, "start", start)
    with pytest.raises(UserError, match="shared memory is full: 4 loader workers need more"):
        list(loader_processes.load(Growing(), 4, batch_size=None))
    for process in starts[:2]:
        process.join(20)
        assert process.exitcode == -signal.SIGKILL


def in_small_shared_memory(size, *command):
    """The answer of a command of this project where /dev/shm has so many bytes, in a mount namespace of its own."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    answer = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *map(str, command)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if "unshare" in answer.stderr or "mount:" in answer.stderr:
        pytest.skip("mounting shared memory needs root")
    return answer


# As if somebody else took it after it was asked for: so the workers themselves find that there is none.
UNSEEN = """
import sys
from importlib import import_module
from fsr.data import shared_memory
shared_memory.free_bytes = lambda: 10**12
module = import_module(sys.argv.pop(1))
module.main()
"""


def program(module, *, asks):
    """A command of this project, or the same without the question before its workers start."""
    return [sys.executable, *(["-m", module] if asks else ["-c", UNSEEN, module])]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "unseen"), [("64k", False), ("64k", True), ("300k", True)])
def test_training_ends_with_one_sentence_where_shared_memory_is_small(synthetic_folder, tmp_path, size, unseen):
    large = tiny_config(synthetic_folder, workers=4, batch_size=16, crop_size=160, block_size=16)
    command = [*program("fsr.train", asks=not unseen), *flags(large), "--run_folder", tmp_path / "run"]
    one_sentence(in_small_shared_memory(size, *command))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "unseen"), [("1m", False), ("64k", True)])
def test_inference_ends_with_one_sentence_where_shared_memory_is_small(synthetic_folder, tmp_path, size, unseen):
    config = tiny_config(synthetic_folder)
    save_best(tmp_path / "best.pt", TrainState(config, torch.device("cpu")), config, {})
    command = [*program("fsr.infer", asks=not unseen), "synthetic", "--checkpoint", tmp_path / "best.pt"]
    flags_of = ["--data_folder", synthetic_folder, "--output_folder", tmp_path / "infer", "--workers", "10"]
    one_sentence(in_small_shared_memory(size, *command, *flags_of))


def one_sentence(answer):
    told = answer.stderr.strip().splitlines()
    assert answer.returncode == 2 and told[-1].startswith("error: ") and "shared memory" in told[-1], answer.stderr
    assert "Traceback" not in answer.stderr
