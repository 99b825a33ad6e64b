"""What every engine can do: three verbs over one index, which is only read; and what all open indexes share.

::

    describe() ──► Description        what is stored, how it is compared and compressed
    scan()     ──► list of Document   all documents
    search()   ──► IndexHit           what the engine itself finds, as applications search it
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
EACH = "none: each vector is compared"
"""The words of :attr:`Description.index` where there is no index over the vectors."""
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt: a node that restarts, or a shard that moves, is back by then or not at all."""


@dataclass(frozen=True)
class Description:
    """An index as its engine describes it."""

    engine: str  # name and version, as in ``PostgreSQL 18.4, pgvector 0.8.5``
    name: str  # of the index, table or collection; where it is an alias, of what that stands for
    documents: int  # how many it holds, with or without a vector; an estimate where counting would take long
    vector: str  # name of the vector field
    dimension: int  # of its vectors
    metric: Similarity  # how its vectors are compared
    index: str  # how it is searched, and compressed, in its own words; or :data:`EACH`
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
class Question:
    """One search.

    Attributes:
        vector: (D,), unit-norm; None searches by the text alone, as the engine's own text search does.
        text: for the engine's text search.
        k: hits wanted, from 1.
        where: a filter in the engine's own language (SQL, JSON); None: all documents.
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

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
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


@dataclass(frozen=True)
class KnownVectors:
    """What an engine says of an index; engines add what they need to ask it."""

    said: Description  # but for the number of documents


C = TypeVar("C")
K = TypeVar("K", bound=KnownVectors)
T = TypeVar("T")


class OpenIndex(ABC, Generic[C, K]):
    """An :class:`Engine` over a client ``C``: it connects and looks at the index at the first call.

    An engine that is away is asked again after :data:`WAITS`, since every call only reads.
    """

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        self._address = address
        self._user = address.user or settings.index_user
        self._password = settings.index_password.get_secret_value() if settings.index_password else ""
        key = settings.index_api_key.get_secret_value() if settings.index_api_key else None
        self._key = check_key("RECO_INDEX_API_KEY", key)  # some clients show one that cannot be sent
        self._lock = threading.RLock()
        self._client: C | None = None
        self._seen: K | None = None

    @abstractmethod
    def _connect(self) -> C:
        """A client, or a connection."""

    @abstractmethod
    def _look(self) -> K:
        """What the engine says of the index."""

    @abstractmethod
    def _count(self) -> int:
        """The number of documents."""

    @abstractmethod
    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`."""

    @abstractmethod
    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        """The hits of a vector (D,) of the index's dimension."""

    @abstractmethod
    def _by_words(self, question: Question) -> list[IndexHit]:
        """The hits of a text, of an index that searches texts."""

    @abstractmethod
    def _translate(self, error: Exception) -> RecoError | None:
        """An error of the client as ours; None if it is not the client's."""

    def _disconnect(self, client: C) -> None:
        """Close the client."""
        client.close()  # type: ignore[attr-defined]

    def describe(self) -> Description:
        """See :meth:`Engine.describe`."""
        return replace(self._known.said, documents=self._count())

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`Engine.search`.

        Raises:
            ConfigError: a text alone, where the engine searches none.
            VectorError: a vector of another dimension than the index's.
        """
        said, address = self._known.said, self._address
        if question.vector is None:
            if not said.searches_text:
                raise ConfigError(
                    f"{address.place} cannot be searched by words: {said.name} has no index of words over "
                    f"{address.text or 'a field that text=NAME names'}"
                )
            return self._by_words(question)
        if len(question.vector) != said.dimension:
            raise VectorError(
                f"{address.place}: its vectors have {said.dimension} dimensions, the query has "
                f"{len(question.vector)}: they are of another encoder"
            )
        return self._nearest(question, np.asarray(question.vector, np.float32))

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        with self._lock:
            if self._client is not None:
                self._disconnect(self._client)
                self._client = None

    @property
    def _known(self) -> K:
        with self._lock:
            if self._seen is None:
                self._seen = self._look()
            return self._seen

    def _ask(self, action: Callable[[C], T]) -> T:
        """What an action with the client returns; repeated, by a new client, while the engine is away.

        Raises:
            EngineUnavailable: of the last attempt; EngineTimeout: of the first that was not answered in time.
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

    def _late(self) -> EngineTimeout:
        seconds = self._address.timeout_s
        return EngineTimeout(f"{self._address.place} did not answer within {seconds:g} s: give timeout_s= more")


def similarities(block: Vector, query: Vector, metric: Similarity) -> Vector:
    """Scores (N,) of vectors (N, D), higher is nearer."""
    if metric == "euclid":
        return np.asarray(-np.linalg.norm(block - query, axis=1), np.float32)
    dots = block @ query
    if metric == "dot":
        return np.asarray(dots, np.float32)
    norms = np.linalg.norm(block, axis=1) * np.linalg.norm(query)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), np.float32)
