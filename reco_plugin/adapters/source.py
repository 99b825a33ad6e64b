"""The source of an adapter's vectors, and which of them are refined."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..types import ROLE_OF, ImageInput, InputType, Modality, Role, Vectors


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
    refine_queries: bool
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
        refine_queries: bool = True,
        refine_documents: bool = False,
    ) -> None:
        """Keep the options; opens nothing yet.

        Args:
            reco: an opened object, which the caller closes.
            url: of a `reco serve`, as in ``http://localhost:8080``.
            api_key: bearer key for it.
            settings: of :meth:`reco_plugin.Reco.open`, as in ``{"model": "triton_models", "memory": "./memory"}``.
            refine_queries: whether queries are refined.
            refine_documents: whether documents are; off, so that vectors of an existing index stay valid. Documents of
                one call are refined as one set, see :meth:`reco_plugin.Reco.refine`.

        Raises:
            ConfigError: more than one of ``reco``, ``url`` and ``settings``, or a key without a URL.
        """
        given = [name for name, value in (("reco", reco), ("url", url), ("settings", settings)) if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another: vectors come from one place")
        if api_key is not None and url is None:
            raise ConfigError("api_key is for a server, and there is no url")
        self._url, self._api_key, self._settings = url, api_key, settings
        self._refine: dict[InputType, bool] = {"query": refine_queries, "document": refine_documents}
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
        return self.reco.embed_texts(texts, role=ROLE_OF[side], refine=self._refine[side])

    def images(self, images: Sequence[ImageInput], side: InputType) -> Vectors:
        """Embed B images, (B, D); (0, 0) without images."""
        if len(images) == 0:
            return np.empty((0, 0), np.float32)
        return self.reco.embed_images(images, role=ROLE_OF[side], refine=self._refine[side])

    def refine(self, vectors: Vectors, modality: Modality, side: InputType) -> Vectors:
        """Refine (B, D) plain vectors, if this side is refined."""
        if not self._refine[side]:
            return vectors
        return self.reco.refine(vectors, modality=modality, role=ROLE_OF[side]).vectors

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
            refine_queries=self._refine["query"],
            refine_documents=self._refine["document"],
        )
        return again, ()


def as_lists(vectors: Vectors) -> list[list[float]]:
    """Rows of (B, D) as lists of floats, for frameworks."""
    rows: list[list[float]] = vectors.tolist()
    return rows
