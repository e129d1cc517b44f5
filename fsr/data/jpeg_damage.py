"""Finds JPEGs that decode to wrong pixels: libjpeg warns of a damaged scan, and Pillow drops its warnings.

Torchvision decodes with the same library and lets it print them to standard error, of which each process has one: a
process that looks for damage has its own, which is no terminal.
"""

import os
import re
from pathlib import Path

from fsr.regular_file import read_regular

_BEGINNING = b"\xff\xd8"
_DAMAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*|Inconsistent progression.*)")
_stderr: int


def catch_warnings() -> None:
    """Give this process a standard error in memory, which `damage` reads."""
    global _stderr
    _stderr = os.memfd_create("libjpeg")
    os.dup2(_stderr, 2)


def damage(file: Path) -> str | None:
    """What libjpeg says of a picture's damage; None if it is sound, or no JPEG. After `catch_warnings`."""
    import torch
    from torchvision.io import decode_jpeg

    content = bytearray(read_regular(file))
    if not content.startswith(_BEGINNING):
        return None
    os.ftruncate(_stderr, 0)
    os.lseek(_stderr, 0, os.SEEK_SET)
    failure = ""
    try:
        decode_jpeg(torch.frombuffer(content, dtype=torch.uint8))
    except RuntimeError as error:  # markers that damage made; what torchvision lacks is none
        failure = str(error).strip().splitlines()[0].rpartition(": ")[2]
    said = os.pread(_stderr, 4096, 0).decode(errors="replace")
    found = _DAMAGE.search(said)
    return found[1].strip() if found else failure or None
