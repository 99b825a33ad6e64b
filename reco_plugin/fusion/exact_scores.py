"""Exact scores of images and texts, both refined through a memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Unpack

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..options import RefineOptions
from ..types import Coverage, Degraded, Modality, Moves, Refinement, Role, ToldShort, Vectors, other
from .scores import score_pairs


class Refines(Protocol):
    """Reco or Refiner. To encode raw images and texts it needs an attribute ``encoder`` too."""

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        texts: Sequence[str | None] | None = None,
        **options: Unpack[RefineOptions],
    ) -> Refinement:
        """Refine (B, D) unit-norm vectors, of B texts where these are known."""
        ...


@dataclass(frozen=True, repr=False)
class Scores(ToldShort):
    """Scores of B images for C texts.

    Attributes:
        scores: (B, C) float32 in units of a cosine; larger is nearer. Only comparable for one query: within a row where
            images ask, within a column where texts do.
        frozen: (B, C) plain cosines.
        coverage: which candidates the memory knows; None where it was not searched.
        degraded: why the scores are plain although refinement was on.
    """

    scores: npt.NDArray[np.float32]
    frozen: npt.NDArray[np.float32]
    coverage: Coverage | None = None
    degraded: Degraded | None = None


class ExactScorer:
    """Scores queries against one set of candidates, which is refined once."""

    def __init__(
        self, reco: Refines, candidates: Vectors, modality: Modality = "text", **options: Unpack[RefineOptions]
    ) -> None:
        """Refine candidates (C, D) of a modality.

        Where the candidates are texts, the share of them that the memory knows is the ``coverage`` of the queries.

        Raises:
            InputError: a fusion other than the closed form.
        """
        if options.get("fuser") not in (None, "reco"):
            raise InputError(f"fuser {options['fuser']!r} has no exact scores: compare refined vectors, or use 'reco'")
        options["fuser"], options["target"] = "reco", other(modality)
        self._reco, self._options, self._queries = reco, options, other(modality)
        of_candidates: RefineOptions = {**options, "exclude": None}
        options["target"] = modality
        self._candidates = reco.refine(candidates, modality=modality, role="candidate", **of_candidates)
        if self._candidates.coverage is not None and self._candidates.coverage.answered is not None:
            options["coverage"] = self._candidates.coverage.answered

    def score(self, queries: Vectors) -> Scores:
        """Score queries (B, D) of the other modality, (B, C); errors as in :meth:`reco_plugin.reco.Reco.refine`."""
        moved, among = self._reco.refine(queries, modality=self._queries, **self._options), self._candidates
        frozen = np.asarray(moved.frozen @ among.frozen.T, np.float32)
        coverage, degraded = among.coverage, among.degraded or moved.degraded
        if coverage is not None and coverage.held and among.moves is not None:  # as vectors all stay; here some move
            far = np.linalg.norm(among.moves.added, axis=1) * among.moves.covered
            coverage = replace(coverage, strength=float(far.mean()))
        if moved.moves is None and among.moves is None:
            return Scores(frozen, frozen, coverage, degraded)
        return Scores(self._score(moved), frozen, coverage, degraded)

    def _score(self, queries: Refinement) -> npt.NDArray[np.float32]:
        among = moves_of(self._candidates, other(self._queries))
        return score_pairs(moves_of(queries, self._queries), among)


def score_both(
    reco: Refines, images: Vectors, texts: Vectors, queries: Modality = "image", **options: Unpack[RefineOptions]
) -> Scores:
    """Score images (B, D) against texts (C, D), see :meth:`reco_plugin.reco.Reco.scores`."""
    if queries == "image":
        return ExactScorer(reco, texts, **options).score(images)
    found = ExactScorer(reco, images, "image", **options).score(texts)
    return replace(found, scores=found.scores.T, frozen=found.frozen.T)


def moves_of(refined: Refinement, modality: Modality) -> Moves:
    """How vectors of a modality move; not at all where they were not refined."""
    if refined.moves is not None:
        return refined.moves
    n, d = refined.frozen.shape
    still, mean = np.zeros((n, d), np.float32), np.zeros(d, np.float32)
    return Moves(modality, refined.frozen, still, np.zeros(n, np.float32), mean, np.zeros(n, np.bool_), 0.0, 0.0)
