"""What tells plain from refined without judgments: words of queries in captions of the index, or of the memory.

A document whose caption has all words of a query is taken as right for it. That is not always so, but it favours
neither side: the vectors of pictures know nothing of these words. Where the index has no captions, pairs of the memory
stand in for documents: one whose caption has all words is hidden from the query, and asked whether its picture would be
found in the index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..engines import Description, IndexHit, Question
from ..evaluate.intervals import Interval
from ..options import RefineOptions
from ..reco import Reco
from ..types import Refinement, Target, Vectors, caption_of
from .judgments import Grades
from .measure import Figures, QueryRows, judge_all
from .queries import SearchQuery
from .search import AskIndex, Exactness, FoundHits, Rankings, SearchHow

RestsOn: TypeAlias = Literal["judgments", "captions of the index", "pairs of the memory"]
_CHANCE = 3.0
"""Times chance from which an encoder knows something."""
ENOUGH = 30
"""Queries from which evidence says anything."""
_SMALL = frozenset({"the", "and", "with", "for"})


@dataclass(frozen=True)
class Indication:
    """Queries for which plain and refined can be told apart.

    Attributes:
        kind: what tells.
        rows: (n,) of the queries.
        plain, refined: (n,) of the metric.
        asked: of how many queries.
        assumed: how many of the rows have a value that was assumed, since nothing told.
        by_chance: whether plain queries find what counts as right hardly more often than by chance, so that it may be
            wrong: captions that belong to other pictures look the same as an encoder that knows nothing.
    """

    kind: RestsOn
    rows: QueryRows
    plain: Figures
    refined: Figures
    asked: int
    assumed: int = 0
    by_chance: bool = False

    @property
    def metric(self) -> str:
        """What is compared: of hidden pairs, only whether their picture is among the first k.

        What the index holds of the same thing may well rank before it.
        """
        return "recall" if self.kind == "pairs of the memory" else "nDCG"

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

    >>> sorted(words_of("A picture of the Foxes, size 7"))
    ['7', 'foxe', 'picture', 'size']
    """
    words = re.findall(r"\w+", text.casefold())
    kept = [word for word in words if not word.isascii() or not _is_small(word)] or words
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in kept)


def _is_small(word: str) -> bool:
    return word in _SMALL or (len(word) < 3 and word.isalpha())


def has_words(caption: str | None, words: frozenset[str]) -> bool:
    """Whether a caption has all of some words; those of scripts without blanks may be parts of others."""
    if not caption or not words:
        return False
    own = words_of(caption)
    return all(word in own or (not word.isascii() and word in caption.casefold()) for word in words)


def by_captions_of_index(queries: Sequence[SearchQuery], rankings: Rankings, k: int) -> Indication:
    """Count as right what any arm found whose caption has all words of the query; queries without any are left out."""
    grades = grade_by_captions(queries, rankings)
    judged = judge_all(rankings, grades, k)
    plain, refined = (judged.values[arm]["ndcg"] for arm in ("plain", "refined"))
    return Indication("captions of the index", judged.rows, plain, refined, len(queries))


def grade_by_captions(queries: Sequence[SearchQuery], rankings: Rankings) -> list[Grades]:
    """Of each query, the documents of any arm whose captions have all its words."""
    grades: list[Grades] = []
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        pooled = (hit for found in rankings.hits.values() for hit in found[row])
        grades.append({hit.id: 1.0 for hit in pooled if has_words(hit.text, words)})
    return grades


def by_exact_search(
    queries: Sequence[SearchQuery], exactness: Exactness | None, grades: Sequence[Grades] | None, how: SearchHow
) -> Interval | None:
    """Gain in nDCG@k if the index found what exact search does; None where too few queries tell.

    Args:
        queries: B.
        exactness: with what exact search found.
        grades: of judgments, for B queries; None: captions judge.
        how: k and the seed.
    """
    if exactness is None or not exactness.found:
        return None
    rows = sorted(exactness.found["plain"])
    rankings = Rankings({side: [found[row] for row in rows] for side, found in exactness.found.items()})
    some = [queries[row] for row in rows]
    right = grade_by_captions(some, rankings) if grades is None else [grades[row] for row in rows]
    judged = judge_all(rankings, right, how.k)
    if len(judged.rows) < ENOUGH:
        return None
    return judged.interval("refined", "ndcg", minus="plain", seed=how.seed)


def by_pairs_of_memory(
    reco: Reco,
    search: AskIndex,
    described: Description,
    queries: Sequence[SearchQuery],
    refinement: Refinement,
    plain: Sequence[FoundHits],
    how: SearchHow,
    options: RefineOptions,
) -> Indication:
    """Hide a pair whose caption has all words of a query, and see where its picture would rank in the index.

    Queries that no such pair was found for, and that move, are assumed to lose what the others lose on average when all
    their pairs are hidden.
    """
    fitting = _fitting(queries, refinement)
    rng, rows = np.random.default_rng(how.seed), np.array(sorted(fitting), np.int64)
    lost = np.array([row for row in np.flatnonzero(refinement.refined).tolist() if row not in fitting], np.int64)
    if not len(rows):
        none = np.zeros(len(lost))
        return Indication("pairs of the memory", lost, none, none, len(queries), len(lost))
    ids = [fitting[row][int(rng.integers(len(fitting[row])))] for row in rows.tolist()]
    target = options.get("target") or "image"
    stored = reco.memory.get(sorted(set(ids)))
    vectors = {
        id_: _of(target, image, text) for id_, image, text in zip(stored.ids, stored.image, stored.text, strict=True)
    }
    asked, wheres = refinement.frozen[rows], [queries[row].where or how.where for row in rows.tolist()]

    def gains(moved: Vectors, rankings: Iterable[FoundHits]) -> Figures:
        places = zip(moved, ids, rankings, strict=True)
        found = [_found(hits, float(one @ vectors[id_]), id_, described, how.k) for one, id_, hits in places]
        return np.array(found, np.float64)

    def refined(hidden: Sequence[Sequence[str]]) -> Figures:
        more: RefineOptions = {**options, "exclude": hidden}
        moved = reco.refine(asked, modality="text", **more).vectors
        return gains(moved, (search(Question(one, k=how.k, where=w)) for one, w in zip(moved, wheres, strict=True)))

    before, after = gains(asked, (plain[row] for row in rows.tolist())), refined([[id_] for id_ in ids])
    unanswered = float(np.mean(refined([fitting[row] for row in rows.tolist()]) - before)) if len(lost) else 0.0
    none = np.zeros(len(lost))
    return Indication(
        "pairs of the memory",
        np.concatenate([rows, lost]),
        np.concatenate([before, none]),
        np.concatenate([after, none + min(unanswered, 0.0)]),
        len(queries),
        len(lost),
        described.documents > 2 * _CHANCE * how.k and bool(before.mean() < _CHANCE * how.k / described.documents),
    )


def _fitting(queries: Sequence[SearchQuery], refinement: Refinement) -> dict[int, list[str]]:
    """Row of a query -> the pairs near it whose captions have all its words, where there are any."""
    found, neighbours = dict[int, list[str]](), refinement.neighbours
    if neighbours is None or neighbours.payloads is None:
        return found
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        near = zip(neighbours.ids[row], neighbours.payloads[row], strict=True)
        if ids := [id_ for id_, payload in near if has_words(caption_of(payload), words)]:
            found[row] = ids
    return found


def _of(target: Target, image: npt.NDArray[np.float32], text: npt.NDArray[np.float32]) -> Vectors:
    """What the index would hold of a pair, (D,)."""
    if target == "both":
        mean = image + text
        return np.asarray(mean / np.linalg.norm(mean), np.float32)
    return image if target == "image" else text


def _found(hits: Sequence[IndexHit], cosine: float, id_: str, described: Description, k: int) -> bool:
    """Whether a document of this cosine would be among the first k; the index may hold it under the same id."""
    return sum(cosine_of(hit.score, described) > cosine for hit in hits if hit.id != id_) < k


def cosine_of(score: float, described: Description) -> float:
    """Of unit vectors, from the score of a hit."""
    return 1.0 - score * score / 2.0 if described.metric == "euclid" else score
