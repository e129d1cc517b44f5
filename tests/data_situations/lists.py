"""Row 7: lists as people write them."""

from collections.abc import Callable

from data_situations.place import LISTS, Answer, Place, Situation, tried
from fsr.data.lists import read_list
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_names

NAMES = ["2012_000000", "2012_000001", "2012_000002"]


def lines(*words: str, end: str = "\n") -> str:
    """A list of these lines."""
    return "".join(f"{word}{end}" for word in words)


PAIRS = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in NAMES]
PLAIN = lines(*NAMES)
READ_LISTS = {
    "as VOC's": PLAIN.encode(),
    "with suffixes": lines(*(f"{name}.jpg" for name in NAMES)).encode(),
    "with suffixes in upper case": lines(*(f"{name}.JPG" for name in NAMES)).encode(),
    "pairs of image and mask": lines(*PAIRS).encode(),
    "pairs without the first slash": lines(*(pair.replace(" /", " ")[1:] for pair in PAIRS)).encode(),
    "pairs with a tab between": lines(*(pair.replace(" /", "\t/") for pair in PAIRS)).encode(),
    "paths from the data folder on": lines(*(f"VOC2012/JPEGImages/{name}.jpg" for name in NAMES)).encode(),
    "absolute paths": lines(*(f"/home/me/VOCdevkit/VOC2012/JPEGImages/{name}.jpg" for name in NAMES)).encode(),
    "paths of Windows": lines(*(f"D:\\VOC2012\\JPEGImages\\{name}.jpg" for name in NAMES)).encode(),
    "./JPEGImages": lines(*(f"./JPEGImages/{name}.jpg" for name in NAMES)).encode(),
    "./ before names": lines(*(f"./{name}" for name in NAMES)).encode(),
    "UTF-16, as PowerShell writes it": PLAIN.encode("utf-16"),
    "UTF-16 with its higher byte first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-8 with a mark": PLAIN.encode("utf-8-sig"),
    "ends of Windows": lines(*NAMES, end="\r\n").encode(),
    "ends of old Macs": lines(*NAMES, end="\r").encode(),
    "no end of the last line": PLAIN.rstrip().encode(),
    "blank lines": lines("", NAMES[0], "", "  ", *NAMES[1:], "", "").encode(),
    "spaces at the ends": lines(*(f"  {name} \t " for name in NAMES)).encode(),
    "Control-Z, the end of a file in DOS": PLAIN.encode() + b"\x1a",
    "names in quotes": lines(*(f'"{name}"' for name in NAMES)).encode(),
    "commas behind names": lines(*(f"{name}," for name in NAMES)).encode(),
    "a class's list of VOC, all of it": lines(*(f"{name}  1" for name in NAMES)).encode(),
}
REFUSED_LISTS = {
    "latin-1": ("café\n".encode("latin-1"), "line 1 of list"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), "line 1 of list"),
    "UTF-32": (PLAIN.encode("utf-32"), "of list"),
    "an image twice": (lines(*NAMES, NAMES[1]).encode(), "line 4 of list"),
    "an image twice, with and without suffix": (lines(*NAMES, f"{NAMES[0]}.jpg").encode(), "which is in line 1"),
    "a pair whose mask is another's": (
        lines(f"/JPEGImages/{NAMES[0]}.jpg /SegmentationClassAug/{NAMES[1]}.png").encode(),
        "with the mask of",
    ),
    "a path out of the set": (b"../../etc/passwd\n", "line 1 of list"),
    "zeros": (bytes(99), "line 1 of list"),
    "nothing": (b"", "is empty"),
    "blank lines alone": (b"\n\n", "is empty"),
    "a class's list of VOC, with -1": (lines(f"{NAMES[0]} -1").encode(), "line 1 of list"),
    "a page of a portal": (b"<html><body>404</body></html>\n", "line 1 of list"),
    "CSV": (b"2012_000000,1\n2012_000001,0\n", "line 1 of list"),
    "JSON": (b'["2012_000000"]\n', "line 1 of list"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1 of list"),
    "a huge line": (b"a" * 5000 + b"\n", "line 1 of list"),
}


def vocs_list(content: bytes) -> Callable[[Place], Answer]:
    """The names that VOC's train.txt gives."""

    def ask(place: Place) -> Answer:
        root = place.folder / "VOC2012"
        (root / "JPEGImages").mkdir(parents=True)
        (root / LISTS).mkdir(parents=True)
        (root / LISTS / "train.txt").write_bytes(content)
        (root / LISTS / "val.txt").write_text("2012_000009\n")
        return tried(lambda: ", ".join(voc_names(VocSource(place.folder))["train"]))

    return ask


def prepared_list(content: bytes) -> Callable[[Place], Answer]:
    """The images of a prepared list."""

    def ask(place: Place) -> Answer:
        file = place.folder / "train.txt"
        file.write_bytes(content)
        return tried(lambda: ", ".join(f"{item.name} {item.classes}" for item in read_list(file, 21, "prepare")))

    return ask


def prepared_twice(command: str) -> Callable[[Place], Answer]:
    """A prepared list of val with an image twice."""

    def ask(place: Place) -> Answer:
        place.prepare()
        file = place.root / "ImageSets/fsr/val.txt"
        file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
        return getattr(place, command)()

    return ask


SITUATIONS = [
    *(
        Situation(7, f"VOC's list: {name}", vocs_list(READ_LISTS[name]), ", ".join(NAMES), slow=False)
        for name in list(READ_LISTS)[:-1]
        if name
        not in ("Control-Z, the end of a file in DOS", "names in quotes", "commas behind names", "paths of Windows")
    ),
    *(
        Situation(7, f"VOC's list: {name}", vocs_list(READ_LISTS[name]), "line ", True, slow=False)
        for name in (
            "Control-Z, the end of a file in DOS",
            "names in quotes",
            "commas behind names",
            "a class's list of VOC, all of it",
            "paths of Windows",
        )
    ),
    *(
        Situation(7, f"VOC's list: {name}", vocs_list(content), wanted, True, slow=False)
        for name, (content, wanted) in REFUSED_LISTS.items()
    ),
    *(
        Situation(7, f"prepared list: {name}", prepared_list(content), wanted, True, slow=False)
        for name, content, wanted in (
            ("class 0", b"a 0\n", "has class 0"),
            ("class 21", b"a 1\nb 21\n", "line 2 of list"),
            ("classes in words", b"a cat\n", "must read `NAME` or `NAME 1,15`"),
            ("-1", b"a -1\n", "line 1 of list"),
            ("three words", b"a 1 2\n", "line 1 of list"),
            ("an image twice", b"a 1\nb 2\na 1\n", "line 3 of list"),
        )
    ),
    Situation(
        7,
        "prepared list: Windows ends and a mark",
        prepared_list(b"\xef\xbb\xbfa 1,2\r\n\r\nb 3\r\n"),
        "a (1, 2)",
        slow=False,
    ),
    Situation(7, "an image twice in evaluation", prepared_twice("train"), "again, which is in line 1", True),
    Situation(7, "an image twice in inference", prepared_twice("infer"), "again, which is in line 1", True),
]
