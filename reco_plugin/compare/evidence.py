"""What tells plain from refined without judgments: words of queries in captions of the index, or of the memory.

A document whose caption has all words of a query is taken as right for it. That is not always so, but it favours
neither side: the vectors of pictures know nothing of these words. Where the index has no captions, pairs of the memory
stand in for documents: one whose caption has all words is hidden from the query, and asked where its picture would rank
in the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..engines import Description, IndexHit, Question
from ..reco import Reco
from ..types import Refinement, Target, Vectors, caption_of
from .judgments import Grades
from .measure import Figures, QueryRows, judge_all
from .queries import SearchQuery
from .search import AskIndex, FoundHits, Rankings, SearchHow

RestsOn: TypeAlias = Literal["judgments", "captions of the index", "pairs of the memory"]
ENOUGH = 30
"""Queries from which evidence says anything."""
_SMALL = frozenset({"the", "and", "with", "for"})


@dataclass(frozen=True)
class Indication:
    """Queries for which plain and refined can be told apart.

    Attributes:
        kind: what tells.
        rows: (n,) of the queries.
        plain, refined: (n,) nDCG@k.
        asked: of how many queries.
        assumed: how many of the rows have a value that was assumed, since nothing told.
    """

    kind: RestsOn
    rows: QueryRows
    plain: Figures
    refined: Figures
    asked: int
    assumed: int = 0

    @property
    def difference(self) -> Figures:
        """(n,) refined minus plain."""
        return self.refined - self.plain

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def told(self) -> int:
        """Queries for which something told."""
        return len(self.rows) - self.assumed


def words_of(text: str) -> frozenset[str]:
    """The words that count of a text, without an s at their end.

    >>> sorted(words_of("A picture of the Foxes"))
    ['foxe', 'picture']
    """
    words = re.findall(r"\w+", text.casefold())
    kept = [word for word in words if (len(word) > 2 and word not in _SMALL) or not word.isascii()] or words
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in kept)


def has_words(caption: str | None, words: frozenset[str]) -> bool:
    """Whether a caption has all of some words; those of scripts without blanks may be parts of others."""
    if not caption or not words:
        return False
    own = words_of(caption)
    return all(word in own or (not word.isascii() and word in caption.casefold()) for word in words)


def by_captions_of_index(queries: Sequence[SearchQuery], rankings: Rankings, k: int) -> Indication:
    """Count as right what any arm found whose caption has all words of the query; queries without any are left out."""
    grades: list[Grades] = []
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        pooled = (hit for found in rankings.hits.values() for hit in found[row])
        grades.append({hit.id: 1.0 for hit in pooled if has_words(hit.text, words)})
    judged = judge_all(rankings, grades, k)
    plain, refined = (judged.values[arm]["ndcg"] for arm in ("plain", "refined"))
    return Indication("captions of the index", judged.rows, plain, refined, len(queries))


def by_pairs_of_memory(
    reco: Reco,
    search: AskIndex,
    described: Description,
    queries: Sequence[SearchQuery],
    refinement: Refinement,
    plain: Sequence[FoundHits],
    how: SearchHow,
    target: Target,
) -> Indication:
    """Hide a pair whose caption has all words of a query, and see where its picture would rank in the index.

    Queries that no such pair was found for, and that move, are assumed to lose what the memory's self-check says that
    queries without an answer lose.
    """
    chosen = _choose(queries, refinement, how.seed)
    rows = np.array(sorted(chosen), np.int64)
    hidden = _hidden_loss(reco, target)
    lost = np.array([row for row in np.flatnonzero(refinement.refined).tolist() if row not in chosen], np.int64)
    if not len(rows):
        return Indication(
            "pairs of the memory", lost, np.zeros(len(lost)), np.full(len(lost), hidden), len(queries), len(lost)
        )
    ids = [chosen[row] for row in rows.tolist()]
    stored = reco.memory.get(sorted(set(ids)))
    vectors = {
        id_: _of(target, image, text) for id_, image, text in zip(stored.ids, stored.image, stored.text, strict=True)
    }
    asked = refinement.frozen[rows]
    moved = reco.refine(asked, modality="text", target=target, exclude=[[id_] for id_ in ids]).vectors
    values: dict[str, list[float]] = {"plain": [], "refined": []}
    for place, (row, id_) in enumerate(zip(rows.tolist(), ids, strict=True)):
        found = search(Question(moved[place], k=how.k, where=how.where))
        for side, vector, hits in (("plain", asked[place], plain[row]), ("refined", moved[place], found)):
            values[side].append(_gain(hits, float(vector @ vectors[id_]), id_, described, how.k))
    none = np.zeros(len(lost))
    return Indication(
        "pairs of the memory",
        np.concatenate([rows, lost]),
        np.concatenate([values["plain"], none]),
        np.concatenate([values["refined"], none + hidden]),
        len(queries),
        len(lost),
    )


def _choose(queries: Sequence[SearchQuery], refinement: Refinement, seed: int) -> dict[int, str]:
    """Row of a query -> a pair near it whose caption has all its words."""
    rng, chosen = np.random.default_rng(seed), dict[int, str]()
    neighbours = refinement.neighbours
    if neighbours is None or neighbours.payloads is None:
        return chosen
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        near = [
            id_
            for id_, payload in zip(neighbours.ids[row], neighbours.payloads[row], strict=True)
            if has_words(caption_of(payload), words)
        ]
        if near:
            chosen[row] = near[int(rng.integers(len(near)))]
    return chosen


def _of(target: Target, image: npt.NDArray[np.float32], text: npt.NDArray[np.float32]) -> Vectors:
    """What the index would hold of a pair, (D,)."""
    if target == "both":
        mean = image + text
        return np.asarray(mean / np.linalg.norm(mean), np.float32)
    return image if target == "image" else text


def _gain(hits: Sequence[IndexHit], cosine: float, id_: str, described: Description, k: int) -> float:
    """NDCG of one right document of a cosine among the hits; the index may hold it under the same id."""
    ahead = sum(_cosine(hit.score, described) > cosine for hit in hits if hit.id != id_)
    return 1.0 / float(np.log2(ahead + 2)) if ahead < k else 0.0


def _cosine(score: float, described: Description) -> float:
    """Of unit vectors, from the score of a hit."""
    return 1.0 - score * score / 2.0 if described.metric == "euclid" else score


def _hidden_loss(reco: Reco, target: Target) -> float:
    """What a text query without an answer loses by the memory's own pairs, as a share; 0 where it does not say."""
    calibration = reco.memory.calibration
    check = None if calibration is None else calibration.check
    if check is None or target != "image":
        return 0.0
    return min(check.text.hidden, 0.0) / 100.0
