"""One query, ranked over the memory by its plain and by its refined vector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from ...defaults import RESULTS
from ...encoders.preprocess import ImageConfig
from ...encoders.preprocess.image import thumbnail
from ...errors import ImageError, MemoryStoreError
from ...reco import Reco
from ...sources.images import PictureFiles, stored_thumbnail
from ...types import Degraded, InputType, Modality, Payload, Search, Used, Vectors, caption_of, other
from ..embedder import Embedded, EmbedRequest
from ..routing import to_failure
from ..schemas import HowToRefine, TextOrImage

DEPTH = 100
"""Places that are ranked."""


class PairPictures:
    """Finds the picture of a pair, in its payload or in image files; a file of more than ``max_pixels`` is none."""

    def __init__(self, folders: Iterable[Path], config: ImageConfig, max_pixels: int) -> None:
        """Read nothing yet; without folders, only payloads have pictures. The config shows what the encoder saw."""
        self._files = PictureFiles(folders)
        self._config, self._max_pixels = config, max_pixels
        self._made = lru_cache(maxsize=2048)(self._make)

    def of(self, id_: str, payload: Payload) -> str | None:
        """A data URI; None without a picture. A payload's own ``thumbnail`` comes first, then a file of the folders."""
        if (given := stored_thumbnail(payload)) is not None:
            return given
        file = self._files.find(id_, payload)
        return None if file is None else self._made(file, file.stat().st_mtime_ns)

    def _make(self, file: Path, _changed: int) -> str | None:
        try:
            return thumbnail(file, self._config, self._max_pixels)
        except ImageError:
            return None


class CompareRequest(HowToRefine):
    """A query, and how to treat it."""

    input: TextOrImage
    input_type: InputType = "query"
    refine: bool | None = Field(None, description="None: by default, queries are refined and documents are not")
    by: Modality | None = Field(None, description="side of the pairs to rank; None: pictures for a text, else captions")
    results: int = Field(RESULTS, ge=1, le=DEPTH)

    def to_embed(self) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [self.input.to_item()],
            side=self.input_type,
            refine=self.refine,
            options={"target": self.by or other(self.modality), **self.options()},
            explain=True,
        )

    @property
    def modality(self) -> Modality:
        """What the query is."""
        return "text" if self.input.text is not None else "image"


class Shown(BaseModel):
    """A pair as the page shows it."""

    id: str
    caption: str | None
    picture: str | None


class Retrieved(Shown):
    """A pair that the refinement used."""

    similarity: float
    reliability: float
    weight: float


class Ranked(Shown):
    """A pair in a ranking; a rank is None beyond ``depth`` places."""

    similarity: float
    rank_plain: int | None
    rank_refined: int | None


class Compared(BaseModel):
    """All that the page shows of one query."""

    modality: Modality
    by: Modality
    depth: int
    refined: bool
    moved: float
    """Cosine distance of the two vectors."""
    truncated: bool
    degraded: Degraded | None
    why: str
    """Why the query moved as far as it did, in words; empty without a gate."""
    presence: float | None
    """Whether the memory holds the answer, from 0 to 1: a rank; None where it cannot be known."""
    plain: str
    """Why the query did not move at all; empty where it could."""
    used: list[Retrieved]
    plain_ranking: list[Ranked]
    refined_ranking: list[Ranked]
    ranking_error: str | None = None
    """Why there are no rankings, in words."""


@dataclass(frozen=True)
class Comparer:
    """Ranks for the page."""

    reco: Reco
    pictures: PairPictures

    def compare(self, asked: CompareRequest, answer: Embedded) -> Compared:
        """Rank by both vectors; without rankings if the memory is down."""
        (query,) = answer.rows
        by, problem = asked.by or other(asked.modality), None
        plain, refined = list[Ranked](), list[Ranked]()
        try:
            plain, refined = self._rank(np.stack([query.frozen, query.vector]), by, asked.results)
        except MemoryStoreError as error:
            problem = to_failure(error).message
        return Compared(
            modality=asked.modality,
            by=by,
            depth=DEPTH,
            refined=query.refined,
            moved=query.moved,
            truncated=query.truncated,
            degraded=answer.degraded,
            why=str(query.why) if query.why else "",
            presence=query.presence,
            plain=query.plain,
            used=[self._show_used(used) for used in query.used or ()],
            plain_ranking=plain,
            refined_ranking=refined,
            ranking_error=problem,
        )

    def _rank(self, queries: Vectors, by: Modality, shown: int) -> list[list[Ranked]]:
        """The first pairs for each of two queries (2, D) by one of their sides, with their places in both rankings."""
        found = self.reco.memory.store.search(Search(queries, by=by, read=by, k=DEPTH, payloads=True))
        ranks = [{id_: rank for rank, id_ in enumerate(ids, 1)} for ids in found.ids]
        payloads = found.payloads or [[{}] * len(ids) for ids in found.ids]
        return [
            [
                Ranked(
                    **vars(describe_pair(id_, payloads[row][column], self.pictures)),
                    similarity=float(found.similarity[row, column]),
                    rank_plain=ranks[0].get(id_),
                    rank_refined=ranks[1].get(id_),
                )
                for column, id_ in enumerate(ids[:shown])
            ]
            for row, ids in enumerate(found.ids)
        ]

    def _show_used(self, used: Used) -> Retrieved:
        pair = describe_pair(used.id, used.payload, self.pictures)
        return Retrieved(**vars(pair), similarity=used.similarity, reliability=used.reliability, weight=used.weight)


def describe_pair(id_: str, payload: Payload, pictures: PairPictures) -> Shown:
    """A pair with its caption and picture."""
    return Shown(id=id_, caption=caption_of(payload), picture=pictures.of(id_, payload))
