"""Batches for training and images for evaluation."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import source_of

from fsr.config import coco, synthetic
from fsr.data.lists import Item, write_list
from fsr.data.loaders import evaluation_images, train_loader
from fsr.data.synthetic import synthesise
from fsr.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from fsr.errors import UserError


@pytest.fixture
def config(synthetic_folder):
    return replace(synthetic(synthetic_folder), batch_size=4, crop_size=48, local_crops=1, local_crop_size=16)


def batches(config, rank=0, world_size=1, first_step=0, last_step=4):
    return list(train_loader(config, source_of(config), rank, world_size, first_step, last_step))


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["labels"], other["labels"])
        for name in ("view1", "view2"):
            pairs = zip(one[name], other[name], strict=True)  # of images, or of what was drawn for them
            assert all(torch.equal(*pair) for pair in pairs)
        assert all(map(torch.equal, one["local_crops"], other["local_crops"]))


def test_a_batch_has_two_views_labels_and_local_crops(config):
    (batch,) = batches(config, last_step=1)
    assert batch["view1"].shape == batch["view2"].shape == (4, 3, 48, 48)
    assert batch["view1"].dtype == batch["labels"].dtype == torch.float32
    assert batch["labels"].shape == (4, 8)
    assert [crops.shape for crops in batch["local_crops"]] == [(4, 3, 16, 16)]
    assert not torch.equal(batch["view1"], batch["view2"])
    assert batches(replace(config, local_crops=0), last_step=1)[0]["local_crops"] == []


def test_views_are_8_bit_pictures_normalised_with_imagenets_statistics(config):
    view = batches(config, last_step=1)[0]["view1"]
    levels = 255 * (view * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
    assert (levels - levels.round()).abs().max() < 1e-3
    assert levels.round().min() >= 0
    assert levels.round().max() <= 255
    assert levels.std() > 20


def test_batches_do_not_depend_on_workers_or_on_the_options_of_timm(config):
    config = replace(config, use_aa=True, use_gauss=True, use_solar=True)
    assert_equal(batches(config), batches(replace(config, workers=2)))


def test_what_workers_draw_for_the_device_does_not_depend_on_their_number(config):
    config = replace(config, augment="device", use_solar=True)
    assert_equal(batches(config), batches(replace(config, workers=2)))


@pytest.mark.parametrize("augment", ["workers", "device"])
def test_a_run_resumed_at_a_step_gets_the_same_batches(config, augment):
    config = replace(config, augment=augment)
    assert_equal(batches(config, last_step=9)[6:], batches(config, first_step=6, last_step=9))


def test_seeds_differ(config):
    one, other = batches(config, last_step=1)[0], batches(replace(config, seed=1), last_step=1)[0]
    assert not torch.equal(one["view1"], other["view1"])


def test_ranks_share_an_epoch_without_overlap(config):
    # 3 ranks of 4 images see all 24 images in 2 steps.
    whole = torch.cat([batch["labels"] for batch in batches(config, last_step=6)])
    config = replace(config, ranks=3)
    ranks = [batches(config, rank, 3, 0, 2) for rank in range(3)]
    shared = torch.cat([ranks[rank][step]["labels"] for step in range(2) for rank in range(3)])
    expected = torch.zeros(24, 8)
    for row, item in enumerate(source_of(config).items("train")):
        expected[row, [class_id - 1 for class_id in item.classes]] = 1
    assert torch.equal(whole, shared)
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_has_the_same_micro_batches_on_any_number_of_ranks(config, world_size):
    config = replace(config, ranks=4, batch_size=2)
    on_four = [batches(config, rank, 4, 3, 6) for rank in range(4)]
    shared = [batches(config, rank, world_size, 3, 6) for rank in range(world_size)]
    for step in range(3):
        for name in ("view1", "view2", "labels"):
            parts = (torch.cat([rank[step][name] for rank in ranks]) for ranks in (on_four, shared))
            assert torch.equal(*parts)


def test_the_next_epoch_has_another_order_and_other_views(config):
    first, second = batches(config, last_step=6), batches(config, first_step=6, last_step=12)
    assert not torch.equal(*(torch.cat([batch["labels"] for batch in epoch]) for epoch in (first, second)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_stay_as_they_were(config, workers):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    batches(replace(config, workers=workers), last_step=1)
    assert states() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_sentence_even_from_a_worker(config, tmp_path, workers):
    folder = tmp_path / "data"
    shutil.copytree(config.data_folder, folder)
    config = replace(config, data_folder=folder, workers=workers)
    picture = folder / "VOCdevkit/VOC2012/JPEGImages/2012_000003.jpg"
    picture.write_bytes(picture.read_bytes()[:-400])
    with pytest.raises(UserError) as raised:
        batches(config, last_step=6)
    assert str(raised.value).startswith(f"image {picture} cannot be read: image file is truncated")
    assert "\n" not in str(raised.value)
    picture.unlink()
    with pytest.raises(UserError) as raised:
        batches(config, last_step=6)
    assert str(raised.value) == f"image {picture} cannot be read: No such file or directory"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_pictures_are_read_as_rgb(config, tmp_path, mode):
    folder = tmp_path / "data"
    shutil.copytree(config.data_folder, folder)
    source = source_of(replace(config, data_folder=folder))
    picture = source.image_file(source.items("val")[0].name, "val")
    Image.open(picture).convert(mode).save(picture)
    image = next(iter(evaluation_images(config, source, "val", 0, 1)))[1]
    assert image.shape == (3, 128, 128)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_image_once_over_all_ranks(config, workers):
    config = replace(config, workers=workers)
    source = source_of(config)
    shares = [list(evaluation_images(config, source, "train", rank, 5)) for rank in range(5)]
    names = [name for share in shares for name, *_ in share]
    assert sorted(names) == sorted(item.name for item in source.items("train"))
    name, image, ground_truth, labels = shares[3][1]
    assert name == source.items("train")[8].name
    assert (image.shape, image.dtype) == ((3, 128, 128), torch.float32)
    assert (ground_truth.shape, ground_truth.dtype) == ((128, 128), torch.uint8)
    assert set(ground_truth.unique().tolist()) - {0, 255} == set((labels.nonzero().flatten() + 1).tolist())


def test_a_set_without_ground_truth_is_ignored_everywhere(config, tmp_path):
    config = replace(config, list_folder=tmp_path)
    write_list(tmp_path / "test.txt", [Item("2012_000000", ())])
    ((_, _, ground_truth, labels),) = evaluation_images(config, source_of(config), "test", 0, 1)
    assert (ground_truth == 255).all()
    assert labels.sum() == 0


def test_both_layouts_give_the_same_batches_and_ground_truth(config, tmp_path):
    synthesise(tmp_path, "coco", images=24, seed=1)
    other = replace(
        coco(tmp_path),
        num_classes=9,
        ranks=1,
        batch_size=4,
        crop_size=48,
        crop_area=config.crop_area,
        block_size=16,
        local_crops=1,
        local_crop_size=16,
        workers=0,
    )
    assert_equal(batches(config, last_step=2), batches(other, last_step=2))
    pairs = zip(
        evaluation_images(config, source_of(config), "val", 0, 1),
        evaluation_images(other, source_of(other), "val", 0, 1),
        strict=True,
    )
    for (_, *one), (_, *same) in pairs:
        assert all(map(torch.equal, one, same))
