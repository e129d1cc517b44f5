"""Tables that were read before, in the reader's own cache folder: a study that is only looked at stays as it is.

$XDG_CACHE_HOME/fsr/tables, or ~/.cache/fsr/tables; where there is no home, nothing is cached.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import pandas as pd

from fsr.files import write_json
from fsr.json_file import DamagedError, read_json, read_whole

DIGESTS = "sha256.json"  # of each table
KEPT = 16  # studies
ABANDONED_S = 86_400.0  # after which nobody is still writing an entry
ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{24}(\.[a-z0-9_]+)?")  # study, state; what a killed process left unfinished


def cache_folder() -> Path | None:
    """The folder, which need not be there yet; None where there is no home, which is not made for a cache."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "fsr" / "tables"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" / "fsr" / "tables" if home.is_dir() else None


def cached(study: str, state: str, names: Collection[str]) -> dict[str, pd.DataFrame] | None:
    """The tables of a study (16 hexadecimal digits) in this state (24 of them), if all are there and whole."""
    folder = cache_folder()
    if folder is None:
        return None
    entry = folder / f"{study}-{state}"
    try:
        digests = read_json(entry / DIGESTS, dict[str, str])
        contents = {name: read_whole(entry / f"{name}.parquet") for name in names}
        if any(hashlib.sha256(content).hexdigest() != digests.get(name) for name, content in contents.items()):
            return None  # a flipped bit, which the format itself would not notice
        tables = {name: pd.read_parquet(BytesIO(content)) for name, content in contents.items()}
        os.utime(entry)  # it was of use, so it is kept longer
    except (OSError, ValueError, DamagedError):  # never cached, damaged, or just removed by another process
        return None
    return tables


def keep(study: str, state: str, tables: dict[str, pd.DataFrame]) -> None:
    """Write the tables atomically in place of the study's earlier ones; where that cannot be, they are read anew next
    time."""
    folder = cache_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):  # read-only, full, not ours: what was asked for has been read all the same
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = folder / f"{study}-{state}"
        unfinished = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", dir=folder))
        try:
            for name, table in tables.items():
                table.to_parquet(unfinished / f"{name}.parquet")
            files = {name: (unfinished / f"{name}.parquet").read_bytes() for name in tables}
            digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            write_json(unfinished / DIGESTS, digests)
            for old in outdated(folder, study):
                shutil.rmtree(old, ignore_errors=True)
            unfinished.rename(entry)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def outdated(folder: Path, study: str) -> list[Path]:
    """The study's earlier entries, and those that were of use the longest ago.

    Only what this file made: no link, no other name. Nor what another process may be writing now.
    """
    entries = [Path(entry) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    entries = sorted((e for e in entries if ENTRY.fullmatch(e.name)), key=lambda e: e.stat().st_mtime, reverse=True)
    whole = [entry for entry in entries if not entry.suffix]
    left = [entry for entry in entries if entry.suffix and entry.stat().st_mtime < time.time() - ABANDONED_S]
    others = [entry for entry in whole if not entry.name.startswith(f"{study}-")]
    return [entry for entry in whole if entry not in others] + others[KEPT - 1 :] + left
