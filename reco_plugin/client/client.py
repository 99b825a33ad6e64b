"""The client: what it asks, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy.typing as npt

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
        return self._learn(Refined.join([self.send(part) for part in parts]))

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
        if not self._degrades or role != "query":
            return self._learn(Refined.join([self.send(part) for part in parts]))
        try:
            return self._learn(Refined.join([self._send_guarded(part) for part in parts]))
        except self._outage as outage:
            outage.tell()
            return Refined.unmoved(self._check_given(vectors), self._reason(outage), explain=explain)

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

    def add_pairs(self, pairs: Iterable[Pair | tuple[Any, ...]]) -> int:
        """Add pairs to the memory, or replace those with the same id; needs the admin key. Returns how many."""
        return sum(map(self.send, calls.add_pairs(pairs, self.batch_size)))

    def remove_pairs(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; needs the admin key. Returns how many existed."""
        return sum(map(self.send, calls.remove_pairs(ids, self.batch_size)))

    def _send_guarded(self, call: Call[T]) -> T:
        """Send a request of queries: not while the service is known to be away, and with all tries in short time."""
        self._check_open()
        until = time.monotonic() + self._query_s
        with self._guard.attempt():
            return self._deadline.run(lambda: self.send(call, until))
