"""Learn calibration from a memory's pairs: moments and gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..types import MODALITIES, Modality, Vectors
from .corpus import Corpus, measure_corpus
from .fit import Fit
from .nearest import RowNumbers
from .state import FEWEST, LEVELS, Calibration, SideCalibration

HOPELESS = 0.95
"""Share of wrong captions from which a memory is not used."""
_TYPICAL = 1_000  # pairs that are compared with those of other captions
_BLOCK = 250


@dataclass(frozen=True)
class Calibrated:
    """A state, and the pairs it was learned from."""

    state: Calibration
    corpus: Corpus


def calibrate(
    image: Vectors,
    text: Vectors,
    *,
    k: int = DEFAULT_K,
    seed: int = 0,
    progress: Callable[[int], object] = int,
) -> Calibrated | None:
    """Learn calibration from pairs, (N, D) each, unit-norm; None where they are too few or too equal to learn from.

    The same pairs, in the same order, and the same seed give the same state, bit for bit.

    Args:
        image: (N, D) finite.
        text: (N, D) finite; row i belongs to image i.
        k: neighbours of the searches to come.
        seed: of all samples.
        progress: gets the number of pairs each time that their neighbours were found, once for each pair; then all of
            them for the fit of each side.
    """
    image, text = np.asarray(image, np.float32), np.asarray(text, np.float32)
    if len(image) < FEWEST or not (np.isfinite(image).all() and np.isfinite(text).all()):
        return None
    rng = np.random.default_rng(seed)
    corpus = measure_corpus(image, text, k=k, rng=rng, progress=progress)
    if corpus is None:
        return None
    fitted = Fit(corpus, rng, progress).fit()
    sides = {}
    for m in MODALITIES:
        others = _nearest_of_others(corpus, m, rng.permutation(len(corpus))[:_TYPICAL])
        sides[m] = SideCalibration(corpus.spreads[m], corpus.units[m], np.quantile(others.astype(np.float64), LEVELS))
    wrong = 1.0 if fitted.useless else fitted.trust.wrong
    reason = "its captions fit their images hardly better than those of others do" if wrong >= HOPELESS else ""
    state = Calibration(
        corpus.values,
        sides,
        corpus.same_caption,
        len(corpus),
        fitted.plda,
        replace(fitted.trust, wrong=wrong),
        None if reason else fitted.text,
        None if reason else fitted.image,
        reason,
    )
    return Calibrated(state, corpus)


def _nearest_of_others(corpus: Corpus, modality: Modality, rows: RowNumbers) -> npt.NDArray[np.float32]:
    """Similarity (n,) of some pairs to the nearest one of another caption."""
    x, parts = corpus.side(modality), []
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        scores = x[some] @ x.T
        scores[corpus.caption[some][:, None] == corpus.caption] = -2.0
        parts.append(scores.max(axis=1))
    return np.concatenate(parts)
