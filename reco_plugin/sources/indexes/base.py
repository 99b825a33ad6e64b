"""The protocol of an open index, and what all engines share: connection, retries and checks.

::

    describe() ──► Description        what the index holds, its metric, its compression
    scan()     ──► list of Document   all documents, in pages
    search()   ──► IndexHit           hits of the engine's own search
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from ...errors import ConfigError, EngineTimeout, EngineUnavailable, RecoError, VectorError
from ...settings import Settings
from ...types import Payload
from ...values import check_key
from ..cells import Vector
from .address import IndexAddress

Similarity: TypeAlias = Literal["cosine", "dot", "euclid"]
EXACT = "none: each vector is compared"
"""Value of :attr:`Description.index` if there is no index over the vectors."""
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each retry. A node that restarts, or a shard that moves, rarely takes longer."""


@dataclass(frozen=True)
class Description:
    """An index as its engine describes it."""

    engine: str  # name and version, as in ``PostgreSQL 18.4, pgvector 0.8.5``
    name: str  # of the index, table or collection; an alias is resolved
    documents: int  # with and without a vector; an estimate if counting takes long
    vector: str  # name of the vector field
    dimension: int  # of its vectors
    metric: Similarity  # how its vectors are compared
    index: str  # kind of index over the vectors and its compression, in the engine's words; or :data:`EXACT`
    fields: tuple[str, ...] = ()  # names of all fields, for error messages
    searches_text: bool = False  # whether `search` takes a text without a vector


@dataclass(frozen=True)
class Document:
    """One document of an index; None for a field that is empty."""

    id: str
    vector: Vector | None = None  # (D,), as stored, of any norm
    text: str | None = None  # its caption, from the field that the address names
    image: str | bytes | None = None  # path or URL of its picture, or an encoded image file
    payload: Payload = field(default_factory=dict)  # its other fields, as far as a payload can hold them
    problem: str | None = None  # why it cannot be used, such as a vector of another dimension


@dataclass(frozen=True)
class IndexQuery:
    """One search."""

    vector: Vector | None = None  # (D,), unit-norm; None runs the engine's text search
    text: str | None = None  # for the engine's text search
    k: int = 10  # number of hits, at least 1
    where: str | None = None  # a filter in the engine's own language (SQL, JSON); None: all documents


@dataclass(frozen=True)
class IndexHit:
    """One hit of a search."""

    id: str
    score: float  # higher is nearer: cosine, dot product, or minus the distance; of a text search, the engine's own
    text: str | None = None  # its caption, from the field that the address names
    image: str | bytes | None = None  # path or URL of its picture, or an encoded image file


class Engine(Protocol):
    """An open index. It never writes, and several threads may call it.

    Every call may raise :class:`~reco_plugin.errors.EngineUnavailable` (unreachable, overloaded or starting, after
    several retries) and :class:`~reco_plugin.errors.EngineError` (the engine refuses; the message quotes it).
    """

    def describe(self) -> Description:
        """Describe the index.

        Raises:
            EngineError: the index or field does not exist, or the field holds no vectors of floats.
        """
        ...

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """Read all documents in pages of ``size``, one page in memory at a time."""
        ...

    def search(self, query: IndexQuery) -> Sequence[IndexHit]:
        """Search the index by its engine; returns the best hit first."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


C = TypeVar("C")
D = TypeVar("D", bound=Description)
T = TypeVar("T")


class OpenIndex(ABC, Generic[C, D]):
    """An :class:`Engine` over a client ``C``, which connects at the first call.

    ``D`` is the description of the index, which subclasses extend by what their queries need. Since every call only
    reads, all of them are retried after :data:`WAITS` while the engine is unavailable.
    """

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        self._address = address
        self._user = address.user or settings.index_user
        self._password = settings.index_password.get_secret_value() if settings.index_password else ""
        key = settings.index_api_key.get_secret_value() if settings.index_api_key else None
        self._key = check_key("RECO_INDEX_API_KEY", key)  # some clients print a key that no header can hold
        self._lock = threading.RLock()
        self._client: C | None = None
        self._described: D | None = None

    @abstractmethod
    def _connect(self) -> C:
        """Return a new client or connection."""

    @abstractmethod
    def _inspect(self) -> D:
        """Describe the index, without the number of documents."""

    @abstractmethod
    def _count(self) -> int:
        """Count the documents."""

    @abstractmethod
    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`."""

    @abstractmethod
    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        """Search by a vector (D,) of the index's dimension."""

    @abstractmethod
    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        """Search by a text; called only if the index searches texts."""

    @abstractmethod
    def _translate(self, error: Exception) -> RecoError | None:
        """Convert an error of the client to one of ours; None for any other error."""

    def _disconnect(self, client: C) -> None:
        """Close the client."""
        client.close()  # type: ignore[attr-defined]

    def describe(self) -> Description:
        """See :meth:`Engine.describe`."""
        return replace(self._description, documents=self._count())

    def search(self, query: IndexQuery) -> Sequence[IndexHit]:
        """See :meth:`Engine.search`.

        Raises:
            ConfigError: a text without a vector, and the index searches no texts.
            VectorError: the vector has another dimension than the index.
        """
        known, address = self._description, self._address
        if query.vector is None:
            if not known.searches_text:
                raise ConfigError(
                    f"{address.place} cannot be searched by words: {known.name} has no index of words over "
                    f"{address.text or 'a field that text=NAME names'}"
                )
            return self._search_text(query)
        if len(query.vector) != known.dimension:
            raise VectorError(
                f"{address.place}: its vectors have {known.dimension} dimensions, the query has "
                f"{len(query.vector)}: they are of another encoder"
            )
        return self._search_vector(query, np.asarray(query.vector, np.float32))

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        with self._lock:
            if self._client is not None:
                self._disconnect(self._client)
                self._client = None

    @property
    def _description(self) -> D:
        """The description of the first call; its ``documents`` is 0."""
        with self._lock:
            if self._described is None:
                self._described = self._inspect()
            return self._described

    def _call(self, action: Callable[[C], T]) -> T:
        """Run an action with the client; retry with a new client while the engine is unavailable.

        Raises:
            EngineUnavailable: the last attempt failed. EngineTimeout: an attempt timed out; it is not retried.
            EngineError: the engine refuses.
        """
        for wait in (*WAITS, None):
            try:
                with self._lock:
                    if self._client is None:
                        self._client = self._connect()
                    client = self._client
                return action(client)
            except Exception as error:
                ours = error if isinstance(error, RecoError) else self._translate(error)
                if ours is None:
                    raise
                if not isinstance(ours, EngineUnavailable) or isinstance(ours, EngineTimeout) or wait is None:
                    raise ours from None
                self.close()
                time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _timeout_error(self) -> EngineTimeout:
        seconds = self._address.timeout_s
        return EngineTimeout(f"{self._address.place} did not answer within {seconds:g} s: give timeout_s= more")


def similarities(block: Vector, query: Vector, metric: Similarity) -> Vector:
    """Scores (N,) of vectors (N, D); higher is nearer."""
    if metric == "euclid":
        return np.asarray(-np.linalg.norm(block - query, axis=1), np.float32)
    dots = block @ query
    if metric == "dot":
        return np.asarray(dots, np.float32)
    norms = np.linalg.norm(block, axis=1) * np.linalg.norm(query)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), np.float32)
