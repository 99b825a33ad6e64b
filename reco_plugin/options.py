"""Options of a refinement, each stated once: keywords, settings, flags and fields of a request are made from these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Annotated, Any, TypedDict, cast, get_args, get_type_hints

from .errors import InputError
from .types import Filter, FuserName, Target
from .values import check_choice, check_flag, check_k, show


@dataclass(frozen=True)
class Option:
    """What is said of an option besides its type; None as a value leaves it to the model and the settings.

    Attributes:
        description: for people; also its help as a flag, and in the API's description.
        check: refuses a bad value, given the option's name and the value; None: one of its type's words is checked.
        min: of a number.
        unset: what holds where it is not given, for the help; None: it is no flag.
        sent: whether it is a field of a request to the service.
    """

    description: str
    check: Callable[[str, Any], object] | None = None
    min: int | None = None
    unset: str | None = None
    sent: bool = True


def _from_0_to_1(what: str) -> Callable[[str, Any], None]:
    """A check of a number of that name, which may be NumPy's; it raises :class:`InputError`."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
            raise InputError(f"{name} must be a {what} from 0 to 1, got {show(value)}")

    return check


class RefineDefaults(TypedDict, total=False):
    """Options that are settings, too."""

    k: Annotated[
        int | None, Option("Neighbours per query.", check=lambda _, k: check_k(k), min=1, unset="of the model")
    ]
    gate: Annotated[
        bool | None,
        Option(
            "Move only as far as the memory's own pairs justify.",
            unset="of the model",
        ),
    ]
    target: Annotated[
        Target | None,
        Option(
            "What the refined vectors are compared with: image, text or both. A query that is refined for the other "
            "modality finds less among its own than a plain one. Without it, queries are for images, and candidates "
            "for queries of the other modality.",
            unset="image; of candidates the other modality",
        ),
    ]
    coverage: Annotated[
        float | None,
        Option(
            "Share of what is asked for that the memory holds, from 0 to 1: less is safer, more gains more where the "
            "memory does know.",
            check=_from_0_to_1("share"),
            unset="0.9",
        ),
    ]
    presence: Annotated[
        float | None,
        Option(
            "Least presence of a query, from 0 to 1; below it the query stays plain. "
            "Where that cannot be known, it changes nothing.",
            check=_from_0_to_1("number"),
            unset="0: all move",
        ),
    ]
    words: Annotated[
        bool | None,
        Option(
            "Also look for captions by the words of a text query: one that has them all, such as a part number, stands "
            "in for the query.",
            unset="on",
        ),
    ]
    fuser: Annotated[
        FuserName | None,
        Option("reco: the closed form. paper: the attention layer of the model, without a gate.", unset="of the model"),
    ]


class RefineHow(RefineDefaults, total=False):
    """Options for all queries of a task."""

    where: Annotated[Filter | None, Option('Conditions on the payload: {"year": {"gte": 2020}}.')]


class RefineOptions(RefineHow, total=False):
    """All options of a refinement."""

    exclude: Annotated[
        Sequence[Collection[str]] | Collection[str] | None,
        Option("Ids of pairs that must not be used: one collection for all queries, or in Python B of them."),
    ]
    explain: Annotated[bool, Option("Also return neighbours with payloads, reliability and weights.", sent=False)]


@cache
def options_of(kind: type) -> Mapping[str, tuple[Any, Option]]:
    """Name -> type and what is said of it, of one of the classes above, or of one made from it."""
    hints = get_type_hints(kind, include_extras=True).items()
    return {
        name: (hint.__origin__, option)
        for name, hint in hints
        for option in getattr(hint, "__metadata__", ())
        if isinstance(option, Option)
    }


def check_options(given: Mapping[str, Any]) -> RefineOptions:
    """The options that are given, checked.

    Raises:
        TypeError: there is no such option.
        InputError: naming the option, its value and what it can be.
    """
    checked: Any = given_options({name: check_option(name, value) for name, value in given.items()})
    return cast(RefineOptions, checked)


def check_option(name: str, value: Any) -> Any:
    """The value of an option, checked; errors as in :func:`check_options`."""
    known = options_of(RefineOptions)
    if name not in known:
        raise TypeError(f"there is no option {name!r}, only: {', '.join(known)}")
    kind, option = known[name]
    if value is None:
        return None
    if option.check is not None:
        option.check(name, value)
    elif bool in (kind, *get_args(kind)):
        return check_flag(name, value)
    elif words := _words(kind):
        check_choice(name, value, words)
    return value


@cache
def _words(kind: Any) -> tuple[str, ...]:
    """The words of a Literal, or of one among several types."""
    return tuple(word for part in (kind, *get_args(kind)) for word in get_args(part) if isinstance(word, str))


def option_fields(kind: type) -> dict[str, tuple[Any, Any]]:
    """The options of a class as fields of a pydantic model, all optional, with their checks."""
    from pydantic import AfterValidator, Field

    def field(name: str, hint: Any, option: Option) -> tuple[Any, Any]:
        def check(value: Any) -> Any:
            try:
                return check_option(name, value)
            except InputError as error:  # pydantic says the name
                raise ValueError(str(error).removeprefix(f"{name} ")) from None

        return Annotated[hint, AfterValidator(check)], Field(None, description=option.description)

    return {name: field(name, *one) for name, one in options_of(kind).items()}


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
