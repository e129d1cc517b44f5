"""The dense CRF and the pseudo labels made with it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from test_ops import picture

from fsr.crf import (
    INFERENCE,
    PSEUDO_LABEL,
    CRFSettings,
    crf_pseudo_label,
    dense_crf,
    dense_crf_batch,
    dense_crf_stream,
)


@pytest.fixture
def halves():
    """A dark left and a bright right half, [32, 40, 3], and which pixels are right."""
    right = np.zeros((32, 40), dtype=bool)
    right[:, 20:] = True
    return np.where(right[..., None], np.uint8(200), np.uint8(40)).repeat(3, axis=2), right


def noisy(right: np.ndarray) -> np.ndarray:
    """Probabilities of left and right, [2, H, W], a fifth of them wrong."""
    wrong = np.random.default_rng(0).random(right.shape) < 0.2
    likely = np.where(right ^ wrong, 0.7, 0.3).astype(np.float32)
    return np.stack([1 - likely, likely])


@pytest.mark.parametrize("settings", [INFERENCE, PSEUDO_LABEL])
def test_noise_is_cleaned_along_the_edge(halves, settings):
    image, right = halves
    probabilities = noisy(right)
    assert (probabilities.argmax(0) == right).mean() < 0.9
    marginals = dense_crf(image, probabilities, settings)
    assert marginals.shape == probabilities.shape
    assert marginals.dtype == np.float32
    np.testing.assert_allclose(marginals.sum(0), 1, atol=1e-5)
    assert (marginals.argmax(0) == right).all()


def test_without_iterations_the_probabilities_come_back(halves):
    image, right = halves
    untouched = CRFSettings(0, 1, 1, 4, 121, 5)
    np.testing.assert_allclose(dense_crf(image, noisy(right), untouched), noisy(right), atol=1e-6)


def test_every_run_gives_the_same_bits(halves):
    image, right = halves
    first = dense_crf(image, noisy(right))
    assert all(np.array_equal(first, dense_crf(image, noisy(right))) for _ in range(3))


def test_memory_layout_type_and_write_protection_do_not_matter(halves):
    image, right = halves
    probabilities = noisy(right)
    expected = dense_crf(image, probabilities)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    protected = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(image.shape)
    assert np.array_equal(dense_crf(strided, np.asfortranarray(probabilities)), expected)
    assert np.array_equal(dense_crf(protected, probabilities), expected)
    assert np.array_equal(dense_crf(image, probabilities.astype(np.float64)), expected)


def test_certain_and_impossible_classes_are_no_trouble(halves):
    image, right = halves
    marginals = dense_crf(image, np.stack([~right, right]).astype(np.float32))
    assert np.isfinite(marginals).all()
    assert (marginals.argmax(0) == right).all()


def test_inputs_are_left_as_they_were(halves):
    image, right = halves
    probabilities = noisy(right)
    before = image.copy(), probabilities.copy()
    dense_crf(image, probabilities)
    assert np.array_equal(image, before[0])
    assert np.array_equal(probabilities, before[1])


def coloured(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An 8-bit image with grain, and probabilities of five classes."""
    grain = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    image = (picture(1, height, width, seed)[0].permute(1, 2, 0).numpy() + grain).clip(0, 255).astype(np.uint8)
    logits = torch.cat([picture(1, height, width, seed + 1), picture(1, height, width, seed + 2)], dim=1)[:, :5] / 40
    return image, logits.softmax(1)[0].numpy()


@pytest.mark.parametrize("settings", [INFERENCE, PSEUDO_LABEL])
@pytest.mark.parametrize(("height", "width"), [(120, 165), (37, 300), (300, 2), (1, 1), (375, 500)])
def test_the_native_backend_is_pydensecrf(height, width, settings):
    image, probabilities = coloured(height, width, seed=5)
    ours, theirs = (dense_crf(image, probabilities, settings, backend) for backend in ("native", "pydensecrf"))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert (ours.argmax(0) == theirs.argmax(0)).mean() >= 0.999


def test_a_batch_and_a_stream_are_the_images_one_by_one():
    pairs = [coloured(40, 60, seed) for seed in range(7)]
    each = [dense_crf(*pair) for pair in pairs]
    threads = torch.get_num_threads()
    for workers in (1, 3):
        streamed = list(dense_crf_stream(iter(pairs), workers=workers))
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(streamed, each, strict=True))
    assert torch.get_num_threads() == threads
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in pairs])
    batch = dense_crf_batch(images, torch.stack([torch.from_numpy(scores) for _, scores in pairs]))
    assert np.array_equal(batch.numpy(), np.stack(each))


def test_a_stream_takes_images_as_it_goes_and_may_be_left():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield coloured(8, 9, seed=0)

    stream = dense_crf_stream(endless(), workers=2)
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) <= 7


def test_an_error_in_a_stream_reaches_the_caller():
    image, probabilities = coloured(8, 9, seed=0)
    with pytest.raises(ValueError, match="Expected an image uint8"):
        list(dense_crf_stream([(image, probabilities), (image.astype(np.float32), probabilities)]))


@pytest.mark.parametrize("level", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_named(halves, level):
    image, right = halves
    probabilities = noisy(right)
    probabilities[0, 3, 4] = level
    with pytest.raises(ValueError, match="finite"):
        dense_crf(image, probabilities)


def test_an_unknown_backend_is_named(halves):
    with pytest.raises(ValueError, match="Expected the backend native or pydensecrf, got fast"):
        dense_crf(halves[0], noisy(halves[1]), backend="fast")


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), np.ones((2, 4, 5)), r"Expected an image uint8 \[H, W, 3\], got float32"),
        (np.zeros((4, 5), np.uint8), np.ones((2, 4, 5)), r"Expected an image uint8 \[H, W, 3\], got uint8 \[4, 5\]"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((2, 5, 4)), r"Expected probabilities \[C, 4, 5\], got \[2, 5, 4\]"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((4, 5)), r"Expected probabilities \[C, 4, 5\], got \[4, 5\]"),
    ],
)
def test_bad_inputs_are_named(image, probabilities, message):
    with pytest.raises(ValueError, match=message):
        dense_crf(image, probabilities)


def planes(image: np.ndarray) -> torch.Tensor:
    """An image [H, W, 3] as a tensor [3, H, W]."""
    return torch.from_numpy(image).permute(2, 0, 1)


def test_pseudo_label_ignores_what_only_the_low_threshold_calls_foreground(halves):
    image = halves[0].copy()
    image[:, 10:20] = (40, 200, 40)
    score = np.zeros((32, 40), dtype=np.float32)
    score[:, 10:20] = 0.5
    score[:, 20:] = 1
    label = crf_pseudo_label(planes(image), torch.from_numpy(score)[None], torch.tensor([7]), high=0.7, low=0.25)
    assert label.dtype == torch.uint8
    assert (label[:, :10] == 0).all()
    assert (label[:, 10:20] == 255).all()
    assert (label[:, 20:] == 7).all()


def test_pseudo_label_of_an_image_without_classes_is_background(halves):
    image, _ = halves
    none = torch.zeros(0, dtype=torch.int64)
    label = crf_pseudo_label(planes(image), torch.zeros(0, 32, 40), none, 0.7, 0.25)
    assert (label == 0).all()


def test_only_a_comparison_imports_pydensecrf():
    code = "import fsr.infer, fsr.crf, sys; sys.exit('pydensecrf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
