"""Fit the gates on held-out pairs of the memory, without labels.

One pair of each of a thousand captions asks at a time. It is hidden, so that its caption has one picture less, and in
the model of the axes its fold was not seen. The loss is that of the paper, a softmax over the captions, made deaf to
wrong ones: minus the logarithm of ``(1 - w) softmax + w / C``, where w, the share of wrong captions, is fitted too. An
image asks twice: with the other pairs of its caption, and without, where nothing may move. Where most captions
have one picture, images count what :data:`IMAGE_START` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..fusion.evidence import (
    ImageGate,
    TextGate,
    Trust,
    caption_ratios,
    familiarity,
    image_nats,
    logit,
    lowe_ratio,
    sigmoid,
)
from ..types import Vectors
from ..vectors import Floats
from .corpus import Corpus
from .nearest import NearestRows, RowNumbers, nearest_columns
from .plda import Plda, measure_plda

ASKED, CAPTIONS, MEASURED = 2_000, 1_000, 6_000
"""Pairs that ask, captions that compete for one, and pairs that the model is measured on, at most."""
FOLDS, TURNS = 5, 4
"""Parts of the memory, each of which asks in the model of the others; and how often one asks, at most."""
START = 0.007
"""Of the temper of texts: what they count where no caption has two pictures, so that nothing can be fitted."""
WRONG = 0.03
"""Share of captions that is taken to be wrong, unless much speaks for more."""
SHARPNESS = 2.5
"""Nats that CLIP's scores count, per standard deviation of a text's: what CLIPs are trained to."""
USELESS = 0.02
"""Nats a pair that captions must tell of their images, where most have several, else they were dealt out at random."""
IMAGE_START = float(np.log(0.1)), -2.0
"""Of log temper and offset of images: what they count where most captions have one picture."""
_MARGIN = 0.3  # of what a logit of wrong captions costs, beside one of the other parameters
_PULL = 1.0  # towards the start, divided by the number of pairs
_KAPPAS = np.exp(np.linspace(0.0, np.log(250.0), 24))
_TEMPER = 0.05  # of trust, before texts are fitted
_ITERATIONS = 40
_SETTLED = 2e-5  # loss that one of two iterations must save, else they were the last
_BLOCK = 256
Doubles = npt.NDArray[np.float64]
Fun = Callable[[Doubles], tuple[float, Doubles]]


@dataclass(frozen=True)
class Draw:
    """Pairs that ask at a time, and captions that compete for them.

    Attributes:
        fold: of the pairs that ask.
        rows: (n,) of them.
        captions: (C,) numbers, sorted.
        right: (n,) place among those of each.
        alone: (n,) whether it is the only picture of its caption.
        hidden: (N,) pairs that are not there: one of each caption that has several.
        lone: (N,) and those that are alone, which texts that compete must do without, too.
    """

    fold: int
    rows: RowNumbers
    captions: RowNumbers
    right: RowNumbers
    alone: npt.NDArray[np.bool_]
    hidden: npt.NDArray[np.bool_]
    lone: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fitted:
    """The model and the gates of a memory, and whether captions tell nothing of their pictures."""

    plda: Plda
    trust: Trust
    text: TextGate
    image: ImageGate
    useless: bool


class Fit:
    """Fits what a memory learns from its pairs."""

    def __init__(self, corpus: Corpus, rng: np.random.Generator, progress: Callable[[int], object]) -> None:
        self._corpus, self._rng, self._progress = corpus, rng, progress
        self._measured = np.sort(rng.permutation(len(corpus))[:MEASURED])
        alike = corpus.company(np.arange(len(corpus)))[1][:, 1:]
        self._siblings: NearestRows = corpus.near_text[0], np.where(alike < 1e-3, np.float32(0.0), alike)
        self._fold, self._draws = _draw(corpus, rng)
        self._competing = min(len(corpus.first), CAPTIONS)

    def fit(self) -> Fitted:
        """The better of two fits: few captions are wrong, or as many as CLIP says."""
        flat = np.ones(len(self._corpus), np.float32)
        models = {fold: self._model(flat, fold) for fold in sorted({draw.fold for draw in self._draws})}
        few = self._fit_texts(models, self._clip(free=False))
        many = self._fit_texts(models, self._clip(free=True))
        total, gate, trust, models, each = min(few, many, key=lambda one: one[0])
        several = float(np.mean(np.concatenate([~draw.alone for draw in self._draws]))) > 0.5
        gain = np.log(self._competing) - total / sum(len(draw.rows) for draw in self._draws)
        self._progress(len(self._corpus))
        plda = measure_plda(self._corpus.image, self._measured, self._siblings, each)
        image = self._fit_images(models, trust, gate.kappa, fitted=several)
        self._progress(len(self._corpus))
        return Fitted(plda, trust, gate, image, useless=several and gain < USELESS)

    def _model(self, trust: Floats, fold: int) -> Plda:
        """The model of the pairs outside of a fold."""
        rows = self._measured[self._fold[self._measured] != fold]
        return measure_plda(self._corpus.image, rows, self._siblings, trust)

    def _clip(self, *, free: bool) -> Trust:
        """How sharply CLIP's own scores tell the captions, and what they say of wrong ones."""
        corpus, best = self._corpus, (np.inf, 1.0, WRONG)
        asked = [(self._plain(draw, corpus.image[draw.rows]), draw.right) for draw in self._draws]
        for kappa in _KAPPAS.tolist():
            p = np.concatenate([_softmax(np.float32(kappa) * s)[np.arange(len(y)), y] for s, y in asked]).astype(float)
            wrong = 0.5 if free else WRONG
            for _ in range(20 * free):
                right = (1 - wrong) * p
                wrong = float(np.clip(1 - (right / (right + wrong / self._competing)).mean(), 0.005, 0.98))
            loss = -float(np.log((1 - wrong) * p + wrong / self._competing).mean())
            best = min(best, (loss, kappa, wrong))
        _, kappa, wrong = best
        mean = corpus.values["text"].mean
        some = corpus.image[self._measured[:: max(1, len(self._measured) // 500)]]
        scores = kappa * (some @ (corpus.text[corpus.first[: self._competing]] - mean).T)
        most = scores.max(axis=1)
        level = float((most + np.log(np.exp(scores - most[:, None]).mean(axis=1))).mean())
        return Trust(wrong, kappa, level, _TEMPER)

    def _plain(self, draw: Draw, image: Vectors) -> Floats:
        """CLIP's scores (n, C) of images for the captions of a draw."""
        return np.asarray(image @ self._corpus.text[self._corpus.first[draw.captions]].T, np.float32)

    def _clip_of(self, rows: RowNumbers) -> Floats:
        """Cosine of each pair's image with its caption, less that with the mean caption; of any shape."""
        image, text = self._corpus.image[rows], self._corpus.text[rows] - self._corpus.values["text"].mean
        return np.asarray(np.einsum("...d,...d->...", image, text), np.float32)

    def _fit_texts(
        self, models: dict[int, Plda], trust: Trust
    ) -> tuple[float, TextGate, Trust, dict[int, Plda], Floats]:
        """Total loss, gate, trust, models by fold, and the trust in each pair that is measured."""
        each, wrong = np.ones(len(self._corpus), np.float32), trust.wrong
        for again in (False, True):
            if again:
                models = {fold: self._model(each, fold) for fold in models}
            asked = [self._compete(draw, models[draw.fold], trust) for draw in self._draws]
            start = np.array([np.log(trust.clip), np.log(START), 0.0, logit(wrong), 0.0], np.float64)
            at, loss = self._minimise(self._text_loss(asked, start), start)
            kappa, temper = np.exp(at[:2]).tolist()
            trust = replace(trust, wrong=float(np.clip(sigmoid(at[3]), 0.005, 0.98)), temper=temper)
            each[self._measured] = self._trusted(models[self._draws[0].fold], trust, self._measured)
        pairs = sum(len(one[-1]) for one in asked)
        pull = _PULL * _MARGIN**2
        total = loss * pairs - pull * float(at[3] - start[3]) ** 2 + pull * float(at[3] - logit(WRONG)) ** 2
        corpus, count = self._corpus, len(self._corpus.first)
        sharpest = max(trust.clip, SHARPNESS / corpus.units["text"])
        gate = TextGate(kappa, float(sigmoid(at[2])), float(at[4]), corpus.apart, self._away(), sharpest, count)
        return total, gate, trust, models, each

    def _compete(self, draw: Draw, plda: Plda, trust: Trust) -> tuple[Floats, Floats, Floats, Floats, RowNumbers]:
        """Scores of a draw: CLIP's and the memory's (n, C), the constants (C,) of these, and what is right (n,)."""
        rows, alike = self._corpus.company(self._corpus.first[draw.captions])
        alike = alike * ~draw.lone[rows]
        directions, constants, known = list[Floats](), list[Floats](), list[Floats]()
        for start in range(0, len(rows), _BLOCK):
            there, near = rows[start : start + _BLOCK], alike[start : start + _BLOCK]
            x, clip = plda.of(self._corpus.image[there]), self._clip_of(there)
            weight = near * trust.of(plda, x, clip, near[:, None])
            n = np.maximum(weight.sum(axis=1, keepdims=True), np.float32(1e-6))
            direction, constant, _ = plda.caption(np.matmul((weight / n)[:, None], x)[:, 0], n)
            directions.append(direction)
            constants.append(constant)
            known.append(familiarity(trust, clip, weight))
        image = self._corpus.image[draw.rows]
        memory = plda.of(image) @ np.concatenate(directions).T
        constant = np.concatenate(constants).astype(np.float32)
        return self._plain(draw, image), np.asarray(memory, np.float32), constant, np.concatenate(known), draw.right

    def _text_loss(self, asked: list[tuple[Floats, Floats, Floats, Floats, RowNumbers]], start: Doubles) -> Fun:
        """Of log kappa, log temper, and the logits of the share of the constants and of wrong captions."""
        pairs, scale = sum(len(one[-1]) for one in asked), np.array([1.0, 1.0, 1.0, _MARGIN, 1.0])

        def loss(at: Doubles) -> tuple[float, Doubles]:
            kappa, temper, share = np.exp(at[0]), np.exp(at[1]), float(sigmoid(at[2]))
            off = (at - start) * scale
            value, gradient = _PULL * float(off @ off) / pairs, 2 * _PULL * off * scale / pairs
            for plain, memory, constant, known, right in asked:
                less = np.exp(-np.float32(at[4]) * known)
                told = less * (memory + np.float32(share) * constant)
                scores = np.asarray(np.float32(kappa) * plain + np.float32(temper) * told, np.float32)
                lost, slope, by_wrong = self._cross_entropy(scores, right, float(sigmoid(at[3])))
                value += float(lost.sum()) / pairs
                by_share = temper * float(slope.sum(axis=0) @ (less * constant)) * share * (1 - share)
                by_known = -temper * float((slope * told).sum(axis=0) @ known)
                by_scores = kappa * float((slope * plain).sum()), temper * float((slope * told).sum())
                gradient += np.array([*by_scores, by_share, float(by_wrong.sum()), by_known]) / pairs
            return value, gradient

        return loss

    def _cross_entropy(self, scores: Floats, right: RowNumbers, wrong: float) -> tuple[Doubles, Floats, Doubles]:
        """Loss (n,), its slope (n, C) by the scores, which are used up, and its slope (n,) by the logit of wrong."""
        p, rows = _softmax(scores), np.arange(len(right))
        own = p[rows, right].astype(np.float64)
        likely = (1 - wrong) * own + wrong / self._competing
        pull = ((1 - wrong) * own / likely).astype(np.float32)
        p *= pull[:, None]
        p[rows, right] -= pull
        return -np.log(likely), p, -(1 / self._competing - own) / likely * wrong * (1 - wrong)

    def _trusted(self, plda: Plda, trust: Trust, rows: RowNumbers) -> Floats:
        """Trust (n,) in some pairs, by those with the same caption."""
        parts = list[Floats]()
        for start in range(0, len(rows), _BLOCK):
            there, alike = self._corpus.company(rows[start : start + _BLOCK])
            x, clip = plda.of(self._corpus.image[there]), self._clip_of(there)
            parts.append(trust.of(plda, x, clip, alike[:, None])[:, 0])
        return np.concatenate(parts)

    def _away(self) -> float:
        """A low quantile of the logit of Lowe's ratio of captions that are hidden from themselves."""
        corpus = self._corpus
        some = corpus.text[corpus.first[self._rng.permutation(len(corpus.first))[:CAPTIONS]]]
        captions = corpus.text[corpus.first]
        ratios = list[Floats]()
        for start in range(0, len(some), _BLOCK):
            scores = some[start : start + _BLOCK] @ captions.T
            scores[scores > 1 - 1e-6] = -1.0
            rows, near = nearest_columns(scores, min(corpus.near_text[0].shape[1], len(captions) - 1))
            ratios.append(lowe_ratio(captions[rows], near, corpus.apart))
        return float(np.quantile(logit(np.concatenate(ratios)), 0.02))

    def _fit_images(self, models: dict[int, Plda], trust: Trust, kappa: float, *, fitted: bool) -> ImageGate:
        """The gate of images; where most captions have one picture, the rest may be copies, which tell nothing."""
        at = start = np.array([np.log(kappa), *IMAGE_START])
        if fitted:
            asked = [one for draw in self._draws for one in self._look(draw, models[draw.fold], trust)]
            at, _ = self._minimise(self._image_loss(asked, start, trust.wrong), start)
        kappa, temper = np.exp(at[:2]).tolist()
        return ImageGate(kappa, temper, float(at[2]), len(self._corpus.first), self._corpus.same_thing)

    def _look(self, draw: Draw, plda: Plda, trust: Trust) -> Iterator[tuple[Any, ...]]:
        """What images find, with the other pairs of their captions and without.

        CLIP's scores (n, C), and of each neighbour: log-likelihood ratio, whether it is the first of its caption, and
        where its nats end, all (n, K), and the scores (n, K, C) of a move by one nat; and what is right (n,).
        """
        corpus, values, several = self._corpus, self._corpus.values["text"], np.flatnonzero(~draw.alone)
        if not len(several):
            return
        query = corpus.image[draw.rows[several]]
        captions = corpus.text[corpus.first[draw.captions]] - values.mean
        for siblings in (True, False):
            rows = self._nearest(draw, several, siblings=siblings)
            x, caption = plda.of(corpus.image[rows]), corpus.caption[rows]
            same = caption[:, :, None] == caption[:, None]
            right = trust.of(plda, x, self._clip_of(rows), same.astype(np.float32))
            ratio, first, end = caption_ratios(plda, plda.of(query), x, right, same, len(corpus.first))
            centred = (corpus.text[rows] - values.mean).reshape(-1, query.shape[1])
            towards = values.precision.apply(centred)
            towards /= np.maximum(np.einsum("nd,nd->n", centred, towards), 1e-6)[:, None]
            scores = (towards @ captions.T).reshape(*rows.shape, len(captions))
            yield self._plain(draw, query), ratio, first, end, scores, draw.right[several]

    def _nearest(self, draw: Draw, asking: RowNumbers, *, siblings: bool) -> RowNumbers:
        """Rows (n, K) of the nearest images that are not hidden; K is that of the captions around."""
        corpus, parts = self._corpus, list[RowNumbers]()
        for start in range(0, len(asking), _BLOCK):
            some = draw.rows[asking[start : start + _BLOCK]]
            scores = corpus.image[some] @ corpus.image.T
            scores[:, draw.hidden] = -2.0
            if not siblings:
                scores[corpus.caption[some][:, None] == corpus.caption] = -2.0
            parts.append(nearest_columns(scores, corpus.near_text[0].shape[1])[0])
        return np.concatenate(parts)

    def _image_loss(self, asked: list[tuple[Any, ...]], start: Doubles, wrong: float) -> Fun:
        """Of log kappa, log temper and the offset."""
        pairs = sum(len(one[-1]) for one in asked)

        def loss(at: Doubles) -> tuple[float, Doubles]:
            kappa, temper = np.exp(at[0]), np.exp(at[1])
            off = at - start
            value, gradient = _PULL * float(off @ off) / pairs, 2 * _PULL * off / pairs
            for plain, ratio, first, end, scores, right in asked:
                log_odds = np.asarray(temper * ratio + at[2], np.float32)
                nats, _ = image_nats(log_odds, end, first)
                by_odds = (sigmoid(log_odds) - sigmoid(log_odds + end)) * first
                moved = np.float32(kappa) * plain + np.matmul(nats[:, None], scores)[:, 0]
                lost, slope, _ = self._cross_entropy(moved, right, wrong)
                value += float(lost.sum()) / pairs
                by_nats = np.matmul(scores, slope[:, :, None])[..., 0] * by_odds
                by_temper = temper * float((by_nats * ratio).sum())
                gradient += np.array([kappa * float((slope * plain).sum()), by_temper, float(by_nats.sum())]) / pairs
            return value, gradient

        return loss

    def _minimise(self, fun: Fun, start: Doubles) -> tuple[Doubles, float]:
        def watched(at: Doubles) -> tuple[float, Doubles]:
            self._progress(0)
            return fun(at)

        at = minimise(watched, start.copy(), _ITERATIONS)
        return at, fun(at)[0]


def _draw(corpus: Corpus, rng: np.random.Generator) -> tuple[RowNumbers, list[Draw]]:
    """The fold (N,) of each pair, those of a caption dealt out evenly, and what asks."""
    size, count = len(corpus), len(corpus.first)
    order = rng.permutation(size)
    order = order[np.argsort(corpus.caption[order], kind="stable")]  # by caption
    pictures = np.bincount(corpus.caption)
    begin = np.cumsum(pictures) - pictures
    place = np.empty(size, np.intp)
    place[order] = np.arange(size) - begin[corpus.caption[order]]
    fold = (place + rng.integers(0, FOLDS, count)[corpus.caption]) % FOLDS
    alone, most = pictures == 1, min(count, CAPTIONS)
    draws, times = [], FOLDS * min(max(1, round(size / count / FOLDS)), TURNS)
    for number in range(times):
        pool = rng.permutation(np.flatnonzero(fold == number % FOLDS))
        rows = rng.permutation(pool[np.unique(corpus.caption[pool], return_index=True)[1]])[: min(most, ASKED // times)]
        asking = corpus.caption[rows]
        rest = rng.permutation(np.setdiff1d(np.arange(count), asking))[: most - len(rows)]
        several = rest[~alone[rest]]  # the others lose a picture, too
        gone = order[begin[several] + rng.integers(0, pictures[several])]
        captions, hidden = np.sort(np.r_[asking, rest]), np.zeros(size, np.bool_)
        hidden[np.r_[rows[~alone[asking]], gone]] = True
        lone = hidden | (alone[corpus.caption] & np.isin(corpus.caption, captions))
        draws.append(
            Draw(number % FOLDS, rows, captions, np.searchsorted(captions, asking), alone[asking], hidden, lone)
        )
    return fold, draws


def _softmax(scores: Floats) -> Floats:
    """Along the rows (n, C), which are used up."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def minimise(fun: Callable[[Doubles], tuple[float, Doubles]], x: Doubles, iterations: int) -> Doubles:
    """Minimise a smooth function of a few parameters by BFGS with backtracking.

    Args:
        fun: value and gradient.
        x: where to start, (P,).
        iterations: at most.
    """
    value, gradient = fun(x)
    scale, eye = min(1.0, 1.0 / max(float(np.linalg.norm(gradient)), 1e-9)), np.eye(len(x))
    inverse, first, settled = eye * scale, True, 0
    for _ in range(iterations):
        direction = -inverse @ gradient
        if gradient @ direction >= 0.0:
            inverse, direction = eye.copy(), -gradient
        length = min(1.0, 2.0 / max(float(np.abs(direction).max()), 1e-12))
        for _ in range(12):
            new, slope = fun(x + length * direction)
            if np.isfinite(new) and new <= value + 1e-4 * length * (gradient @ direction):
                break
            length *= 0.4
        else:
            break
        moved, change = length * direction, slope - gradient
        settled = settled + 1 if value - new < _SETTLED else 0
        x, value, gradient = x + moved, new, slope
        if (curvature := float(moved @ change)) > 1e-10:
            if first:
                inverse = eye * curvature / float(change @ change)
            left = eye - np.outer(moved, change) / curvature
            inverse, first = left @ inverse @ left.T + np.outer(moved, moved) / curvature, False
        if settled > 1 or np.abs(gradient).max() < 1e-5:
            break
    return x
