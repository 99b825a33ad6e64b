"""Image-text retrieval in both directions: with neither, either or both of query and index refined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..data import Captioned
from ..request import RefineHow, said
from ..types import Vectors
from .blocks import Blocks, Ranking, rank_blocks
from .frozen import (
    Progress,
    Refined,
    Refines,
    image_vectors,
    refined_candidates,
    refined_queries,
    silent,
    text_vectors,
)
from .metrics import Interval, bootstrap, ndcg, top_k
from .reasons import Reason, lines_of, why
from .table import gain, percent, table
from .variants import moved

KS = (1, 5, 10)
SIDES = {"frozen": (False, False), "query": (True, False), "index": (False, True), "both": (True, True)}
"""What is refined: the query, and what it searches."""
_K = 10  # of nDCG


@dataclass(frozen=True)
class RetrievalVariant:
    """One line of the result.

    Attributes:
        direction: ``"text->image"`` or ``"image->text"``.
        refined: ``"frozen"``, ``"query"`` (the index stays as it is), ``"index"`` (the queries do) or ``"both"``.
        recall: k -> share of queries with a true result among the first k.
        gain: recall at 1 minus frozen, on the same queries, with its 95 % interval.
        ndcg10: nDCG@10 over all true results, mean of the queries.
    """

    direction: str
    refined: str
    recall: dict[int, float]
    gain: Interval
    ndcg10: float

    @property
    def side(self) -> str:
        """The same in the paper's words: which modality is refined, image, text, both, or frozen."""
        query, _, index = self.direction.partition("->")
        return {"query": query, "index": index}.get(self.refined, self.refined)


@dataclass(frozen=True)
class RetrievalResult:
    """Frozen against refined on one retrieval set.

    Attributes:
        name: of the set.
        images: N.
        texts: M.
        options: of the refinement, as far as they were given.
        variants: both directions, frozen first in each.
        reasons: why a line gained little.
        repeated: how many of the texts stand on another image too; they tie, which counts as wrong.
    """

    name: str
    images: int
    texts: int
    options: dict[str, Any]
    variants: tuple[RetrievalVariant, ...]
    reasons: tuple[Reason, ...] = ()
    repeated: int = 0

    def __getitem__(self, key: tuple[str, str]) -> RetrievalVariant:
        return next(variant for variant in self.variants if (variant.direction, variant.refined) == key)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        variants = [
            asdict(v) | {"recall": {f"R@{k}": share for k, share in v.recall.items()}, "gain": v.gain._asdict()}
            for v in self.variants
        ]
        reasons = [reason.to_dict() for reason in self.reasons]
        return {"task": "retrieval"} | asdict(self) | {"variants": variants, "reasons": reasons}

    def render(self) -> str:
        """A plain text table, in per cent and points."""
        title = f"retrieval, {self.name}: {self.images:,} images, {self.texts:,} texts"
        rows = [
            [f"{v.direction}  {_refined(v)}", *map(percent, v.recall.values()), percent(v.ndcg10), _gain(v)]
            for v in self.variants
        ]
        header = ["direction    refined", *(f"R@{k} %" for k in KS), "nDCG@10 %", "gain in R@1, 95 % interval"]
        tied = (
            f"\nties: {self.repeated:,} of {self.texts:,} texts stand on several images, so none of these can be told "
            "from the others, and a tie counts as wrong"
        )
        return f"{title}\n{table(header, rows)}{tied if self.repeated else ''}{lines_of(self.reasons)}"


def retrieval(
    reco: Refines, captioned: Captioned, *, progress: Progress = silent, **options: Unpack[RefineHow]
) -> RetrievalResult:
    """Search images by texts and texts by images, frozen and refined.

    A text finds its image; an image finds any of its texts. What searches is refined as a query, what is searched as
    candidates, which compete. Pairs of the memory that are the image's own (same id) are hidden from the image and
    from its texts. Intervals are drawn over images, so that the captions of one image stay together.

    Args:
        reco: refines, and encodes where the set holds raw images and texts.
        captioned: the set.
        progress: told how many items each encoded batch had.
        options: k, search, fusion, gate or where, handed to ``reco.refine``.

    Raises:
        ConfigError: raw images or texts and no encoder.
        InputError: options that cannot be used.
    """
    images, texts = image_vectors(reco, captioned.images, progress), text_vectors(reco, captioned.texts, progress)
    owner, own = captioned.text_of_image, captioned.ids
    own_of_texts = None if own is None else [own[row] for row in owner]
    queries = {
        "image": refined_queries(reco, images, "image", own, **options),
        "text": refined_queries(reco, texts, "text", own_of_texts, **options),
    }
    index = {
        "image": refined_candidates(reco, images, "image", own, **options),
        "text": refined_candidates(reco, texts, "text", own_of_texts, **options),
    }
    described = np.unique(owner)

    def by_text(query: Vectors, index: Vectors) -> Ranking:
        return rank_blocks(query, Blocks(index), owner, k=_K)

    def by_image(query: Vectors, index: Vectors) -> Ranking:
        return rank_blocks(query[described], Blocks(index), described, owner, k=_K)

    plain = {"image": images, "text": texts}
    variants = (
        *_direction("text->image", by_text, (texts, queries["text"].vectors), (images, index["image"].vectors), owner),
        *_direction(
            "image->text", by_image, (images, queries["image"].vectors), (texts, index["text"].vectors), described
        ),
    )
    reasons = (_reason(line, plain, queries, index) for line in variants if line.refined in ("query", "index"))
    told = tuple(reason for reason in reasons if reason is not None)
    repeated = _repeated(captioned.texts, owner)
    return RetrievalResult(captioned.name, len(images), len(texts), said(options), variants, told, repeated)


def _repeated(texts: Sequence[str] | Vectors, owner: npt.NDArray[np.int64]) -> int:
    """How many texts stand on another image too, letter for letter; of vectors, bit for bit."""
    owners: dict[str | bytes, set[int]] = defaultdict(set)
    keys = [text if isinstance(text, str) else text.tobytes() for text in texts]
    for key, image in zip(keys, owner.tolist(), strict=True):
        owners[key].add(image)
    return sum(len(owners[key]) > 1 for key in keys)


def _reason(
    line: RetrievalVariant, plain: dict[str, Vectors], queries: dict[str, Refined], index: dict[str, Refined]
) -> Reason | None:
    """Why a line in which one side was refined gained little."""
    asks = line.refined == "query"
    refined = (queries if asks else index)[line.side]
    return why(
        f"{line.direction} {line.refined}",
        f"{line.side}s",
        "query" if asks else "candidate",
        line.gain,
        refined.coverage,
        moved(plain[line.side], refined.vectors),
    )


def _direction(
    name: str,
    search: Callable[[Vectors, Vectors], Ranking],
    queries: tuple[Vectors, Vectors],
    index: tuple[Vectors, Vectors],
    groups: npt.NDArray[np.int64],
) -> list[RetrievalVariant]:
    """The four lines of one direction; queries and index are (frozen, refined)."""
    found = {refined: search(queries[query], index[gallery]) for refined, (query, gallery) in SIDES.items()}
    frozen = found["frozen"].ranks
    return [
        RetrievalVariant(
            direction=name,
            refined=refined,
            recall={k: top_k(ranking.ranks, k) for k in KS},
            gain=bootstrap((ranking.ranks < 1).astype(np.float64) - (frozen < 1), groups),
            ndcg10=float(ndcg(ranking.hits, ranking.relevant).mean()),
        )
        for refined, ranking in found.items()
    ]


def _refined(variant: RetrievalVariant) -> str:
    return variant.refined if variant.side == variant.refined else f"{variant.refined} ({variant.side})"


def _gain(variant: RetrievalVariant) -> str:
    return "" if variant.refined == "frozen" else gain(variant.gain)
