"""Finds JPEGs that decode to wrong pixels: libjpeg warns of a damaged scan, and Pillow drops its warnings.

Torchvision decodes with the same library and lets it print them to standard error, of which each process has one: the
decoding processes have their own, which is no terminal.
"""

import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fsr.progress import with_progress
from fsr.regular_file import read_regular

_BEGINNING = b"\xff\xd8"
_DAMAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*)")
_IMAGES_AT_A_TIME = 8
_stderr: int


def damages(files: list[Path]) -> Iterator[str | None]:
    """What libjpeg says of each picture's damage, None of one that is sound or no JPEG. On all processors."""
    import torchvision.io  # noqa: F401  # seconds, once for all processes

    processes = min(len(os.sched_getaffinity(0)), 1 + len(files) // _IMAGES_AT_A_TIME)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _catch_warnings) as pool:
        try:
            answers = pool.map(_damage, files, chunksize=_IMAGES_AT_A_TIME)
            yield from with_progress(answers, len(files), "looking for damage")
        finally:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C waits for all that is queued


def _catch_warnings() -> None:
    global _stderr
    _stderr = os.memfd_create("libjpeg")
    os.dup2(_stderr, 2)


def _damage(file: Path) -> str | None:
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
