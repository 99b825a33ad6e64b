"""The blocking client, and the same for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..calibration.match import ABSENT
from ..match import PRECISION
from ..proxies import usable_environment
from ..score import Scores
from ..types import ImageInput, Modality, Pair, Role, Vectors
from . import calls
from .calls import Call, Refined, ServedHow, ServedMatches, T
from .service import Service


class Client(Service):
    """Calls a `reco serve`; safe to use from several threads.

    Example::

        with Client("http://localhost:8080", api_key="...") as reco:
            vectors = reco.embed_texts(["a red fox"], refine=True)
    """

    def _connect(self) -> None:
        with usable_environment():
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
            SessionError: the service failed, cannot be reached, or timed out, and there is no fallback for it.
        """
        return self.embed(texts, modality="text", role=role, refine=refine, **options).vectors

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Vectors:
        """Embed B images (paths, bytes or PIL images) to (B, D); otherwise as :meth:`embed_texts`."""
        return self.embed(images, modality="image", role=role, refine=refine, **options).vectors

    def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Embed B texts or images to (B, D), and say whether they are refined; otherwise as :meth:`embed_texts`."""
        parts = calls.embed(items, modality, role, refine, self.batch_size, options)
        makes = self._falls_back(modality, role)
        if makes is None:
            return self._take(parts)
        return self._take(parts, lambda: self._check_plain(makes(items), len(items)))  # type: ignore[arg-type]

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        explain: bool = False,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Refine (B, D) CLIP vectors of the service's encoder; queries stay as they are while the service is away.

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
        if self.fallback is None or role != "query":
            return self._take(parts)
        return self._take(parts, lambda: self._check_given(vectors), explain=explain)

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

    def check_fallback(self, items: Sequence[ImageInput] | Sequence[str], modality: Modality = "text") -> None:
        """Compare the fallback with the service, when an application starts: vectors of another encoder find nothing.

        Args:
            items: B texts or images.
            modality: which of both.

        Raises:
            ConfigError: there is no fallback for these, or it makes other vectors than the service.
            SessionError: the service cannot be reached.
        """
        makes = self._need_fallback(modality)
        served = self._take(calls.embed(items, modality, "query", False, self.batch_size, {})).vectors
        self._compare(served, makes(items))

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

    def match(
        self,
        queries: Sequence[ImageInput] | Sequence[str] | Vectors,
        scores: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]],
        *,
        modality: Modality,
        refine: bool = True,
        precision: float = PRECISION,
        absent: float = ABSENT,
        **options: Unpack[ServedHow],
    ) -> ServedMatches:
        """Say how sure the first answers of your own index are, see :meth:`reco_plugin.Reco.match`.

        Example::

            with Client("http://localhost:8080", api_key="...") as reco:
                vectors = reco.embed_texts(["a red fox"], refine=True)
                hits = my_index.search(vectors[0], k=10)
                sure = reco.match(["a red fox"], [[hit.score for hit in hits]], modality="text")
                sure.first[0], sure.none[0], sure.passes[0]

        Args:
            queries: B texts or images, or plain vectors (B, D), which the service refines again as for the search.
            scores: B rankings: the cosines of the first ten answers, the best first.
            modality: of the queries.
            refine: whether the index was searched by refined vectors; False: by plain ones.
            precision: share of right ones that is promised of the first answers that pass, from .5 to below 1.
            absent: up to which share of the queries may have no right answer in the index.
            options: as in :meth:`refine`, and as they were for the search.

        Raises:
            InputError: scores that are no cosines or not one ranking a query, or a memory of too few things.
            SessionUnavailable: the memory learns from its pairs for the first time: ask again later.
            RecoError: as :meth:`embed_texts`.
        """
        how = calls.MatchHow(refine=refine, precision=precision, absent=absent)
        parts = calls.match(queries, scores, modality, self.batch_size, how, options)
        return ServedMatches.join([self.send(part) for part in parts])

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

    def _take(
        self, parts: Sequence[Call[Refined]], plain: Callable[[], Vectors] | None = None, *, explain: bool = False
    ) -> Refined:
        """The answers to all parts as one; where one fails and ``plain`` makes plain vectors, those for all."""
        if plain is None:
            return self._learn(Refined.join([self.send(part) for part in parts]))
        try:
            return self._learn(Refined.join([self._send_guarded(part) for part in parts]))
        except self._outage as outage:
            outage.tell()
            return Refined.unmoved(plain(), self._reason(outage), explain=explain)

    def _send_guarded(self, call: Call[T]) -> T:
        """Send a request of queries: not while the service is known to be away, and with all tries in short time."""
        self._check_open(self._http)
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            return self._deadline.run(lambda: self.send(call, until))

    def send(self, call: Call[T], until: float = math.inf) -> T:
        """Send one request, again while the service has no room, and read its answer; errors as elsewhere.

        Args:
            call: the request.
            until: by the monotonic clock, when nobody waits for the answer any more.
        """
        self._check_open(self._http)
        for tried in count():
            try:
                response = self._http.request(**self._arguments(call, until))
            except self._httpx.TransportError as error:
                if self._broke(error, tried, until):
                    continue
                raise self._make_error(call, error) from error
            if (pause_s := self._pause_s(response, tried, until)) is None:
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
        with usable_environment():
            self._http = self._httpx.AsyncClient(**self._options)

    async def embed_texts(
        self, texts: Sequence[str], *, role: Role = "query", refine: bool | None = None, **options: Unpack[ServedHow]
    ) -> Vectors:
        """Embed B texts to (B, D), as :meth:`.Client.embed_texts`."""
        return (await self.embed(texts, modality="text", role=role, refine=refine, **options)).vectors

    async def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Vectors:
        """Embed B images to (B, D), as :meth:`.Client.embed_images`."""
        return (await self.embed(images, modality="image", role=role, refine=refine, **options)).vectors

    async def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[ServedHow],
    ) -> Refined:
        """Embed B texts or images to (B, D), as :meth:`.Client.embed`."""
        parts = calls.embed(items, modality, role, refine, self.batch_size, options)
        makes: Any = self._falls_back(modality, role)
        if makes is None:
            return await self._take(parts)

        async def plain() -> Vectors:
            made = await asyncio.to_thread(makes, items)  # an encoder takes its time
            return self._check_plain(await made if inspect.isawaitable(made) else made, len(items))

        return await self._take(parts, plain)

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
        if self.fallback is None or role != "query":
            return await self._take(parts)

        async def plain() -> Vectors:
            return self._check_given(vectors)

        return await self._take(parts, plain, explain=explain)

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

    async def check_fallback(self, items: Sequence[ImageInput] | Sequence[str], modality: Modality = "text") -> None:
        """Compare the fallback with the service, as :meth:`.Client.check_fallback`."""
        makes = self._need_fallback(modality)
        served = (await self._take(calls.embed(items, modality, "query", False, self.batch_size, {}))).vectors
        made = await asyncio.to_thread(makes, items)
        self._compare(served, await made if inspect.isawaitable(made) else made)

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

    async def match(
        self,
        queries: Sequence[ImageInput] | Sequence[str] | Vectors,
        scores: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]],
        *,
        modality: Modality,
        refine: bool = True,
        precision: float = PRECISION,
        absent: float = ABSENT,
        **options: Unpack[ServedHow],
    ) -> ServedMatches:
        """Say how sure the first answers of your own index are, as :meth:`.Client.match`."""
        how = calls.MatchHow(refine=refine, precision=precision, absent=absent)
        parts = calls.match(queries, scores, modality, self.batch_size, how, options)
        return ServedMatches.join([await self.send(part) for part in parts])

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

    async def _take(
        self,
        parts: Sequence[Call[Refined]],
        plain: Callable[[], Awaitable[Vectors]] | None = None,
        *,
        explain: bool = False,
    ) -> Refined:
        """The answers to all parts as one; where one fails and ``plain`` makes plain vectors, those for all."""
        if plain is None:
            return self._learn(Refined.join([await self.send(part) for part in parts]))
        try:
            return self._learn(Refined.join([await self._send_guarded(part) for part in parts]))
        except self._outage as outage:
            outage.tell()
            return Refined.unmoved(await plain(), self._reason(outage), explain=explain)

    async def _send_guarded(self, call: Call[T]) -> T:
        """Send a request of queries: not while the service is known to be away, and with all tries in short time."""
        self._check_open(self._http)
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            try:
                async with asyncio.timeout(self._query_s):
                    return await self.send(call, until)
            except TimeoutError:
                raise self._late() from None

    async def send(self, call: Call[T], until: float = math.inf) -> T:
        """Send one request, as :meth:`.Client.send`."""
        self._check_open(self._http)
        for tried in count():
            try:
                response = await self._http.request(**self._arguments(call, until))
            except self._httpx.TransportError as error:
                if self._broke(error, tried, until):
                    continue
                raise self._make_error(call, error) from error
            if (pause_s := self._pause_s(response, tried, until)) is None:
                break
            await asyncio.sleep(pause_s)
        return self._read(call, response)
