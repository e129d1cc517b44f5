"""What `prepare` has found so far, so that the same command after an interruption does not look at these files again.

The journal lies in the user's cache and is removed once the lists are written. A finding counts only as long as the
files that it is about have neither changed nor moved.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import PIL
from typeguard import TypeCheckError

from fsr.data.coco import CocoSource
from fsr.data.finding import Files, Finding
from fsr.data.list_places import in_the_cache
from fsr.data.source import Source
from fsr.data.voc import VocSource
from fsr.errors import UserError
from fsr.files import open_file, write_atomically
from fsr.json_file import DamagedError, parse_json, typed
from fsr.regular_file import read_regular
from fsr.writable import check_folder

_DESIGN = 1  # counted up when something else is looked at


class CheckJournal:
    """The findings of an interrupted `prepare` of this data set, and of this one.

    Where the cache cannot be written, it says so, and holds nothing.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._settings = _fingerprint(source)
        self._found: dict[str, Finding] = {}
        self.file = in_the_cache(source.root, "checks")
        try:
            if self.file is None:
                raise UserError("there is no home folder for a cache")
            check_folder(self.file.parent, "the cache")
        except UserError as error:
            print(f"{error}: if interrupted, prepare begins anew")
            self.file = None
            return
        self._found = self._read(self.file)
        if not self._found:
            write_atomically(self.file, (json.dumps({"settings": self._settings}) + "\n").encode())

    def known(self, images: Iterable[Files]) -> dict[Files, Finding]:
        """The findings about those of the images whose files are as they were."""
        found = {files: self._found.get(self._stamp(files)) for files in images} if self._found else {}
        return {files: finding for files, finding in found.items() if finding is not None}

    def noted(self, images: Iterable[Files], findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings about the images, each written down before it is passed on."""
        if self.file is None:
            yield from findings
            return
        with open_file(self.file, "ab", buffering=0) as lines:
            lines.write(b"\n")  # ends what a killed process left
            for files, finding in zip(images, findings, strict=True):
                record = {"files": self._stamp(files), "finding": asdict(finding)}
                lines.write((json.dumps(record) + "\n").encode())
                yield finding

    def remove(self) -> None:
        """The lists are written, and the next `prepare` looks at all files again."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _stamp(self, files: Files) -> str:
        """All that a finding is about: the files, and when each was last changed, or given its name."""
        xml = [self._source.annotation_file(files.name)] if isinstance(self._source, VocSource) else []
        stamps: list[Any] = [files.name, files.split]
        for file in (files.image, files.mask, *xml):
            try:
                status = None if file is None else os.stat(file)
                stamps += [str(file), status and [status.st_size, status.st_ino, status.st_ctime_ns]]
            except OSError as error:
                stamps += [str(file), error.errno]
        return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()

    def _read(self, journal: Path) -> dict[str, Finding]:
        """Findings by what they are about; none if they were made otherwise. What is damaged is looked at again."""
        try:
            first, *lines = read_regular(journal).split(b"\n")
            if parse_json(first, dict[str, Any], str(journal)) != {"settings": self._settings}:
                return {}
        except (OSError, DamagedError):
            return {}
        found = {}
        for line in filter(None, lines):
            try:
                record = parse_json(line, dict[str, Any], str(journal))
                found[str(record["files"])] = typed(record["finding"], Finding)
            except (DamagedError, TypeCheckError, KeyError):
                continue
        return found


def _fingerprint(source: Source) -> str:
    """All that a finding depends on beside its image's files."""
    versions = _DESIGN, numpy.__version__, PIL.__version__
    layout = source.layout if isinstance(source, CocoSource) else None
    whole = json.dumps([versions, str(source.root), source.class_names, source.usual_name, layout])
    return hashlib.sha256(whole.encode()).hexdigest()
