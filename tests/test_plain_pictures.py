"""Pictures without labels or data set: `fsr infer images FOLDER --checkpoint student.pth --out DIR`."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from inference import infer
from PIL import ExifTags, Image, ImageOps
from tiny import tiny_config

from fsr.checkpoint import TrainState, load_trained, save_best
from fsr.data.images import read_image
from fsr.data.plain_pictures import PlainPictures, named_files
from fsr.data.voc import CLASS_NAMES
from fsr.errors import UserError
from fsr.export import main as export
from fsr.infer import infer as run_inference
from fsr.infer import main
from fsr.inference.config import InferConfig, parse
from fsr.inference.image_record import line_of
from fsr.inference.journal import Results

OLD = (*CLASS_NAMES[:9],)  # what a checkpoint without names is taken for


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def save(file: Path, picture: Image.Image, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **options)
    return file


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Pictures of every kind that is read, in folders whose names meet."""
    folder = tmp_path / "my album"
    save(folder / "a/IMG 1.jpg", photograph(60, 40))
    save(folder / "b/IMG 1.jpg", photograph(60, 40, 1).convert("L"))
    save(folder / "b/IMG 1.PNG", photograph(60, 40, 2).quantize(9))
    save(folder / "b/deep/ünï.jpeg", photograph(50, 70, 3).convert("CMYK"))
    save(folder / "turned.jpg", photograph(80, 30, 4), exif=turned(6))
    save(folder / "tiny.jpg", photograph(20, 20, 5))
    save(folder / "large.jpg", photograph(300, 200, 6), exif=turned(8))
    opaque = photograph(40, 40, 7)
    opaque.putalpha(255)
    save(folder / "opaque.png", opaque)
    (folder / "notes.txt").write_text("of no matter")
    save(folder / ".hidden/x.jpg", photograph(20, 20))
    return folder


NAMES = {"a/IMG 1", "b/IMG 1.jpg", "b/IMG 1.PNG", "b/deep/ünï", "turned", "tiny", "large", "opaque"}


@pytest.fixture
def exported(checkpoint: Path, tmp_path: Path) -> Path:
    """A network alone in a folder."""
    export([str(checkpoint), str(tmp_path / "exported")])
    (tmp_path / "elsewhere").mkdir()
    return (tmp_path / "exported/student.pth").rename(tmp_path / "elsewhere/student.pth")


def told(capsys, *words: object) -> str:
    """The sentence with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*map(str, ("images", *words, "--workers", 0))])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_a_folder_of_pictures_in_an_empty_folder_elsewhere(album, exported, monkeypatch, capsys):
    monkeypatch.chdir(exported.parent)
    words = ["images", str(album), "--checkpoint", "student.pth", "--out", "out", "--workers", "0"]
    main([*words, "--most_pixels", "10000"])
    assert "1 files are left out, which end in none of .jpeg, .jpg, .png: 1 '.txt'" in capsys.readouterr().out
    out = Path("out")
    told = json.loads((out / "pictures.json").read_text())
    assert told["class_names"] == list(OLD) and set(told["pictures"]) == NAMES
    for name, found in told["pictures"].items():
        shown = ImageOps.exif_transpose(Image.open(found["file"])).size
        assert (found["width"], found["height"]) == shown
        labels = Image.open(out / f"crf/{name}.png")
        for file in (out / f"segmentation/{name}.png", out / f"overlays/{name}.jpg"):
            assert Image.open(file).size == shown == labels.size
        counts = np.bincount(np.array(labels).ravel(), minlength=9)
        assert [found["classes"].get(label, {"pixels": 0})["pixels"] for label in OLD] == counts.tolist()
        assert sum(one["area"] for one in found["classes"].values()) == pytest.approx(1, abs=1e-4)
        predicted = {label.replace(" ", "_") for label, one in found["classes"].items() if one["predicted"]}
        heats = [file for file in (out / "cam" / name).parent.iterdir() if file.name.startswith(f"{Path(name).name}_")]
        assert {file.stem.rpartition("_")[2] for file in heats} == predicted and predicted
        assert {Image.open(file).size for file in heats} == {shown}
    page = (out / "report.html").read_text()
    assert all(name in page for name in NAMES) and "no ground truth" in page and "no scores" in page
    assert "CAM errors" not in page and "false positives" not in page.lower()
    assert not list(out.glob("*.tar.gz")) and not (out / "scores.csv").exists()

    before = {file: file.stat().st_mtime_ns for file in out.glob("*/*.png")}
    main([*words, "--most_pixels", "10000"])
    assert before == {file: file.stat().st_mtime_ns for file in out.glob("*/*.png")}


@pytest.mark.slow
def test_label_maps_are_those_of_a_test_set_of_the_same_pictures(voc, checkpoint, tmp_path):
    folder = shutil.copytree(voc, tmp_path / "data")
    root = folder / "VOCdevkit/VOC2012"
    names = [line.split()[0] for line in (root / "ImageSets/fsr/train.txt").read_text().splitlines()[:6]]
    (root / "ImageSets/fsr/test.txt").write_text("".join(f"{name}\n" for name in names))
    flags = ("--pseudo_labels", "crf", "--save_logits")
    infer("voc", checkpoint, folder, tmp_path / "test", "--infer_set", "test", "--num_classes", 9, *flags)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(os.path.relpath(root / f"JPEGImages/{name}.jpg", tmp_path) for name in names))
    words = ["images", listed, "--checkpoint", checkpoint, "--out", tmp_path / "out", *flags, "--workers", 0]
    main([*map(str, words)])
    for kind in ("segmentation", "crf", "pseudo_labels", "cam_maps"):
        ours, theirs = tmp_path / f"out/{kind}/data/VOCdevkit/VOC2012/JPEGImages", tmp_path / "test" / kind
        for name in names:
            assert (ours / f"{name}.png").read_bytes() == (theirs / f"{name}.png").read_bytes()


def test_what_cannot_be_read_is_one_sentence_or_left_out(album, exported, tmp_path, capsys):
    (album / "cut.jpg").write_bytes((album / "large.jpg").read_bytes()[:900])
    save(album / "deep.png", Image.fromarray(np.full((9, 9), 40000, np.uint16)))
    clear = photograph(9, 9).convert("RGBA")
    clear.putalpha(100)
    save(album / "clear.png", clear)
    save(album / "gif.jpg", photograph(9, 9), format="GIF")
    words = (album, "--checkpoint", exported, "--out", tmp_path / "out", "--no-crf")
    sentence = told(capsys, *words)
    assert "clear.png cannot be read: it has transparent pixels" in sentence and "(and 3 more bad files" in sentence
    assert not (tmp_path / "out").exists()
    main([*map(str, ("images", *words, "--workers", 0, "--skip_bad"))])
    assert "4 of 12 images could not be read" in capsys.readouterr().out
    found = json.loads((tmp_path / "out/pictures.json").read_text())["pictures"]
    assert {name for name, one in found.items() if "skipped" in one} == {"cut", "deep", "clear", "gif"}
    shutil.copy(album / "tiny.jpg", album / "cut.jpg")
    main([*map(str, ("images", *words, "--workers", 0, "--skip_bad"))])
    assert "classes" in json.loads((tmp_path / "out/pictures.json").read_text())["pictures"]["cut"]


def test_places_that_hold_no_picture_and_flags_of_data_sets_are_one_sentence(album, exported, tmp_path, capsys):
    rest = ("--checkpoint", exported, "--out", tmp_path / "out")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing/x.webp").touch()
    expected = "holds no picture, which ends in .jpeg, .jpg, .png; it holds .webp"
    assert expected in told(capsys, tmp_path / "nothing", *rest)
    assert "nowhere does not exist; expected are pictures, folders" in told(capsys, "nowhere", *rest)
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "empty.txt is empty; expected is the path of a picture a line" in told(capsys, tmp_path / "empty.txt", *rest)
    (tmp_path / "wrong.txt").write_text("my album/tiny.jpg\nmy album/gone.jpg\n")
    assert "my album/gone.jpg cannot be read: No such file" in told(capsys, tmp_path / "wrong.txt", *rest)
    assert "needs FOLDER" in told(capsys, *rest)
    assert "unknown option --infer_set" in told(capsys, album, *rest, "--infer_set", "val")
    with pytest.raises(UserError, match="fsr infer voc takes no photos; pictures stand behind images"):
        parse(["voc", "photos", "--checkpoint", "x", "--data_folder", "y"])
    with pytest.raises(UserError, match="num_classes must be left out for images, got 21"):
        InferConfig(dataset="images", data_folder=album, checkpoint=exported, num_classes=21)


def test_results_are_those_of_one_folder(album, exported, tmp_path, capsys):
    words = (album, "--checkpoint", exported, "--out", album / "out", "--no-crf", "--no-report")
    main([*map(str, ("images", *words, "--workers", 0))])
    main([*map(str, ("images", *words, "--workers", 0))])  # its own results are no pictures
    assert len(json.loads((album / "out/pictures.json").read_text())["pictures"]) == len(NAMES)
    other = PlainPictures(album, (), tmp_path / "other")  # nor are those of another inference
    assert {item.name for item in other.items("")} == NAMES
    shutil.copytree(album / "a", tmp_path / "a")
    assert "holds results with data_folder" in told(capsys, tmp_path / "a", *words[1:])


def test_several_places_are_named_from_the_folder_that_holds_all(album, monkeypatch):
    monkeypatch.chdir(album.parent)
    config = parse(["images", "my album/a", "my album/b/IMG 1.jpg", "--checkpoint", "x.pth", "--scales", "1", "0.5"])
    assert config.data_folder == album and config.scales == (1.0, 0.5) and config.report and config.save_overlays
    assert config.results_folder == Path("infer_my album")
    assert InferConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    source = PlainPictures(config.data_folder, config.pictures, config.results_folder)
    assert {item.name for item in source.items("")} == {"a/IMG 1", "b/IMG 1"}
    alone = parse(["images", "my album", "--out", "images", "--checkpoint", "x.pth"])
    assert (alone.data_folder, alone.pictures, alone.output_folder) == (Path("my album"), (), Path("images"))


def test_names_never_meet(tmp_path):
    files = [tmp_path / name for name in ("x.jpg", "x.png", "x.jpg.png", "x.jpg.jpg", "d/x.jpg", "y.JPEG", "z")]
    names = named_files(files, tmp_path)
    assert list(names.values()) == files
    assert [*names] == ["x.jpg", "x.png", "x.jpg.png", "x.jpg.jpg", "d/x", "y", "z"]
    with pytest.raises(UserError, match=r"has a name of more than 128 bytes"):
        named_files([tmp_path / ("ä" * 70 + ".jpg")], tmp_path)


def test_a_link_into_the_folders_above_has_an_end(album, tmp_path):
    (album / "b/up").symlink_to(album)
    (tmp_path / "link").symlink_to(album)
    names = {item.name for item in PlainPictures(tmp_path / "link", (), tmp_path / "out").items("")}
    assert names == NAMES


@pytest.mark.parametrize("orientation", [*range(10)])
def test_pictures_are_turned_as_viewers_turn_them(orientation, tmp_path):
    file = save(tmp_path / "x.png", photograph(31, 17), exif=turned(orientation))
    assert np.array_equal(read_image(file, upright=True), ImageOps.exif_transpose(Image.open(file)))
    assert read_image(file).size == (31, 17)


def test_damaged_exif_turns_nothing(tmp_path):
    stream = io.BytesIO()
    photograph(31, 17).save(stream, "JPEG", exif=turned(6))
    for end in range(6, 30):
        whole = bytearray(stream.getvalue())
        start = whole.index(b"Exif\0\0") + 6
        whole[start + end - 6 : start + 26] = b"\xff" * max(0, 32 - end)
        (tmp_path / "x.jpg").write_bytes(whole)
        assert sorted(read_image(tmp_path / "x.jpg", upright=True).size) == [17, 31]


def test_a_journal_names_nothing_outside_its_folder(tmp_path):
    results = Results(tmp_path)
    results.journal_folder.mkdir()
    names = ("../x", "/etc/passwd", "a/../x", "a//b", "", "a/.", "fine/Photo 1")
    lines = b"".join(line_of({"name": name}) for name in names)
    (results.journal_folder / "0000_of_0001.jsonl").write_bytes(lines)
    assert [record["name"] for record in results.records()] == ["fine/Photo 1"]


def test_a_bare_state_dict_is_taken_for_that_of_the_preset_with_as_many_classes(checkpoint, tmp_path, capsys):
    folder = save(tmp_path / "x/a.jpg", photograph(40, 40)).parent
    state = load_trained(checkpoint).network.state_dict()
    torch.save(dict(state), tmp_path / "bare.pth")
    words = (folder, "--checkpoint", tmp_path / "bare.pth", "--out", tmp_path / "out", "--no-crf")
    assert "do not tell heads, decoder_dilation, bkg_threshold; each must be given" in told(capsys, *words)
    given = ("--heads", 2, "--decoder_dilation", 2, "--bkg_threshold", 0.3)
    main([*map(str, ("images", *words, *given, "--workers", 0))])
    assert json.loads((tmp_path / "out/pictures.json").read_text())["class_names"] == list(OLD)
    state["decoder.conv8.weight"] = state["decoder.conv8.weight"][:5]
    torch.save(dict(state), tmp_path / "five.pth")
    words = (folder, "--checkpoint", tmp_path / "five.pth", "--out", tmp_path / "five", *given)
    assert "must have as many as a preset, background included: 21 (voc), 81 (coco), 9 (synthetic)" in told(
        capsys, *words
    )


def test_an_interrupted_inference_resumes(album, exported, tmp_path):
    def config(name):
        config = parse(["images", str(album), "--checkpoint", str(exported), "--out", str(tmp_path / name)])
        return replace(config, workers=0, threads=1, batch_size=1, crf=False, report=False)

    stops = iter([False, False, True])
    assert run_inference(config("parts"), lambda: next(stops)) == "stopped"
    done = (tmp_path / "parts/images/0000_of_0001.jsonl").read_text().splitlines()
    assert 0 < len(done) < len(NAMES) and not (tmp_path / "parts/pictures.json").exists()
    assert run_inference(config("parts")) == run_inference(config("whole")) == "finished"
    for kind in ("segmentation", "overlays", "cam", "cam_maps"):
        whole = {
            file.relative_to(tmp_path / "whole"): file.read_bytes() for file in tmp_path.glob(f"whole/{kind}/**/*.*")
        }
        assert whole and whole == {file: (tmp_path / "parts" / file).read_bytes() for file in whole}
    parts, whole = (json.loads((tmp_path / name / "pictures.json").read_text()) for name in ("parts", "whole"))
    assert parts == whole


PEAK = """
import resource, sys
from fsr.infer import main
main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_fifty_jpegs_of_every_kind_pass_in_bounded_memory(checkpoint, tmp_path):
    """Among them eight of 12 megapixels, and as many again: the process takes no more."""
    folder, kinds = tmp_path / "photos", ("RGB", "L", "CMYK")
    for number in range(32):
        save(folder / f"some/{number}.jpg", photograph(333, 250, number).convert(kinds[number % 3]))
    for number in range(10):
        save(folder / f"small/{number}.jpg", photograph(20, 20, number))
    large = photograph(4000, 3000)
    for number in range(8):
        save(folder / f"large/{number}.jpg", large, exif=turned(1 + number))
    export([str(checkpoint), str(tmp_path / "exported")])
    peaks = {}
    for count in (50, 58):
        words = [folder, "--checkpoint", tmp_path / "exported/student.pth", "--out", tmp_path / f"out_{count}"]
        command = [sys.executable, "-c", PEAK, "images", *map(str, words), "--threads", "2"]
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        answer = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=True)
        peaks[count] = [int(word) / 2**20 for word in answer.stdout.split()[-2:]]
        found = json.loads((tmp_path / f"out_{count}/pictures.json").read_text())["pictures"]
        assert len(found) == count and (found["large/5"]["width"], found["large/5"]["height"]) == (3000, 4000)
        for number in range(8):
            shutil.copy(folder / f"large/{number}.jpg", folder / f"large/again_{number}.jpg")
    print(f"peak memory, GB (process, worker): {peaks}")
    assert peaks[58][0] < min(2.5, 1.25 * peaks[50][0])


def test_a_network_of_ones_own_classes_names_them(own_voc, tmp_path):
    """Also where its checkpoint is a run's, moved away from it."""
    names = ["background", "rust stain", "hole"]
    state = TrainState(tiny_config(own_voc, num_classes=3), torch.device("cpu"), names)
    save_best(tmp_path / "best.pt", state, state.config, {})
    save(tmp_path / "x/a.jpg", photograph(40, 40))
    main(["images", str(tmp_path / "x"), "--checkpoint", str(tmp_path / "best.pt"), "--workers", "0", "--no-crf"])
    out = tmp_path / "infer_x"
    assert json.loads((out / "pictures.json").read_text())["class_names"] == names
    assert "rust stain" in (out / "report.html").read_text()
    assert {file.name for file in (out / "cam").iterdir()} <= {"a_rust_stain.jpg", "a_hole.jpg"}
