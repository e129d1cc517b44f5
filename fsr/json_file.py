"""Reads the JSON files that this program writes: each has one kind, and what is not of it is said in one sentence."""

import json
import types
from collections.abc import Callable, Hashable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from typeguard import TypeCheckError, check_type
from typing_extensions import get_type_hints, is_typeddict

from fsr.errors import UserError
from fsr.regular_file import read_regular

Kind = TypeVar("Kind")
PLAIN = (str, float, bool, type(None))  # of which a value is, if its type is
LARGEST = 2**63 - 1  # of integers
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
        return cast(Kind, _reader(cast(Hashable, kind), newer)(json.loads(text)))
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
    return cast(Kind, _reader(cast(Hashable, kind), False)(value))


class _WrongError(TypeCheckError):
    """What is wrong with a value; each reader that it passes on its way adds where the value stands."""

    def __init__(self, said: str, at: str = "") -> None:
        super().__init__(said)
        self._said, self._at = said, at

    def inside(self, step: str) -> None:
        """The value stands in the member or at the index `step` of another one."""
        self._at = f"{step}.{self._at}" if self._at and self._at[0] != "[" else step + self._at

    def __str__(self) -> str:
        return f"{self._at or 'it'} {self._said}"


@cache
def _reader(kind: Any, newer: bool) -> Callable[[Any], Any]:
    """What makes a value of this kind from JSON's, or raises _WrongError. Kinds are looked into once, not a value:
    a study has ten thousand trials, and each some files of many values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if kind is float:
        return _finite
    if kind is int:
        return _integer
    if isinstance(kind, type) and (is_dataclass(kind) or is_typeddict(kind)):
        return _object_reader(kind, newer)
    if origin is dict:
        return _dict_reader(arguments[1], newer)
    if origin is list:
        return _list_reader(arguments[0], newer)
    if origin is tuple:
        return _tuple_reader(arguments, newer)
    if origin in (Union, types.UnionType):
        return _union_reader(arguments, newer)
    if origin is Literal:
        return _literal_reader(arguments)
    return _instance_reader(kind)


def _instance_reader(kind: Any) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is kind:
            return value
        try:
            return check_type(value, kind)
        except TypeCheckError:
            raise _WrongError(f"is {_shown(value)}, not {getattr(kind, '__name__', kind)}") from None

    return read


def _integer(value: Any) -> int:
    if type(value) is not int:
        wrong = f"{value}, not a number" if isinstance(value, bool) else f"{_shown(value)}, not int"
        raise _WrongError(f"is {wrong}")
    if abs(value) > LARGEST:
        raise _WrongError(f"is an integer of {value.bit_length()} bits")
    return value


def _finite(value: Any) -> Any:
    if type(value) is float and isfinite(value):
        return value
    if isinstance(value, bool):
        raise _WrongError(f"is {value}, not a number")
    if not isinstance(value, int | float):
        raise _WrongError(f"is {_shown(value)}, not float")
    try:
        if isfinite(value):
            return value
    except OverflowError:  # an integer that no float comes near
        pass
    raise _WrongError(f"is {_shown(value)}, not a finite number")


def _object_reader(kind: Any, newer: bool) -> Callable[[Any], Any]:
    if is_typeddict(kind):
        needed, make = kind.__required_keys__, None
    else:
        needed, make = (
            frozenset(one.name for one in fields(kind) if one.default is one.default_factory is MISSING),
            kind,
        )
    readers = {name: _reader(hint, newer) for name, hint in get_type_hints(kind).items()}

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _WrongError(f"is {_shown(value)}, not an object")
        if not needed <= value.keys():
            raise _WrongError("is missing", min(needed - value.keys()))
        if not newer and not readers.keys() >= value.keys():
            raise _WrongError("is unknown", min(value.keys() - readers.keys())[:SHOWN])
        content = {}
        for name, item in value.items():
            if name in readers:
                try:
                    content[name] = readers[name](item)
                except _WrongError as error:
                    error.inside(name)
                    raise
        return content if make is None else make(**content)

    return read


def _dict_reader(kind: Any, newer: bool) -> Callable[[Any], Any]:
    reader = _reader(kind, newer)

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _WrongError(f"is {_shown(value)}, not an object")
        if kind is Any:
            return value
        content = {}
        for name, item in value.items():
            try:
                content[name] = reader(item)
            except _WrongError as error:
                error.inside(name)
                raise
        return content

    return read


def _list_reader(kind: Any, newer: bool) -> Callable[[Any], Any]:
    reader, plain = _reader(kind, newer), _plain(kind)
    points = get_args(kind) if get_origin(kind) is tuple and set(get_args(kind)) == {float} else ()

    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _WrongError(f"is {_shown(value)}, not a list")
        if plain and set(map(type, value)) <= plain and (float not in plain or all(map(isfinite, filter(None, value)))):
            return value
        if points and _are_points(value, len(points)):
            return list(map(tuple, value))
        return [_at_index(reader, item, index) for index, item in enumerate(value)]

    return read


def _tuple_reader(kinds: tuple[Any, ...], newer: bool) -> Callable[[Any], Any]:
    readers = [_reader(kind, newer) for kind in kinds if kind is not Ellipsis]
    any_length = kinds[-1] is Ellipsis

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _WrongError(f"is {_shown(value)}, not a list")
        if not any_length and len(value) != len(readers):
            raise _WrongError(f"has {len(value)} values, not {len(readers)}")
        of_each = readers * len(value) if any_length else readers
        return tuple(_at_index(of_each[index], item, index) for index, item in enumerate(value))

    return read


def _at_index(reader: Callable[[Any], Any], item: Any, index: int) -> Any:
    try:
        return reader(item)
    except _WrongError as error:
        error.inside(f"[{index}]")
        raise


def _union_reader(kinds: tuple[Any, ...], newer: bool) -> Callable[[Any], Any]:
    readers, optional = [_reader(kind, newer) for kind in kinds], type(None) in kinds

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        wrong = []
        for reader in readers:
            try:
                return reader(value)
            except _WrongError as error:
                wrong.append(error)
        raise wrong[0]

    return read


def _literal_reader(allowed: tuple[Any, ...]) -> Callable[[Any], Any]:
    kinds = {one: type(one) for one in allowed}

    def read(value: Any) -> Any:
        try:
            if kinds.get(value) is type(value):
                return value
        except TypeError:  # a list or an object
            pass
        raise _WrongError(f"is {_shown(value)}, not one of {', '.join(map(str, allowed))}")

    return read


def _are_points(values: list[Any], length: int) -> bool:
    """Whether all are lists of as many finite floats: a curve, which has many of them."""
    if set(map(type, values)) != {list} or set(map(len, values)) != {length}:
        return False
    numbers = [*chain.from_iterable(values)]
    return set(map(type, numbers)) == {float} and all(map(isfinite, numbers))


def _plain(kind: Any) -> frozenset[type]:
    """The types of plain values that are of a kind as they are: what long lists mostly hold."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return frozenset() if int in kinds else frozenset(one for one in kinds if one in PLAIN)


def _shown(value: Any) -> str:
    return json.dumps(value)[:SHOWN]
