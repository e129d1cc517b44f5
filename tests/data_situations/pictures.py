"""Rows 5, 10, 11 and 13: forms of pictures and XML, damage, small pictures, truth that is all ignored."""

import io
import json
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from data_situations.place import Answer, Place, Situation, tried
from fsr.data.images import read_image
from fsr.data.palette import palette_png
from fsr.data.scenes import draw_scene

PIXELS = draw_scene(3, 0).pixels
RGB = Image.fromarray(PIXELS)
GREY = RGB.convert("L")


def saved(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of a picture."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, colour: int, content: bytes, *chunks: bytes) -> bytes:
    """A PNG by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    more = b"".join(chunk(body[:4], body[4:]) for body in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def opaque(mode: str, alpha: int = 255) -> Image.Image:
    """A picture with one pixel of this alpha."""
    picture = RGB.convert(mode)
    picture.putalpha(Image.fromarray(np.where(np.arange(128 * 128) == 99, alpha, 255).astype("u1").reshape(128, 128)))
    return picture


def turned() -> bytes:
    """EXIF says that it is to be shown turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(RGB, exif=exif, quality=95)


GREY16 = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
READ = {
    "JPEG": saved(RGB, quality=95),
    "progressive JPEG": saved(RGB, quality=95, progressive=True),
    "JPEG of CMYK": saved(RGB.convert("CMYK"), quality=95),
    "JPEG with an orientation in its EXIF": turned(),
    "JPEG with a colour profile": saved(RGB, quality=95, icc_profile=bytes(3000)),
    "JPEG with a comment": saved(RGB, quality=95, comment=b"\xff\xd9" * 20),
    "JPEG of two pictures": saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)], quality=95),
    "PNG named .jpg": saved(RGB, "PNG"),
    "PNG of a palette named .jpg": saved(RGB.quantize(256), "PNG"),
    "PNG of opaque alpha": saved(opaque("RGBA"), "PNG"),
}
READ_GREY = {
    "grey JPEG": saved(GREY, quality=95),
    "grey PNG": saved(GREY, "PNG"),
    "PNG of grey and opaque alpha": saved(opaque("LA"), "PNG"),
}
REFUSED = {
    "16-bit grey": (saved(GREY16, "PNG"), "it has 16 bits a channel; save it with 8"),
    "16-bit colours": (png(1, 1, 16, 2, bytes(7)), "it has 16 bits a channel"),
    "16-bit colours and alpha": (png(1, 1, 16, 6, bytes(9)), "it has 16 bits a channel"),
    "16-bit TIFF": (saved(GREY16, "TIFF"), "it is of format TIFF; allowed: JPEG, PNG"),
    "float TIFF": (saved(Image.fromarray(np.asarray(GREY) / np.float32(255)), "TIFF"), "it is of format TIFF"),
    "transparency": (saved(opaque("RGBA", 0), "PNG"), "it has transparent pixels"),
    "half a transparent pixel": (saved(opaque("LA", 254), "PNG"), "it has transparent pixels"),
    "a transparent colour of a palette": (saved(RGB.quantize(8), "PNG", transparency=0), "it has transparent pixels"),
    "a transparent colour": (png(1, 1, 8, 2, bytes(4), b"tRNS" + bytes(6)), "it has transparent pixels"),
    "an animated PNG": (
        saved(RGB, "PNG", save_all=True, append_images=[GREY.convert("RGB")]),
        "an animation of 2 frames",
    ),
    "WebP": (saved(RGB, "WEBP"), "it is of format WEBP"),
    "BMP": (saved(RGB, "BMP"), "it is of format BMP"),
    "GIF": (saved(RGB.quantize(9), "GIF"), "it is of format GIF"),
    "JPEG 2000": (saved(RGB, "JPEG2000"), "it is of format JPEG2000"),
    "AVIF": (saved(RGB, "AVIF"), "it is of format AVIF"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "not a picture"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "not a picture"),
    "a page of a portal": (b"<!DOCTYPE html><html></html>", "not a picture"),
    "gzip around it": (b"\x1f\x8b\x08\0" + saved(RGB), "not a picture"),
    "nothing": (b"", "not a picture"),
    "zeros": (bytes(9000), "not a picture"),
}


def picture_of(content: bytes) -> Callable[[Place], Answer]:
    """What reading a picture answers."""

    def ask(place: Place) -> Answer:
        (place.folder / "x.jpg").write_bytes(content)
        return tried(lambda: f"{read_image(place.folder / 'x.jpg').mode} as it is")

    return ask


def as_it_is(wanted: Image.Image) -> Callable[[Place], None]:
    """The pixels are the right ones."""

    def check(place: Place) -> None:
        found = np.asarray(read_image(place.folder / "x.jpg")).astype(int)
        assert np.abs(found - np.asarray(wanted.convert("RGB"))).mean() < 12

    return check


# --- VOC's XML

START = "<annotation><folder>VOC2012</folder>"
THING = "<object><name>{}</name><difficult>1</difficult></object>"


def xml_of(content: bytes | str) -> Callable[[Place], Answer]:
    """`prepare` with another XML of the first training image, whose mask is not looked at."""

    def ask(place: Place) -> Answer:
        name = place.listed("train")[0]
        place.write_listed("train_aug", place.listed("train"))
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (place.root / folder / f"{name}.png").unlink()
        file = place.root / f"Annotations/{name}.xml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        answer = place.prepare()
        if answer.code == 0:
            label = place.voc_source().items("train")[0].classes
            return Answer(0, f"{answer.text}classes {label}")
        return answer

    return ask


BIRD = f"{START}{THING.format('bird')}</annotation>"
XML = {
    "plain": BIRD,
    "with a namespace": BIRD.replace("<annotation>", '<annotation xmlns="http://host.robots.ox.ac.uk/pascal/VOC">'),
    "with a prefix": f"<v:annotation xmlns:v='x'>{THING.format('bird').replace('<', '<v:').replace('<v:/', '</v:')}"
    "</v:annotation>",
    "of latin-1": ('<?xml version="1.0" encoding="ISO-8859-1"?>' + BIRD.replace("VOC2012", "é")).encode("latin-1"),
    "of UTF-16": ('<?xml version="1.0" encoding="UTF-16"?>' + BIRD).encode("utf-16"),
    "of UTF-8 with a mark": BIRD.encode("utf-8-sig"),
    "with spaces around the name": BIRD.replace("bird", "\n  bird\n"),
    "with ends of Windows": BIRD.replace("><", ">\r\n<"),
    "with a part of its own": BIRD.replace("</object>", "<part><name>head</name></part></object>"),
    "with a comment": BIRD.replace("<object>", "<!-- <object><name>cat</name></object> --><object>"),
    "with the object twice": BIRD.replace("</annotation>", THING.format("bird") + "</annotation>"),
}
NOT_XML = {
    "latin-1 without saying so": (BIRD.replace("VOC2012", "é").encode("latin-1"), "cannot be read"),
    "another class": (BIRD.replace("bird", "unicorn"), "has an object of class 'unicorn'"),
    "in capitals": (BIRD.replace("bird", "Bird"), "has an object of class 'Bird'"),
    "no name": (BIRD.replace("<name>bird</name>", ""), "has an object of class ''"),
    "cut": (BIRD[:60], "cannot be read"),
    "of YOLO": ("0 0.5 0.5 0.1 0.1\n", "cannot be read"),
    "of COCO": ('{"images": []}', "cannot be read"),
    "another root": (BIRD.replace("annotation", "annotations"), "must be of one `annotation`, got 'annotations'"),
    "with entities": ('<!DOCTYPE a [<!ENTITY a "bird">]>' + BIRD.replace("bird", "&a;"), "it defines entities"),
    "of an unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + BIRD, "cannot be read"),
    "empty": ("", "cannot be read"),
}

# --- damage


def damaged(how: Callable[[bytes], bytes], form: dict[str, object], *flags: str) -> Callable[[Place], Answer]:
    """`prepare` with a damaged first training picture of some form."""

    def ask(place: Place) -> Answer:
        file = place.root / f"JPEGImages/{place.listed('train')[0]}.jpg"
        big = Image.fromarray(PIXELS).resize((128, 128)).convert(str(form.get("mode", "RGB")))
        options = {name: value for name, value in form.items() if name != "mode"}
        file.write_bytes(how(saved(big, quality=90, **options)))
        return place.prepare(*flags)

    return ask


def middle(content: bytes) -> int:
    """Halfway through the first scan and what follows."""
    return (content.index(b"\xff\xda") + len(content)) // 2


GARBAGE = np.random.default_rng(5).bytes(300)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut and closed by FFD9": lambda content: content[: middle(content)] + b"\xff\xd9",
    "cut": lambda content: content[: middle(content)],
    "zeros to the end, FFD9": lambda content: content[: middle(content)] + bytes(len(content) // 2) + b"\xff\xd9",
    "zeros to the end": lambda content: content[: middle(content)] + bytes(len(content) - middle(content)),
    "garbage in the scan": lambda content: content[: middle(content)] + GARBAGE + content[middle(content) + 300 :],
    "300 bytes gone": lambda content: content[: middle(content)] + content[middle(content) + 300 :],
    "a page appended halfway": lambda content: content[: middle(content)] + b"<html>502 Bad Gateway</html>" * 30,
    "FFD9 in the middle": lambda content: content[: middle(content)] + b"\xff\xd9" + content[middle(content) :],
}
FORMS: dict[str, dict[str, object]] = {
    "baseline": {"subsampling": 2},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "grey": {"mode": "L"},
}
NAMED = "1 bad files in"


def trained_without(place: Place) -> Answer:
    """`prepare --skip_bad`, then training, which says what its lists leave out."""
    answer = damaged(DAMAGES["garbage in the scan"], {}, "--skip_bad")(place)
    assert "train: 1 images are left out: 2012_000000" in answer
    return place.train()


def inferred_without(place: Place) -> Answer:
    """The same of val and inference."""
    file = place.root / f"JPEGImages/{place.listed('val')[0]}.jpg"
    file.write_bytes(DAMAGES["garbage in the scan"](file.read_bytes()))
    assert place.prepare("--skip_bad").code == 0
    return place.infer()


def trained_with_bad_file(place: Place) -> Answer:
    """A file that became bad after `prepare`."""
    place.prepare()
    (place.root / f"JPEGImages/{place.listed('train')[3]}.jpg").write_bytes(b"<html>")
    return place.train()


def all_bad(place: Place) -> Answer:
    """Nothing is left of val."""
    for name in place.listed("val"):
        (place.root / f"JPEGImages/{name}.jpg").write_bytes(b"<html>")
    return place.prepare("--skip_bad")


def mended(place: Place) -> Answer:
    """After a mended picture nothing is left out any more, and nothing says so."""
    file = place.root / f"JPEGImages/{place.listed('train')[0]}.jpg"
    sound = file.read_bytes()
    file.write_bytes(DAMAGES["garbage in the scan"](sound))
    assert place.prepare("--skip_bad").code == 0
    file.write_bytes(sound)
    assert place.prepare().code == 0
    answer = place.train()
    assert "left out" not in answer
    return answer


# --- small pictures


def of_size(width: int, height: int, command: str) -> Callable[[Place], Answer]:
    """All pictures of val, and some of train, of this size."""

    def ask(place: Place) -> Answer:
        place.write_listed("train_aug", place.listed("train"))
        for name in (*place.listed("val"), *place.listed("train")[:4]):
            Image.new("RGB", (width, height), (9, 99, 200)).save(place.root / f"JPEGImages/{name}.jpg")
            for folder in ("SegmentationClass", "SegmentationClassAug"):
                (place.root / folder / f"{name}.png").write_bytes(palette_png(np.full((height, width), 1, np.uint8)))
            content = "<annotation><object><name>aeroplane</name></object></annotation>"
            (place.root / f"Annotations/{name}.xml").write_text(content)
        answer = place.prepare()
        assert answer.code == 0 and "have a side below 16 pixels" in answer
        return answer if command == "prepare" else getattr(place, command)()

    return ask


# --- all truth ignored


def all_ignored(command: str) -> Callable[[Place], Answer]:
    """All masks of val are 255, in a set whose lists are older."""

    def ask(place: Place) -> Answer:
        place.prepare()
        for name in place.listed("val"):
            for folder in ("SegmentationClass", "SegmentationClassAug"):
                (place.root / folder / f"{name}.png").write_bytes(palette_png(np.full((128, 128), 255, np.uint8)))
        return getattr(place, command)()

    return ask


def null_in_result(place: Place) -> None:
    """What cannot be measured is null, and no NaN."""

    def refuse(value: str) -> None:
        raise AssertionError(value)

    result = json.loads((place.folder / "run/result.json").read_text(), parse_constant=refuse)
    assert result["best/seg_miou"] is None


SITUATIONS = [
    *(
        Situation(5, name, picture_of(content), "RGB as it is", check=as_it_is(RGB), slow=False)
        for name, content in READ.items()
    ),
    *(
        Situation(5, name, picture_of(content), "RGB as it is", check=as_it_is(GREY), slow=False)
        for name, content in READ_GREY.items()
    ),
    *(Situation(5, name, picture_of(content), wanted, True, slow=False) for name, (content, wanted) in REFUSED.items()),
    *(Situation(5, f"an XML {name}", xml_of(content), "classes (3,)") for name, content in XML.items()),
    *(Situation(5, f"an XML {name}", xml_of(content), wanted, True) for name, (content, wanted) in NOT_XML.items()),
    *(
        Situation(10, f"{name}, {form}", damaged(how, FORMS[form]), NAMED, True)
        for name, how in DAMAGES.items()
        for form in FORMS
    ),
    Situation(
        10, "left out of training", trained_without, "train: 1 image is left out because of bad files: 2012_000000"
    ),
    Situation(
        10, "left out of inference", inferred_without, "val: 1 image is left out because of bad files: 2012_000024"
    ),
    Situation(10, "bad after prepare", trained_with_bad_file, "--skip_bad` makes lists without bad files", True),
    Situation(10, "bad after prepare, inference", lambda place: trained_with_bad_file(place) and place.infer(), ""),
    Situation(10, "all of val are bad", all_bad, "no image of val is left in", True),
    Situation(10, "mended", mended, "finished: "),
    *(
        Situation(11, f"{width} x {height}, {command}", of_size(width, height, command), "")
        for width, height in ((1, 1), (15, 15), (2, 300), (1000, 3))
        for command in ("prepare", "train", "infer")
    ),
    Situation(13, "an evaluation", all_ignored("train"), "finished: segmentation mIoU", check=null_in_result),
    Situation(13, "an inference", all_ignored("infer"), ""),
    Situation(13, "prepare", lambda place: all_ignored("prepare")(place), "contradict the annotations", True),
]
