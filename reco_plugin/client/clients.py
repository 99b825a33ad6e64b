"""The blocking client, and the same for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..score import Scores
from ..types import ImageInput, Modality, Pair, Role, Vectors
from . import calls
from .calls import Call, Refined, ServedHow, T
from .service import Service


class Client(Service):
    """Calls a `reco serve`; safe to use from several threads.

    Example::

        with Client("http://localhost:8080", api_key="...") as reco:
            vectors = reco.embed_texts(["a red fox"], refine=True)
    """

    def _connect(self) -> None:
        self._http = self._httpx.Client(**self._options)

    def embed_texts(
        self, texts: Sequence[str], *, role: Role = "query", refine: bool | None = None, **options: Unpack[ServedHow]
    ) -> Vectors:
        """Embed texts; (B, D) float32, unit-norm.

        Args:
            texts: B texts.
            role: a query, or one of the candidates of this call.
            refine: True or False; None leaves it to the service's policy.
            options: as in :meth:`refine`; without a ``target``, queries are for the other modality, as of a ``Reco``.

        Raises:
            InputError: invalid input.
            ConfigError: a wrong key, or a wrong URL.
            SessionError: the service failed, cannot be reached, or timed out.
        """
        return self._embed(texts, "text", role, refine, options)

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Vectors:
        """Embed B images (paths, bytes or PIL images) to (B, D); otherwise as :meth:`embed_texts`."""
        return self._embed(images, "image", role, refine, options)

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        explain: bool = False,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine (B, D) CLIP vectors of the service's encoder.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: queries, or the candidates of one set.
            explain: also return the pairs that were used.
            options: as in :meth:`reco_plugin.Reco.refine`; ``exclude`` is one collection for all.

        Raises:
            RecoError: as :meth:`embed_texts`.
        """
        parts = calls.refine(vectors, modality, role, self.batch_size, explain=explain, options=options)
        return Refined.join([self.send(part) for part in parts])

    def explain(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality = "text",
        role: Role = "query",
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine B texts or images to (B, D) and return the pairs that were used; options as in :meth:`refine`."""
        parts = calls.explain(items, modality, role, self.batch_size, options)
        return Refined.join([self.send(part) for part in parts])

    def scores(
        self,
        images: Sequence[ImageInput] | Vectors,
        texts: Sequence[str] | Vectors,
        queries: Modality = "image",
        **options: Unpack[ServedHow],
    ) -> Scores:
        """Score B images against C texts, both refined; see :meth:`reco_plugin.reco.Reco.scores`.

        Args:
            images: raw, or vectors (B, D).
            texts: raw, or vectors (C, D).
            queries: which of the two ask; all of the others compete.
            options: as in :meth:`refine`; ``exclude`` is for the queries.

        Raises:
            RecoError: as :meth:`embed_texts`.
        """
        parts = calls.scores(images, texts, queries, self.batch_size, options)
        return calls.join_scores([self.send(part) for part in parts], queries)

    def add_pairs(self, pairs: Iterable[Pair | tuple[Any, ...]]) -> int:
        """Add pairs to the memory, or replace those with the same id; needs the admin key. Returns how many."""
        return sum(map(self.send, calls.add_pairs(pairs, self.batch_size)))

    def remove_pairs(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; needs the admin key. Returns how many existed."""
        return sum(map(self.send, calls.remove_pairs(ids, self.batch_size)))

    def count_pairs(self) -> int:
        """How many pairs the memory holds; needs the admin key."""
        return self.send(calls.count_pairs())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        modality: Modality,
        role: Role,
        refine: bool | None,
        options: ServedHow,
    ) -> Vectors:
        parts = calls.embed(items, modality, role, refine, self.batch_size, options)
        return np.concatenate([self.send(part) for part in parts])

    def send(self, call: Call[T]) -> T:
        """Send one request, again while the service has no room, and read its answer; errors as elsewhere."""
        for tried in count():
            try:
                response = self._http.request(**self._arguments(call))
            except self._httpx.TransportError as error:
                raise self._make_error(call, error) from error
            if (pause_s := self._pause_s(response, tried)) is None:
                break
            time.sleep(pause_s)
        return self._read(call, response)


class AsyncClient(Service):
    """Calls a `reco serve`; use it in one event loop.

    Example::

        async with AsyncClient("http://localhost:8080", api_key="...") as reco:
            vectors = await reco.embed_texts(["a red fox"], refine=True)
    """

    def _connect(self) -> None:
        self._http = self._httpx.AsyncClient(**self._options)

    async def embed_texts(
        self, texts: Sequence[str], *, role: Role = "query", refine: bool | None = None, **options: Unpack[ServedHow]
    ) -> Vectors:
        """Embed B texts to (B, D), as :meth:`.Client.embed_texts`."""
        return await self._embed(texts, "text", role, refine, options)

    async def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Vectors:
        """Embed B images to (B, D), as :meth:`.Client.embed_images`."""
        return await self._embed(images, "image", role, refine, options)

    async def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        explain: bool = False,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine CLIP vectors (B, D), as :meth:`.Client.refine`."""
        parts = calls.refine(vectors, modality, role, self.batch_size, explain=explain, options=options)
        return Refined.join([await self.send(part) for part in parts])

    async def explain(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality = "text",
        role: Role = "query",
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Explain, as :meth:`.Client.explain`."""
        parts = calls.explain(items, modality, role, self.batch_size, options)
        return Refined.join([await self.send(part) for part in parts])

    async def scores(
        self,
        images: Sequence[ImageInput] | Vectors,
        texts: Sequence[str] | Vectors,
        queries: Modality = "image",
        **options: Unpack[ServedHow],
    ) -> Scores:
        """Score B images against C texts, both refined, as :meth:`.Client.scores`."""
        parts = calls.scores(images, texts, queries, self.batch_size, options)
        return calls.join_scores([await self.send(part) for part in parts], queries)

    async def add_pairs(self, pairs: Iterable[Pair | tuple[Any, ...]]) -> int:
        """Add pairs to the memory, or replace those with the same id; needs the admin key. Returns how many."""
        return sum([await self.send(part) for part in calls.add_pairs(pairs, self.batch_size)])

    async def remove_pairs(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; needs the admin key. Returns how many existed."""
        return sum([await self.send(part) for part in calls.remove_pairs(ids, self.batch_size)])

    async def count_pairs(self) -> int:
        """How many pairs the memory holds; needs the admin key."""
        return await self.send(calls.count_pairs())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        modality: Modality,
        role: Role,
        refine: bool | None,
        options: ServedHow,
    ) -> Vectors:
        parts = calls.embed(items, modality, role, refine, self.batch_size, options)
        return np.concatenate([await self.send(part) for part in parts])

    async def send(self, call: Call[T]) -> T:
        """Send one request, again while the service has no room, and read its answer; errors as elsewhere."""
        for tried in count():
            try:
                response = await self._http.request(**self._arguments(call))
            except self._httpx.TransportError as error:
                raise self._make_error(call, error) from error
            if (pause_s := self._pause_s(response, tried)) is None:
                break
            await asyncio.sleep(pause_s)
        return self._read(call, response)
