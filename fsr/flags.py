"""The flags of a command, read from the dataclass or function that holds them: `--FIELD`, its kind, default and text.

A dataclass explains its fields by the text below each, in sections that begin with a comment after a blank line. A
function explains its parameters in the `Args` of its docstring.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

OPTIONS = "Options"  # the section of what stands in none


@dataclass(frozen=True)
class Flag:
    """A flag or a positional argument."""

    name: str
    """Of the field, without dashes."""
    kind: Any
    """Its type, without marks and without None."""
    default: Any
    """MISSING where it must be given."""
    text: str
    section: str
    aliases: tuple[str, ...] = ()
    positional: bool = False
    metavar: str | None = None
    appended: bool = False
    """Whether tyro reads it with the flag before each value."""

    @property
    def needed(self) -> bool:
        """Whether the command does not work without it."""
        return self.default is MISSING

    @property
    def words(self) -> int | None:
        """How many words follow it: none for a yes or no, None for any number of them."""
        if self.kind is bool:
            return 0
        parts = get_args(self.kind) if get_origin(self.kind) is tuple else (self.kind,)
        return None if parts[-1:] == (...,) else len(parts)

    @property
    def value(self) -> str | None:
        """What stands for its value on a help page; None for a yes or no."""
        if self.metavar or self.kind is bool:
            return self.metavar
        if get_origin(self.kind) is tuple:
            first, *others = get_args(self.kind)
            one = _value(get_args(first)[0] if get_origin(first) is tuple else first, self.name)
            return f"{one} [{one} ...]" if others == [...] else " ".join([one] * (1 + len(others)))
        return _value(self.kind, self.name)

    @property
    def typed(self) -> str:
        """How it is typed with a value."""
        return str(self.value) if self.positional else f"--{self.name} {self.value}"

    @property
    def shown_default(self) -> str:
        """Its default as it would be typed; empty where there is none to tell, or where the text tells it."""
        if self.default in (MISSING, None, ()) or self.default is False:
            return ""
        if self.default is True:
            return "on"
        return " ".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)


def flags_of(kind: Callable[..., Any], default: Any = None) -> list[Flag]:
    """The flags of a dataclass, and of the dataclasses in it; or of a function. Defaults are those of `default`."""
    hints = get_type_hints(kind, include_extras=True)
    if not dataclasses.is_dataclass(kind):
        parameters = inspect.signature(kind).parameters.values()
        texts = _arguments(inspect.getdoc(kind) or "")
        return [
            _flag(one.name, hints[one.name], MISSING if one.default is one.empty else one.default, texts[one.name])
            for one in parameters
        ]
    own: list[Flag] = []
    inside: list[Flag] = []
    texts_of: dict[str, tuple[str, str]] = {}
    for field in dataclasses.fields(kind):
        given = field.default if default is None else getattr(default, field.name)
        if given is MISSING and field.default_factory is not MISSING:
            given = field.default_factory()
        given = MISSING if given is tyro.MISSING else given
        hint = hints[field.name]
        inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            inside += flags_of(inner, None if given is MISSING else given)
        else:
            texts_of = texts_of or _fields(kind)
            section, text = texts_of[field.name]
            own.append(_flag(field.name, hint, given, text, section))
    order = list(dict.fromkeys(section for section, _ in texts_of.values()))
    return sorted(own, key=lambda flag: order.index(flag.section)) + inside


def _flag(name: str, hint: Any, default: Any, text: str, section: str = OPTIONS) -> Flag:
    marks = getattr(hint, "__metadata__", ())
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [part for part in get_args(kind) if part is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 — of kinds that are not known here
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    metavar = next((found for mark in marks if (found := getattr(mark, "metavar", None))), None)
    appended = tyro.conf.UseAppendAction in marks and get_origin(get_args(kind)[0]) is not tuple
    positional = tyro.conf.Positional in marks
    return Flag(name, kind, default, text, section, tuple(aliases), positional, metavar, appended)


def _value(kind: Any, name: str) -> str:
    """What stands for one value of a type."""
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if kind is Path:
        return "DIR" if name.endswith("folder") or name == "runs" else "PATH"
    return {int: "N", float: "X", str: "NAME"}.get(kind, "VALUE")


def _fields(kind: type) -> dict[str, tuple[str, str]]:
    """Section and text of each field of a dataclass, its own sections before those of its bases."""
    found: dict[str, tuple[str, str]] = {}
    for one in kind.__mro__:
        if not dataclasses.is_dataclass(one):
            continue
        source = textwrap.dedent(inspect.getsource(one))
        lines, body = source.splitlines(), ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        section = OPTIONS
        for field, below in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            above = lines[field.lineno - 2]
            if re.match("    # ", above) and not lines[field.lineno - 3].strip():
                section = above.strip(" #")
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = str(below.value.value) if is_text else ""  # type: ignore[attr-defined]
            found.setdefault(field.target.id, (section, " ".join(text.split())))
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """The texts of a function's parameters, from the `Args` of its docstring."""
    _, _, described = docstring.partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", described, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
