"""What a study changes of a configuration: fields that there are, each with a value of its kind."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typeguard import TypeCheckError

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.json_file import typed
from launch.study_errors import nearest, place_of


def checked(settings: Any, said: str, function: Callable[..., Any], file: Path) -> dict[str, Any]:
    """The settings, each of its field's kind.

    Args:
        settings: what the study says.
        said: the field of the study that said it.
        function: of the study, where its line is looked for.
        file: the study's.

    Raises:
        UserError: for other fields and kinds, with file and line.
    """
    if not isinstance(settings, dict):
        got = "nothing: its last line must return them" if settings is None else f"{settings!r:.100}"
        raise UserError(
            f"{place_of(function, 'return', file)}: {said} must give the fields that it changes as a dict, got {got}"
        )
    kinds, kept = kinds_of_fields(), {}
    for name, value in settings.items():
        if name not in kinds:
            raise UserError(
                f"{place_of(function, str(name), file)}: {said} changes {name}, which is no field of a training "
                f"configuration; {nearest(str(name), list(kinds))}"
            )
        try:
            kept[name] = typed(Path(value) if kinds[name] is Path and isinstance(value, str) else value, kinds[name])
        except (TypeCheckError, TypeError):
            raise UserError(
                f"{place_of(function, name, file)}: {said} gives {name} the value {value!r:.60} "
                f"({type(value).__name__}); it must be {kind_in_words(kinds[name])}"
            ) from None
    return kept


@cache
def kinds_of_fields() -> dict[str, Any]:
    """What each field of a training configuration may hold, as types."""
    return get_type_hints(TrainConfig)


def kind_in_words(kind: Any) -> str:
    """A type as people say it: one of a, b; float; float or None."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace(" | ", " or ")
