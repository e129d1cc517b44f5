"""One process that answers for many shards of an inference, alone or beside others."""

import json
import platform
from collections import Counter

import pytest
from inference import infer as infer_command

import fsr.checkpoint
import fsr.infer
from fsr.errors import LostGpuError
from fsr.infer import Inference
from fsr.inference.config import InferConfig
from fsr.inference.journal import JournalReader
from fsr.lock import FileLock
from fsr.models.network import Network
from launch.slurm import bad_nodes
from launch.slurm.environment import LocalEnvironment
from launch.state.paths import ResultsFolder
from launch.worker import method
from launch.worker.inference import InferenceWorker
from launch.worker.protocol import Outcome

SHARDS = 8
FLAGS = ("--infer_set", "train", "--crf", "false")


@pytest.fixture
def config(voc, checkpoint, tmp_path):
    return InferConfig(
        dataset="voc",
        checkpoint=checkpoint,
        data_folder=voc,
        output_folder=tmp_path / "shards",
        infer_set="train",
        num_classes=9,
        crf=False,
        workers=0,
        threads=1,
        shards=SHARDS,
    )


@pytest.fixture
def count(monkeypatch):
    """Counts what is expensive: hashes and reads of the checkpoint, networks, reads of a journal from its start."""
    counts = Counter()

    def counted(owner, name, key=None):
        real = getattr(owner, name)

        def call(*arguments, **options):
            counts[key(*arguments) if key else name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    counted(fsr.infer, "fingerprint")
    counted(fsr.checkpoint, "load_file")
    counted(Network, "__init__")
    counted(fsr.infer, "summarise")
    counted(JournalReader, "new_records", lambda reader: (reader.file.name, reader.offset))
    return counts


def never():
    return False


def test_a_worker_opens_the_inference_once_for_all_its_shards(config, count, voc, checkpoint, tmp_path):
    worker = InferenceWorker(inferences=(config,), folder=ResultsFolder(config.results_folder))
    assert worker.work(never, environment=None, rendezvous=None) is Outcome.DONE
    assert (count["fingerprint"], count["load_file"], count["__init__"], count["summarise"]) == (1, 1, 1, 1)
    journals = sorted(file.name for file in (config.results_folder / "images").iterdir())
    assert len(journals) == SHARDS
    # From its start each journal is read once while the shards are answered, and once for the scores.
    assert [count[name, 0] for name in journals] == [2] * SHARDS

    alone = infer_command("voc", checkpoint, voc, tmp_path / "alone", "--num_classes", 9, *FLAGS)
    assert json.loads((config.results_folder / "scores.json").read_text()) == alone


def test_what_another_process_has_done_meanwhile_is_seen_before_the_scores(config, count):
    ours, theirs = Inference(config), Inference(config)
    for shard in range(SHARDS - 1):
        inference = theirs if shard % 2 else ours
        assert inference.answer_shard(shard, never) == "shard done"
    assert ours.answer_shard(SHARDS - 1, never) == "finished"
    assert json.loads(ours.results.scores_file.read_text())["images"] == 24
    assert count["summarise"] == 1


def test_a_stopped_shard_resumes_in_the_same_process(config):
    inference = Inference(config)
    stops = iter([True])
    assert inference.answer_shard(0, lambda: next(stops, False)) == "stopped"
    outcomes = [inference.answer_shard(shard, never) for shard in range(SHARDS)]
    assert outcomes == ["shard done"] * (SHARDS - 1) + ["finished"]
    names = [record["name"] for record in inference.results.records()]
    assert len(names) == len(set(names)) == 24


class Taken(FileLock):
    """A lock that another worker holds."""

    def try_acquire(self, patience_s=0.0):
        return False


def test_a_worker_for_whom_no_shard_is_left_opens_nothing(config, monkeypatch):
    monkeypatch.setattr(method, "open_inference", lambda _: pytest.fail("opened for nothing"))
    monkeypatch.setattr(ResultsFolder, "shard_lock", lambda folder, shard: Taken(folder.locks / "taken"))
    worker = InferenceWorker(inferences=(config,), folder=ResultsFolder(config.results_folder))
    assert worker.work(never, environment=None, rendezvous=None) is Outcome.DONE


def test_a_worker_without_its_gpu_marks_the_node_and_leaves_the_shard_to_others(config, monkeypatch):
    def open_inference(_):
        raise LostGpuError("FSR_GPUS=1 promises a GPU")

    monkeypatch.setattr(method, "open_inference", open_inference)
    folder = ResultsFolder(config.results_folder)
    worker = InferenceWorker(inferences=(config,), folder=folder)
    assert worker.work(never, environment=LocalEnvironment(), rendezvous=None) is Outcome.BROKEN
    assert bad_nodes.bad_nodes(folder) == [platform.node()]
    assert folder.shard_lock(0).try_acquire()
