"""The pictures that a run drew of validation images, read back from its TensorBoard events."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event

from fsr.data.images import open_picture
from fsr.regular_file import open_regular
from fsr.run import Run

PREFIX = "validation/"
LENGTH = struct.Struct("<QI")  # before each record: its length, and that number's checksum; its own is behind it


def last_pictures(run: Run, most: int = 3) -> dict[str, Image.Image]:
    """By image, what the run drew of it at its last evaluation, of `most` images; empty if it drew nothing.

    Only the events of that evaluation are read: a long run has gigabytes of earlier ones.
    """
    found: dict[str, bytes] = {}
    step = None
    files = sorted(run.folder.glob("events.out.tfevents.*"), reverse=True)
    for event in (event for file in files for event in _events_backwards(file)):
        for value in event.summary.value:
            # Images have this field in the files of earlier versions and a tensor in none of ours.
            if value.tag.startswith(PREFIX) and value.image.encoded_image_string:
                step = event.step if step is None else step
                if event.step == step:
                    found[value.tag.removeprefix(PREFIX)] = value.image.encoded_image_string
        if step is not None and event.step != step:
            break
    return {name: open_picture(io.BytesIO(found[name]), "image") for name in sorted(found)[:most]}


def _events_backwards(file: Path) -> Iterator[Event]:
    """The events of a file, last first. An unfinished or damaged end is left out."""
    places: list[tuple[int, int]] = []
    with open_regular(file) as stream:
        size = file.stat().st_size
        while len(head := stream.read(LENGTH.size)) == LENGTH.size:
            length, _ = LENGTH.unpack(head)
            start = stream.tell()
            if start + length + 4 > size:
                break
            places.append((start, length))
            stream.seek(start + length + 4)
        for start, length in reversed(places):
            stream.seek(start)
            yield Event.FromString(stream.read(length))
