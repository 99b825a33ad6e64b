"""Fit the fusion ``reco`` in closed form: seconds, no steps, no seeds.

Three things are learned from pairs with known groups, which show the same thing:

- the **metric**: directions in which images of the same thing differ most (how they are drawn, lit, cropped) are
  damped, as in linear discriminant analysis (Fisher 1936; Rao 1948);
- the **slack**: the direction that images use least, see :class:`reco_plugin.train.model.MetricFusion`;
- the **text gate**: how similar, and how much nearer than the others, a caption must be to answer the query.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ..calibration import logistic, standout
from ..gate import TextGate
from ..memory import Memory
from ..retrieve import Retrieval, retrieve
from ..types import Neighbours, Records, Vectors
from .loop import Fusions
from .model import FusionConfig, MetricFusion

_ROWS = 256  # queries per search
_DAMPED = 0.5  # share of the directions in which images of one group differ; the others stay
_ENOUGH = 20  # pairs in groups with others; too few do not show how images of a group differ
_FEWEST = 50  # queries that a neighbour answers; with fewer the memory's calibration stays in use


@dataclass(frozen=True)
class Question:
    """Q text queries and their neighbours."""

    found: Neighbours  # neighbours, (Q, K)
    relevant: npt.NDArray[np.bool_]  # (Q, K) whether a neighbour answers the query


def ask(
    memory: Memory,
    texts: Vectors,
    groups: Sequence[str],
    group_of: Mapping[str, str],
    hidden: Sequence[Collection[str]],
    k: int,
) -> tuple[Question, Question]:
    """Search the memory for every text twice: with the pairs of its group visible, and with them hidden.

    Args:
        memory: to search.
        texts: (Q, D) queries.
        groups: (Q,) group of each text.
        group_of: id of a pair of the memory -> its group; pairs that are not in it are of other groups.
        hidden: Q collections of ids to hide from the respective query both times: its own pair and near-duplicates.
        k: neighbours.
    """
    members: dict[str, set[str]] = {}
    for id_, group in group_of.items():
        members.setdefault(group, set()).add(id_)
    without = [set(ids) | members.get(group, set()) for ids, group in zip(hidden, groups, strict=True)]

    def asked(hidden: Sequence[Collection[str]]) -> Question:
        parts = [
            retrieve(memory, texts[row : row + _ROWS], "text", Retrieval(k), exclude=hidden[row : row + _ROWS])
            for row in range(0, len(texts), _ROWS)
        ]
        found = replace(
            parts[0],
            ids=[ids for part in parts for ids in part.ids],
            similarity=np.concatenate([part.similarity for part in parts]),
            vectors=np.empty((0, 0, 0), np.float32),  # not needed
            found=np.concatenate([part.found for part in parts]),
        )
        relevant = np.zeros(found.found.shape, np.bool_)
        for row, (ids, group) in enumerate(zip(found.ids, groups, strict=True)):
            relevant[row, : len(ids)] = [group_of.get(id_) == group for id_ in ids]
        return Question(found, relevant)

    return asked(hidden), asked(without)


def fit_fusions(
    config: FusionConfig,
    pairs: Records,
    groups: Sequence[str],
    questions: tuple[Question, Question],
    honesty: float,
) -> Fusions:
    """Fit ``reco``; parts for which there are too few pairs stay untrained.

    Args:
        config: of the fusion ``reco``.
        pairs: frozen vectors, (N, D) each.
        groups: (N,) group of each pair.
        questions: from :func:`ask`.
        honesty: reliability of the searched memory's captions, from its calibration.
    """
    fusions = Fusions(config)
    text = fusions.sides["text"]
    if not isinstance(text, MetricFusion):
        raise TypeError(f"only reco is fitted, not {config.fuser}")
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    with torch.no_grad():
        text.metric.copy_(torch.from_numpy(metric(pairs.image, numbers)))
        slack = unused_direction(pairs.image)
        side = 1.0 if pairs.text.mean(axis=0) @ slack >= 0 else -1.0  # the side of the texts, so that none flips
        text.slack.copy_(torch.from_numpy(slack * np.float32(side)))
    fusions.text_gate = _text_gate(questions, honesty)
    return fusions.eval()


def metric(images: Vectors, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Fit a symmetric map (D, D) that damps the half of directions in which images of one group differ most.

    A direction with variance v within groups is scaled by ``sqrt(v0 / v)``, where v0 is the smallest variance of those
    that are damped, so that the largest singular value is 1. Directions without any measured
    variance do not count. The identity where too few pairs share a group.

    Args:
        images: (N, D) unit-norm.
        groups: (N,) group of each image, from 0.
    """
    d = images.shape[1]
    count = np.bincount(groups)
    shared = np.flatnonzero(count[groups] > 1)
    if len(shared) < _ENOUGH:
        return np.eye(d, dtype=np.float32)
    mean = np.zeros((len(count), d))
    np.add.at(mean, groups, images)
    apart = images[shared] - (mean / np.maximum(count, 1)[:, None])[groups[shared]]  # (M, D)
    variance, directions = np.linalg.eigh(apart.T @ apart / len(apart))  # ascending
    rank = min(d, len(shared) - len(np.unique(groups[shared])))  # unless pairs repeat
    kept = variance[d - max(1, int(_DAMPED * rank))]
    if kept <= 0:
        return np.eye(d, dtype=np.float32)
    scale = np.sqrt(kept / np.maximum(variance, kept))
    return np.asarray((directions * scale) @ directions.T, np.float32)


def unused_direction(images: Vectors) -> npt.NDArray[np.float32]:
    """Unit vector (D,) that is most nearly orthogonal to images (N, D)."""
    return np.asarray(np.linalg.eigh(images.T.astype(np.float64) @ images)[1][:, 0], np.float32)


def _text_gate(questions: tuple[Question, Question], honesty: float) -> TextGate | None:
    """Fit the gate by logistic regression over both searches; None where too few queries are answered."""
    answered = questions[0].relevant.any(axis=1)
    if answered.sum() < _FEWEST:
        return None
    signals, target = [], []
    for question in questions:
        near, there = question.found.similarity[answered], question.found.found[answered]
        signals.append(np.stack([near, standout(near, there)], axis=-1)[there])
        target.append(question.relevant[answered][there])
    weights = logistic(np.concatenate(signals), np.concatenate(target))
    gate = TextGate(*weights, answered=1.0, unanswered=0.0, honesty=honesty)
    best = [gate.trust(q.found.similarity, q.found.found).max(axis=1).mean() for q in questions]
    return replace(gate, answered=float(best[0]), unanswered=float(best[1]))
