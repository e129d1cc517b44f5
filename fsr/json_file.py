"""Reads the JSON files that this program writes: each has one kind, and what is not of it is said in one sentence."""

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from fsr.errors import UserError
from fsr.regular_file import read_regular

Kind = TypeVar("Kind")


class DamagedError(UserError):
    """A file of this program's that does not hold what the program writes there; the message names it and says what
    was found."""


def read_json(file: Path, kind: type[Kind]) -> Kind:
    """The content of a JSON file as `kind`: a dataclass, a TypedDict, or a type of plain values.

    Raises FileNotFoundError, OSError if the file cannot be read, DamagedError if it is of another kind: empty, torn, no
    regular file, no JSON, other fields or values.
    """
    try:
        content = read_regular(file)
    except OSError as error:
        if error.errno:
            raise
        raise DamagedError(f"{file} is damaged: {error.strerror}") from error
    return parse_json(content, kind, str(file))


def parse_json(content: bytes | str, kind: type[Kind], place: str) -> Kind:
    """The same of what was read at a place: a file, or a line of one."""
    if not content.strip():
        raise DamagedError(f"{place} is damaged: it is empty")
    try:
        text = content.decode() if isinstance(content, bytes) else content  # json would guess at other encodings
        return typed(json.loads(text), kind)
    except (UnicodeDecodeError, json.JSONDecodeError, TypeCheckError, ValueError, RecursionError) as error:
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
    return cast(Kind, _typed(value, kind, ""))


def _typed(value: Any, kind: Any, at: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        needed = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
        content = _members(value, hints, needed, at)
        return kind(**content)
    if is_typeddict(kind):
        return _members(value, get_type_hints(kind), kind.__required_keys__, at)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(item, arguments[1], f"{at}.{key}") for key, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_typed(item, arguments[0], f"{at}[{index}]") for index, item in enumerate(value)]
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise TypeCheckError(f"{at or 'it'} has {len(value)} values, not {len(kinds)}")
        return tuple(_typed(value[index], one, f"{at}[{index}]") for index, one in enumerate(kinds))
    if origin in (Union, types.UnionType):
        wrong = []
        for one in arguments:
            try:
                return _typed(value, one, at)
            except TypeCheckError as error:
                wrong.append(str(error))
        raise TypeCheckError(wrong[0])
    if isinstance(value, bool) and kind in (int, float):
        raise TypeCheckError(f"{at or 'it'} is {value}, not a number")
    try:
        check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        name = getattr(kind, "__name__", str(kind))
        raise TypeCheckError(f"{at or 'it'} is {json.dumps(value)[:60]}, not {name}") from None
    return value


def _members(value: Any, hints: dict[str, Any], needed: set[str] | frozenset[str], at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeCheckError(f"{at or 'it'} is {json.dumps(value)[:60]}, not an object")
    for name in needed - value.keys():
        raise TypeCheckError(f"{at}{'.' if at else ''}{name} is missing")
    for name in value.keys() - hints.keys():
        raise TypeCheckError(f"{at}{'.' if at else ''}{name} is unknown")
    return {name: _typed(item, hints[name], f"{at}.{name}" if at else name) for name, item in value.items()}
