"""Exact scores of images against texts, both refined through a memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Unpack

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .request import RefineKeywords
from .trust.scores import score_pairs
from .types import Coverage, Degraded, Modality, Moves, Refinement, Role, Vectors


class Refines(Protocol):
    """Reco or Refiner. To encode raw images and texts it needs an attribute ``encoder`` too."""

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineKeywords]
    ) -> Refinement:
        """Refine (B, D) unit-norm vectors."""
        ...


@dataclass(frozen=True)
class Scores:
    """Scores of B images for C texts.

    Attributes:
        scores: (B, C) float32 in units of a cosine; larger is nearer. Only comparable within a row.
        frozen: (B, C) plain cosines.
        coverage: which texts the memory knows; None where it was not searched.
        degraded: why the scores are plain although refinement was on.
    """

    scores: npt.NDArray[np.float32]
    frozen: npt.NDArray[np.float32]
    coverage: Coverage | None = None
    degraded: Degraded | None = None


class ExactScorer:
    """Scores images against one set of texts, which is refined once."""

    def __init__(self, reco: Refines, texts: Vectors, **options: Unpack[RefineKeywords]) -> None:
        """Refine texts (C, D).

        The caution of the images follows from the texts that the memory knows, unless the caller gives one.

        Raises:
            InputError: a fusion other than the closed form.
        """
        if options.get("fuser") not in (None, "reco"):
            raise InputError(f"fuser {options['fuser']!r} has no exact scores: compare refined vectors, or use 'reco'")
        options["fuser"] = "reco"
        self._reco, self._options = reco, options
        of_texts: RefineKeywords = {**options, "exclude": None}
        self._texts = reco.refine(texts, modality="text", role="candidate", **of_texts)
        if options.get("caution") is None and self._texts.coverage is not None:
            options["answered"] = self._texts.coverage.answered

    def score(self, images: Vectors) -> Scores:
        """Score images (B, D); errors as in :meth:`reco_plugin.reco.Reco.refine`."""
        moved = self._reco.refine(images, modality="image", **self._options)
        frozen = np.asarray(moved.frozen @ self._texts.frozen.T, np.float32)
        coverage, degraded = self._texts.coverage, self._texts.degraded or moved.degraded
        if moved.moves is None and self._texts.moves is None:
            return Scores(frozen, frozen, coverage, degraded)
        return Scores(score_pairs(moves_of(moved), moves_of(self._texts)), frozen, coverage, degraded)


def score_both(reco: Refines, images: Vectors, texts: Vectors, **options: Unpack[RefineKeywords]) -> Scores:
    """Score images (B, D) against texts (C, D), see :meth:`reco_plugin.reco.Reco.scores`."""
    return ExactScorer(reco, texts, **options).score(images)


def moves_of(refined: Refinement) -> Moves:
    """How vectors move; not at all where they were not refined."""
    if refined.moves is not None:
        return refined.moves
    n, d = refined.frozen.shape
    nothing = np.zeros((n, d), np.float32)
    return Moves(refined.frozen, nothing, np.ones(n, np.float32), np.zeros(d, np.float32), np.zeros(n, np.bool_), 0.0)
