"""Image-text retrieval in both directions: frozen, the query refined over an untouched index, and both refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Captioned
from ..types import Vectors
from .frozen import Progress, Refines, given, image_vectors, refined_candidates, refined_queries, silent, text_vectors
from .metrics import Interval, bootstrap, ranks, top_k
from .table import gain, percent, table

KS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalVariant:
    """One line of the result.

    Attributes:
        direction: ``"text->image"`` or ``"image->text"``.
        refined: ``"frozen"``, ``"query"`` (the index stays as it is) or ``"both"``.
        recall: k -> share of queries with a true result among the first k.
        gain: recall at 1 minus frozen, on the same queries, with its 95 % interval.
    """

    direction: str
    refined: str
    recall: dict[int, float]
    gain: Interval


@dataclass(frozen=True)
class RetrievalResult:
    """Frozen against refined on one retrieval set.

    Attributes:
        name: of the set.
        images: N.
        texts: M.
        options: of the refinement, as far as they were given.
        variants: both directions, frozen first in each.
    """

    name: str
    images: int
    texts: int
    options: dict[str, Any]
    variants: tuple[RetrievalVariant, ...]

    def __getitem__(self, key: tuple[str, str]) -> RetrievalVariant:
        return next(variant for variant in self.variants if (variant.direction, variant.refined) == key)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        variants = [
            asdict(v) | {"recall": {f"R@{k}": share for k, share in v.recall.items()}, "gain": v.gain._asdict()}
            for v in self.variants
        ]
        return {"task": "retrieval"} | asdict(self) | {"variants": variants}

    def render(self) -> str:
        """A plain text table, in per cent and points."""
        title = f"retrieval, {self.name}: {self.images:,} images, {self.texts:,} texts"
        rows = [
            [f"{v.direction}  {v.refined}", *(percent(share) for share in v.recall.values()), _gain(v)]
            for v in self.variants
        ]
        header = ["direction    refined", *(f"R@{k} %" for k in KS), "gain in R@1, 95 % interval"]
        return f"{title}\n{table(header, rows)}"


def retrieval(reco: Refines, captioned: Captioned, *, progress: Progress = silent, **options: Any) -> RetrievalResult:
    """Search images by texts and texts by images, frozen and refined.

    A text finds its image; an image finds any of its texts. What searches is refined as a query, what is searched as
    candidates, which compete. Pairs of the memory that are the image's own (same id)
    are hidden from the image and from its texts. Intervals are drawn over images, so that the captions of one image
    stay together.

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

    def by_text(query: Vectors, index: Vectors) -> npt.NDArray[np.int64]:
        return ranks(query, index, owner)

    def by_image(query: Vectors, index: Vectors) -> npt.NDArray[np.int64]:
        return ranks(query[described], index, described, owner)

    variants = (
        *_direction("text->image", by_text, (texts, queries["text"]), (images, index["image"]), owner),
        *_direction("image->text", by_image, (images, queries["image"]), (texts, index["text"]), described),
    )
    return RetrievalResult(captioned.name, len(images), len(texts), given(options), variants)


def _direction(
    name: str,
    search: Callable[[Vectors, Vectors], npt.NDArray[np.int64]],
    queries: tuple[Vectors, Vectors],
    index: tuple[Vectors, Vectors],
    groups: npt.NDArray[np.int64],
) -> list[RetrievalVariant]:
    """The three lines of one direction; queries and index are (frozen, refined), ``search`` gives ranks."""
    frozen = search(queries[0], index[0])
    found = {"frozen": frozen, "query": search(queries[1], index[0]), "both": search(queries[1], index[1])}
    return [
        RetrievalVariant(
            direction=name,
            refined=refined,
            recall={k: top_k(rank, k) for k in KS},
            gain=bootstrap((rank < 1).astype(np.float64) - (frozen < 1), groups),
        )
        for refined, rank in found.items()
    ]


def _gain(variant: RetrievalVariant) -> str:
    return "" if variant.refined == "frozen" else gain(variant.gain)
