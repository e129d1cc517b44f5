"""The quick look at all files before a run."""

import shutil
import time

import pytest
from PIL import Image
from tiny import source_of

from fsr.config import synthetic
from fsr.data.check import check_files
from fsr.errors import UserError
from fsr.run import Run
from fsr.train import open_run


@pytest.fixture
def source(synthetic_folder, tmp_path):
    """A set that a test may damage."""
    shutil.copytree(synthetic_folder, tmp_path / "data")
    return source_of(synthetic(tmp_path / "data"))


def sentence(source, with_masks=True):
    with pytest.raises(UserError) as raised:
        check_files(source, "train", source.items("train"), with_masks)
    return str(raised.value)


def test_a_sound_set_passes_quickly(source):
    start = time.perf_counter()
    check_files(source, "train", source.items("train"), with_masks=True)
    assert time.perf_counter() - start < 1


def test_the_first_bad_file_is_named_and_the_others_counted(source):
    files = [source.image_file(item.name, "train") for item in source.items("train")]
    files[20].unlink()
    files[5].write_bytes(b"<html>")
    files[9].write_bytes(files[9].read_bytes()[:-100])
    assert sentence(source) == f"image {files[5]} cannot be read: not a picture (and 2 more bad files in train)"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.9])
def test_a_cut_picture_is_found(source, kept):
    file = source.image_file(source.items("train")[3].name, "train")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert sentence(source).startswith(f"image {file} cannot be read: ")


def test_a_picture_that_ends_in_zeros_is_found(source):
    file = source.image_file(source.items("train")[3].name, "train")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert sentence(source).startswith(f"image {file} cannot be read: ")


@pytest.mark.parametrize("trailing", [2, 5000])
def test_bytes_behind_the_picture_are_harmless(source, trailing):
    file = source.image_file(source.items("train")[3].name, "train")
    file.write_bytes(file.read_bytes() + bytes(trailing))
    check_files(source, "train", source.items("train"), with_masks=True)


def test_masks_are_looked_at_only_where_they_are_read(source):
    masks = [source.mask_file(item.name, "train") for item in source.items("train")]
    name = source.items("train")[7].name
    while source.mask_file(name, "train").exists():  # there are two, its own and the augmented one
        source.mask_file(name, "train").unlink()
    Image.new("P", (100, 90)).save(masks[2])
    check_files(source, "train", source.items("train"), with_masks=False)
    assert sentence(source) == (
        f"mask {masks[2]} is 100 x 90 pixels, its image 128 x 128 (and 1 more bad files in train)"
    )


def test_a_run_that_finds_no_list_shows_one_command(source, tmp_path):
    (source.list_folder / "val.txt").unlink()
    with pytest.raises(UserError) as raised:
        open_run(synthetic(tmp_path / "data"), Run(tmp_path / "run"))
    assert str(raised.value) == f"list {source.list_folder / 'val.txt'} is missing; make it with `{source.remedy}`"
