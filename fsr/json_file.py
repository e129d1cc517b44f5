"""Reads the JSON files that this program writes: each has one kind, and what is not of it is said in one sentence."""

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type
from typing_extensions import get_type_hints, is_typeddict

from fsr.errors import UserError
from fsr.regular_file import read_regular

Kind = TypeVar("Kind")
PLAIN = (str, int, bool, type(None))
LARGEST = 2**63 - 1  # of integers
NAMES = {dict: "an object", list: "a list", tuple: "a list"}
SHOWN = 60  # characters of a wrong value


class DamagedError(UserError):
    """A file of this program's that does not hold what the program writes there; the message names it and says what
    was found."""


UNREADABLE = (DamagedError, OSError)
"""What comes of a file that cannot be read. Who shows many files names it, and goes on with the others."""


def read_json(file: Path, kind: type[Kind], *, newer: bool = False) -> Kind:
    """The content of a JSON file as `kind`: a dataclass, a TypedDict, or a type of plain values.

    With `newer`, a later version of the program may have written it: what that one added to it is left out.

    Raises FileNotFoundError, OSError if the file cannot be read, DamagedError if it is of another kind: empty, torn, no
    regular file, no JSON, other fields or values, or what the dataclass itself refuses with a ValueError.
    """
    return parse_json(read_whole(file), kind, str(file), newer=newer)


def read_whole(file: Path) -> bytes:
    """All bytes of a file of this program's. Raises FileNotFoundError, OSError, and DamagedError if it is no regular
    file."""
    try:
        return read_regular(file)
    except OSError as error:
        if error.errno and not isinstance(error, NotADirectoryError):
            raise
        raise DamagedError(f"{file} is damaged: {error.strerror}") from error


def parse_json(content: bytes | str, kind: type[Kind], place: str, *, newer: bool = False) -> Kind:
    """The same of what was read at a place: a file, or a line of one."""
    if not content.strip():
        raise DamagedError(f"{place} is damaged: it is empty")
    try:
        text = content.decode() if isinstance(content, bytes) else content  # json would guess at other encodings
        return cast(Kind, _typed(json.loads(text), kind, "", newer))
    except (TypeCheckError, ValueError, RecursionError) as error:
        raise DamagedError(f"{place} is damaged: {reason(content, error)}") from error


def reason(content: bytes | str, error: Exception) -> str:
    """What is wrong with a content, in a few words."""
    zeros = "\0" if isinstance(content, str) else b"\0"
    if not content.strip(zeros):  # type: ignore[arg-type]
        return f"it holds {len(content)} zeros"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def typed(value: Any, kind: type[Kind]) -> Kind:
    """JSON's value as `kind`; tuples and dataclasses are made of lists and objects. Raises TypeCheckError."""
    return cast(Kind, _typed(value, kind, "", False))


def _typed(value: Any, kind: Any, at: str, newer: bool) -> Any:
    if kind is Any or (kind in PLAIN and type(value) is kind):
        if kind is int and abs(value) > LARGEST:
            raise TypeCheckError(f"{at or 'it'} is an integer of {value.bit_length()} bits")
        return value
    if kind is float:
        return value if type(value) is float and math.isfinite(value) else _finite(value, at)
    origin, arguments = _parts(kind)
    if isinstance(kind, type) and (is_dataclass(kind) or is_typeddict(kind)):
        content = _members(value, *_fields(kind), at, newer)
        return kind(**content) if is_dataclass(kind) else content
    if origin is dict and isinstance(value, dict):
        return {key: _typed(item, arguments[1], f"{at}.{key}" if at else key, newer) for key, item in value.items()}
    if origin is list and isinstance(value, list):
        plain = _plain(arguments[0])
        if (
            int not in plain
            and set(map(type, value)) <= plain
            and (float not in plain or all(map(math.isfinite, filter(None, value))))
        ):
            return value
        if _parts(arguments[0])[0] is tuple and _are_points(value, _parts(arguments[0])[1]):
            return list(map(tuple, value))
        return [_typed(item, arguments[0], f"{at}[{index}]", newer) for index, item in enumerate(value)]
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise TypeCheckError(f"{at or 'it'} has {len(value)} values, not {len(kinds)}")
        if set(kinds) == {float} and all(type(item) is float and math.isfinite(item) for item in value):
            return tuple(value)
        return tuple(_typed(value[index], one, f"{at}[{index}]", newer) for index, one in enumerate(kinds))
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        wrong = []
        for one in arguments:
            try:
                return _typed(value, one, at, newer)
            except TypeCheckError as error:
                wrong.append(str(error))
        raise TypeCheckError(wrong[0])
    if origin is Literal:
        if any(type(value) is type(one) and value == one for one in arguments):
            return value
        raise TypeCheckError(f"{at or 'it'} is {_shown(value)}, not one of {', '.join(map(str, arguments))}")
    if isinstance(value, bool) and kind is int:
        raise TypeCheckError(f"{at or 'it'} is {value}, not a number")
    try:
        check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        raise TypeCheckError(
            f"{at or 'it'} is {_shown(value)}, not {NAMES.get(origin) or getattr(kind, '__name__', kind)}"
        ) from None
    return value


def _finite(value: Any, at: str) -> Any:
    if isinstance(value, bool):
        raise TypeCheckError(f"{at or 'it'} is {value}, not a number")
    if not isinstance(value, int | float):
        raise TypeCheckError(f"{at or 'it'} is {_shown(value)}, not float")
    try:
        if math.isfinite(value):
            return value
    except OverflowError:  # an integer that no float comes near
        pass
    raise TypeCheckError(f"{at or 'it'} is {_shown(value)}, not a finite number")


def _members(value: Any, hints: dict[str, Any], needed: frozenset[str], at: str, newer: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeCheckError(f"{at or 'it'} is {_shown(value)}, not an object")
    for name in needed - value.keys():
        raise TypeCheckError(f"{at}{'.' if at else ''}{name} is missing")
    for name in () if newer else value.keys() - hints.keys():
        raise TypeCheckError(f"{at}{'.' if at else ''}{name[:SHOWN]} is unknown")
    found = {name: item for name, item in value.items() if name in hints}
    return {name: _typed(item, hints[name], f"{at}.{name}" if at else name, newer) for name, item in found.items()}


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a dataclass or TypedDict with their types, and those that must be there."""
    if is_typeddict(kind):
        return get_type_hints(kind), kind.__required_keys__
    needed = (field.name for field in fields(kind) if field.default is field.default_factory is MISSING)
    return get_type_hints(kind), frozenset(needed)


def _are_points(values: list[Any], kinds: tuple[Any, ...]) -> bool:
    """Whether all are lists of as many finite floats: a curve, which has many of them."""
    if set(kinds) != {float} or set(map(type, values)) != {list} or set(map(len, values)) != {len(kinds)}:
        return False
    numbers = [number for point in values for number in point]
    return set(map(type, numbers)) == {float} and all(map(math.isfinite, numbers))


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


@cache
def _plain(kind: Any) -> frozenset[type]:
    """The types of plain values that are of a kind as they are: what long lists mostly hold."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return frozenset(one for one in kinds if one in (*PLAIN, float))


def _shown(value: Any) -> str:
    return json.dumps(value)[:SHOWN]
