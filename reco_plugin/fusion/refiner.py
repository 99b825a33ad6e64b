"""Refine vectors through a memory: retrieve -> weigh -> move. No encoder is needed here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Unpack, get_args

import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..errors import InputError
from ..learning import Calibration
from ..memory import Memory, Searches
from ..memory.checks import check_ids
from ..options import RefineDefaults, RefineOptions, check_options
from ..types import MODALITIES, FuserName, Modality, Refinement, Role, Used, Vectors, other
from ..values import check_choice, check_vectors, show
from .base import Fuser, Learned, NeighbourMean, Refining, StayPlain
from .closed_form import ClosedForm, OwnKind

_DEFAULTS = RefineOptions(
    k=DEFAULT_K,
    gate=True,
    target=None,
    coverage=None,
    presence=None,
    words=True,
    fuser="reco",
    explain=False,
)
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class VectorMemory:
    """A memory that is complete, with its calibration."""

    store: Memory  # the pairs
    calibration: Calibration | None  # what was learned from them

    @property
    def searches(self) -> Searches:
        """What a refinement searches."""
        return self.store


class Refiner:
    """Refines CLIP vectors."""

    def __init__(
        self,
        memory: Learned,
        fusers: Mapping[FuserName, Fuser] | Fuser | None,
        *,
        timed: Callable[[], AbstractContextManager[object]] = nullcontext,
        **defaults: Unpack[RefineDefaults],
    ) -> None:
        """Put a memory and the ways to fuse together.

        Args:
            memory: the pairs that are retrieved from, and their calibration.
            fusers: by name, besides the closed form; or a single one that is used always; None: only the closed form.
            timed: around each move by the closed form.
            defaults: options unless a request says otherwise, see :class:`~reco_plugin.options.RefineOptions`. Without
                a ``target``, vectors are for the other modality.
        """
        self.memory = memory
        self._fusers: dict[FuserName, Fuser] = {"reco": ClosedForm(timed)}
        if isinstance(fusers, Mapping):
            self._fusers |= fusers
        elif fusers is not None:
            self._fusers = dict.fromkeys(get_args(FuserName), fusers)
        alone = fusers is not None and not isinstance(fusers, Mapping)
        self._own: Fuser = StayPlain() if alone else OwnKind(timed)
        self._mean = self._fusers["reco"] if alone else NeighbourMean()
        self.defaults: RefineOptions = {**_DEFAULTS, **check_options(defaults)}

    @property
    def dimension(self) -> int:
        """D."""
        return self.memory.searches.header.fingerprint.dimension

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        texts: Sequence[str | None] | None = None,
        **options: Unpack[RefineOptions],
    ) -> Refinement:
        """Refine (B, D) unit-norm vectors; everything as in :meth:`reco_plugin.reco.Reco.refine`."""
        how = check_options(options)
        queries = check_vectors(vectors, self.dimension)
        check_choice("modality", modality, MODALITIES)
        check_choice("role", role, ROLES)
        fuser, asked = self.ask(queries, modality, role, how, check_texts(texts, len(queries)))
        return fuser.refine(asked)

    def ask(
        self,
        queries: Vectors,
        modality: Modality,
        role: Role,
        options: RefineOptions,
        texts: Sequence[str | None] | None = None,
        pause: Callable[[], object] = int,
    ) -> tuple[Fuser, Refining]:
        """Who refines (B, D), and what it is asked; all that is given was checked.

        ``texts``: of the B queries, where they are known. ``pause`` is called between blocks.
        """
        how: RefineOptions = {**self.defaults, **options}
        if role == "candidate":  # the default is for queries; candidates compete for those of the other modality
            how["target"] = options.get("target")
        name = how["fuser"] or "reco"
        if name not in self._fusers:
            raise InputError(f"the model has no fusion {name!r}, only: {', '.join(self._fusers)}")
        fuser = self._fusers[name]
        if name == "reco" and not how["gate"]:
            fuser = self._mean
        if how["target"] not in (None, other(modality)):
            learned = name == "reco" and how["gate"] and role == "query"
            fuser = self._own if learned else StayPlain()
        exclude = how.get("exclude")
        hidden = None if exclude is None else _per_query(exclude, len(queries))
        by_words = how["words"] and modality == "text" and role == "query"
        return fuser, Refining(self.memory, queries, modality, role, how, hidden, texts if by_words else None, pause)


def used_pairs(result: Refinement, row: int) -> tuple[Used, ...]:
    """The pairs that one row of a refinement used, nearest first; empty without an explanation."""
    found, reliability, weights = result.neighbours, result.reliability, result.weights
    if found is None or reliability is None or weights is None:
        return ()
    payloads = found.payloads[row] if found.payloads is not None else [{}] * len(found.ids[row])
    return tuple(
        Used(
            id_,
            float(found.similarity[row, column]),
            float(reliability[row, column]),
            float(weights[row, column]),
            payload,
        )
        for column, (id_, payload) in enumerate(zip(found.ids[row], payloads, strict=True))
    )


def check_texts(texts: Sequence[str | None] | None, queries: int) -> Sequence[str | None] | None:
    """The texts of B vectors, one each; None where none is known.

    Raises:
        InputError: another number of texts, or something else.
    """
    if texts is None:
        return None
    if isinstance(texts, str) or len(texts) != queries or not all(one is None or isinstance(one, str) for one in texts):
        raise InputError(f"texts must be {queries} texts, one for each vector, got {show(texts)}")
    return texts


def _per_query(exclude: Sequence[Collection[str]] | Collection[str], queries: int) -> list[Collection[str]]:
    if isinstance(exclude, (str, bytes)) or not isinstance(exclude, Iterable):
        raise InputError(f"exclude must be a collection of ids, got the single id {show(exclude)}: put it in a list")
    items = list(exclude)
    if all(isinstance(item, str) for item in items):  # one collection of ids, for all queries
        return [items] * queries  # type: ignore[list-item]
    if len(items) != queries:
        raise InputError(f"exclude has {len(items)} collections of ids for {queries} vectors: give one per vector")
    return [check_ids(ids, "exclude") for ids in items]
