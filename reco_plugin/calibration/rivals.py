"""Whom a pair is compared with in the fit: in turn, the others of several blocks, of each of which few count.

Of a softmax over some hundred rivals, a few make up most. So those with the highest scores are kept, and of the others
some are drawn, each of which stands for many: in the mean, their sum is that of all. So each pair can meet all that
ask, block by block, and which block it is in matters little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from .episodes import AskedTwice

MEETINGS = 16
"""Of one block with another, or with itself, at most: all, of four blocks (``docs/tried.md``)."""
HIGHEST, DRAWN = 24, 24
"""Rivals of a block that are kept, and that stand for the others: with twice as many, gates are much the same
(``docs/tried.md``)."""
WHOLE = 192
"""Pairs of a block that are met whole: of 354 pairs, names of dogs else deviate by 1.2 points over orders, not .3."""
NO_RIVAL = np.float32(-1e9)


@dataclass(frozen=True)
class Rivals:
    """M rows of W rivals; where images ask, a row is a query, and where texts ask, the image for which they compete.

    Attributes:
        rows: (M,) which pair, among those that ask; a pair has a row for each block that it meets.
        places: (M, W) which pairs are its rivals.
        plain: (M, W) plain scores, less each query's mean.
        evidence: (M, W) scores of the evidence, siblings visible and hidden.
        weight: (M, W) logarithm of how many each stands for, visible and hidden; far below where it is no rival.
        among: (M,) how many candidates there are.
    """

    rows: npt.NDArray[np.intp]
    places: npt.NDArray[np.intp]
    plain: Floats
    evidence: tuple[Floats, Floats]
    weight: tuple[Floats, Floats]
    among: npt.NDArray[np.float64]

    def where(self, mask: npt.NDArray[np.bool_]) -> Rivals:
        """Some rows (M,)."""
        seen, hidden = (one[mask] for one in self.evidence)
        shown, unshown = (one[mask] for one in self.weight)
        return Rivals(
            self.rows[mask], self.places[mask], self.plain[mask], (seen, hidden), (shown, unshown), self.among[mask]
        )


def meet(
    questions: AskedTwice, blocks: Sequence[npt.NDArray[np.intp]], meetings: int, rng: np.random.Generator
) -> Rivals:
    """Let the pairs of each block meet its own and those of the blocks that follow it.

    Args:
        questions: of the n pairs that ask.
        blocks: places among them, each once.
        meetings: of all blocks together; each meets at least itself, and at most all.
        rng: draws those that stand for others.
    """
    texts = questions.modality == "text"
    out = [questions.out(found).T if texts else questions.out(found) for found in questions.both]
    turns = range(min(len(blocks), max(1, meetings // len(blocks))))
    width = size if (size := max(map(len, blocks))) <= WHOLE else HIGHEST + DRAWN
    met = list[Rivals]()
    for number, some in enumerate(blocks):
        for turn in turns:
            others = blocks[(number + turn) % len(blocks)]
            plain, evidence, base = _scores(questions, some, others)
            gone = questions.same[np.ix_(some, others)] | (some[:, None] == others)
            column, weight = _choose(plain + base, evidence, gone, width, rng)
            places = others[column]
            seen, hidden = (np.take_along_axis(one, column, 1) for one in evidence)
            never = some[:, None] == places
            shown, unshown = (np.where(never | one[some[:, None], places], NO_RIVAL, weight) for one in out)
            among = np.full(len(some), float(len(others)))
            kept = np.take_along_axis(plain, column, 1)
            met.append(Rivals(some, places, kept, (seen, hidden), (shown, unshown), among))
    return _join(met)


def _scores(
    questions: AskedTwice, some: npt.NDArray[np.intp], others: npt.NDArray[np.intp]
) -> tuple[Floats, tuple[Floats, Floats], Floats | float]:
    """Plain scores, those of the evidence (m, o), and what each column has in common."""
    query, held, (seen, hidden) = questions.query, questions.held, questions.both
    if questions.modality == "text":
        evidence = seen.answers[some] @ seen.direction[others].T, hidden.answers[some] @ hidden.direction[others].T
        return held[some] @ query[others].T, evidence, questions.base[others]
    evidence = seen.direction[some] @ seen.answers[others].T, hidden.direction[some] @ hidden.answers[others].T
    return query[some] @ held[others].T, evidence, 0.0


def _choose(
    plain: Floats, evidence: Sequence[Floats], gone: npt.NDArray[np.bool_], width: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Columns (m, width), and the logarithm (width,) of how many each stands for.

    Kept are those with a high score, plain or of the evidence or both at equal strength: where a gate moves queries to,
    is not known yet.
    """
    rows, among = plain.shape
    if among <= width:
        column = np.arange(width)
        there = np.where(column < among, np.float32(0.0), NO_RIVAL)
        return np.broadcast_to(np.minimum(column, among - 1), (rows, width)), there
    score = plain.copy()
    for one in evidence:
        np.maximum(score, one, out=score)
        np.maximum(score, (plain + one) * np.float32(np.sqrt(0.5)), out=score)
    score[gone] = NO_RIVAL
    order = np.argpartition(-score, HIGHEST - 1, axis=1)
    drawn = rng.integers(HIGHEST, among, (rows, width - HIGHEST))
    column = np.concatenate([order[:, :HIGHEST], np.take_along_axis(order, drawn, 1)], axis=1)
    counts = np.repeat([1.0, (among - HIGHEST) / (width - HIGHEST)], [HIGHEST, width - HIGHEST])
    return column, np.log(counts).astype(np.float32)


def _join(parts: Sequence[Rivals]) -> Rivals:
    seen, hidden = (np.concatenate([part.evidence[i] for part in parts]) for i in (0, 1))
    shown, unshown = (np.concatenate([part.weight[i] for part in parts]) for i in (0, 1))
    return Rivals(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.plain for part in parts]),
        (seen, hidden),
        (shown, unshown),
        np.concatenate([part.among for part in parts]),
    )
