"""Exact scores of images against texts, over :class:`~reco_plugin.serve.embedder.Embedder`; synchronous."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..options import RefineOptions
from ..score import Scores
from ..types import Modality, Vectors
from .embedder import Embedder, Item, span
from .failures import Failure, Refused, too_many_items
from .lanes import still_wanted

MOST_SCORES = 1_000_000
"""In an answer, with the plain ones."""


@dataclass(frozen=True)
class ScoreRequest:
    """Images and texts to score; a Failure is an item that could not be read."""

    images: Sequence[Item | Failure]
    texts: Sequence[Item | Failure]
    options: RefineOptions
    queries: Modality = "image"


def score(embedder: Embedder, request: ScoreRequest) -> tuple[Scores, dict[str, float]]:
    """Score B images against C texts, of which one side asks; one bad item refuses all. With the seconds of each step.

    Raises:
        Refused: too many items, or one that cannot be embedded, by its place.
        RecoError: as :meth:`reco_plugin.reco.Reco.scores`.
    """
    embedder.check_size([*request.images, *request.texts], request.options)
    if (numbers := 2 * len(request.images) * len(request.texts)) > MOST_SCORES:
        raise Refused(too_many_items(numbers, MOST_SCORES, "scores", "of all"))
    started = time.perf_counter()
    with span("reco.prepare"), span("reco.encode"):
        images, texts = _encode(embedder, "image", request.images), _encode(embedder, "text", request.texts)
    encoded = time.perf_counter()
    still_wanted()
    with span("reco.refine"):
        found = embedder.reco.scores(images, texts, request.queries, **request.options)
    return found, {"encode": encoded - started, "refine": time.perf_counter() - encoded}


def _encode(embedder: Embedder, modality: Modality, items: Sequence[Item | Failure]) -> Vectors:
    """Encode to (N, D)."""
    ready = []
    for place, item in enumerate(items):
        one = item if isinstance(item, Failure) else embedder.prepare([item], truncate=True)[0]
        if isinstance(one, Failure):
            raise Refused(one.at(f"{modality}s[{place}]"))
        ready.append(one)
    return embedder.encode(ready, modality)
