"""What every engine can be asked: three verbs over one index, which is only read.

::

    describe() ──► Description        what is stored, how it is compared and compressed
    scan()     ──► Page of Document  all documents
    search()   ──► IndexHit               what the engine itself finds, as applications search it
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from ..data.cells import Vector
from ..types import Payload

T = TypeVar("T")
Similarity: TypeAlias = Literal["cosine", "dot", "euclid"]


@dataclass(frozen=True)
class Description:
    """An index as its engine describes it."""

    engine: str  # name and version, as in ``PostgreSQL 18.4, pgvector 0.8.5``
    name: str  # of the index, table or collection; where it is an alias, of what that stands for
    documents: int  # how many it holds, with or without a vector; an estimate where counting would take long
    vector: str  # name of the vector field
    dimension: int  # of its vectors
    metric: Similarity  # how its vectors are compared
    index: str  # how it is searched, and compressed, in its own words; ``none: each vector is compared``
    fields: tuple[str, ...] = ()  # names of all fields, to mend an address by
    searches_text: bool = False  # whether `search` takes a text alone


@dataclass(frozen=True)
class Document:
    """One document of an index.

    Attributes:
        id: as the application knows it.
        vector: (D,), as stored, of any norm; None where it has none.
        text: its caption, of the field that the address names; None where it has none.
        image: path or URL of its picture, or the picture itself as an encoded file, likewise.
        payload: its other fields that a payload can hold.
        problem: why it cannot be used, as in a vector of another length; None where nothing is wrong.
    """

    id: str
    vector: Vector | None = None
    text: str | None = None
    image: str | bytes | None = None
    payload: Payload = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Page:
    """Some documents of a scan."""

    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Question:
    """One search.

    Attributes:
        vector: (D,), unit-norm; None searches by the text alone, as the engine's own text search does.
        text: for the engine's text search.
        k: hits wanted, from 1.
        where: a filter in the engine's own language (SQL, JSON, YQL); None: all documents.
    """

    vector: Vector | None = None
    text: str | None = None
    k: int = 10
    where: str | None = None


@dataclass(frozen=True)
class IndexHit:
    """One document that a search found."""

    id: str
    score: float  # higher is nearer: the cosine or dot product, minus the distance, or the engine's own for a text
    text: str | None = None  # its caption, of the field that the address names
    image: str | bytes | None = None  # path or URL of its picture, or the picture itself


class Engine(Protocol):
    """An open index. Nothing in it writes. Calls from several threads are safe.

    Every call may raise :class:`~reco_plugin.errors.EngineUnavailable` (the engine cannot be reached, is overloaded or
    starts; it was asked again a few times), and :class:`~reco_plugin.errors.EngineError` (it refuses, with its words).
    """

    def describe(self) -> Description:
        """Say what the index holds.

        Raises:
            EngineError: no such index or field; the field holds no vectors that can be compared with ours.
        """
        ...

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """Read all documents in pages; memory stays bounded by a page.

        Args:
            vectors: read the vectors, too.
            size: documents of a page.
        """
        ...

    def search(self, question: Question) -> Sequence[IndexHit]:
        """What the engine finds, best first."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class LooksOnce(ABC, Generic[T]):
    """An engine that looks up what its index is like at the first call, and knows it from then on."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._seen: T | None = None

    @abstractmethod
    def _look(self) -> T:
        """What the engine says of the index."""

    def _known(self) -> T:
        with self._lock:
            if self._seen is None:
                self._seen = self._look()
            return self._seen
