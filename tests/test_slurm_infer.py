"""Inference on a real Slurm: shards over an array, whatever happens to its tasks."""

import json
import subprocess
import sys

import pytest
from inference import resize_some, save_checkpoint
from slurm_cluster import MISSING, ROOT, Cluster, available, wait_for
from tiny import tiny_config

from fsr.data.synthetic import synthesise
from fsr.infer import main

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.down()


def test_an_array_goes_through_requeue_and_comes_to_the_totals_of_one_process(cluster, tmp_path):
    synthesise(tmp_path / "data", images=60, seed=1)
    resize_some(tmp_path / "data/VOCdevkit/VOC2012", "JPEGImages", "SegmentationClass", "SegmentationClassAug")
    checkpoint = save_checkpoint(tmp_path / "best.pt", tiny_config(tmp_path / "data"))
    arguments = ["synthetic", "--checkpoint", checkpoint, "--data_folder", tmp_path / "data"]
    flags = ["--infer_set", "train", "--workers", 0, "--threads", 1, "--batch_size", 1, "--save_cam", "true"]
    main([*map(str, [*arguments, *flags, "--output_folder", tmp_path / "alone"])])

    where = ["--cluster", "slurm", "--partition", "low", "--sbatch", "mem=700M", "--parallel", 2, "--shards", 5]
    out = tmp_path / "array"
    command = [sys.executable, ROOT / "launch/infer.py", *arguments, *flags, "--output_folder", out, *where]

    def submit() -> str:
        answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=cluster.environment)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    assert "submitted 2 workers" in submit()
    wait_for(lambda: len(list(out.glob("crf/*.png"))) >= 8, 90)
    assert "submitted 0 workers; 2 were there already" in submit()
    running = cluster.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()
    cluster.ask("scontrol", "requeue", running[0])

    def no_jobs():
        cluster.release()
        return not cluster.ask("squeue", "--noheader")

    wait_for(no_jobs, 120)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (out, tmp_path / "alone")]
    assert scores[0]["scores"] == scores[1]["scores"] and scores[0]["images"] == 60
    lines = [line for file in (out / "images").iterdir() for line in file.read_text().splitlines()]
    assert len(lines) == len({json.loads(line)["name"] for line in lines}) == 60
    assert len(list((out / "images").iterdir())) == 5


def test_more_than_one_gpu_a_worker_is_refused(tmp_path):
    command = [sys.executable, ROOT / "launch/infer.py", "voc", "--checkpoint", "x.pt", "--data_folder", tmp_path]
    answer = subprocess.run([*command, "--gpus", "4", "--cluster", "local"], capture_output=True, text=True)
    assert answer.returncode == 2 and "--gpus must be 0 or 1" in answer.stderr
