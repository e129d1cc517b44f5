"""12 000 mutated pictures: no crash, no traceback, and no mask with other classes than were written.

They are read by processes of their own with little memory and time, so that the end of one is seen as such.
"""

import io
import multiprocessing
import random
import resource
import struct
import time
import zlib
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsr.data.images import read_image, read_mask
from fsr.data.palette import palette_png
from fsr.errors import UserError

PICTURES = 12_000
MEMORY = 3 << 30  # bytes of address space
PATIENCE_S = 20
CLASSES = np.kron(np.random.default_rng(3).integers(0, 9, (6, 8), np.uint8), np.ones((8, 8), np.uint8))
SIZE = (64, 48)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def seeds() -> dict[str, list[bytes]]:
    """Sound pictures of both formats in their varieties, and sound masks of the same classes."""
    pixels = np.random.default_rng(4).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(pixels).resize(SIZE, Image.BICUBIC)
    grey, mask = picture.convert("L"), Image.fromarray(CLASSES)
    small = saved(Image.open(io.BytesIO(palette_png(CLASSES))), "PNG", bits=4)
    return {
        "image": [
            *(saved(picture, "JPEG", **options) for options in ({}, {"progressive": True}, {"quality": 100})),
            *(saved(other, "JPEG") for other in (grey, picture.convert("CMYK"))),
            *(saved(other, "PNG") for other in (picture, grey, picture.quantize(16), grey.convert("1"))),
            *(saved(other, "PNG") for other in (picture.convert("RGBA"), grey.convert("LA"))),
            saved(picture, "MPO", save_all=True, append_images=[picture.rotate(180)]),
        ],
        "mask": [palette_png(CLASSES), saved(mask, "PNG"), small, saved(Image.fromarray(CLASSES.astype("u2")), "PNG")],
    }


def flip(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    kept = content[: draw.randrange(len(content))]
    return kept + draw.choice([b"", bytes(len(content) - len(kept)), b"\xff\xd9", draw.randbytes(40)])


def edit_header(content: bytes, draw: random.Random) -> bytes:
    """Another byte in the first hundred, where formats keep sizes and tables."""
    place = draw.randrange(min(100, len(content)))
    return content[:place] + draw.randbytes(draw.choice([1, 1, 2, 4])) + content[place + 1 :]


def insert(content: bytes, draw: random.Random) -> bytes:
    """A chunk or a segment where one may stand, or anything anywhere."""
    body = draw.randbytes(draw.choice([0, 1, 6, 26, 300]))
    if content.startswith(b"\x89PNG") and draw.random() < 0.8:
        kind = draw.choice([b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"eXIf", b"IDAT", b"IHDR"])
        sum_ = zlib.crc32(kind + body) ^ (draw.random() < 0.2)
        body = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", sum_)
        return content[:33] + body + content[33:] if draw.random() < 0.8 else content[:8] + body + content[8:]
    if content.startswith(b"\xff\xd8") and draw.random() < 0.8:
        body = b"\xff" + bytes([draw.randrange(0xC0, 0xFF)]) + struct.pack(">H", len(body) + 2) + body
        return content[:2] + body + content[2:]
    place = draw.randrange(len(content))
    return content[:place] + body + content[place:]


def rename(content: bytes, draw: random.Random) -> bytes:
    """The same picture in another format, damaged in half of the cases; or no picture."""
    kind = draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000", "none"])
    if kind == "none":
        return draw.randbytes(draw.randrange(200))
    other = saved(Image.open(io.BytesIO(content)).convert("RGB"), kind)
    return flip(other, draw) if draw.random() < 0.5 else other


def resize(content: bytes, draw: random.Random) -> bytes:
    """Another size in the header, with the right checksum."""
    width, height = (draw.choice([0, 1, 47, 48, 49, 64, 640, 9000, 40_000, 65_535, 2**31 - 1]) for _ in range(2))
    if content.startswith(b"\x89PNG"):
        header = struct.pack(">II", width, height) + content[24:29]
        return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    start = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    return content[: start + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + content[start + 9 :]


MUTATIONS = (flip, cut, edit_header, insert, rename, resize)


def mutated(number: int, sound: dict[str, list[bytes]]) -> tuple[str, str, bytes]:
    """Kind, mutation and content of one picture."""
    draw = random.Random(number)
    kind, mutation = ("image", "mask")[number % 2], MUTATIONS[number // 2 % len(MUTATIONS)]
    content = mutation(draw.choice(sound[kind]), draw)
    return kind, mutation.__name__, flip(content, draw) if content and draw.random() < 0.1 else content


def read(kind: str, file: Path) -> str:
    """How the reading of a picture ends."""
    try:
        if kind == "image":
            picture = read_image(file)
            return "read" if picture.mode == "RGB" and np.asarray(picture).ndim == 3 else "wrong"
        return "read" if np.array_equal(read_mask(file, SIZE, 9), CLASSES) else "wrong"
    except UserError as error:
        whole = str(error).startswith(f"{kind} {file} ") and "\n" not in str(error)
        return "told" if whole else f"not one sentence: {error}"
    except BaseException as error:
        return f"raised {error!r}"


def reader(numbers: range, folder: Path, pipe: Connection) -> None:
    """A process that reads some of the pictures and says how each ended."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sound = seeds()
    for number in numbers:
        kind, mutation, content = mutated(number, sound)
        file = folder / f"{numbers.start}.{'jpg' if kind == 'image' else 'png'}"
        file.write_bytes(content)
        pipe.send((number, kind, mutation, "began"))
        pipe.send((number, kind, mutation, read(kind, file)))


@pytest.mark.slow
def test_mutated_pictures_are_read_or_told_in_one_sentence(tmp_path):
    sound = seeds()
    for kind, contents in sound.items():
        for content in contents:
            (tmp_path / "sound").write_bytes(content)
            assert read(kind, tmp_path / "sound") == "read"
    ends, left, slowest = Counter(), range(PICTURES), 0.0
    context = multiprocessing.get_context("spawn")
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=reader, args=(left, tmp_path, theirs))
        process.start()
        theirs.close()
        last = (left.start - 1, "", "", "end")
        began = time.monotonic()
        try:
            while ours.poll(PATIENCE_S):
                last = ours.recv()
                if last[3] == "began":
                    began = time.monotonic()
                else:
                    slowest = max(slowest, time.monotonic() - began)
                    ends[last[1:]] += 1
        except EOFError:
            pass
        hangs = process.is_alive() and last[0] < PICTURES - 1
        process.kill() if hangs else None
        process.join()
        if last[3] == "began":
            ends[(*last[1:3], "hangs" if hangs else f"process ended with {process.exitcode}")] += 1
        else:
            assert last[0] == PICTURES - 1, f"the reader ended with {process.exitcode} beside picture {last[0]}"
        left = range(last[0] + 1, PICTURES)
    for (kind, mutation, end), count in sorted(ends.items()):
        print(f"{kind:6} {mutation:12} {end:20} {count}")
    print(f"{sum(ends.values())} pictures, slowest {slowest:.2f} s")
    assert sum(ends.values()) == PICTURES
    assert not {end: count for end, count in ends.items() if end[2] not in ("read", "told")}
