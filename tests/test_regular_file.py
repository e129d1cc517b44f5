"""What stands in the place of a file of the data set: one sentence names it, and nobody waits for it."""

import os
import shutil
import signal
import socket

import pytest
from tiny import source_of, tiny_config

from fsr.data.check import check_files
from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import read_annotations
from fsr.data.images import read_image, read_mask
from fsr.data.lists import read_list
from fsr.data.prepare import main as prepare
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes, voc_names
from fsr.errors import UserError
from fsr.regular_file import open_regular


@pytest.fixture(autouse=True)
def impatience():
    """Who waits for a FIFO is ended, instead of the whole suite."""
    signal.alarm(10)
    yield
    signal.alarm(0)


def a_socket(place):
    here = os.getcwd()
    os.chdir(place.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place.name)
    os.chdir(here)


KINDS = {"a FIFO": os.mkfifo, "a socket": a_socket, "a folder": os.mkdir}
READERS = {
    "image": read_image,
    "mask": lambda file: read_mask(file, None, 9),
    "list": lambda file: read_list(file, 9, "make it"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", READERS)
def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path, kind, what):
    KINDS[kind](tmp_path / "there")
    with pytest.raises(UserError) as error:
        READERS[what](tmp_path / "there")
    assert f"{what} {tmp_path}/there cannot be read" in str(error.value)
    assert f"it is {kind}, not a regular file" in str(error.value)


def test_a_device_is_none_and_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="it is a device"):
        open_regular(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "other").symlink_to("file")
    with open_regular(tmp_path / "other") as stream:
        assert stream.read() == b"x"


@pytest.mark.parametrize("what", ["image_file", "mask_file"])
def test_the_check_before_a_run_names_it(synthetic_folder, tmp_path, what):
    folder = shutil.copytree(synthetic_folder, tmp_path / "data")
    source = source_of(tiny_config(folder))
    items = source.items("train")
    file = getattr(source, what)(items[3].name, "train")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=rf"{file} cannot be read: it is a FIFO, not a regular file"):
        check_files(source, "train", items, with_masks=True)


def test_prepare_names_it_in_lists_and_annotations_too(synthetic_folder, tmp_path, capsys):
    folder = shutil.copytree(synthetic_folder, tmp_path / "data")
    source = VocSource(folder)
    name = voc_names(source)["train"][0]
    annotation = source.root / "Annotations" / f"{name}.xml"
    annotation.parent.mkdir(exist_ok=True)
    annotation.unlink(missing_ok=True)
    os.mkfifo(annotation)
    with pytest.raises(UserError, match=f"annotation {annotation} cannot be read: it is a FIFO"):
        voc_classes(source, name, None)
    names = source.root / "ImageSets/Segmentation/train.txt"
    names.unlink()
    os.mkfifo(names)
    with pytest.raises(SystemExit):
        prepare(["voc", str(folder)])
    assert f"error: list {names} cannot be read: it is a FIFO, not a regular file" in capsys.readouterr().err
    coco = CocoSource.__new__(CocoSource)
    coco.root = tmp_path
    coco.annotation_file("train").parent.mkdir()
    os.mkfifo(coco.annotation_file("train"))
    with pytest.raises(UserError, match=r"annotations .* cannot be read: it is a FIFO"):
        read_annotations(coco, "train")
