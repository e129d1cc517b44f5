"""Pictures that are small or damaged: resized in the network, named and left out."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from data_answers import answer, listed, root_of
from inference import save_checkpoint
from PIL import Image
from tiny import tiny_config

from fsr.data.jpeg_damage import catch_warnings, damage
from fsr.data.palette import palette_png
from fsr.data.scenes import draw_scene
from fsr.data.source import open_source
from fsr.data.voc import VocSource
from fsr.evaluate import evaluate
from fsr.infer import infer
from fsr.inference.config import InferConfig
from fsr.inference.multi_scale import multi_scale_inference
from fsr.models.network import Network


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (1000, 3)])
def test_pictures_smaller_than_a_patch_are_resized_up_to_it(own_voc, tmp_path, capsys, size):
    root = root_of(own_voc)
    for name in listed(root, "val"):
        Image.new("RGB", size, (9, 99, 200)).save(root / f"JPEGImages/{name}.jpg")
        (root / f"SegmentationClass/{name}.png").write_bytes(palette_png(np.full(size[::-1], 1, np.uint8)))
        xml = root / f"Annotations/{name}.xml"
        xml.write_text("<annotation><object><name>aeroplane</name></object></annotation>")
    said = answer(capsys, "voc", own_voc)
    assert "2 images have a side below 16 pixels, a patch at the smallest scale, and are resized up" in said
    config = tiny_config(own_voc)
    network = Network(config).eval()
    source = open_source("synthetic", own_voc, None, 9)
    scores = evaluate({"student": network}, config, source, torch.device("cpu")).scores
    assert scores["val/seg_pixel_accuracy"] is not None
    images = torch.zeros(1, 3, size[1], size[0])
    fused = multi_scale_inference(network, images, None, (1.0, 0.25))
    assert fused.logits.shape == (1, 9, size[1], size[0])
    main_of_infer = InferConfig(
        dataset="synthetic", checkpoint=save_checkpoint(tmp_path / "best.pt", config), data_folder=own_voc, workers=0
    )
    assert infer(main_of_infer) == "finished"


def halves(content: bytes) -> dict[str, bytes]:
    """Damages of a JPEG's scan, which decodes all the same."""
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    noise = np.random.default_rng(0).bytes(300)
    return {
        "cut and closed": content[:middle] + b"\xff\xd9",
        "zeros to its end": content[:middle] + bytes(len(content) - middle - 2) + b"\xff\xd9",
        "garbage": content[:middle] + noise + content[middle + 300 :],
        "300 bytes gone": content[:middle] + content[middle + 300 :],
    }


def test_damaged_pictures_that_decode_are_named_and_left_out(own_voc, capsys):
    source = VocSource(own_voc)
    names = listed(source.root, "train")
    sound = {name: source.image_file(name, "train").read_bytes() for name in names}
    for name, damaged in zip(names, halves(sound[names[0]]).values(), strict=False):
        source.image_file(name, "train").write_bytes(damaged)
    said = answer(capsys, "voc", own_voc)
    for name in names[:4]:
        assert f"image {source.image_file(name, 'train')} is damaged: " in said or f"{name}.jpg cannot be read" in said
    assert "4 bad files in" in said and not source.list_folder.exists()
    said = answer(capsys, "voc", own_voc, "--skip_bad")
    assert f"train: 4 images are left out: {', '.join(names[:4])}" in said and "error" not in said
    assert [item.name for item in source.items("train")] == names[4:]
    assert len(source.items("train_aug")) == 20 and len(source.items("val")) == 2
    told = f"train: 4 images are left out because of bad files: {', '.join(names[:4])}"
    assert VocSource(own_voc).left_out("train") == f"{told} ({source.list_folder}/prepared.json)"
    assert VocSource(own_voc).left_out("val") is None


FORMS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "no subsampling": {"subsampling": 0},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_pictures_are_not_called_damaged(tmp_path, mode):
    picture = Image.fromarray(draw_scene(0, 0).pixels).convert(mode)
    files = []
    for what, options in FORMS.items():
        files.append(tmp_path / f"{what}.jpg")
        picture.save(files[-1], "JPEG", **({} if mode != "RGB" and what == "no subsampling" else options))
    picture.convert("RGB").save(tmp_path / "png.jpg", "PNG")
    (tmp_path / "trailing.jpg").write_bytes(files[0].read_bytes() + bytes(40))
    content = files[0].read_bytes()
    start = content.index(b"\xff\xdb")
    (tmp_path / "gap.jpg").write_bytes(content[:start] + b"abc" + content[start:])  # between two segments of its header
    files += [tmp_path / "png.jpg", tmp_path / "trailing.jpg", tmp_path / "gap.jpg"]
    with ProcessPoolExecutor(1, get_context("fork"), catch_warnings) as pool:
        assert list(pool.map(damage, files)) == [None] * len(files)
        half = len(content) // 2
        (tmp_path / "gap.jpg").write_bytes(content[:start] + b"abc" + content[start:half] + b"\xff\xd9")
        (said,) = pool.map(damage, [tmp_path / "gap.jpg"])
        assert said is not None and "Corrupt JPEG data" in said and "0xdb" not in said
