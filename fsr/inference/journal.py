"""The folder of an inference: every path in it, and the journals of the images that are done."""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from fsr.errors import UnreadableError, UserError, unreadable
from fsr.files import look_again, naming, open_file, remove_abandoned, write_json
from fsr.inference.config import InferConfig
from fsr.inference.image_record import ImageRecord, line_of, record_of
from fsr.json_file import DamagedError, read_json
from fsr.lock import FileLock
from fsr.regular_file import open_regular, reread_if_replaced
from fsr.run import missing_checkpoint, provenance
from fsr.system_errors import no_locks

# Folders of an image's files.
KINDS = (
    *("segmentation", "crf", "single_scale", "gated", "pseudo_labels"),
    *("cam_maps", "overlays", "cam", "logits"),
)
_LONGEST_LINE = 1 << 24
# What a setting was before there was a choice.
_FIELDS = (field for field in dataclasses.fields(InferConfig) if field.default is not MISSING)
_DEFAULTS: dict[str, Any] = json.loads(json.dumps({field.name: field.default for field in _FIELDS}))


class Settings(TypedDict):
    """What settings.json says: which settings the results depend on, and where they were first made."""

    settings: dict[str, Any]
    provenance: dict[str, Any]


class Scored(TypedDict):
    """What scores.json says of the images."""

    images: int
    skipped: dict[str, str]
    """Name and reason."""


class Results:
    """The files of an inference. An image is done once its record is in the journal, written after all its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.settings_file = self.folder / "settings.json"
        self.journal_folder = self.folder / "images"
        self.scores_file = self.folder / "scores.json"
        self.table_file = self.folder / "scores.csv"
        self.cam_quality_file = self.folder / "cam_quality.json"
        self.errors_file = self.folder / "errors.json"
        self.confusion_file = self.folder / "confusion.csv"
        self.pictures_file = self.folder / "pictures.json"
        self.report_file = self.folder / "report.html"  # with another's results beside it: comparison_file
        self.archive_file = self.folder / "VOC2012_comp6_test_cls.tar.gz"

    def comparison_file(self, other: Path) -> Path:
        """The report of these results beside those in another folder."""
        return self.folder / f"compare_{other.parent.name}_{other.name}.html"

    def label_file(self, kind: str, name: str) -> Path:
        """Labels of an image: a palette PNG whose values are the classes. `kind` is segmentation, crf, …"""
        return self.folder / kind / f"{name}.png"

    def cam_maps_file(self, name: str) -> Path:
        """The CAMs of an image, small, for reports."""
        return self.folder / "cam_maps" / f"{name}.png"

    def overlay_file(self, name: str) -> Path:
        """The image overlaid with the colours of its labels."""
        return self.folder / "overlays" / f"{name}.jpg"

    def cam_file(self, name: str, class_name: str) -> Path:
        """The image overlaid with the heat map of a class."""
        return self.folder / "cam" / f"{name}_{class_name.replace(' ', '_')}.jpg"

    def logits_file(self, first: str) -> Path:
        """Logits of some images, the first of which is `first`."""
        return self.folder / "logits" / f"{first}.npz"

    def check(self, settings: dict[str, Any]) -> None:
        """Raises UserError if the folder holds results of other settings, or of unknown ones."""
        if not self.settings_file.exists():
            if any(file.stat().st_size for file in self.journals()):
                raise UserError(
                    f"{self.folder} holds results, but no {self.settings_file.name} that says of which settings; "
                    "choose another --output_folder"
                )
            return
        before, now = self.made()["settings"], json.loads(json.dumps(settings))
        changed = [name for name in now if before.get(name, _DEFAULTS.get(name)) != now[name]]
        if changed:
            name = changed[0]
            raise UserError(
                f"{self.folder} holds results with {name} {before.get(name, _DEFAULTS.get(name))}, not {now[name]}; "
                "choose another --output_folder or the same settings"
            )

    def start(self, settings: dict[str, Any]) -> None:
        """Let the folder, which is made if it is not there, hold results of these settings.

        Raises UserError as `check`: another process may have started with other settings meanwhile.
        """
        if not self.settings_file.exists():
            with FileLock(self.folder / ".settings.lock"):
                if not self.settings_file.exists():
                    write_json(self.settings_file, {"settings": settings, "provenance": provenance()})
        self.check(settings)

    def scored(self, images: int) -> bool:
        """Whether the scores of so many images are written, none of which was skipped."""
        try:
            told = read_json(self.scores_file, Scored, newer=True)
        except (FileNotFoundError, DamagedError):  # what is damaged is written anew
            return False
        return told["images"] == images and not told["skipped"]

    def made(self) -> Settings:
        """How the results were made. Raises DamagedError."""
        return read_json(self.settings_file, Settings)

    def journals(self) -> list[Path]:
        """The journal files of all shards that somebody has worked on."""
        return sorted(self.journal_folder.glob("*.jsonl"))

    def records(self) -> Iterator[ImageRecord]:
        """The journals' records, one for each image; those of images that were skipped and never done come last.

        Leaves out an unfinished last line, and damaged ones.
        """
        seen: set[str] = set()
        skipped: dict[str, ImageRecord] = {}
        for file in self.journals():
            for record in JournalReader(file).new_records():
                if "skipped" in record:
                    skipped[record["name"]] = record
                elif record["name"] not in seen:
                    seen.add(record["name"])
                    yield record
        yield from (record for name, record in skipped.items() if name not in seen)

    def remove_unfinished(self) -> None:
        """Remove what killed processes had not finished writing."""
        for kind in KINDS:
            for folder, _, _ in os.walk(self.folder / kind):  # plain pictures may lie in folders of theirs
                remove_abandoned(Path(folder))


class JournalReader:
    """Reads a journal that other processes append to: each call of `new_records` resumes where the last one ended."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset = 0  # bytes read
        self.lines = 0
        self.damage: list[str] = []  # what is wrong with damaged lines

    def new_records(self) -> Iterator[ImageRecord]:
        """The records since the last call, without an unfinished last line. Damaged lines go to `damage`.

        Closing the file drops every lock that this process has on it, so no `Journal` of this file may be open.
        """
        with _regular(self.file) as lines:
            lines.seek(self.offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self.lines += 1
                try:
                    yield record_of(line, f"line {self.lines} of {self.file}")
                except DamagedError as error:
                    self.damage.append(str(error))


class DoneImages:
    """The images that have a record in any journal. `update` reads only what was appended since its last call.

    An image whose line is damaged has none, and will be answered again; standard error says so.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._readers: dict[Path, JournalReader] = {}
        self.answered: set[str] = set()
        self.skipped: set[str] = set()  # names of unreadable images; some may be answered later

    def update(self) -> None:
        """Take in what this and other processes have written to the journals."""
        look_again(self._results.journal_folder)  # who finishes last must know of all, or nobody writes the scores
        for file in self._results.journals():  # opened even if its size seems unchanged: NFS may show an old size
            reader = self._readers.setdefault(file, JournalReader(file))
            for record in reader.new_records():
                (self.skipped if "skipped" in record else self.answered).add(record["name"])
            for problem in reader.damage:
                print(f"{problem}; an image that no other line has is answered again", file=sys.stderr)
            reader.damage.clear()


class Journal:
    """Records of the images that one shard has done; appended to by one process at a time.

    Raises UserError if another process of this machine works on this shard.
    """

    def __init__(self, results: Results, shard: int, shards: int) -> None:
        path = results.journal_folder / f"{shard:04d}_of_{shards:04d}.jsonl"
        self._path = path
        if path.exists():
            _regular(path).close()
        self._file = open_file(path, "ab+", buffering=0)  # it stays open until `close`
        try:
            # POSIX's lock, unlike BSD's, is not inherited by the loading workers, which may outlive this process.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UserError(
                    f"another process is working on shard {shard} of {shards} in {results.folder}"
                ) from None
            raise UserError(no_locks(path, error)) from error
        self._cut_unfinished_line()

    def append(self, record: ImageRecord) -> None:
        """Write down that an image is done."""
        line = line_of(record)
        with naming(self._path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Flush the records to disk and release the shard."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _cut_unfinished_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - _LONGEST_LINE))
        tail = self._file.read()
        self._file.truncate(start + tail.rfind(b"\n") + 1)


def _regular(journal: Path) -> BinaryIO:
    """A journal, opened for reading. Raises UserError if it is no regular file."""
    try:
        return open_regular(journal)
    except OSError as error:
        raise unreadable(error)(f"journal {journal} cannot be read: {error.strerror}") from None


def fingerprint(path: Path) -> str:
    """SHA-256 of a checkpoint. Raises UserError if it is missing or cannot be read."""
    if not os.path.lexists(path):
        raise UnreadableError(missing_checkpoint(path))

    def digest() -> str:
        summed = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                summed.update(block)
        return summed.hexdigest()

    try:
        return reread_if_replaced(digest)
    except OSError as error:
        raise unreadable(error)(f"checkpoint {path} cannot be read: {error.strerror}") from error
