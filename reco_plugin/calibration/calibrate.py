"""Learn calibration from a memory's pairs: moments, reliability, gates, self-check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..defaults import NEIGHBOURS
from ..types import MODALITIES, Caution, Modality, Vectors
from .check import Check, Gates, check_pairs
from .corpus import Corpus, measure_corpus, witness_others
from .episodes import AskedTwice, asked_by, look
from .fit import PairBlocks, choose_sharpness, fit_gates
from .gate import FITTED, LEVELS, PRIOR, SHARPNESS, Gate
from .sharpen import OwnCheck, learn_sharpening
from .state import ENOUGH, FEWEST, Calibration, SideCalibration, shares_of

ASKED, BLOCK = 4_800, 600
"""Pairs that a gate is fitted on, at most, and in one block. With 600 in one, what a memory gained depended on which
pairs were drawn (``docs/tried.md``)."""
TRIED = 4
"""Blocks that the sharpness of neighbours is chosen on."""
CHECKED = 500
"""Pairs of the self-check, which did not ask where there are more than :data:`ASKED`."""
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
    if state.fitted:
        sides, own = dict[Modality, SideCalibration](), dict[Modality, OwnCheck]()
        for m in MODALITIES:
            sharpening, found = learn_sharpening(corpus, m, np.random.default_rng(seed))
            sides[m] = replace(state.sides[m], sharpening=sharpening)
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
    """Check on other pairs than those of the fit, where there are enough: five coefficients hardly know a pair."""
    rest = np.setdiff1d(np.arange(len(corpus)), asked)
    rows = rng.permutation(rest if len(rest) >= 150 else asked)[:CHECKED]
    return check_pairs(corpus, gates, rows, k=k)


def _fit_state(
    corpus: Corpus, asked: npt.NDArray[np.intp], k: int, seed: int, progress: Callable[[int], object]
) -> Calibration:
    """The state with the gates of both sides, without its check."""
    blocks = np.array_split(np.arange(len(asked)), max(2, -(-len(asked) // BLOCK)))
    fits = corpus.learned.wrong < HOPELESS
    looked = look(corpus, asked, k)

    def ask(m: Modality) -> AskedTwice:
        sharpness = choose(m) if fits else SHARPNESS
        return asked_by(corpus, m, looked).questions(sharpness)

    def choose(m: Modality) -> float:
        rng, tried = np.random.default_rng(0), blocks[:TRIED]
        return choose_sharpness(asked_by(corpus, m, looked.first(sum(map(len, tried))), rng), tried, rng)

    questions = {m: ask(m) for m in MODALITIES}
    plain = {m: SideCalibration(corpus.spreads[m], corpus.units[m], _typical(questions[m])) for m in MODALITIES}
    siblings = looked.siblings
    unanswerable = float((1.0 / (1.0 + siblings)).mean())
    state = Calibration(
        corpus.values,
        plain,
        corpus.learned,
        corpus.same_caption,
        len(corpus),
        unanswerable,
        corpus.own,
        fitted=False,
    )
    if not fits:
        return replace(state, reason="its captions fit their images hardly better than those of other images do")
    alone = float((siblings == 0).mean())
    one_image = alone >= _ONE_IMAGE
    if one_image:  # hidden from themselves, its pairs have no answer, which says nothing of queries to come
        unanswerable = min(unanswerable, _UNANSWERED_VIEWS)

    def fit(modality: Modality) -> SideCalibration:
        asks = questions[modality]
        candidates = {} if one_image else _fit_cautions(asks, blocks, unanswerable, seed)
        gates = candidates
        if alone > _SINGLE:
            views = asked_by(corpus, modality, looked, np.random.default_rng(seed + 1)).questions(asks.sharpness)
            gates = _fit_cautions(views, blocks, min(unanswerable, _UNANSWERED_VIEWS), seed, weighted=True)
        if one_image and modality == "text":
            candidates = gates  # for what CLIP does not know: a text with one pair would move to one image of many
        progress(len(corpus))
        return replace(plain[modality], gates=gates, candidate_gates=candidates)

    sides = {m: fit(m) for m in MODALITIES}
    if len(corpus) < ENOUGH:
        safe = {modality: _nearly_safe(sides[modality], PRIOR[modality], len(corpus)) for modality in MODALITIES}
        return replace(state, sides=safe, unanswerable=unanswerable, one_image=one_image)
    without = [modality for modality in MODALITIES if not sides[modality].gates]
    reason = f"its own pairs show no gain for {' and '.join(without)} queries" if without else ""
    return replace(state, sides=sides, unanswerable=unanswerable, fitted=True, reason=reason, one_image=one_image)


def _nearly_safe(side: SideCalibration, prior: Gate, pairs: int) -> SideCalibration:
    """A side of a small memory: the safe gate counts as :data:`ENOUGH` pairs, its own as the pairs that there are."""
    own = pairs / (pairs + ENOUGH)

    def between(gates: Mapping[Caution, Gate]) -> dict[Caution, Gate]:
        return {caution: prior.between(gate, own) for caution, gate in gates.items()}

    gates = between(side.gates) or dict.fromkeys(FITTED, prior)
    return replace(side, gates=gates, candidate_gates=between(side.candidate_gates))


def _typical(questions: AskedTwice) -> npt.NDArray[np.float64]:
    """Quantiles of the similarity of a pair to the nearest one of another caption."""
    nearest = questions.hidden.signals[questions.hidden.anything, 3]
    return np.asarray(np.quantile(nearest.astype(np.float64) if len(nearest) else np.ones(1), LEVELS))


def _fit_cautions(
    questions: AskedTwice, blocks: PairBlocks, unanswerable: float, seed: int, *, weighted: bool = False
) -> dict[Caution, Gate]:
    """A gate for each caution; none where the balanced one does not save loss."""
    shares, order = shares_of(unanswerable), FITTED
    rng = np.random.default_rng(seed)
    gates = fit_gates(questions, blocks, [shares[one] for one in order], rng=rng, weighted=weighted)
    return dict(zip(order, gates, strict=True)) if gates else {}
