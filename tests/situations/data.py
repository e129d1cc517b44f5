"""Data sets with damaged, foreign or missing files: they are read rightly, or the file is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from situations.damage import DAMAGES, SOCKET, UNREADABLE
from situations.readers import damage
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works
from situations.words import INFERENCE, PREPARE, PREPARE_COCO, TRAIN

KIND = "damaged data"
VOC, COCO = "{data}/VOCdevkit/VOC2012", "{coco}/COCO"
USER = 4001
PICTURES = {
    "half of a JPEG": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a JPEG whose end is zeros": lambda path: path.write_bytes(zeroed(path.read_bytes())),
    "PostScript": lambda path: Image.new("RGB", (128, 128)).save(path, "EPS"),
    "a GIF": lambda path: Image.new("P", (128, 128)).save(path, "GIF"),
    "a TIFF": lambda path: Image.new("RGB", (128, 128)).save(path, "TIFF"),
    "a PCX": lambda path: Image.new("RGB", (128, 128)).save(path, "PCX"),
    "one pixel": lambda path: Image.new("RGB", (1, 1)).save(path, "JPEG"),
    "a bomb": lambda path: path.write_bytes(bomb()),
    "a picture of another size": lambda path: Image.new("RGB", (17, 500)).save(path, "JPEG"),
    "a text": lambda path: path.write_text("this is no picture\n" * 50),
    "HTML": lambda path: path.write_text("<html><body>404 Not found</body></html>"),
}
MASKS = {
    "colours": lambda path: Image.new("RGB", (128, 128), "red").save(path, "PNG"),
    "16 bits": lambda path: Image.fromarray(np.full((128, 128), 700, np.uint16)).save(path, "PNG"),
    "a class that is not there": lambda path: Image.fromarray(np.full((128, 128), 99, np.uint8)).save(path, "PNG"),
    "another size": lambda path: Image.new("L", (64, 64)).save(path, "PNG"),
    "a JPEG": lambda path: Image.new("L", (128, 128)).save(path, "JPEG"),
    "transparency": lambda path: Image.new("LA", (128, 128)).save(path, "PNG"),
    "one bit": lambda path: Image.new("1", (128, 128)).save(path, "PNG"),
    "PostScript": lambda path: Image.new("L", (128, 128)).save(path, "EPS"),
}
LISTS = {
    "a name that is not there": "no_such_image 1\n",
    "a name with ..": "../../../../etc/passwd 1\n",
    "an absolute name": "/etc/passwd 1\n",
    "a class that is not there": "{name} 99\n",
    "class 0": "{name} 0\n",
    "a class in words": "{name} cat\n",
    "a negative class": "{name} -1\n",
    "three columns": "{name} 1 2\n",
    "a blank line": "{name} 1\n\n{name} 1\n",
    "an escape": "{name}\x1b[31m 1\n",
    "a huge class": "{name} 99999999999999999999999\n",
    "UTF-16": "\ufeff{name} 1\n",
    "a control character": "{name}\x07\x00 1\n",
}
READABLE = ("a blank line", "UTF-16")
XML = {
    "cut": "<annotation><object><name>cat",
    "no XML": "cat, dog",
    "an unknown class": "<annotation><object><name>unicorn</name></object></annotation>",
    "an escape": "<annotation><object><name>&#27;[31m</name></object></annotation>",
    "another encoding": '<?xml version="1.0" encoding="klingon"?><annotation/>',
    "a bomb of entities": '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><annotation><object><name>&j;</name></object></annotation>",
    "an external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    "<annotation><object><name>&x;</name></object></annotation>",
    "no name": "<annotation><object></object></annotation>",
}


def segmented(segmentation: object) -> Callable[[dict[str, Any]], None]:
    """The change of the first object's segmentation."""
    return lambda content: content["annotations"][0].update(segmentation=segmentation)


def run_lengths(size: tuple[int, int] | None, counts: object) -> Callable[[dict[str, Any]], None]:
    """The change of the first object's segmentation to run lengths."""

    def change(content: dict[str, Any]) -> None:
        thing = content["annotations"][0]
        image = next(image for image in content["images"] if image["id"] == thing["image_id"])
        thing["segmentation"] = {"size": list(size or (image["height"], image["width"])), "counts": counts}

    return change


RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no images": lambda c: c.__delitem__("images"),
    "no annotations": lambda c: c.__delitem__("annotations"),
    "images that are a text": lambda c: c.__setitem__("images", "many"),
    "null for its annotations": lambda c: c.__setitem__("annotations", None),
    "an unknown category": lambda c: c["annotations"][0].__setitem__("category_id", 999),
    "a text for a category": lambda c: c["annotations"][0].__setitem__("category_id", "cat"),
    "no category": lambda c: c["annotations"][0].__delitem__("category_id"),
    "no segmentation": lambda c: c["annotations"][0].__delitem__("segmentation"),
    "an empty segmentation": segmented([]),
    "null for a segmentation": segmented(None),
    "a flat segmentation": segmented([1.0, 2.0, 30.0, 2.0, 30.0, 40.0]),
    "two points": segmented([[1.0, 2.0, 3.0, 4.0]]),
    "an odd number of coordinates": segmented([[1.0, 2, 3, 4, 5, 6, 7]]),
    "NaN coordinates": segmented([[float("nan")] * 6]),
    "infinite coordinates": segmented([[float("inf"), 0, 5, 5, 0, 9]]),
    "coordinates of 1e6": segmented([[0, 0, 1e6, 0, 1e6, 1e6]]),
    "texts for coordinates": segmented([["a", "b", "c", "d", "e", "f"]]),
    "run lengths of another size": run_lengths((5, 5), [25]),
    "run lengths that are too short": run_lengths(None, [7]),
    "negative run lengths": run_lengths(None, [-5, 10]),
    "run lengths as a damaged text": run_lengths(None, "\x7f??"),
    "no iscrowd": lambda c: c["annotations"][0].__delitem__("iscrowd"),
    "a text for iscrowd": lambda c: c["annotations"][0].__setitem__("iscrowd", "no"),
    "no area": lambda c: c["annotations"][0].__delitem__("area"),
    "NaN for an area": lambda c: c["annotations"][0].__setitem__("area", float("nan")),
    "a text for an image's id": lambda c: c["images"][0].__setitem__("id", str(c["images"][0]["id"])),
    "a list for an image's id": lambda c: c["annotations"][0].__setitem__("image_id", [1]),
    "no size": lambda c: c["images"][0].__delitem__("height"),
    "a text for a size": lambda c: c["images"][0].__setitem__("height", "128"),
    "a fraction for a size": lambda c: c["images"][0].__setitem__("height", 128.5),
    "a negative size": lambda c: c["images"][0].__setitem__("width", -128),
    "another size": lambda c: c["images"][0].__setitem__("width", 100),
    "a huge size": lambda c: c["images"][0].update(width=10**9, height=10**9),
    "no file name": lambda c: c["images"][0].__delitem__("file_name"),
    "a number for a file name": lambda c: c["images"][0].__setitem__("file_name", 17),
    "a file name with ..": lambda c: c["images"][0].__setitem__("file_name", "../../../../../escaped.jpg"),
    "an absolute file name": lambda c: c["images"][0].__setitem__("file_name", "/tmp/escaped-absolute.jpg"),
    "an escape in a file name": lambda c: c["images"][0].__setitem__("file_name", "a\x1b[31mb.jpg"),
    "a newline in a file name": lambda c: c["images"][0].__setitem__("file_name", "a\nb 1.jpg"),
    "an empty file name": lambda c: c["images"][0].__setitem__("file_name", ""),
    "two images of one name": lambda c: c["images"][1].__setitem__("file_name", c["images"][0]["file_name"]),
}
# What every exporter but COCO's own leaves out, and what the format's definition allows.
MAY_WORK = (
    *("no iscrowd", "no area", "an empty segmentation", "a flat segmentation", "null for a segmentation"),
    *("coordinates of 1e6", "no segmentation", "two points", "a text for iscrowd", "a fraction for a size"),
    *("a text for a size", "a text for an image's id", "a list for an image's id", "NaN for an area"),
    "another size",
)


def zeroed(content: bytes) -> bytes:
    """A picture whose second half an interrupted copy left as zeros."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60 000 × 60 000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def first(folder: str, ending: str, split: str = "train") -> Callable[[Place], Path]:
    """The file of the first image of VOC's list."""

    def file(place: Place) -> Path:
        names = (Path(place.fill(VOC)) / "ImageSets" / "fsr" / f"{split}.txt").read_text().split("\n")
        return Path(place.fill(VOC)) / folder / f"{names[0].split(' ')[0]}{ending}"

    return file


def change(file: Callable[[Place], Path], how: Callable[[Path], object]) -> Callable[[Place], None]:
    """The set-up that changes a file, whose name the sentence has to hold."""

    def prepare(place: Place) -> None:
        path = file(place)
        place.paths["file"] = path
        how(path)

    return prepare


def change_annotations(how: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    """The set-up that changes COCO's annotations of the training images, whose masks are to be made anew."""

    def prepare(place: Place) -> None:
        root = Path(place.fill(COCO))
        (file,) = root.rglob("instances_train2014.json")
        content = json.loads(file.read_text())
        how(content)
        file.write_text(json.dumps(content))
        shutil.rmtree(root / "SegmentationClass" / "train2014", ignore_errors=True)

    return prepare


def nothing_escaped(place: Place, answer: Answer) -> Verdict:
    """No file was made outside the data set."""
    made = [path for path in place.folder.rglob("escaped*") if path.exists()]
    made += [path for path in Path("/tmp").glob("escaped-absolute*")]
    for path in made:
        path.unlink()
    return f"exposure: {made[0]} was made" if made else None


def escapes_not(check: Check) -> Check:
    """The check, and that nothing was made outside."""
    return lambda place, answer: nothing_escaped(place, answer) or check(place, answer)


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, prepare: Any, needs: str = "data", **more: Any) -> None:
        options = {"kind": KIND, "limit_s": 40} | more
        found.append(Situation(name=name, words=words, expects=expects, prepare=prepare, needs=[needs], **options))

    commands = {"prepare": PREPARE, "train": TRAIN, "infer": INFERENCE}
    list_file = f"{VOC}/ImageSets/fsr/{{split}}.txt"
    for command, words in commands.items():
        split = "val" if command == "infer" else "train"
        picture, mask = first("JPEGImages", ".jpg", split), first("SegmentationClass", ".png", "val")
        of_all = {"a folder", "a pipe", "a device", "empty", "zeros", "a dangling link"}
        for how, make in (DAMAGES | SOCKET | UNREADABLE).items():
            user = USER if how in UNREADABLE else None
            tells = either(refused("{file}"), refused("bad files"), refused("named above"))
            if how in of_all or how in SOCKET or how in UNREADABLE:
                add(f"{command}: a picture is {how}", words, tells, change(picture, make), user=user)
                add(f"{command}: a mask is {how}", words, tells, change(mask, make), user=user)
            if command != "prepare":
                name = list_file.replace("{split}", split)
                of_list = refused(f"{split}.txt")
                if how in ("torn", "null", "a number", "nested too deeply"):  # which is a list of other names
                    of_list = either(of_list, refused("JPEGImages"))
                add(f"{command}: the list is {how}", words, of_list, damage(name, make), user=user)
        for how, make in PICTURES.items():
            good = how in ("a picture of another size", "one pixel")
            may = [works()] if good and command == "train" else []
            may += [works()] if how == "one pixel" and command == "infer" else []
            may += [works()] if how in ("a GIF", "a TIFF") else []  # which hold the same pixels
            tells = either(refused("{file}"), refused("named above"), *may)
            if good:
                tells = either(tells, refused("mask"))  # whose size is another now
            add(f"{command}: a picture is {how}", words, tells, change(picture, make))
        for how, make in MASKS.items():
            may = [works()] if how == "one bit" else []
            tells = either(refused("{file}"), refused("named above"), *may)
            add(f"{command}: a mask is {how}", words, tells, change(mask, make))
    for command in ("train", "infer"):
        split = "val" if command == "infer" else "train"
        for how, text in LISTS.items():
            name = list_file.replace("{split}", split)
            tells = either(refused(f"{split}.txt"), refused("no_such_image"), *([works()] if how in READABLE else []))
            add(f"{command}: the list has {how}", commands[command], tells, write_list(name, text))
    for how, content in XML.items():
        xml = first("Annotations", ".xml")
        prepare = change(xml, lambda path, content=content: path.write_text(content))
        add(f"prepare: an XML is {how}", PREPARE, either(refused("{file}"), refused("named above")), prepare)
    for how, make in (DAMAGES | UNREADABLE).items():
        user = USER if how in UNREADABLE else None
        prepare = change(first("Annotations", ".xml"), make)
        tells = either(refused("{file}"), refused("named above"), *([works()] if "dangling" in how else []))
        add(f"prepare: an XML is {how}", PREPARE, tells, prepare, user=user)
        name = f"{VOC}/ImageSets/Segmentation/train.txt"
        tells = either(refused("train.txt"), refused("named above"))
        add(f"prepare: VOC's list is {how}", PREPARE, tells, damage(name, make), user=user)
    with_masks = [*PREPARE_COCO, "--write_masks"]
    for how, make in (DAMAGES | UNREADABLE).items():
        user = USER if how in UNREADABLE else None
        prepare = damage(f"{COCO}/annotations/instances_train2014.json", make)
        add(f"prepare coco: the annotations are {how}", with_masks, refused("instances"), prepare, "coco", user=user)
    for how, make in RECORDS.items():
        tells = either(refused("instances_train2014.json"), refused("named above"))
        tells = either(tells, works()) if how in MAY_WORK else tells
        prepare = change_annotations(make)
        limits = {"RLIMIT_AS": 12 << 30}
        name = f"prepare coco: the annotations have {how}"
        add(name, with_masks, escapes_not(tells), prepare, "coco", limits=limits)
    return found


def write_list(file: str, text: str) -> Callable[[Place], None]:
    """The set-up that writes a list, with the first of its names where {name} stands; with a mark, in UTF-16."""

    def prepare(place: Place) -> None:
        path = Path(place.fill(file))
        name = path.read_text().split()[0]
        path.write_text(text.replace("{name}", name), "utf-16-le" if text.startswith("\ufeff") else "utf-8")

    return prepare
