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


def score_both(reco: Refines, images: Vectors, texts: Vectors, **options: Unpack[RefineKeywords]) -> Scores:
    """Score images (B, D) against texts (C, D), see :meth:`reco_plugin.reco.Reco.scores`.

    The caution of the images follows from the texts that the memory knows, unless the caller gives one.

    Raises:
        InputError: a fusion other than the closed form.
    """
    if options.get("fuser") not in (None, "reco"):
        raise InputError(f"fuser {options['fuser']!r} has no exact scores: compare its refined vectors, or use 'reco'")
    among = options.copy()
    among.pop("exclude", None)
    refined = reco.refine(texts, modality="text", role="candidate", **among)
    if options.get("caution") is None and (share := share_unknown(refined.coverage)) is not None:
        options["caution"] = share
    moved = reco.refine(images, modality="image", **options)
    frozen = np.asarray(images @ texts.T, np.float32)
    degraded = refined.degraded or moved.degraded
    if moved.moves is None and refined.moves is None:
        return Scores(frozen, frozen, refined.coverage, degraded)
    return Scores(score_pairs(moves_of(moved), moves_of(refined)), frozen, refined.coverage, degraded)


def share_unknown(coverage: Coverage | None) -> float | None:
    """The share of texts that the memory does not know: the caution of images that are compared with them."""
    return None if coverage is None or coverage.answered is None else 1.0 - coverage.answered


def moves_of(refined: Refinement) -> Moves:
    """How vectors move; not at all where they were not refined."""
    if refined.moves is not None:
        return refined.moves
    n, d = refined.frozen.shape
    nothing = np.zeros((n, d), np.float32)
    return Moves(refined.frozen, nothing, np.ones(n, np.float32), np.zeros(d, np.float32), np.zeros(n, np.bool_), 0.0)
