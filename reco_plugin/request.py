"""Options of a refinement: as keywords, and as one object to pass on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, get_args

from .errors import InputError
from .types import Caution, Filter, FuserName, Modality, Mode, Vectors, make_field
from .values import check_choice, check_k, show


def read_caution(text: str) -> Caution | float:
    """Read a caution from a command line.

    >>> read_caution("bold"), read_caution("0.3")
    ('bold', 0.3)
    """
    try:
        return float(text)
    except ValueError:
        return text  # type: ignore[return-value]  # refused by check_caution unless it is one


class RefineHow(TypedDict, total=False):
    """Keywords for all queries of a task; see :class:`RefineOptions`."""

    k: int | None
    search: Mode | None
    fusion: Mode | None
    gate: bool | None
    caution: Caution | float | None
    answered: float | None
    fuser: FuserName | None
    where: Filter | None


class RefineKeywords(RefineHow, total=False):
    """All keywords of a refinement; see :class:`RefineOptions`."""

    exclude: Sequence[Collection[str]] | Collection[str] | None
    explain: bool


@dataclass(frozen=True)
class RefineOptions:
    """How to refine; None leaves an option to the model and the settings.

    Attributes:
        gate: for the paper's search and fusion only.
        caution: ``cautious``, ``balanced`` or ``bold``, or the share of queries, in [0, 1], that is assumed to have
            no answer in the memory; more is safer, less gains more where the memory does know.
        answered: share of the candidates that the memory knows, from their :class:`~reco_plugin.types.Coverage`, where
            queries are compared with exactly those: ``balanced`` takes what is left of it in place of its half, and
            ``cautious`` a fifth of the rest more.
        fuser: ``reco``, the closed form; ``paper``, the attention layer of the model folder, which has no gate.
        where: conditions on the payload, see :data:`~reco_plugin.types.Filter`.
        exclude: ids that must not be found: B collections, or one collection for all.
        explain: also return neighbours with payloads, calibration and weights.

    Raises:
        InputError: k is not a whole number from 1 to 10,000, or a mode is unknown.
    """

    k: int | None = make_field(None, "Neighbours per query.", min=1, unset="of the model")
    search: Mode | None = make_field(None, "uni: search the query's own modality. cross: the other.", unset="uni")
    fusion: Mode | None = make_field(None, "cross: fuse the other modality's vectors. uni: the own.", unset="cross")
    gate: bool | None = make_field(None, "Move only as far as the memory's own pairs justify.", unset="of the model")
    caution: Caution | float | None = make_field(
        None,
        "cautious, balanced or bold, or a share: how many queries are assumed to have no answer.",
        parser=read_caution,
        metavar="CAUTION",
        unset="balanced",
    )
    answered: float | None = None
    fuser: FuserName | None = make_field(
        None, "reco: the closed form. paper: the attention layer.", unset="of the model"
    )
    where: Filter | None = None
    exclude: Sequence[Collection[str]] | Collection[str] | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.k is not None:
            check_k(self.k)
        for name, mode in (("search", self.search), ("fusion", self.fusion)):
            if mode is not None:
                check_choice(name, mode, get_args(Mode))
        if self.fuser is not None:
            check_choice("fuser", self.fuser, get_args(FuserName))
        check_caution(self.caution)
        if self.answered is not None and not 0.0 <= self.answered <= 1.0:
            raise InputError(f"answered must be a share from 0 to 1, got {show(self.answered)}")

    def keywords(self) -> RefineKeywords:
        """The same as keywords."""
        return RefineKeywords(
            k=self.k,
            search=self.search,
            fusion=self.fusion,
            gate=self.gate,
            caution=self.caution,
            answered=self.answered,
            fuser=self.fuser,
            where=self.where,
            exclude=self.exclude,
            explain=self.explain,
        )


@dataclass(frozen=True)
class Search:
    """A search of a memory, which checks it.

    Attributes:
        vectors: (B, D) unit-norm queries.
        by: modality of the memory that is compared with the queries.
        read: modality whose vectors are returned.
        k: neighbours per query; fewer if the memory holds fewer.
        exclude: B collections of ids that must not be found for that query.
        where: conditions on the payload.
        payloads: also read the payloads.
        witnesses: also read what is known of each pair's reliability.
        ids: also read the users' ids; without, ids are the store's own, and a store that keeps users' ids in the
            payload reads no payload.
    """

    vectors: Vectors
    by: Modality
    read: Modality
    k: int
    exclude: Sequence[Collection[str]] | None = None
    where: Filter | None = None
    payloads: bool = False
    ids: bool = True
    witnesses: bool = False


def check_caution(value: Caution | float | None) -> None:
    """Refuse what is neither a caution nor a share.

    Raises:
        InputError: naming the known ones.
    """
    known = get_args(Caution)
    if value is None or value in known:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InputError(f"caution must be {', '.join(known)} or a share from 0 to 1, got {show(value)}")


def modes_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a refinement that are settings by the same name."""
    return {name: options.get(name) for name in ("k", "search", "fusion", "gate")}


def given_options(options: RefineHow) -> dict[str, Any]:
    """The keywords that are not None."""
    return {name: value for name, value in options.items() if value is not None}
