"""Finds JPEGs that decode to wrong pixels: libjpeg warns of a damaged scan, and Pillow drops its warnings.

Torchvision decodes with the same library and lets it print them to standard error, of which each process has one: a
process that looks for damage has its own, which is no terminal.
"""

import os
import re
from pathlib import Path

from fsr.regular_file import read_regular

_BEGINNING, _SCAN = b"\xff\xd8", b"\xda"
_DAMAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*|Inconsistent progression.*)")
_IN_HEADER = re.compile(r"extraneous bytes before marker 0x(e.|fe|db|c0|c2|dd)")
_WHERE = re.compile(r".*(: |\.cpp:\d+, )")  # in torchvision's source
_stderr: int


def catch_warnings() -> None:
    """Give this process a standard error in memory, which `damage` reads."""
    global _stderr
    _stderr = os.memfd_create("libjpeg")
    os.dup2(_stderr, 2)


def damage(file: Path) -> str | None:
    """What libjpeg says of a picture's damage; None if it is sound, or no JPEG. After `catch_warnings`."""
    content = bytearray(read_regular(file))
    if not content.startswith(_BEGINNING):
        return None
    said = _said_of(content)
    if said is not None and _IN_HEADER.search(said):  # harmless, but libjpeg tells the first flaw alone
        said = _said_of(_without_gaps(content))
    return said


def _said_of(content: bytearray) -> str | None:
    import torch
    from torchvision.io import decode_jpeg

    os.ftruncate(_stderr, 0)
    os.lseek(_stderr, 0, os.SEEK_SET)
    failure = ""
    try:
        decode_jpeg(torch.frombuffer(content, dtype=torch.uint8))
    except RuntimeError as error:  # markers that damage made; what torchvision lacks is none
        failure = _WHERE.sub("", str(error).strip().splitlines()[0])
    said = os.pread(_stderr, 4096, 0).decode(errors="replace")
    found = _DAMAGE.search(said)
    return found[1].strip() if found else failure or None


def _without_gaps(content: bytearray) -> bytearray:
    """The picture without what stands between the segments before its first scan, as some programs write it."""
    kept, place = bytearray(_BEGINNING), 2
    while (place := content.find(b"\xff", place)) >= 0 and content[place + 1 : place + 2] != _SCAN:
        if not content[place + 1 : place + 2].strip(b"\x00\xff"):  # no marker
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        kept += content[place:end]
        place = end
    return kept + content[place:] if place >= 0 else content
