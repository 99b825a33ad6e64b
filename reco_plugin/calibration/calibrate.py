"""Learn calibration from a memory's pairs: moments and gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..types import MODALITIES, Modality, Vectors
from .corpus import Corpus, measure_corpus
from .episodes import Looked, asked_by, look
from .evidence import share
from .fit import fit_gate
from .state import FEWEST, HALF, LEVELS, Calibration, SideCalibration

ASKED, BLOCK = 4_800, 600
"""Pairs that a gate is fitted on, at most, and in one block."""
HOPELESS = 0.95
"""Share of doubtful captions from which a memory is not used."""
_NEAR = float(np.log(3.0))  # how sharply neighbours count there
_DOUBTED = 1_200  # pairs whose captions are looked at


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
    asked = rng.permutation(corpus.chosen)[:ASKED]
    state = _fit_state(corpus, asked, k, seed, progress)
    return Calibrated(state, corpus)


def _fit_state(
    corpus: Corpus, asked: npt.NDArray[np.intp], k: int, seed: int, progress: Callable[[int], object]
) -> Calibration:
    """The state with the gates of both sides."""
    blocks = np.array_split(np.arange(len(asked)), max(1, -(-len(asked) // BLOCK)))
    looked = look(corpus, asked, k)
    sides = {m: _plain_side(corpus, m, looked.hidden[m][1][:, 0]) for m in MODALITIES}
    one_image = float((looked.siblings == 0).mean()) >= HALF
    state = Calibration(
        corpus.values, sides, corpus.same_caption, len(corpus), _doubt(corpus, looked), one_image=one_image
    )
    if state.doubt >= HOPELESS:
        return replace(state, reason="its captions fit their images hardly better than those of other images do")

    def fit(modality: Modality) -> SideCalibration:
        asking = asked_by(corpus, modality, looked, np.random.default_rng(seed))
        gate = fit_gate(asking, blocks, max(state.doubt, 1.0 / len(corpus)), progress)
        progress(len(corpus))
        return replace(sides[modality], gate=gate)

    return replace(state, sides={m: fit(m) for m in MODALITIES})


def _doubt(corpus: Corpus, looked: Looked) -> float:
    """Share of captions that neither the pairs around nor CLIP tell from those of other images; more than are wrong."""
    rows, values = looked.rows[:_DOUBTED], corpus.values["text"]
    places, similarity = looked.visible["image"][0][: len(rows)], looked.visible["image"][1][: len(rows)]
    reliability = np.ones(places.shape, np.float32)
    near, _ = share(similarity, reliability, similarity > -1.5, _NEAR, corpus.spreads["image"])
    mean = np.stack([one @ corpus.text[here] for one, here in zip(near.astype(np.float32), places, strict=True)])
    text = corpus.text[rows].T
    rivals = ~looked.same[: len(rows), : len(rows)]
    np.fill_diagonal(rivals, val=False)

    def told(query: Vectors) -> float:
        scores = query @ text
        better = ((scores >= scores.diagonal()[:, None]) & rivals).sum(axis=1) / np.maximum(rivals.sum(axis=1), 1)
        return 2.0 * float(better.mean())  # half of the others score better than a wrong one

    return min(1.0, told(values.precision.apply(mean - values.mean)), told(corpus.image[rows]))


def _plain_side(corpus: Corpus, modality: Modality, nearest: npt.NDArray[np.float32]) -> SideCalibration:
    """A side without a gate, by the similarity (n,) of pairs to the nearest one of another caption."""
    there = nearest[nearest > -1.5].astype(np.float64)
    typical = np.asarray(np.quantile(there if len(there) else np.ones(1), LEVELS))
    return SideCalibration(corpus.spreads[modality], corpus.units[modality], typical)
