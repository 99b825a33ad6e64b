"""Flags of a command, made from fields of settings, of a run's configuration, or of options.

::

    @takes(FitConfig)                                    reco fit shop.csv --goal classify --k 5
    def fit_command(source: str, *, given: Given): ...   given == {"goal": "classify", "k": 5}

A field's description is the flag's help, its bounds are the flag's and its default is shown; a list is a repeated flag,
a bool has a ``--no-``. More is listed at :class:`~reco_plugin.run_config.CommandOptions`; a dataclass's field has it in
its ``metadata``. A field without a description, or for a key, is not a flag. A field that is annotated with a
:func:`typer.Option` uses that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import wraps
from inspect import Parameter, signature
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings
from typer.models import OptionInfo

from ..run_config import said_of

Given: TypeAlias = dict[str, Any]
"""Name of a field -> value, of the flags that were given."""
T = TypeVar("T")


def takes(*kinds: type, but: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a parameter ``given``: on the command line, the flags of these classes replace it.

    Args:
        kinds: dataclasses or pydantic models; if several have a name, the first one's flag counts.
        but: names of fields that are not flags of this command.
    """
    flags: dict[str, Parameter] = {}
    for flag in (flag for kind in kinds for flag in flags_of(kind) if flag.name not in but):
        flags.setdefault(flag.name, flag)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = signature(command, eval_str=True).parameters.values()
        parameters = [shown for one in own for shown in (flags.values() if one.name == "given" else [one])]

        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            command(given={name: value for name, value in given.items() if value not in (None, [], ())}, **values)

        run.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def take_flags(kind: type[T], given: Given) -> T:
    """An object of this class, made from its flags, which are removed from ``given``."""
    make: Callable[..., T] = getattr(kind, "of", kind)
    return make(**{name: given.pop(name) for name, *_ in _fields(kind) if name in given})


def flags_of(kind: type) -> Iterator[Parameter]:
    """The parameters that typer turns into flags; one that is not given is None, so the field's default applies."""
    for name, annotation, default, said in _fields(kind):
        if any(isinstance(each, OptionInfo) for each in get_args(annotation)[1:]):
            yield Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        elif said.get("description") and SecretStr not in _parts(annotation):
            yield _flag(name, annotation, default, dict(said))


def _fields(kind: Any) -> Iterator[tuple[str, Any, Any, Mapping[str, Any]]]:
    """Name, annotation, default and extras of each field; :data:`Parameter.empty` without a default."""
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            bounds = {} if issubclass(kind, BaseSettings) else _bounds(field.metadata)  # settings check their own
            default = Parameter.empty if field.is_required() else field.get_default()
            yield name, field.annotation, default, {"description": field.description, **bounds, **said_of(field)}
    else:
        hints = get_type_hints(kind, include_extras=True)
        for each in dataclasses.fields(kind):
            default = Parameter.empty if each.default is dataclasses.MISSING else each.default
            yield each.name, hints[each.name], default, each.metadata


def _bounds(metadata: Collection[Any]) -> dict[str, Any]:
    return {
        name: getattr(each, word)
        for name, word in (("min", "ge"), ("max", "le"))
        for each in metadata
        if hasattr(each, word)
    }


def _flag(name: str, kind: Any, default: Any, said: dict[str, Any]) -> Parameter:
    flag = said.pop("flag", None)
    if flag is None:
        flag = f"--{name.replace('_', '-')}"
        flag = f"{flag}/--no-{flag[2:]}" if bool in _parts(kind) else flag
    shown = said.pop("unset", _show_default(default)) or False
    if said.pop("joined", False) or "parser" in said:
        kind = str
    elif repeated := [each for each in (kind, *get_args(kind)) if get_origin(each) in (list, tuple, dict)]:
        kind = list[get_args(repeated[0])[0]]  # type: ignore[misc]
    elif get_args(kind) and get_origin(get_args(kind)[0]) is Literal and float in get_args(kind):
        kind = get_args(kind)[0]  # a word or a number: the words
    option = typer.Option(flag, help=said.pop("description"), show_default=shown, **said)
    if default is Parameter.empty:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option])
    kind = kind if NoneType in get_args(kind) else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=None)


def _show_default(default: Any) -> str:
    if isinstance(default, dict):
        return ", ".join(f"{key}={value}" for key, value in default.items())
    if isinstance(default, list):
        return "none"
    return "" if default in (None, (), Parameter.empty) else str(default)


def _parts(annotation: Any) -> set[Any]:
    """A type and all its parts."""
    return {annotation}.union(*map(_parts, get_args(annotation)))
