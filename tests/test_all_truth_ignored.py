"""Ground truth that is all ignored measures nothing: scores are null, no NaN, and what is shown says so."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from inference import infer
from tiny import source_of, tiny_config

from fsr.checkpoint import load_network
from fsr.data.palette import palette_png
from fsr.inference.image_record import ImageRecord
from fsr.inference.totals import Totals
from fsr.metrics import CamScores, ConfusionMatrix
from fsr.quality import cam_quality, label_quality
from fsr.run import Run
from fsr.train import train
from launch.show.table import score
from launch.state.progress import Progress


def strict(file: Path) -> dict:
    """The content of a JSON file, which holds no NaN."""
    return json.loads(file.read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def ignored(synthetic_folder, tmp_path_factory) -> Path:
    """The synthetic set, whose masks of val are 255 everywhere."""
    folder = shutil.copytree(synthetic_folder, tmp_path_factory.mktemp("ignored") / "data")
    source = source_of(tiny_config(folder))
    for item in source.items("val"):
        source.mask_file(item.name, "val").write_bytes(palette_png(np.full((128, 128), 255, np.uint8)))
    return folder


def test_nothing_counted_is_null():
    assert label_quality(ConfusionMatrix(3)) == {"miou": None, "pixel_accuracy": None, "iou": [None] * 3}
    quality = cam_quality(CamScores(3, 0.45))
    assert quality["best_miou"] is None and quality["best_threshold"] is None
    assert quality["threshold"] == 0.45 and all(miou is None for _, miou in quality["curve"])
    record: ImageRecord = {"name": "a", "iou": None, "counts": {"segmentation": [], "pseudo_labels": [], "cam": []}}
    found = Totals(3, 0.45).add([record]).cam_quality()
    assert found["pseudo_labels"]["ignored"] is None
    json.dumps(found, allow_nan=False)


def test_a_run_ends_with_null_and_the_last_weights(ignored, tmp_path, capsys):
    config = tiny_config(ignored)
    run = Run(tmp_path / "run")
    assert train(config, run) == "finished"
    result = strict(run.result_file)
    measured = {"val/class_f1", "val/teacher_class_f1"}  # by the labels alone
    scores = {name: value for name, value in result.items() if name.startswith("val/")}
    assert {name for name, value in scores.items() if value is not None} == measured
    assert result["best/seg_miou"] is None and len(scores) == 18
    strict(run.quality_file)
    for line in run.metrics_file.read_text().splitlines():
        assert "NaN" not in line
    assert "cam_miou –  aux_cam_miou –  seg_miou –  teacher_seg_miou –" in capsys.readouterr().out
    best = torch.load(run.best_file, weights_only=True)
    assert best["step"] == 10 and best["scores"]["val/seg_miou"] is None
    load_network(run.best_file)
    assert Progress.of(run).scores["val/seg_miou"] is None


def test_an_inference_ends_with_null_tables_and_report(ignored, tmp_path, checkpoint, capsys):
    flags = ("--num_classes", 9, "--pseudo_labels", "par", "--report", "true")
    infer("voc", checkpoint, ignored, tmp_path, *flags)
    scores = strict(tmp_path / "scores.json")["scores"]
    assert all(found["miou"] is None and set(found["iou"]) == {None} for found in scores.values())
    assert strict(tmp_path / "cam_quality.json")["pseudo_labels"]["ignored"] is None
    assert "miou,,,,," in (tmp_path / "scores.csv").read_text()
    page = (tmp_path / "report.html").read_text()
    (data,) = re.findall(r'class="report">(.*)</script>', page)
    json.loads(data, parse_constant=pytest.fail)
    cells = re.search(r'<th scope="row">mIoU</th>(.*?)</tr>', page, re.DOTALL)[1]
    assert set(re.findall(r"<span>(.*?)</span>", cells)) == {"–"} and "mIoU by background threshold" not in page
    assert "mIoU" in capsys.readouterr().out


def test_a_table_shows_a_dash(ignored):
    class Row:
        progress = Progress(scores={"val/seg_miou": None, "val/cam_miou": 0.25})

    assert (score(Row, "val/seg_miou"), score(Row, "val/cam_miou"), score(Row, "x")) == ("–", "0.250", "")
