"""Places that cannot be written: said in one sentence that names the place, and nothing of others is touched."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from situations.situation import Check, Place, Situation, either, refused, works
from situations.stock import SEARCH
from situations.words import (
    EXPORT,
    FIGURES,
    GALLERY,
    INFERENCE,
    LAUNCHED_INFER,
    LAUNCHED_TRAIN,
    LOAD,
    PREPARE,
    SYNTHETIC,
    TRAIN,
)

KIND = "place that cannot be written"
USER = 4001


def mount(place: Place, options: str) -> Path:
    """A file system of memory in the situation's folder."""
    folder = place["here"] / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    place.notes.setdefault("mounted", []).append(folder)
    return folder


def full(place: Place) -> None:
    """A disk without space."""
    folder = mount(place, "size=64k")
    (folder / "filler").write_bytes(bytes(48 << 10))
    place.paths["target"] = folder / "new"
    try:
        while True:
            with open(folder / "filler", "ab") as file:
                file.write(bytes(4096))
    except OSError:
        pass


def nearly_full(place: Place) -> None:
    """A disk with a few kilobytes."""
    place.paths["target"] = mount(place, "size=40k") / "new"


def read_only(place: Place) -> None:
    """A file system that is mounted read-only."""
    folder = mount(place, "size=1m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    place.paths["target"] = folder / "new"


def no_inodes(place: Place) -> None:
    """A file system without room for another file."""
    place.paths["target"] = mount(place, "size=1m,nr_inodes=1") / "new"


def a_file(place: Place) -> None:
    """A file in its place."""
    place.paths["target"] = place["here"] / "file"
    place["target"].write_text("mine")


def below_a_file(place: Place) -> None:
    """A file in the place of its parent."""
    (place["here"] / "file").write_text("mine")
    place.paths["target"] = place["here"] / "file" / "new"


def of_root(place: Place) -> None:
    """A folder of others."""
    folder = place["here"] / "of root"
    folder.mkdir(mode=0o755)
    place.notes["of root"] = [str(folder)]
    place.paths["target"] = folder / "new"


def closed(place: Place) -> None:
    """A folder that the user may not even enter."""
    of_root(place)
    (place["here"] / "of root").chmod(0o700)


def too_long(place: Place) -> None:
    """A name that no file system takes."""
    place.paths["target"] = place["here"] / ("n" * 300)


def path_too_long(place: Place) -> None:
    """A path longer than the system takes."""
    place.paths["target"] = place["here"].joinpath(*["d" * 200] * 25)


def loop(place: Place) -> None:
    """A link to itself."""
    place.paths["target"] = place["here"] / "loop"
    place["target"].symlink_to("loop")


def dangling(place: Place) -> None:
    """A link to nothing."""
    place.paths["target"] = place["here"] / "link"
    place["target"].symlink_to("nowhere/at/all")


def in_proc(place: Place) -> None:
    """A folder of the kernel's."""
    place.paths["target"] = Path("/proc/fsr-new")


def null(place: Place) -> None:
    """A device."""
    place.paths["target"] = Path("/dev/null")


def pipe(place: Place) -> None:
    """A pipe."""
    place.paths["target"] = place["here"] / "pipe"
    os.mkfifo(place["target"])


PLACES: dict[str, Callable[[Place], None]] = {
    "a file": a_file,
    "below a file": below_a_file,
    "on a full disk": full,
    "on a disk with 40 kB": nearly_full,
    "on a read-only disk": read_only,
    "on a disk without inodes": no_inodes,
    "in a folder of root's": of_root,
    "in a closed folder": closed,
    "a name too long": too_long,
    "a path too long": path_too_long,
    "a link to itself": loop,
    "a dangling link": dangling,
    "in /proc": in_proc,
    "/dev/null": null,
    "a pipe": pipe,
}
NEW_SWEEP = ("{checkout}/launch/sweep.py", *SEARCH, "--trials", "1", "--runs", "{target}", "--data_folder", "{data}")


def to(words: tuple[str, ...]) -> list[str]:
    """The command with the place where it would write."""
    return [word.replace("{out}", "{target}").replace("{here}/", "{target}/") for word in words]


COMMANDS: dict[str, list[str]] = {
    "train": to(TRAIN),
    "infer": to(INFERENCE),
    "export": to(EXPORT),
    "synthetic": to(SYNTHETIC),
    "prepare": [*PREPARE, "--list_folder", "{target}"],
    "sweep": list(NEW_SWEEP),
    "launch train": to(LAUNCHED_TRAIN),
    "launch infer": to(LAUNCHED_INFER),
    "load": to(LOAD),
    "figures": to(FIGURES),
    "gallery": to(GALLERY),
}


def situations() -> list[Situation]:
    """Every command with every place."""
    found = []
    for command, words in COMMANDS.items():
        for where, make in PLACES.items():
            user = USER if "folder" in where else None
            check: Check = refused("{target}")
            if "disk" in where or "folder" in where:
                check = either(check, refused("{here}"))
            if where == "on a disk with 40 kB" or "dangling" in where:
                check = either(check, works())
            # A process that is there already does not see what is mounted now.
            options: dict[str, Any] = {"user": user, "alone": "disk" in where}
            if command == "launch train" and "disk" in where:  # a worker waits for space, until it is told to end
                options["interrupt_s"] = 30
                check = either(check, works(codes=(0, 130)))
            name = f"{command} writes to {where}"
            found.append(Situation(name=name, kind=KIND, words=words, prepare=make, expects=check, **options))
    return found
