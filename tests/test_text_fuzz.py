"""Mutated lists, XMLs and annotations: read, or told in one sentence that can be shown."""

import json
import random
from collections import Counter

import pytest
from real_sets import as_real

from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import draw_mask, read_annotations
from fsr.data.lists import read_list
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes, voc_names
from fsr.errors import UserError

TEXTS = 4000
# fmt: off
WORDS = [
    b"\0", b"\n", b"\r", b"\x1b[2J", b"..", b"/", b"null", b"NaN", b"-Infinity", b"1e999", b"[[", b"{}", b'"', b"&a;",
    b"<!ENTITY a 'b'>", b"<![CDATA[", b"99999999999999999999", b"\xe9", "𝄞".encode(),
]
VALUES = [
    ..., None, 0, -1, 1, 1.5, "x", "1", "\x1b", True, 10**30, float("nan"), float("inf"), [], {}, [[]], [1], [{}],
    [[1, 2, 3, 4, 5, 6]], [1, 2, 3, 4, 5, 6], [[[1, 2]]], ["a"] * 8, {"size": [128, 128], "counts": [128 * 128]},
    {"size": None, "counts": "x"},
]
# fmt: on


def mutated_text(content: bytes, draw: random.Random) -> bytes:
    place, length = draw.randrange(len(content)), draw.choice([1, 5, 40])
    before, after = content[:place], content[place:]
    return draw.choice(
        [
            before + bytes([after[0] ^ 1 << draw.randrange(8)]) + after[1:],
            before + after[length:],
            before + draw.randbytes(length) + after,
            before + after[:length] + after,
            before or after,
            before + draw.choice(WORDS) + after,
            content.decode(errors="replace").encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])),
        ]
    )


def mutated_json(content: bytes, draw: random.Random) -> bytes:
    """Another value of one field, or none."""
    whole = json.loads(content)
    part = draw.choice([whole, *whole["images"], *whole["annotations"]])
    field = draw.choice([*part])
    part[field] = draw.choice(VALUES)
    if part[field] is ...:
        del part[field]
    return json.dumps(whole).encode()


@pytest.mark.slow
def test_mutated_texts_are_read_or_told_in_one_sentence(tmp_path):
    synthesise(tmp_path / "voc", images=2)
    synthesise(tmp_path / "coco", "coco", images=2)
    voc, coco = VocSource(as_real(tmp_path / "voc")), CocoSource(as_real(tmp_path / "coco"))

    def draw_all() -> None:
        for image in read_annotations(coco, "train").values():
            draw_mask(image)

    readers = {
        voc.root / "Annotations/2012_000000.xml": lambda: voc_classes(voc, "2012_000000", None),
        voc.list_folder / "train.txt": lambda: voc.items("train"),
        voc.list_folder / "val.txt": lambda: read_list(voc.list_folder / "val.txt", 9, "make it"),
        voc.root / "ImageSets/Segmentation/train.txt": lambda: voc_names(voc),
        coco.annotation_file("train"): draw_all,
    }
    ends = Counter()
    for number in range(TEXTS):
        draw = random.Random(number)
        file, reader = draw.choice([*readers.items()])
        content = file.read_bytes()
        mutate = mutated_json if file.suffix == ".json" and draw.random() < 0.6 else mutated_text
        file.write_bytes(mutate(content, draw))
        try:
            reader()
            ends[file.suffix, "read"] += 1
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 700, number
            ends[file.suffix, "told"] += 1
        file.write_bytes(content)
    print(dict(ends))
    assert sum(ends.values()) == TEXTS
