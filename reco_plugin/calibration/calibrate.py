"""Learn calibration from a memory's pairs: moments, reliability, gates, self-check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..blas import side_by_side
from ..defaults import NEIGHBOURS
from ..types import MODALITIES, Caution, Modality, Vectors
from .check import Check, Gates, check_pairs
from .corpus import Corpus, measure_corpus, witness_others
from .episodes import Episodes, look, make_episodes
from .fit import choose_sharpness, fit_gates
from .gate import FITTED, LEVELS, PRIOR, SHARPNESS, Gate
from .presence import learn_presence
from .sharpen import OwnCheck, learn_sharpening
from .state import ENOUGH, FEWEST, Calibration, SideCalibration, shares_of

ASKED, BLOCK = 2_400, 600
"""Pairs that a gate is fitted on, at most, and in one block. With 600 in one, what a memory gained depended on which
pairs were drawn (``docs/measurements/gate.md``)."""
TRIED = 2
"""Blocks that the sharpness of neighbours is chosen on."""
FEW = 600
"""Pairs that a gate is fitted on at least, where there are so many; the self-check has others from there on."""
CHECKED = 500
"""Pairs of the self-check."""
HOPELESS = 0.9
"""Share of wrong captions, as reliability estimates it, from which a memory is not used."""
_UNANSWERED_VIEWS = 0.5  # most that is assumed of simulated views; the measured share of .75 halves the gain
_ONE_IMAGE = 0.5  # share of pairs without siblings from which candidates have nothing of their own to learn from
_SINGLE = 0.05  # share of pairs without siblings from which queries are fitted with simulated views


@dataclass(frozen=True)
class Calibrated:
    """A state, and the pairs it was learned from, whose witnesses (N, 3) are stored with each."""

    state: Calibration
    corpus: Corpus

    @property
    def witnesses(self) -> npt.NDArray[np.float32]:
        """Of the pairs."""
        return self.corpus.witnesses

    def witness(
        self, image: Vectors, text: Vectors, progress: Callable[[int], object] = int
    ) -> npt.NDArray[np.float32]:
        """Witnesses (M, 3) of other pairs (M, D); progress as in :func:`calibrate`."""
        return witness_others(self.corpus, image, text, progress)


def calibrate(
    image: Vectors,
    text: Vectors,
    *,
    k: int = NEIGHBOURS,
    seed: int = 0,
    progress: Callable[[int], object] = int,
    witnessed: Callable[[npt.NDArray[np.float32]], object] = len,
) -> Calibrated | None:
    """Learn calibration from pairs, (N, D) each, unit-norm; None where they are too few or too equal to learn from.

    The same pairs, in the same order, and the same seed give the same state, bit for bit.

    Args:
        image: (N, D) finite.
        text: (N, D) finite; row i belongs to image i.
        k: neighbours of the searches to come.
        seed: of all samples.
        progress: gets the number of pairs each time that their neighbours were found, twice for each pair; then all of
            them for the fit of each side, and for the self-check, where there are enough.
        witnessed: gets the witnesses (N, 3), once, as soon as they are known: most else is learned after them.
    """
    image, text = np.asarray(image, np.float32), np.asarray(text, np.float32)
    if len(image) < FEWEST or not (np.isfinite(image).all() and np.isfinite(text).all()):
        return None
    rng = np.random.default_rng(seed)
    corpus = measure_corpus(image, text, k=k, rng=rng, progress=progress)
    if corpus is None:
        return None
    witnessed(corpus.witnesses)
    asked = rng.permutation(corpus.chosen)[: min(ASKED, max(FEW, len(corpus) - CHECKED))]
    state = _fit_state(corpus, asked, k, seed, progress)
    if state.fitted:
        sides, own = dict[Modality, SideCalibration](), dict[Modality, OwnCheck]()
        sharpened = side_by_side(lambda m: learn_sharpening(corpus, m, np.random.default_rng(seed)), MODALITIES)
        for m, (sharpening, found) in zip(MODALITIES, sharpened, strict=True):
            presence = learn_presence(corpus, m, k, seed=seed)
            sides[m] = replace(state.sides[m], sharpening=sharpening, presence=presence)
            own |= {m: found} if found is not None else {}
        state = replace(state, sides=sides)
        gates = {modality: _gates_of(state, modality) for modality in MODALITIES}
        state = replace(state, check=replace(_check(corpus, gates, asked, k, rng), own=own))
        progress(len(corpus))
    return Calibrated(state, corpus)


def _gates_of(state: Calibration, modality: Modality) -> Gates:
    """As a caller who gives no caution meets them, where the memory knows all candidates."""
    known = state.assume(1.0)
    return Gates(
        state.gate(modality, "balanced"),
        state.gate(modality, known, among=True),
        None if state.one_image else state.gate(modality, known, candidate=True),  # nothing shows it
    )


def _check(
    corpus: Corpus,
    gates: Mapping[Modality, Gates],
    asked: npt.NDArray[np.intp],
    k: int,
    rng: np.random.Generator,
) -> Check:
    """Check on other pairs than those of the fit, where there are enough."""
    rest = np.setdiff1d(np.arange(len(corpus)), asked)
    rows = rng.permutation(rest)[:CHECKED] if len(rest) >= 150 else asked
    return check_pairs(corpus, gates, rows, k=k)


def _fit_state(
    corpus: Corpus, asked: npt.NDArray[np.intp], k: int, seed: int, progress: Callable[[int], object]
) -> Calibration:
    """The state with the gates of both sides, without its check."""
    parts = np.array_split(asked, max(2, -(-len(asked) // BLOCK)))
    fits = len(corpus) >= ENOUGH and corpus.learned.wrong < HOPELESS
    looked = [look(corpus, rows, k) for rows in parts]

    def ask(m: Modality) -> list[Episodes]:
        sharpness = choose_sharpness(corpus, m, looked[:TRIED]) if fits else SHARPNESS
        return [make_episodes(corpus, m, one, sharpness=sharpness) for one in looked]

    blocks = dict(zip(MODALITIES, side_by_side(ask, MODALITIES), strict=True))
    plain = {m: SideCalibration(corpus.spreads[m], corpus.units[m], _typical(blocks[m])) for m in MODALITIES}
    siblings = np.concatenate([block.siblings for block in blocks["text"]])
    unanswerable = float((1.0 / (1.0 + siblings)).mean())
    state = Calibration(
        corpus.values, plain, corpus.learned, corpus.same_caption, len(corpus), unanswerable, corpus.own, fitted=False
    )
    if corpus.learned.wrong >= HOPELESS:
        return replace(state, reason="its captions fit their images hardly better than those of other images do")
    if len(corpus) < ENOUGH:
        prior = {m: replace(plain[m], gates=dict.fromkeys(FITTED, PRIOR[m])) for m in MODALITIES}
        return replace(state, sides=prior)
    alone = float((siblings == 0).mean())
    one_image = alone >= _ONE_IMAGE
    if one_image:  # hidden from themselves, its pairs have no answer, which says nothing of queries to come
        unanswerable = min(unanswerable, _UNANSWERED_VIEWS)

    def fit(modality: Modality) -> SideCalibration:
        candidates = {} if one_image else _fit_cautions(blocks[modality], modality, unanswerable, seed)
        gates = candidates
        if alone > _SINGLE:
            drawn = np.random.default_rng(seed + 1)
            sharpness = blocks[modality][0].sharpness
            views = [make_episodes(corpus, modality, one, views=drawn, sharpness=sharpness) for one in looked]
            gates = _fit_cautions(views, modality, min(unanswerable, _UNANSWERED_VIEWS), seed, weighted=True)
        if one_image and modality == "text":
            candidates = gates  # for what CLIP does not know: a text with one pair would move to one image of many
        return replace(plain[modality], gates=gates, candidate_gates=candidates)

    fitted = side_by_side(fit, MODALITIES, lambda _: progress(len(corpus)))
    sides = dict(zip(MODALITIES, fitted, strict=True))
    without = [modality for modality in MODALITIES if not sides[modality].gates]
    reason = f"its own pairs show no gain for {' and '.join(without)} queries" if without else ""
    return replace(state, sides=sides, unanswerable=unanswerable, fitted=True, reason=reason, one_image=one_image)


def _typical(blocks: Sequence[Episodes]) -> npt.NDArray[np.float64]:
    """Quantiles of the similarity of a pair to the nearest one of another caption."""
    nearest = np.concatenate([block.hidden.signals[block.hidden.found, 3] for block in blocks])
    return np.asarray(np.quantile(nearest.astype(np.float64) if len(nearest) else np.ones(1), LEVELS))


def _fit_cautions(
    blocks: Sequence[Episodes], modality: Modality, unanswerable: float, seed: int, *, weighted: bool = False
) -> dict[Caution, Gate]:
    """A gate for each caution; none where the balanced one does not save loss."""
    shares, order = shares_of(unanswerable), FITTED
    rng = np.random.default_rng(seed)
    gates = fit_gates(blocks, modality, [shares[one] for one in order], rng=rng, weighted=weighted)
    return dict(zip(order, gates, strict=True)) if gates else {}
