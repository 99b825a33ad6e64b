"""Learn calibration from a memory's pairs: moments, reliability and gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..types import MODALITIES, Modality, Vectors
from .corpus import Corpus, measure_corpus, score_other_captions
from .episodes import asked_by, look
from .evidence import Gate
from .fit import choose_sharpness, fit_gate
from .state import ENOUGH, FEWEST, LEVELS, Calibration, SideCalibration

ASKED, BLOCK = 4_800, 600
"""Pairs that a gate is fitted on, at most, and in one block."""
SAFE: Mapping[Modality, npt.NDArray[np.float64]] = {
    "image": np.array([-1.2, -1.2, -0.8, 0.6, 1.1]),
    "text": np.array([-1.0, -0.2, -0.2, 2.0, 0.2]),
}
"""Coefficients that those of a small memory are drawn to: most queries are for what it does not hold, which its pairs
cannot show, so a text's move falls fast with distance."""
_TRIED = 4  # blocks that the sharpness of neighbours is chosen on
_HOPELESS = 0.9  # share of wrong captions, as reliability estimates it, from which a memory is not used
_HALF = 0.5  # share of pairs without siblings from which a memory has one image a caption
_SINGLE = 0.05  # share of pairs without siblings from which queries are fitted with simulated views


@dataclass(frozen=True)
class Calibrated:
    """A state, and the pairs it was learned from, whose caption scores (N, 3) are stored with each."""

    state: Calibration
    corpus: Corpus

    @property
    def caption_scores(self) -> npt.NDArray[np.float32]:
        """Of the pairs."""
        return self.corpus.caption_scores

    def score_captions(
        self, image: Vectors, text: Vectors, progress: Callable[[int], object] = int
    ) -> npt.NDArray[np.float32]:
        """Caption scores (M, 3) of other pairs (M, D); progress as in :func:`calibrate`."""
        return score_other_captions(self.corpus, image, text, progress)


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
        progress: gets the number of pairs each time that their neighbours were found, twice for each pair; then all of
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
    unanswerable, alone = float((1.0 / (1.0 + looked.siblings)).mean()), float((looked.siblings == 0).mean())
    one_image = alone >= _HALF
    if one_image:  # hidden from themselves, its pairs have no answer, which says nothing of queries to come
        unanswerable = min(unanswerable, _HALF)
    plain = {m: _plain_side(corpus, m, looked.hidden[m][1][:, 0]) for m in MODALITIES}
    state = Calibration(
        corpus.values, plain, corpus.learned, corpus.same_caption, len(corpus), unanswerable, corpus.own, fitted=False
    )
    if corpus.learned.wrong >= _HOPELESS:
        return replace(state, reason="its captions fit their images hardly better than those of other images do")
    share = state.shares["balanced"]

    def fit(modality: Modality) -> SideCalibration:
        tried = blocks[:_TRIED]
        first = asked_by(corpus, modality, looked.first(sum(map(len, tried))), np.random.default_rng(seed))
        sharpness = choose_sharpness(first, tried, _HALF)
        candidate: Gate | None = None
        if not one_image:
            candidate = fit_gate(
                asked_by(corpus, modality, looked).ask(sharpness), blocks, share, sharpness, weighted=False
            )
        gate = candidate
        if alone > _SINGLE:
            views = asked_by(corpus, modality, looked, np.random.default_rng(seed + 1))
            gate = fit_gate(views.ask(sharpness), blocks, share, sharpness, weighted=True)
        if one_image and modality == "text":
            candidate = gate  # for what CLIP does not know: a text with one pair would move to one image of many
        progress(len(corpus))
        return replace(plain[modality], gate=gate, candidate_gate=candidate)

    sides = {m: fit(m) for m in MODALITIES}
    fitted = len(corpus) >= ENOUGH
    if not fitted:
        sides = {m: _drawn(side, SAFE[m], len(corpus)) for m, side in sides.items()}
    without = [m for m in MODALITIES if sides[m].gate is None]
    reason = f"its own pairs show no gain for {' and '.join(without)} queries" if without else ""
    return replace(state, sides=sides, fitted=fitted, reason=reason if fitted else "", one_image=one_image)


def _plain_side(corpus: Corpus, modality: Modality, nearest: npt.NDArray[np.float32]) -> SideCalibration:
    """A side without gates, by the similarity (n,) of pairs to the nearest one of another caption."""
    there = nearest[nearest > -1.5].astype(np.float64)
    typical = np.asarray(np.quantile(there if len(there) else np.ones(1), LEVELS))
    return SideCalibration(corpus.spreads[modality], corpus.units[modality], typical)


def _drawn(side: SideCalibration, safe: npt.NDArray[np.float64], pairs: int) -> SideCalibration:
    """A side of a small memory: the safe coefficients count as :data:`.state.ENOUGH` pairs."""
    own = pairs / (pairs + ENOUGH)

    def drawn(gate: Gate | None) -> Gate | None:
        return gate and replace(gate, phi=own * gate.phi + (1.0 - own) * safe)

    return replace(side, gate=drawn(side.gate), candidate_gate=drawn(side.candidate_gate))
