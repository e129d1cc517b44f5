"""TensorBoard's events of one attempt on a run: one curve of all attempts, whatever the clocks of their nodes say."""

import io
import os
import re
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import image

from fsr.files import HOST, naming, open_file

NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..*")
VERSION = "brain.Event:2"


class EventFile:
    """A new events file beside those of earlier attempts.

    TensorBoard reads the files of a folder in the order of their names, each of which begins with a time, and drops the
    points behind an attempt's first step that it has read before. So this file's name sorts behind all others, and no
    event of it is older than theirs, also where this node's clock is behind that of an earlier node.

    Not torch's SummaryWriter, whose thread would keep a full disk to itself, and whose files have the umask's mode.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Start an attempt whose first step is `first_step`."""
        before = {int(found[1]): file for file in folder.iterdir() if (found := NAME.fullmatch(file.name))}
        self._latest = max((last_time(file) for file in before.values()), default=0.0)
        self._behind_s = max(0.0, self._latest - time.time())
        number = max(int(time.time()), *(last + 1 for last in before)) if before else int(time.time())
        self.path = folder / f"events.out.tfevents.{number:010d}.{HOST}.{os.getpid()}.0"
        self._file = open_file(self.path, "xb", buffering=0)
        self._write(Event(file_version=VERSION))
        self._write(Event(step=first_step, file_version=VERSION))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add a point to each of these curves."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))

    def image(self, name: str, picture: Tensor, step: int) -> None:
        """Add a picture [3, H, W] with values in [0, 1]."""
        summary = image(name, picture, dataformats="CHW")  # type: ignore[no-untyped-call]  # torch
        self._write(Event(step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._latest = event.wall_time = max(self._latest, time.time() + self._behind_s)
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        with naming(self.path):
            left = memoryview(record.getvalue())
            while left:
                left = left[self._file.write(left) :]


def last_time(file: Path) -> float:
    """Time of the last whole event in a file (Unix seconds); 0 if it has none."""
    last = None
    for last in RawEventFileLoader(str(file)).Load():  # noqa: B007, only the last one counts
        pass
    return 0.0 if last is None else float(Event.FromString(last).wall_time)
