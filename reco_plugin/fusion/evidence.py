"""What the neighbours of a query say, in nats, and how far it moves: a product of experts.

What CLIP says of a query and a candidate counts ``kappa`` nats per unit of cosine. What the memory says of a caption
counts nats, too: the log-likelihood ratio of its pictures (:mod:`.plda`), tempered, since images are no Gaussians. So a
query moves by their sum over kappa: far where CLIP does not know these things, and hardly where it does. A pair is
trusted as far as CLIP's score of it, and the other pictures of its caption, say that its caption is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..learning.moments import Values
from ..learning.plda import Plda
from ..types import Neighbours, Vectors
from ..vectors import Floats

LIKENESS = 4.0
"""How fast captions stop to be alike with their distance, per distance of a caption to the next one."""
ANOTHER = 0.25
"""Distance, in the same unit, from which a caption is another one."""
IDENTICAL = 0.9995
"""Cosine from which two captions are the same words, encoded in two batches."""
LOWE = 2.0
"""Nats per logit of Lowe's ratio, by which the memory holds what a text asks for."""
UNKNOWN = 0.3
"""Share of the right pairs that CLIP is taken not to know: its low score says no more against a pair."""
BOTH = 0.35
"""Weight of what moves images, where texts that compete for them move too: both know the same pictures."""
_KNOWN = 30.0  # nats that speak for a confirmed pair
_MOST = 8.0  # nats by which CLIP, or a caption's other pictures, may speak for a pair or against it
_TURNS = 2  # in which pairs of a caption judge one another
_TINY = 1e-6
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trust:
    """How far a pair is trusted.

    Attributes:
        wrong: share of captions that belong to another image.
        clip: nats per unit of cosine that CLIP's own scores are worth.
        level: mean score of an image over all captions, as the logarithm of a mean of exponentials, in nats.
        temper: of the log-likelihood ratio.
    """

    wrong: float
    clip: float
    level: float
    temper: float

    def of(self, plda: Plda, x: Floats, clip: Floats, company: Floats, confirmed: Booleans | None = None) -> Floats:
        """Trust (B, K), in [0, 1], in pairs that were found together.

        Args:
            plda: the model.
            x: (B, K, R) images along its axes.
            clip: (B, K) cosine of each image with its caption, less that with the mean caption.
            company: (B, K, K) how alike the captions of two pairs are, 0 to 1, or (B, 1, K) how alike each is to one
                caption; 0 where padded.
            confirmed: (B, K) pairs whose caption is known to be right; None: of none.
        """
        own = np.clip(self.clip * clip - self.level, np.log(UNKNOWN), _MOST) + logit(1 - self.wrong)
        if confirmed is not None:
            own = np.where(confirmed, np.float32(_KNOWN), own)
        trust, others = sigmoid(own), company * (1 - np.eye(company.shape[2], dtype=np.float32))
        for _ in range(_TURNS):
            weight = (others * trust[:, None]).astype(np.float32)
            n = np.maximum(weight.sum(axis=2, keepdims=True), np.float32(_TINY))
            ratio = plda.ratio(x, np.matmul(weight, x) / n, n)
            trust = sigmoid(own + np.clip(self.temper * ratio, -_MOST, _MOST))
        return trust


@dataclass(frozen=True)
class TextGate:
    """How texts move.

    Attributes:
        kappa: nats per unit of cosine that CLIP's scores count where texts compete for an image.
        share: of the ratio's constant, between texts that compete.
        known: how much less it counts for captions that CLIP knows, see :func:`familiarity`.
        apart: median distance of a caption to the next one.
        away: a low quantile of the logit of Lowe's ratio of captions that the memory does not hold.
        sharpest: kappa of what the memory does not hold.
        captions: how many the memory has.
    """

    kappa: float
    share: float
    known: float
    apart: float
    away: float
    sharpest: float
    captions: int


@dataclass(frozen=True)
class ImageGate:
    """How images move.

    Attributes:
        kappa: nats per unit of cosine that CLIP's scores count where captions compete for an image.
        temper: of the log-likelihood ratio.
        offset: logarithm of the odds before it.
        captions: how many the memory has.
        same: cosine from which two are one.
    """

    kappa: float
    temper: float
    offset: float
    captions: int
    same: float


@dataclass(frozen=True)
class Evidence:
    """What B queries found.

    Attributes:
        added: (B, D) what is added to each.
        constant: (B,) what is added to all of its scores, too.
        weights: (B, K) share of each neighbour, summing to 1; 0 where padded.
        trust: (B, K) in each neighbour.
        odds: (B,) of the most likely caption.
        pictures: (B,) of that caption, as far as they are trusted.
        factors: by name, the share (B,) of the move that each leaves.
    """

    added: Vectors
    constant: Floats
    weights: Floats
    trust: Floats
    odds: Floats
    pictures: Floats
    factors: Mapping[str, Floats] = field(default_factory=dict)

    def noted(self, name: str, left: Floats) -> Evidence:
        """With a factor (B,) that the move already has in it."""
        return replace(self, factors={**self.factors, name: left})

    def shortened(self, name: str, left: Floats) -> Evidence:
        """With a factor (B,) of the move."""
        return replace(self.noted(name, left), added=self.added * left[:, None], constant=self.constant * left)


def text_evidence(
    query: Vectors,
    found: Neighbours,
    plda: Plda,
    gate: TextGate,
    trust: Trust,
    caption: npt.NDArray[np.float32],
    coverage: float | None,
    keep: Floats | None = None,
) -> Evidence:
    """Move texts (B, D) towards the pictures of the captions that they found.

    Args:
        query: unit-norm.
        found: captions by their vectors, ``own``, with their images.
        plda: the model.
        gate: of texts.
        trust: in pairs.
        caption: (D,) the mean caption.
        coverage: probability that the memory holds what a query asks for, before it is looked at; None: texts compete
            for each image, and all are known.
        keep: (B, K) how much of each neighbour stays; None: all.
    """
    x, clip = plda.of(found.vectors), found.cosine - found.vectors @ caption
    alike = found.found * likeness(found.similarity[:, :1] - found.similarity, gate.apart)
    right = trust.of(plda, x, clip, alike[:, None], found.confirmed)
    weight = alike * right if keep is None else alike * right * keep
    total = np.maximum(weight.sum(axis=1, keepdims=True), np.float32(_TINY))
    pictures = total if coverage is None else np.maximum(alike.sum(axis=1, keepdims=True), np.float32(1.0))
    mean = np.matmul((weight / total)[:, None], x)[:, 0]
    direction, constant, _ = plda.caption(mean, pictures)
    kappa = np.full(len(query), gate.kappa, np.float32)
    if coverage is None:
        known = familiarity(trust, clip, weight)
        size = np.asarray(trust.temper * np.exp(-gate.known * known), np.float32)
        odds = np.full(len(query), np.inf, np.float32)
        constant = np.asarray(size * gate.share / gate.kappa * constant, np.float32)
    else:
        believed = weight.sum(axis=1) / np.maximum(alike.sum(axis=1), np.float32(_TINY))
        ratio = lowe_ratio(found.own, found.similarity, gate.apart, found.found)
        held = chance_held(ratio, gate.away, coverage) * believed
        odds = np.asarray(held / (1 - np.minimum(held, 0.999)), np.float32)
        middle = pictures * plda.psi / (pictures * plda.psi + 1) * mean
        nats = np.log1p(odds * np.sqrt(gate.captions))  # the caption's own pictures gain these
        kappa = np.asarray(gate.kappa**held * gate.sharpest ** (1 - held), np.float32)
        size = nats / np.maximum((direction * middle).sum(axis=1), np.float32(_TINY))
        constant = np.zeros(len(query), np.float32)
    added = np.asarray((size / kappa)[:, None] * direction @ plda.wide.T, np.float32)
    return Evidence(added, constant, weight / total, right * found.found, odds, weight.sum(axis=1))


def familiarity(trust: Trust, clip: Floats, weight: Floats) -> Floats:
    """How well CLIP knows the pairs of captions (B,), from -1 to 1, by their scores and weights (B, K)."""
    own = np.clip(trust.clip * clip - trust.level, -_MOST, _MOST) / _MOST
    return np.asarray((own * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), _TINY), np.float32)


def image_evidence(
    query: Vectors,
    found: Neighbours,
    plda: Plda,
    gate: ImageGate,
    trust: Trust,
    values: Values,
    coverage: float,
    keep: Floats | None = None,
) -> Evidence:
    """Move images (B, D) towards the captions that they may belong to; arguments as in :func:`text_evidence`.

    ``values`` are the moments of captions. A move scores 1 on its own caption in their metric, times its nats.
    """
    x, captions = plda.of(found.own), found.vectors - values.mean
    same = (np.matmul(found.vectors, found.vectors.transpose(0, 2, 1)) >= gate.same) & found.found[:, None]
    clip = found.cosine - found.own @ values.mean
    right = trust.of(plda, x, clip, same.astype(np.float32), found.confirmed) * found.found
    kept = right if keep is None else right * keep
    ratio, first, end = caption_ratios(plda, plda.of(query), x, kept, same, gate.captions)
    nats, odds = image_nats(gate.temper * ratio + gate.offset + logit(coverage), end, first & found.found)
    towards = values.precision.apply(captions.reshape(-1, captions.shape[-1])).reshape(captions.shape)
    unit = np.maximum(np.einsum("bkd,bkd->bk", captions, towards), np.float32(_TINY))
    added = np.matmul((nats / unit)[:, None], towards)[:, 0] / np.float32(gate.kappa)
    pictures = np.matmul(same.astype(np.float32), kept[..., None])[..., 0]
    shares = np.matmul(nats[:, None], same)[:, 0] * kept / np.maximum(pictures, np.float32(_TINY))
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.float32(_TINY))
    best, rows = nats.argmax(axis=1), np.arange(len(query))
    still = np.zeros(len(query), np.float32)
    return Evidence(added, still, shares, right, odds[rows, best], pictures[rows, best])


def caption_ratios(
    plda: Plda, query: Floats, x: Floats, trust: Floats, same: Booleans, captions: int
) -> tuple[Floats, Booleans, Floats]:
    """Log-likelihood ratio (B, K) of the caption of each neighbour for images (B, R).

    It is the mean of two ratios, that of its pictures together and that of its likeliest picture: pictures of one
    caption are no Gaussian. With it come the mask of the first neighbour of each caption, and where its nats end: the
    logarithm of the chance that none of its pairs is right, less half of that of the captions, any of which CLIP may
    score as high.

    Args:
        plda: the model.
        query: along its axes.
        x: (B, K, R) neighbours along its axes.
        trust: (B, K) in them.
        same: (B, K, K) whether two have the same caption.
        captions: how many the memory has.
    """
    weight = same * trust[:, None].astype(np.float32)
    n = np.maximum(weight.sum(axis=2, keepdims=True), np.float32(1e-3))
    together = plda.ratio(query[:, None], np.matmul(weight, x) / n, n)
    alone = plda.ratio(query[:, None], x, np.ones_like(n)) + np.log(np.maximum(trust, np.float32(_TINY)))
    nearest = np.where(same, alone[:, None], -np.inf).max(axis=2)
    ratio = np.asarray((together + nearest) / 2, np.float32)
    first = same.argmax(axis=2) == np.arange(same.shape[1])
    none_right = np.log1p(-np.minimum(weight, np.float32(0.999))).sum(axis=2)
    return ratio, first, np.asarray(none_right - 0.5 * np.log(captions), np.float32)


def image_nats(log_odds: Floats, end: Floats, first: Booleans) -> tuple[Floats, Floats]:
    """Nats (B, K) of the captions that images may belong to, and the odds; see :func:`caption_ratios`."""
    log_odds = np.clip(log_odds, -30.0, 30.0)
    nats = np.logaddexp(0.0, log_odds) - np.logaddexp(0.0, log_odds + end)
    return np.asarray(nats * first, np.float32), np.asarray(np.exp(log_odds), np.float32)


def lowe_ratio(captions: Vectors, similarity: Floats, apart: float, found: Booleans | None = None) -> Floats:
    """Distance (B,) of texts to the nearest caption, over that to the next different one (Lowe, 2004, section 7.1).

    Args:
        captions: (B, K, D) that were found, the nearest first.
        similarity: (B, K) of them.
        apart: median distance of a caption to the next one.
        found: (B, K) False where padded; None: nothing is.
    """
    here = np.ones(similarity.shape, np.bool_) if found is None else found
    away = 1 - np.matmul(captions, captions[:, 0, :, None])[..., 0]
    distance = np.maximum(1 - similarity, np.float32(0.0))
    further = np.where(here & (away > ANOTHER * apart), distance, np.inf).min(axis=1)
    last = np.maximum(np.where(here, distance, 0.0).max(axis=1), apart)
    return np.asarray(distance[:, 0] / np.maximum(np.where(np.isfinite(further), further, last), 1e-6), np.float32)


def chance_held(ratio: Floats, away: float, coverage: float) -> Floats:
    """Probability (B,) that the memory holds what texts ask for, by Lowe's ratio (B,) and the coverage.

    >>> chance_held(np.float32([0.0, 0.5, 0.75]), 0.0, 0.5).round(2).tolist()
    [1.0, 0.5, 0.10000000149011612]
    """
    return sigmoid(np.asarray(logit(coverage) + LOWE * (away - logit(ratio)), np.float32))


def sigmoid(x: Floats) -> Floats:
    """Logistic function, of any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))), np.float32)


def logit(p: npt.ArrayLike) -> Floats:
    """Inverse of it, of probabilities that are held away from 0 and 1.

    >>> float(logit(0.5)), round(float(logit(1.0)), 1)
    (0.0, 9.2)
    """
    held = np.clip(np.asarray(p, np.float64), 1e-4, 1 - 1e-4)
    return np.asarray(np.log(held / (1 - held)), np.float32)


def likeness(distance: Floats, apart: float) -> Floats:
    """How alike captions are, 1 at no distance; of any shape."""
    return np.asarray(np.exp(-LIKENESS / apart * np.maximum(distance, 0.0)), np.float32)
