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
from ...memory.scope import current_scope
from ...reco import Reco
from ...sources.images import PictureFiles, stored_thumbnail
from ...types import Degraded, InputType, Modality, Payload, Search, Used, Vectors, caption_of, other
from ..embedder import Embedded, EmbedRequest
from ..routing import to_failure
from ..schemas import HowToRefine, TextOrImage
from ..wire import numbered

DEPTH = 100
"""Length of a ranking."""


class PairPictures:
    """Finds the picture of a pair, in its payload or in image files of at most ``max_pixels``."""

    def __init__(self, folders: Iterable[Path], config: ImageConfig, max_pixels: int) -> None:
        """Read nothing yet. Without folders, only payloads have pictures. They are cropped as for the encoder."""
        self._files = PictureFiles(folders)
        self._config, self._max_pixels = config, max_pixels
        self._thumbnail = lru_cache(maxsize=2048)(self._make_thumbnail)

    def of(self, id_: str, payload: Payload) -> str | None:
        """Return a data URI: the ``thumbnail`` of the payload, else a file of the folders; None without a picture."""
        if (stored := stored_thumbnail(payload)) is not None:
            return stored
        file = None if current_scope() else self._files.find(id_, payload)  # the folders have pictures of all
        return None if file is None else self._thumbnail(file, file.stat().st_mtime_ns)

    def show(self, id_: str, payload: Payload) -> Shown:
        """Return a pair with its caption and picture."""
        return Shown(id=id_, caption=caption_of(payload), picture=self.of(id_, payload))

    def _make_thumbnail(self, file: Path, _modified: int) -> str | None:
        try:
            return thumbnail(file, self._config, self._max_pixels)
        except ImageError:
            return None


class CompareRequest(HowToRefine):
    """A query, and how to refine it."""

    input: TextOrImage
    input_type: InputType = "query"
    refine: bool | None = Field(None, description="null: queries are refined and documents are not")
    by: Modality | None = Field(None, description="side of the pairs to rank; null: pictures for a text, else captions")
    results: int = Field(RESULTS, ge=1, le=DEPTH)

    def to_embed(self) -> EmbedRequest:
        """Convert for the embedder."""
        return EmbedRequest(
            numbered("input", [[self.input.to_item()]]),
            input_type=self.input_type,
            refine=self.refine,
            options={"target": self.by or other(self.input.kind), **self.options()},
            explain=True,
        )


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
    """A pair in a ranking. A rank beyond ``depth`` is null."""

    similarity: float
    rank_plain: int | None
    rank_refined: int | None


class Compared(BaseModel):
    """The comparison that the page shows."""

    modality: Modality
    by: Modality
    depth: int
    refined: bool
    moved: float
    """Cosine distance of the two vectors."""
    truncated: bool
    degraded: Degraded | None
    why: str
    """Why the query moved so far, in words; empty without a gate."""
    presence: float | None
    """Whether the memory holds the answer, from 0 to 1: a rank; null if unknown."""
    plain: str
    """Why the query stays plain; empty if it moved, or should not be refined."""
    used: list[Retrieved]
    plain_ranking: list[Ranked]
    refined_ranking: list[Ranked]
    ranking_error: str | None = None
    """Why there are no rankings."""


@dataclass(frozen=True)
class Comparer:
    """Ranks the pairs of the memory for the page."""

    reco: Reco
    pictures: PairPictures

    def compare(self, body: CompareRequest, answer: Embedded) -> Compared:
        """Rank by both vectors. There are no rankings if the memory is down."""
        (query,) = answer.rows
        by, ranking_error = body.by or other(body.input.kind), None
        plain, refined = list[Ranked](), list[Ranked]()
        try:
            plain, refined = self._rank(np.stack([query.frozen, query.embedding]), by, body.results)
        except MemoryStoreError as error:
            ranking_error = to_failure(error).message
        return Compared(
            modality=body.input.kind,
            by=by,
            depth=DEPTH,
            refined=query.refined,
            moved=query.moved,
            truncated=query.truncated,
            degraded=answer.degraded,
            why=query.reason or "",
            presence=query.presence,
            plain=query.plain or "",
            used=[self._show_used(used) for used in query.used or ()],
            plain_ranking=plain,
            refined_ranking=refined,
            ranking_error=ranking_error,
        )

    def _rank(self, queries: Vectors, by: Modality, shown: int) -> list[list[Ranked]]:
        """Return the first pairs for each of two queries (2, D), with their places in both rankings."""
        neighbours = self.reco.memory.store.search(Search(queries, by=by, read=by, k=DEPTH, payloads=True))
        ranks = [{id_: rank for rank, id_ in enumerate(ids, 1)} for ids in neighbours.ids]
        payloads = neighbours.payloads or [[{}] * len(ids) for ids in neighbours.ids]
        return [
            [
                Ranked(
                    **vars(self.pictures.show(id_, payloads[row][column])),
                    similarity=float(neighbours.similarity[row, column]),
                    rank_plain=ranks[0].get(id_),
                    rank_refined=ranks[1].get(id_),
                )
                for column, id_ in enumerate(ids[:shown])
            ]
            for row, ids in enumerate(neighbours.ids)
        ]

    def _show_used(self, used: Used) -> Retrieved:
        pair = self.pictures.show(used.id, used.payload)
        return Retrieved(**vars(pair), similarity=used.similarity, reliability=used.reliability, weight=used.weight)
