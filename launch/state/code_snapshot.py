"""Snapshots of the code: workers run a copy whose content is known by its hash, never the checkout.

A changed checkout neither breaks a study nor changes what it means. `--renew_code` takes it as a new code version.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fsr.errors import UserError
from fsr.files import aside, naming, open_file, remove_abandoned, unfinished, write_json
from fsr.json_file import DamagedError, read_json
from fsr.run import CODE_VERSION_FILE, SnapshotOrigin, git_state

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("fsr", "launch", "sweeps")
VERSION = re.compile(r"[0-9a-f]{12}")
NAMED = 3  # files in a sentence

Manifest = dict[str, str]
"""SHA-256 of each file, by its path from the folder of the packages."""


def manifest_of(root: Path) -> Manifest:
    """The files that a worker may import or read, with their hashes."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in _files(root)}


def version_of(manifest: Manifest) -> str:
    """The code version: 12 digits of the hash of everything that is in it."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(manifest.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def running_version() -> str:
    """The code version that this process runs: a snapshot says its own, a checkout is hashed."""
    file = ROOT / CODE_VERSION_FILE
    if file.exists():
        return read_json(file, SnapshotOrigin, newer=True)["version"]
    return version_of(manifest_of(ROOT))


class CodeFolder:
    """The snapshots of one study, run or inference: a folder a code version, and the list of versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions_file = folder / "versions.json"
        """The list of versions."""

    def versions(self) -> list[str]:
        """The code versions that were taken, oldest first; the last is the one that workers run."""
        try:
            versions = read_json(self.versions_file, list[str])
        except FileNotFoundError:
            return []
        wrong = [version for version in versions if not VERSION.fullmatch(version)]
        if wrong or not versions:  # they are names of folders
            raise DamagedError(
                f"{self.versions_file} is damaged: {next(iter(wrong), 'nothing'):.60} is no code version"
            )
        return versions

    def renewed(self) -> float:
        """When the last version was taken (Unix seconds); infinite before the first."""
        try:
            return self.versions_file.stat().st_mtime
        except FileNotFoundError:
            return math.inf

    def snapshot(self, version: str) -> Path:
        """The folder of a code version, from which its workers import."""
        return self.folder / version

    def take(self, renew: bool = False) -> str:
        """The code version that workers are to run: the last that was taken, or the checkout's if `renew`.

        Takes a snapshot of the checkout where there is none yet, or, if `renew`, a damaged one. The sweep lock must be
        held.
        """
        taken = self.versions()
        if taken and not renew:
            return taken[-1]
        manifest = manifest_of(ROOT)
        version = version_of(manifest)
        if not self.snapshot(version).exists() or manifest_of(self.snapshot(version)) != manifest:
            self._copy(version, manifest)
        if taken[-1:] != [version]:
            write_json(self.versions_file, [*taken, version])
        return version

    def differences(self) -> list[str]:
        """Files in which the checkout differs from the code that workers run; none before a snapshot was taken."""
        taken = self.versions()
        if not taken:
            return []
        ours, theirs = manifest_of(ROOT), self._manifest(taken[-1])
        return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))

    def verify(self, version: str) -> None:
        """Raise UserError unless the snapshot is whole and this process runs it, not a file from elsewhere."""
        snapshot, known = self.snapshot(version), self._manifest(version)
        here = manifest_of(snapshot)
        wrong = sorted(name for name in here.keys() | known.keys() if here.get(name) != known.get(name))
        if wrong or version_of(known) != version:
            what = listed(wrong) if wrong else "the list of its files"
            raise UserError(
                f"the code snapshot {snapshot} was changed after it was taken: {what}; restore it, or take the "
                "checkout's code with --renew_code"
            )
        if snapshot.resolve() != ROOT:
            raise UserError(f"this worker runs the code of {ROOT}, not the snapshot {snapshot}; unset PYTHONPATH")

    def _copy(self, version: str, manifest: Manifest) -> None:
        copy = unfinished(self.snapshot(version))
        remove_abandoned(self.folder)
        try:
            for name in manifest:
                with naming(copy / name), open(ROOT / name, "rb") as ours, open_file(copy / name, "wb") as theirs:
                    shutil.copyfileobj(ours, theirs)
            write_json(copy / CODE_VERSION_FILE, {"version": version, **git_state()})
            write_json(self.manifest_file(version), manifest)
            if self.snapshot(version).exists():
                aside(self.snapshot(version))  # what was changed in it may be somebody's work
            copy.replace(self.snapshot(version))
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def manifest_file(self, version: str) -> Path:
        """Where the manifest of a code version is written down."""
        return self.folder / f"{version}.json"

    def _manifest(self, version: str) -> Manifest:
        file = self.manifest_file(version)
        try:
            return read_json(file, Manifest)
        except FileNotFoundError:
            raise UserError(
                f"the list of files {file} of a code snapshot is gone; take a new one with --renew_code"
            ) from None


def listed(names: list[str]) -> str:
    """Some of these names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """The files of the packages, by their path from `root`.

    Left out is what no worker imports: caches, hidden files (a submodule's or worktree's `.git`), links that lead
    nowhere, and linked folders that are no packages, such as a data set's.
    """
    for package in PACKAGES:
        for folder, folders, names in os.walk(root / package, followlinks=True):
            inside = [Path(folder) / name for name in folders if name != "__pycache__" and not name.startswith(".")]
            folders[:] = sorted(path.name for path in inside if not path.is_symlink() or _is_linked_package(path))
            for name in sorted(names):
                file = Path(folder) / name
                if not name.startswith(".") and not name.endswith(".pyc") and file.is_file():
                    yield file.relative_to(root).as_posix(), file


def _is_linked_package(link: Path) -> bool:
    """Whether a link leads to a package, and not back to a folder that it lies in."""
    above = link.parent.resolve()
    return (link / "__init__.py").exists() and link.resolve() not in (above, *above.parents)
