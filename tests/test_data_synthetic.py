"""The synthetic data set."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import source_of

from fsr.config import synthetic
from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import draw_mask, read_annotations
from fsr.data.scenes import draw_scene
from fsr.data.synthetic import main, synthesise
from fsr.errors import UserError


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path, layout):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthesise(tmp_path / name, layout, images=3, seed=seed)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    pictures = [name for name in first if name.suffix == ".jpg"]
    assert len(pictures) == 5
    assert all(first[name] != other[name] for name in pictures)


def test_an_image_depends_on_seed_and_number_alone(tmp_path, synthetic_folder):
    synthesise(tmp_path, images=4, seed=1)
    name = "VOCdevkit/VOC2012/JPEGImages/2012_000002.jpg"
    assert (tmp_path / name).read_bytes() == (synthetic_folder / name).read_bytes()


def test_scenes_have_two_labels_and_a_quarter_of_foreground():
    scenes = [draw_scene(0, index) for index in range(200)]
    ground_truth = np.stack([scene.ground_truth for scene in scenes])
    labels = [{thing.class_id for thing in scene.things} for scene in scenes]
    assert 1.85 < np.mean([len(classes) for classes in labels]) < 2.15
    assert {len(classes) for classes in labels} == {1, 2, 3}
    assert 0.22 < ((ground_truth > 0) & (ground_truth < 255)).mean() < 0.30
    assert 0.02 < (ground_truth == 255).mean() < 0.06
    counts = np.bincount([class_id for classes in labels for class_id in classes], minlength=9)
    assert counts[0] == 0
    assert counts[1:].min() > 30


def test_every_object_is_largely_visible():
    for index in range(100):
        scene = draw_scene(3, index)
        assert set(np.unique(scene.ground_truth)) - {0, 255} == {thing.class_id for thing in scene.things}
        for thing in scene.things:
            assert (scene.ground_truth == thing.class_id).sum() > 0.4 * thing.area


def test_masks_are_palette_images_in_vocs_colours(synthetic_folder):
    source = source_of(synthetic(synthetic_folder))
    with Image.open(source.mask_file(source.items("val")[0].name, "val")) as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]
        assert mask.getpalette()[-3:] == [224, 224, 192]


def test_coco_polygons_cover_what_the_masks_show(tmp_path):
    synthesise(tmp_path, "coco", images=20, seed=2)
    source = CocoSource(tmp_path)
    for name, image in read_annotations(source, "train").items():
        ground_truth = np.array(Image.open(source.mask_file(name, "train")))
        drawn = draw_mask(image)
        # Pillow and pycocotools fill outlines up to a pixel apart.
        assert (drawn != ground_truth)[ground_truth != 255].mean() < 0.003


def test_a_finished_set_is_left_alone(tmp_path, capsys):
    synthesise(tmp_path, images=2)
    picture = tmp_path / "VOCdevkit/VOC2012/JPEGImages/2012_000000.jpg"
    before = picture.stat().st_mtime_ns
    synthesise(tmp_path, images=2)
    assert picture.stat().st_mtime_ns == before
    assert "already holds this set" in capsys.readouterr().out


def test_a_set_with_other_settings_is_refused(tmp_path):
    synthesise(tmp_path, images=2)
    with pytest.raises(UserError, match=r"holds a synthetic set of images 2, seed 0, design 1, not images 2, seed 4"):
        synthesise(tmp_path, images=2, seed=4)


def test_an_unfinished_set_is_made_anew(tmp_path):
    synthesise(tmp_path, images=4)
    root = tmp_path / "VOCdevkit/VOC2012"
    marker = root / "synthetic.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"finished": False}))
    synthesise(tmp_path, images=2, seed=1)
    assert len(list((root / "JPEGImages").iterdir())) == 4  # 2 for training, 2 for validation


def test_a_real_data_set_is_never_touched(tmp_path):
    real = tmp_path / "VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real")
    with pytest.raises(UserError, match="holds a data set that is not synthetic"):
        synthesise(tmp_path, images=2)
    assert real.read_bytes() == b"real"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--images", "0"], "--images must be from 1 to 1000000, got 0"),
        (["--seed", "-1"], "--seed must be from 0 to 9223372036854775807, got -1"),
    ],
)
def test_a_bad_flag_ends_with_one_sentence_and_exit_code_2(tmp_path, capsys, flags, sentence):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *flags])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"images": 2}', '{"images": "2", "seed": 0, "design": 1, "finished": true}']
)
def test_a_damaged_marker_is_one_sentence_and_nothing_is_removed(tmp_path, content):
    synthesise(tmp_path, images=2)
    marker = tmp_path / "VOCdevkit/VOC2012/synthetic.json"
    marker.write_text(content)
    with pytest.raises(UserError, match=f"{marker} is damaged: "):
        synthesise(tmp_path, images=2)
    assert len(list((tmp_path / "VOCdevkit/VOC2012/JPEGImages").iterdir())) == 4


def test_one_process_at_a_time_draws_a_set(tmp_path):
    hold = "import sys; from fsr.lock import FileLock; FileLock(sys.argv[1]).acquire(); print(1, flush=True); input()"
    command = [sys.executable, "-c", hold, tmp_path / "synthetic.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        marker = tmp_path / "VOCdevkit" / "VOC2012" / "synthetic.json"
        marker.parent.mkdir(parents=True)
        marker.write_text('{"images": 1, "seed": 0, "design": 1, "finished": false}')
        with pytest.raises(UserError, match=f"process {other.pid} is drawing images in {tmp_path} already"):
            synthesise(tmp_path, images=1)
        assert marker.exists()
        other.communicate(b"\n")
