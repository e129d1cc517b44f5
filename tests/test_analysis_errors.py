"""The notebook of errors: tables of finished inferences, wherever in a study's folder they are, and what is missing."""

import json
import shutil

import pytest
from inference import infer
from IPython.display import Markdown
from matplotlib.figure import Figure
from notebook_cells import run_cells
from studies import add_run, new_study

from analysis.inference_errors import data_set_of, errors_of, most_such_pixels
from fsr.inference.journal import Results


@pytest.fixture(scope="module")
def results(voc, checkpoint, tmp_path_factory):
    """A finished inference. Do not change it."""
    folder = tmp_path_factory.mktemp("results")
    infer("voc", checkpoint, voc, folder, "--num_classes", 9, "--infer_set", "train", "--crf", "false")
    return folder


@pytest.fixture
def runs(results, voc, tmp_path):
    """A study of two trials: results lie beside the first one's checkpoint, and in a folder for those of all trials."""
    folder, study = new_study(tmp_path)
    definition = json.loads(folder.study_file.read_text())
    definition["base"] |= {"data_folder": str(voc), "train_set": "train"}
    folder.study_file.write_text(json.dumps(definition))
    for _ in range(2):
        add_run(folder, study, 0.4, 0.2)
    shutil.copytree(results, folder.run(0).folder / "infer_train")
    shutil.copytree(results, folder.folder / "evaluation/trial_0001/train_teacher")
    return tmp_path


def test_tables_say_what_the_files_of_the_inferences_do(runs, results):
    found = errors_of(["smoke"], runs)
    assert [*found.folders] == ["smoke 0 infer_train", "smoke 1 train_teacher"] and found.damage == []
    told = json.loads((results / "errors.json").read_text())["errors"]["segmentation"]
    for name in found.folders:
        of = lambda table: table[(table["inference"] == name) & (table["labels"] == "segmentation")]  # noqa: B023, E731
        (score,) = of(found.scores).to_dict("records")
        assert (score["boundary_iou"], score["ece"]) == (told["boundary"]["miou"], told["calibration"]["ece"])
        assert of(found.trimap)[["width", "miou"]].to_numpy().tolist() == told["trimap"]
        assert of(found.calibration)["pixels"].sum() == sum(of["pixels"] for of in told["calibration"]["bins"])
        assert of(found.by_class)["recall"].tolist() == told["recall"]
        assert of(found.shown)["what"].tolist()[:3] == ["small objects", "medium objects", "large objects"]
        assert of(found.confused)["share"].tolist() == [pair["share"] for pair in told["most_confused"]]
    assert set(found.trimap["labels"]) == {"segmentation"} and "cam" in set(found.company["labels"])


def test_the_images_with_most_of_a_confusion_come_first(results):
    names = most_such_pixels(results, "segmentation", 2, 5)
    pixels = {record["name"]: record["counts"]["segmentation"] for record in Results(results).records()}
    counts = {name: dict(zip(pairs[::2], pairs[1::2], strict=True)).get(2, 0) for name, pairs in pixels.items()}
    assert [counts[name] for name in names] == sorted(counts.values(), reverse=True)[:5]


def test_the_notebook_shows_plots_tables_and_pictures(runs, monkeypatch):
    shown = run_cells("errors", monkeypatch, "smoke", runs)
    assert sum(isinstance(part, Figure) for part in shown) == 3 + 2
    pictures = [part for part in shown if isinstance(part, Figure)][-1]
    assert [axes.get_title() for axes in pictures.axes[:3]] == ["image", "ground truth", "segmentation"]
    assert data_set_of("elsewhere/infer_val", ["smoke"], runs) is None


def test_without_data_set_or_label_maps_it_shows_what_is_left_and_names_what_is_damaged(runs, monkeypatch):
    study = json.loads((runs / "smoke/study.json").read_text())
    study["base"]["data_folder"] = str(runs / "nowhere")
    (runs / "smoke/study.json").write_text(json.dumps(study))
    shutil.rmtree(runs / "smoke/trial_0000/infer_train/segmentation")
    damaged = runs / "smoke/evaluation/trial_0001/train_teacher/errors.json"
    damaged.write_text('{"class_names": [], "errors": {"segmentation": {}}}')
    shown = run_cells("errors", monkeypatch, "smoke", runs)
    words = [part.data for part in shown if isinstance(part, Markdown)]
    assert any(part.startswith(f"**Left out:** {damaged} is damaged: ") for part in words)
    assert "Its label maps are gone." in words and sum(isinstance(part, Figure) for part in shown) == 3
