"""How the type of a config field becomes a command-line flag."""

import datetime as dt
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "FILE", dt.date: "YYYY-MM-DD"}


@dataclass(frozen=True, kw_only=True)
class FlagKind:
    """What a flag takes.

    Attributes:
        metavar: Placeholder in the help.
        is_switch: `--flag` / `--no-flag` without a value.
        is_list: One or more values.
    """

    metavar: str
    is_switch: bool = False
    is_list: bool = False


def flag_kind(annotation: Any) -> FlagKind | None:
    """The flag for a type: scalars, literals, lists of them, `None` beside one; else none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return flag_kind(arguments[0])
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return flag_kind(inner[0]) if len(inner) == 1 else None
    if origin is Literal:
        return FlagKind(metavar="{" + ",".join(str(value) for value in arguments) + "}")
    if origin in (tuple, list):
        element = flag_kind(arguments[0]) if arguments else None
        return FlagKind(metavar=element.metavar, is_list=True) if element else None
    if annotation is bool:
        return FlagKind(metavar="", is_switch=True)
    return FlagKind(metavar=_METAVARS[annotation]) if annotation in _METAVARS else None


def shown_default(field: FieldInfo) -> str:
    """` (default: ...)` for the help, empty where there is none to show."""
    if field.is_required():
        return " (required)"
    default = field.default
    if default is None or default is PydanticUndefined or default == ():
        return ""
    return f" (default: {default})".replace("%", "%%")
