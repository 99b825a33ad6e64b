"""The source of an adapter's vectors, and which of them are refined.

A query is refined for an index of the other modality: texts that search images, images that search texts. Among vectors
of its own modality it finds less than plain CLIP, since it has moved towards the other.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..types import ROLE_OF, ImageInput, InputType, Modality, Role, Vectors

IndexOf: TypeAlias = Literal["texts", "images"]
"""What an index holds."""
_HOLDS: dict[IndexOf, tuple[Modality]] = {"texts": ("text",), "images": ("image",)}
_TEXTS_ASSUMED = (
    'text queries stay plain CLIP, since the index is taken to hold texts: say index="images" if it holds images,'
    ' which refines them, or index="texts"'
)


class HasVectors(Protocol):
    """The result of a refinement."""

    @property
    def vectors(self) -> Vectors:
        """(B, D) float32, unit-norm."""
        ...


class Embeds(Protocol):
    """The methods that adapters call, of a :class:`reco_plugin.Reco` or a :class:`reco_plugin.client.Client`."""

    def embed_texts(self, texts: Sequence[str], *, role: Role = ..., refine: bool | None = ...) -> Vectors:
        """Embed B texts, (B, D)."""
        ...

    def embed_images(self, images: Sequence[ImageInput], *, role: Role = ..., refine: bool | None = ...) -> Vectors:
        """Embed B images, (B, D)."""
        ...

    def refine(self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = ...) -> HasVectors:
        """Refine (B, D) vectors of this encoder."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class SourceOptions(TypedDict, total=False):
    """Keywords of every adapter; see :class:`VectorSource`."""

    url: str | None
    api_key: str | None
    settings: Mapping[str, Any] | None
    index: IndexOf | None
    refine_queries: bool | None
    refine_documents: bool


class VectorSource:
    """An object that embeds, given or opened at first use, and which sides are refined.

    Safe to use from several threads, since frameworks run a synchronous adapter in threads.
    """

    def __init__(
        self,
        reco: Embeds | None = None,
        *,
        url: str | None = None,
        api_key: str | None = None,
        settings: Mapping[str, Any] | None = None,
        index: IndexOf | None = None,
        refine_queries: bool | None = None,
        refine_documents: bool = False,
    ) -> None:
        """Keep the options; opens nothing yet.

        Args:
            reco: an opened object, which the caller closes.
            url: of a `reco serve`, as in ``http://localhost:8080``.
            api_key: bearer key for it.
            settings: of :meth:`reco_plugin.Reco.open`, as in ``{"model": "triton_models", "memory": "./memory"}``.
            index: what the index holds, ``texts`` or ``images``, so that queries of the other modality are refined;
                None: texts, with a warning at the first text query.
            refine_queries: whether queries are refined, whatever the index holds; None leaves it to ``index``.
            refine_documents: whether documents are; off, so that vectors of an existing index stay valid. Documents of
                one call are refined as one set, see :meth:`reco_plugin.Reco.refine`.

        Raises:
            ConfigError: more than one of ``reco``, ``url`` and ``settings``, a key without a URL, or another index.
        """
        given = [name for name, value in (("reco", reco), ("url", url), ("settings", settings)) if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another: vectors come from one place")
        if api_key is not None and url is None:
            raise ConfigError("api_key is for a server, and there is no url")
        self._url, self._api_key, self._settings = url, api_key, settings
        self._index, self._refine_queries, self._refine_documents = index, refine_queries, refine_documents
        _ = refines_queries("text", index, refine_queries)  # another index is found now
        self._told = False
        self._given = self._opened = reco
        self._lock = threading.Lock()

    @property
    def reco(self) -> Embeds:
        """The object that embeds, opened if it was not."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def texts(self, texts: Sequence[str], side: InputType) -> Vectors:
        """Embed B texts, (B, D); (0, 0) without texts."""
        if len(texts) == 0:
            return np.empty((0, 0), np.float32)
        return self.reco.embed_texts(texts, role=ROLE_OF[side], refine=self.refines("text", side))

    def images(self, images: Sequence[ImageInput], side: InputType) -> Vectors:
        """Embed B images, (B, D); (0, 0) without images."""
        if len(images) == 0:
            return np.empty((0, 0), np.float32)
        return self.reco.embed_images(images, role=ROLE_OF[side], refine=self.refines("image", side))

    def refine(
        self, vectors: Vectors, modality: Modality, side: InputType, among: Collection[Modality] = ()
    ) -> Vectors:
        """Refine (B, D) plain vectors, if this side is refined; ``among``: see :meth:`refines`."""
        if not self.refines(modality, side, among):
            return vectors
        return self.reco.refine(vectors, modality=modality, role=ROLE_OF[side]).vectors

    def refines(self, modality: Modality, side: InputType, among: Collection[Modality] = ()) -> bool:
        """Whether vectors are refined; ``among``: what the documents of a query are, where no index was given."""
        if side == "document":
            return self._refine_documents
        if self._index is None and self._refine_queries is None and among:
            return any(one != modality for one in among)
        if self._index is None and self._refine_queries is None and modality == "text" and not self._told:
            self._told = True
            warnings.warn(_TEXTS_ASSUMED, stacklevel=4)
        return refines_queries(modality, self._index, self._refine_queries)

    def close(self) -> None:
        """Close what was opened here; the next call opens it again."""
        with self._lock:
            if self._opened is not None and self._given is None:
                self._opened.close()
                self._opened = None

    def _open(self) -> Embeds:
        if self._url is not None:
            from ..client import Client

            return Client(self._url, api_key=self._api_key)
        from ..reco import Reco

        return Reco.open(**(self._settings or {}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the options: another process opens its own object."""
        if self._given is not None:
            raise TypeError("an adapter of an opened object cannot be copied to a process: give url or settings")
        again = partial(
            VectorSource,
            url=self._url,
            api_key=self._api_key,
            settings=self._settings,
            index=self._index,
            refine_queries=self._refine_queries,
            refine_documents=self._refine_documents,
        )
        return again, ()


def refines_queries(modality: Modality, index: IndexOf | None, refine_queries: bool | None) -> bool:
    """Whether queries of a modality are refined, by the arguments of :class:`VectorSource`.

    >>> refines_queries("text", "images", None), refines_queries("text", None, None)
    (True, False)

    Raises:
        ConfigError: another index.
    """
    if index is not None and index not in get_args(IndexOf):
        raise ConfigError(f"index is {index!r:.60}: say what it holds, {' or '.join(map(repr, get_args(IndexOf)))}")
    if refine_queries is not None:
        return refine_queries
    return modality not in _HOLDS[index or "texts"]


def as_lists(vectors: Vectors) -> list[list[float]]:
    """Rows of (B, D) as lists of floats, for frameworks."""
    rows: list[list[float]] = vectors.tolist()
    return rows
