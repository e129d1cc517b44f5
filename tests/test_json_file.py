"""Damaged JSON files are told apart, each in one sentence."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pytest

from fsr.json_file import DamagedError, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    weight: float


@dataclass(frozen=True)
class Outer:
    name: str
    pair: tuple[float, float]
    inner: Inner
    count: int = 3
    note: str | None = None


class Needed(TypedDict):
    id: str


class Loose(Needed, total=False):
    tags: list[int]


GOOD = {"name": "a", "pair": [1, 2.5], "inner": {"weight": 1}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(GOOD))
    assert read_json(file, Outer) == Outer("a", (1, 2.5), Inner(1))
    assert parse_json('{"id": "x", "tags": [1]}', Loose, "here") == {"id": "x", "tags": [1]}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", Outer)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\0" * 7, "it holds 7 zeros"),
        (b'{"name"', "it is not JSON from line 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[1]", "it is [1], not an object"),
        (json.dumps(GOOD | {"more": 1}).encode(), "more is unknown"),
        (json.dumps({"name": "a", "pair": [1, 2]}).encode(), "inner is missing"),
        (json.dumps(GOOD | {"pair": [1, 2, 3]}).encode(), "pair has 3 values, not 2"),
        (json.dumps(GOOD | {"pair": [1, "x"]}).encode(), 'pair[1] is "x", not float'),
        (json.dumps(GOOD | {"inner": {"weight": None}}).encode(), "inner.weight is null, not float"),
        (json.dumps(GOOD | {"count": True}).encode(), "count is True, not a number"),
        (b'{"name": "a", "count": 1' + b"0" * 5000 + b"}", "digits"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        read_json(file, Outer)
    message = str(caught.value)
    assert str(file) in message and said in message and len(message) < 300


def test_a_folder_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="it is a folder"):
        read_json(tmp_path, Outer)
