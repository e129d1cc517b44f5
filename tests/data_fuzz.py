"""Lists, JSON, XML, PNG and JPEG that hypothesis draws, through the functions of the real commands.

Run as a process of its own, `python tests/data_fuzz.py FOLDER SECONDS FIRST_ROUND`: who started it sees what ends it.
It writes the number of each round to `round`, and at its end prints how the readers' answers were counted. Whatever is
neither read nor told in one sentence fails with the smallest input that hypothesis finds.
"""

import contextlib
import io
import json
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from real_sets import as_real

from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import draw_mask, read_annotations
from fsr.data.images import read_image, read_mask
from fsr.data.prepare import main as prepare
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes, voc_names
from fsr.errors import UserError

ENDS: Counter[tuple[str, str]] = Counter()
WHOLE = 25  # one of so many examples goes through the whole command

WORDS = st.sampled_from(
    [
        *(b"2012_000000", b"2012_000001", b"/JPEGImages/2012_000000.jpg", b"/SegmentationClassAug/2012_000001.png"),
        *(
            b"JPEGImages\\2012_000000.jpg",
            b"..",
            b"../../etc/passwd",
            b"/etc/passwd",
            b"1,2",
            b"-1",
            b"0",
            b"21",
            b"255",
        ),
        *(b"9" * 30, b"a" * 300, b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"\xe9", b"\x1b[2J", b"NaN", b","),
        "ß𝄞".encode(),
    ]
)
GAPS = st.sampled_from([b" ", b"  ", b"\t", b"\n", b"\r\n", b"\r", b"\n\n", b"\x0b", b"\x0c", "\u2028".encode(), b""])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["17", "1.5", "NaN"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "counts", "x"]), inner),
    max_leaves=8,
)
COORDINATES = st.lists(st.floats() | st.integers(-(10**9), 10**9) | st.floats(0, 128), max_size=14)
COUNTS = st.lists(st.integers(-3, 20_000), max_size=9) | st.text(
    "0123456789:;<=>?@ABCPQRSTUVWXYZ`abcdeno\x7f~ ", max_size=30
)
SEGMENTATIONS = (
    JSON
    | COORDINATES
    | st.lists(COORDINATES, max_size=3)
    | st.fixed_dictionaries({"size": st.just([128, 128]) | st.lists(st.integers(0, 300), max_size=3), "counts": COUNTS})
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "insert", "delete", "zeros"]), st.binary(max_size=12)),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    """A content after some edits, each at a fraction of its length."""
    for where, how, more in edits:
        place = int(where * len(content))
        before, after = content[:place], content[place:]
        if how == "flip":
            content = before + bytes(a ^ b for a, b in zip(after, more, strict=False)) + after[len(more) :]
        elif how == "cut":
            content = before + more
        elif how == "insert":
            content = before + more + after
        elif how == "delete":
            content = before + after[len(more) * 7 + 1 :]
        else:
            content = before + bytes(min(len(after), len(more) * 40)) + after[len(more) * 40 :]
    return content


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    """Lines as people write them, or words and gaps, in an encoding of their own."""
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from([f"2012_00000{index}" for index in (0, 1, 2, 2, 7)]), max_size=3))
        form = draw(
            st.sampled_from(["{0}", "{0}", "{0} 1,2", "{0}.jpg", "./{0}", "/JPEGImages/{0}.jpg /Masks/{0}.png"])
        )
        end = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r", " \n"]))
        content = "".join(form.format(name) + end for name in names).encode()
    else:
        content = b"".join(draw(st.lists(st.one_of(WORDS, GAPS, GAPS), max_size=16)))
    encoding = draw(st.sampled_from(["", "", "utf-16", "utf-16-le", "utf-8-sig", "utf-32", "latin-1"]))
    return content.decode(errors="replace").encode(encoding, "replace") if encoding else content


def tags(name: str, content: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """An element, now and then with a namespace, an entity or no end."""
    forms = ["<{0}>{1}</{0}>"] * 6 + ["<{0}>{1}", "<x:{0} xmlns:x='y'>{1}</x:{0}>", "<{0}>&a;{1}</{0}>", "<{0}/>{1}"]
    return st.builds(lambda form, inside: form.format(name, inside), st.sampled_from(forms), content)


@st.composite
def xmls(draw: st.DrawFn) -> bytes:
    """VOC's XML in a few encodings, or something near it."""
    names = st.sampled_from(["aeroplane", " bird ", "cat", "train", "", "é", "\x07", "background"]) | st.text(
        max_size=4
    )
    things = tags("object", st.builds("".join, st.lists(tags("name", names), max_size=2)))
    whole = draw(tags("annotation", st.builds("".join, st.lists(things, max_size=4))))
    start = draw(st.sampled_from(["", "<?xml version='1.0' encoding='{}'?>", "<!DOCTYPE a [<!ENTITY a 'b'>]>"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1", "utf-8-sig", "gb18030"]))
    said = draw(st.sampled_from([encoding, encoding, "klingon", "utf-7", "utf-16"]))
    content = (start.format(said) + whole).encode(encoding, "replace")
    return edited(content, draw(EDITS)) if draw(st.integers(0, 3)) == 0 else content


def chunk(kind: bytes, body: bytes, wrong: bool = False) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """A PNG whose chunks are right each by itself, and need not fit each other."""
    side = st.sampled_from([128] * 20 + [1, 2, 127, 0, 2**31 - 1, 100_000])
    width, height = draw(side), draw(side)
    depth = draw(st.sampled_from([8] * 9 + [1, 2, 4, 16, 3]))
    colour = draw(st.sampled_from([0, 0, 3, 3, 3, 2, 4, 6, 5]))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.sampled_from([0, 0, 0, 1, 2])))
    row = 1 + (min(width, 256) * depth * {2: 3, 4: 2, 6: 4}.get(colour, 1) + 7) // 8
    filler = draw(st.binary(min_size=1, max_size=6) | st.sampled_from([b"\0", b"\0\1\2", b"\1\xff", b"\x14"]))
    rows = ((b"\0" + filler * row)[:row]) * min(height, 256)
    if draw(st.integers(0, 4)) == 0:
        rows = edited(rows, draw(EDITS))
    palette = draw(st.sampled_from([b"", bytes(range(63)), bytes(768), b"\0\0\0\x80\0\0\0\x80\0", b"\1\2"]))
    extra = draw(st.sampled_from([b"tRNS", b"acTL", b"fcTL", b"eXIf", b"iCCP", b"zTXt", b"IDAT", b"IHDR", b"gAMA"]))
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(extra, draw(st.binary(max_size=26)))] if draw(st.booleans()) else []
    parts += [chunk(b"IDAT", zlib.compress(rows), draw(st.integers(0, 9)) == 0), chunk(b"IEND", b"")]
    if draw(st.integers(0, 5)) == 0:
        parts = draw(st.permutations(parts))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(picture: Image.Image, **options: object) -> bytes:
    """The bytes of a JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


@st.composite
def jpegs(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """A JPEG with another segment or edits anywhere."""
    content = draw(st.sampled_from(sound))
    if draw(st.booleans()):
        body = draw(st.binary(max_size=30))
        segment = b"\xff" + bytes([draw(st.integers(0xC0, 0xFE))]) + struct.pack(">H", len(body) + 2) + body
        place = draw(st.sampled_from([2, content.index(b"\xff\xda")]))
        content = content[:place] + segment + content[place:]
    return edited(content, draw(EDITS))


@st.composite
def annotations(draw: st.DrawFn, sound: bytes) -> bytes:
    """COCO's instances with other values in a few fields."""
    whole = json.loads(sound)
    parts = [whole, *whole["images"], *whole["annotations"][:4], *whole["categories"][:2]]
    for part in draw(st.lists(st.sampled_from(parts), min_size=1, max_size=3)):
        if not part:
            continue
        field = draw(st.sampled_from(sorted(part)))
        if draw(st.integers(0, 6)) == 0:
            del part[field]
        else:
            part[field] = draw(SEGMENTATIONS if field == "segmentation" else JSON | st.integers(0, 130))
    content = json.dumps(whole).encode()
    return edited(content, draw(EDITS)) if draw(st.integers(0, 4)) == 0 else content


def told(kind: str, read: Callable[[], object]) -> None:
    """Read, and count how it ended: with one sentence that can be shown, or at all."""
    try:
        read()
        ENDS[kind, "read"] += 1
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 900, f"not one sentence: {error!r}"
        ENDS[kind, "told"] += 1


def command(kind: str, dataset: str, folder: Path, *flags: str) -> None:
    """The whole of `prepare`: it ends well, or with code 2 and one line of standard error."""
    out, errors = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            prepare([dataset, str(folder), *flags])
        except SystemExit as end:
            code = end.code
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith(("checking", "writing"))]
    assert code in (0, 2), code
    assert (code == 0 and not lines) or (len(lines) == 1 and lines[0].startswith("error: ")), errors.getvalue()
    assert out.getvalue().replace("\n", "").isprintable()
    ENDS[f"prepare {kind}", "read" if code == 0 else "told"] += 1


def fuzz(folder: Path, seconds: float, first_round: int) -> None:
    """Rounds of a hundred examples of each kind until the time is over."""
    synthesise(folder / "voc", images=3)
    synthesise(folder / "coco", "coco", images=3)
    voc, coco = VocSource(as_real(folder / "voc")), CocoSource(as_real(folder / "coco"))
    name = voc.items("train")[0].name
    (voc.root / "ImageSets/Segmentation/train_aug.txt").write_text(f"{name}\n")  # else found by subtraction
    files = {
        "list": voc.root / "ImageSets/Segmentation/train.txt",
        "prepared list": voc.list_folder / "train.txt",
        "record": voc.list_folder / "prepared.json",
        "classes": voc.root / "classes.txt",
        "xml": voc.annotation_file(name),
        "png": voc.root / f"SegmentationClass/{name}.png",
        "jpeg": voc.image_file(name, "train"),
        "json": coco.annotation_file("train"),
    }
    picture = Image.open(files["jpeg"]).convert("RGB")
    kinds = [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 1}, {"optimize": True}]
    sound = [saved(picture, **options) for options in kinds] + [saved(picture.convert(mode)) for mode in ("L", "CMYK")]
    mask = files["png"].read_bytes()
    classes = np.array(Image.open(files["png"]))

    def same_mask() -> None:
        assert np.array_equal(read_mask(files["png"], (128, 128), 21), classes)

    def draw_all() -> None:
        for image in read_annotations(coco, "train").values():
            draw_mask(image)

    inputs = {
        "list": (lists(), lambda: voc_names(voc)),
        "prepared list": (lists(), lambda: voc.items("train")),
        "record": (
            st.builds(lambda value: json.dumps(value).encode(), JSON) | lists(),
            lambda: VocSource(folder / "voc"),
        ),
        "classes": (lists(), lambda: VocSource(folder / "voc")),
        "xml": (xmls(), lambda: voc_classes(voc, name, None)),
        "png": (pngs(), lambda: read_mask(files["png"], (128, 128), 21)),
        "jpeg": (jpegs(sound), lambda: read_image(files["jpeg"])),
        "json": (annotations(files["json"].read_bytes()), draw_all),
        "edited png": (st.builds(edited, st.just(mask), EDITS), same_mask),
    }
    start, number = time.monotonic(), first_round
    while time.monotonic() - start < seconds:
        for kind, (inputs_of_kind, read) in inputs.items():
            (folder / "round").write_text(f"{number} {kind}")
            one_round(number, kind, files[kind.removeprefix("edited ")], inputs_of_kind, read, folder)
            if time.monotonic() - start >= seconds:
                break
        number += 1
    for (kind, end), count in sorted(ENDS.items()):
        print(f"{kind:22} {end:5} {count}")
    print(f"{sum(ENDS.values())} examples in {time.monotonic() - start:.0f} s")


def one_round(
    number: int, kind: str, file: Path, inputs: st.SearchStrategy[bytes], read: Callable[[], object], folder: Path
) -> None:
    """A hundred examples in the place of a sound file, which is put back."""
    before = file.read_bytes() if file.exists() else None
    count = 0

    @seed(number)
    @settings(
        max_examples=100,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(inputs)
    def example(content: bytes) -> None:
        nonlocal count
        file.write_bytes(content)
        told(kind, read)
        count += 1
        if count % WHOLE == 0:
            flags = ["--skip_bad"] if count % (2 * WHOLE) == 0 else []
            if kind == "json":
                command(kind, "coco", folder / "coco", *flags, "--write_masks", "--mask_folder", str(folder / "masks"))
            elif kind not in ("prepared list",):
                command(kind, "voc", folder / "voc", *flags)

    try:
        example()
    finally:
        if before is None:
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(before)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fuzz(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
