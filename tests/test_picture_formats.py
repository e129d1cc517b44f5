"""Pictures as people have them: each is right by a stated rule, or one sentence names the file."""

import ast
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fsr.data.images
from fsr.data.images import read_image, read_mask
from fsr.data.palette import palette_png
from fsr.errors import UserError

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
PIXELS = np.asarray(Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8)).resize((60, 40), Image.BICUBIC))
GREY, RGB = Image.fromarray(PIXELS).convert("L"), Image.fromarray(PIXELS)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, content: bytes = b"", *chunks: bytes) -> bytes:
    """A PNG by hand, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + end


def read(tmp_path: Path, content: bytes) -> Image.Image | str:
    """The picture, or the sentence."""
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    try:
        return read_image(file)
    except UserError as error:
        start = f"image {file} cannot be read: "
        assert str(error).startswith(start) and "\n" not in str(error)
        return str(error).removeprefix(start)


def with_orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90°
    return saved(RGB, "JPEG", exif=exif, quality=95)


def animation() -> bytes:
    return saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90), RGB.rotate(180)])


def with_alpha(mode: str, alpha: int) -> Image.Image:
    picture = RGB.convert(mode)
    picture.putalpha(Image.fromarray(np.where(np.arange(2400) == 1234, alpha, 255).astype(np.uint8).reshape(40, 60)))
    return picture


READ = {
    "JPEG": (saved(RGB, "JPEG", quality=95), RGB),
    "progressive JPEG": (saved(RGB, "JPEG", quality=95, progressive=True), RGB),
    "grey JPEG": (saved(GREY, "JPEG", quality=95), GREY.convert("RGB")),
    "CMYK JPEG": (saved(RGB.convert("CMYK"), "JPEG", quality=95), RGB),
    "PNG named .jpg": (saved(RGB, "PNG"), RGB),
    "interlaced palette": (saved(RGB.quantize(64), "PNG"), RGB.quantize(64).convert("RGB")),
    "1 bit": (saved(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
    "opaque RGBA": (saved(with_alpha("RGBA", 255), "PNG"), RGB),
    "opaque LA": (saved(with_alpha("LA", 255), "PNG"), GREY.convert("RGB")),
    "EXIF orientation, which turns nothing": (with_orientation(), RGB),
    "JPEG with a second picture": (saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)], quality=95), RGB),
}


@pytest.mark.parametrize("what", READ)
def test_what_has_one_meaning_is_read_as_rgb(tmp_path, what):
    content, expected = READ[what]
    picture = read(tmp_path, content)
    assert isinstance(picture, Image.Image), picture
    assert picture.mode == "RGB" and picture.size == (60, 40)
    lossy = not content.startswith(b"\x89PNG")
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(expected))
    assert difference.mean() < (4 if lossy else 1e-9)


REFUSED = {
    "16-bit grey": (saved(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"), "16 bits a channel"),
    "16-bit colours": (png(1, 1, 16, 2, bytes(7)), "16 bits a channel"),
    "16-bit with alpha": (png(1, 1, 16, 6, bytes(9)), "16 bits a channel"),
    "float": (
        saved(Image.fromarray(np.asarray(GREY) / np.float32(255)), "TIFF"),
        "it is of format TIFF; allowed: JPEG",
    ),
    "transparent RGBA": (saved(with_alpha("RGBA", 254), "PNG"), "transparent pixels"),
    "transparent LA": (saved(with_alpha("LA", 0), "PNG"), "transparent pixels"),
    "transparent palette": (saved(RGB.quantize(8), "PNG", transparency=0), "transparent pixels"),
    "transparent colour": (png(1, 1, 8, 2, bytes(4), chunk(b"tRNS", bytes(6))), "transparent pixels"),
    "animation": (animation(), "it is an animation of 3 frames"),
    "GIF": (saved(GREY, "GIF"), "it is of format GIF; allowed: JPEG, PNG"),
    "WebP": (saved(RGB, "WEBP"), "it is of format WEBP; allowed: JPEG, PNG"),
    "BMP": (saved(RGB, "BMP"), "it is of format BMP; allowed: JPEG, PNG"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is of format EPS; allowed"),
    "page": (b"<html>", "not a picture"),
    "nothing": (b"", "not a picture"),
    "10⁹ pixels": (png(40_000, 25_000, 8, 0), "it has more than the allowed 89,478,485 pixels"),
    "10⁸ pixels": (png(10_000, 10_000, 8, 0), "it has 10000 x 10000 pixels; allowed are 1 to 89,478,485"),
    "2³¹ pixels wide": (png(2**31 - 1, 2**31 - 1, 8, 0), "it has more than the allowed 89,478,485 pixels"),
    "no pixels": (png(0, 4, 8, 0), ""),
    "no content": (png(9, 9, 8, 0), ""),
    "text of gigabytes": (
        png(1, 1, 8, 0, b"\0\0", *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20), 9))] * 65),
        "Too much memory used in text chunks",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_none_is_one_sentence(tmp_path, what):
    content, sentence = REFUSED[what]
    told = read(tmp_path, content)
    assert isinstance(told, str) and sentence in told


def test_no_other_program_draws_a_picture(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, which it finds by PATH."""
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    for reader in (read_image, lambda file: read_mask(file, None, 9)):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(UserError, match="it is of format EPS"):
            reader(tmp_path / "x.jpg")
    assert not ran.exists()


def test_a_file_of_many_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(1 << 40)
    for kind, reader in (("image", read_image), ("mask", lambda file: read_mask(file, None, 9))):
        with pytest.raises(UserError, match=rf"{kind} .*x.jpg cannot be read: it has 1,099,511,627,776 bytes"):
            reader(tmp_path / "x.jpg")


CLASSES = np.repeat(np.arange(9, dtype=np.uint8), 4).reshape(4, 9)
MASKS = {
    "palette": palette_png(CLASSES),
    "grey": saved(Image.fromarray(CLASSES), "PNG"),
    "4-bit palette": saved(Image.open(io.BytesIO(palette_png(CLASSES))), "PNG", bits=4),
    "16-bit grey": saved(Image.fromarray(CLASSES.astype(np.uint16)), "PNG"),
}


@pytest.mark.parametrize("what", MASKS)
def test_masks_of_class_ids_are_read(tmp_path, what):
    (tmp_path / "x.png").write_bytes(MASKS[what])
    classes = read_mask(tmp_path / "x.png", (9, 4), 9)
    assert classes.dtype == np.uint8 and np.array_equal(classes, CLASSES)


BAD_MASKS = {
    "JPEG": (saved(Image.fromarray(CLASSES), "JPEG"), "it is of format JPEG; allowed: PNG"),
    "GIF": (saved(Image.fromarray(CLASSES), "GIF"), "it is of format GIF; allowed: PNG"),
    "4-bit grey": (png(2, 1, 4, 0, b"\0\x12"), "got grey of fewer (L;4)"),
    "1-bit grey": (saved(Image.fromarray(CLASSES > 3), "PNG"), "got grey of fewer (1)"),
    "colours": (saved(RGB, "PNG"), "got mode RGB"),
    "alpha": (saved(with_alpha("LA", 255), "PNG"), "got mode LA"),
    "16-bit that are no classes": (saved(Image.fromarray(CLASSES.astype(np.uint16) * 256), "PNG"), "has class 256"),
    "animation": (animation(), "it is an animation of 3 frames"),
}


@pytest.mark.parametrize("what", BAD_MASKS)
def test_masks_that_could_mean_something_else_are_one_sentence(tmp_path, what):
    content, sentence = BAD_MASKS[what]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_mask(tmp_path / "x.png", None, 9)
    assert str(raised.value).startswith(f"mask {tmp_path}/x.png ") and sentence in str(raised.value)


def test_every_flipped_bit_of_a_mask_is_found(tmp_path):
    """Pillow compares no checksum of the pixels; each bit belongs to one."""
    content, file = MASKS["grey"], tmp_path / "x.png"
    for bit in range(0, 8 * len(content), 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert np.array_equal(read_mask(file, (9, 4), 9), CLASSES), bit  # of the length of the empty last chunk
        except UserError:
            continue


def test_pictures_are_opened_in_one_place():
    for package in ("fsr", "launch", "sweeps", "analysis", "benchmarks"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Image.open", "imread")):
                    assert file == Path(fsr.data.images.__file__), file
