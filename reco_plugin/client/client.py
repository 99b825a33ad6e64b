"""The client: what it asks, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..calibration.match import ABSENT
from ..match import PRECISION
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
        self._check_open()
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            return self._deadline.run(lambda: self.send(call, until))
