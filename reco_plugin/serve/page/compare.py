"""One query, ranked by its plain and by its refined vector: over the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from ...calibration.why import explain_decision
from ...defaults import RESULTS
from ...errors import MemoryStoreError
from ...memory import Memory
from ...reco import Reco
from ...types import Degraded, InputType, Modality, Payload, Refinement, Search, Used, Vectors, caption_of, other
from ..edge import Caller
from ..embedder import Embedded, EmbedRequest
from ..items import TextOrImage
from ..routes import to_failure
from ..schemas import HowToRefine
from .pictures import PairPictures

DEPTH = 50
"""Places that are ranked."""
FAR = 1_000
"""Places to which the rank in the other ranking is looked up."""
_POOL = 256  # candidates that are refined as one set, with `refine_ranked`


class CompareRequest(HowToRefine):
    """A query, and how to treat it."""

    input: TextOrImage
    input_type: InputType = "query"
    refine: bool | None = Field(None, description="None: as the service's policy has it for this side")
    by: Modality | None = Field(None, description="side of the pairs to rank; the one that the query is not")
    refine_ranked: bool = Field(False, description="refine also the first candidates, as one set")
    results: int = Field(RESULTS, ge=1, le=DEPTH)

    def to_embed(self, caller: Caller) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [self.input.to_item(caller.settings.max_image_bytes)],
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
    ranked_refined: bool
    """Whether the candidates of the refined ranking are refined, too."""
    moved: float
    truncated: bool
    degraded: Degraded | None
    why: str
    """Why the query moved as far as it did, in words; empty without a gate."""
    presence: float | None
    """Whether the memory holds what is asked for, from 0 to 1: a rank; None where it cannot be known."""
    plain: str
    """Why the query did not move at all; empty where it could."""
    ranked_decided: str
    """What was decided for the candidates, and why."""
    used: list[Retrieved]
    plain_ranking: list[Ranked]
    refined_ranking: list[Ranked]
    ranking_error: str | None = None
    """Why there are no rankings, in words."""


@dataclass(frozen=True)
class Candidates:
    """N candidates of a ranking, one per row."""

    ids: Sequence[str]  # unique
    vectors: Vectors  # (N, D) of the side that is ranked
    payloads: Sequence[Payload]


@dataclass(frozen=True)
class Place:
    """A pair in a ranking."""

    id: str
    payload: Payload
    similarity: float


def ranks(store: Memory, queries: Vectors, by: Modality) -> list[dict[str, int]]:
    """The places of the ``FAR`` pairs nearest to each query (B, D), from 1, by id.

    Raises:
        MemoryStoreError: the store does not answer.
    """
    found = store.search(Search(queries, by=by, read=by, k=FAR))
    return [{id_: place for place, id_ in enumerate(ids, 1)} for ids in found.ids]


def nearest(store: Memory, queries: Vectors, by: Modality, k: int) -> Candidates:
    """The k pairs nearest to each query (B, D) by one of their sides, together, without duplicates; errors as above."""
    found = store.search(Search(queries, by=by, read=by, k=k, payloads=True))
    payloads = found.payloads or [[{}] * len(ids) for ids in found.ids]
    seen = {id_: (row, column) for row, ids in enumerate(found.ids) for column, id_ in enumerate(ids)}
    cells = list(seen.values())
    return Candidates(
        list(seen),
        found.vectors[[row for row, _ in cells], [column for _, column in cells]],
        [payloads[row][column] for row, column in cells],
    )


def places(candidates: Candidates, query: Vectors, vectors: Vectors, depth: int) -> list[Place]:
    """Rank candidates by the cosine of their vectors (N, D) with a query (D,), best first, to a depth."""
    similarity = vectors @ query
    order = np.argsort(-similarity, kind="stable")[:depth]
    return [Place(candidates.ids[row], candidates.payloads[row], float(similarity[row])) for row in order]


@dataclass(frozen=True)
class Comparer:
    """Ranks for the page."""

    reco: Reco  # refines candidates
    pictures: PairPictures

    def compare(self, asked: CompareRequest, answer: Embedded) -> Compared:
        """Rank by both vectors; without rankings if the store is down.

        Raises:
            Refused: the query could not be embedded.
        """
        (query,) = answer.whole("input").rows
        by, degraded, problem, ranked_decided = asked.by or other(asked.modality), answer.degraded, None, ""
        plain: list[Place] = []
        refined: list[Place] = []
        places_of: list[dict[str, int]] = [{}, {}]
        depth = _POOL if asked.refine_ranked else DEPTH
        try:
            found = nearest(self.reco.memory.store, np.stack([query.frozen, query.vector]), by, depth)
            plain = places(found, query.frozen, found.vectors, depth)
            vectors = found.vectors
            if asked.refine_ranked and found.ids:
                moved = self._refine(asked, found, by)
                vectors, degraded = moved.vectors, degraded or moved.degraded
                ranked_decided = "" if moved.coverage is None else explain_decision(moved.coverage)
            refined = places(found, query.vector, vectors, depth)
            places_of = [{place.id: rank for rank, place in enumerate(ranking, 1)} for ranking in (plain, refined)]
            shown = {place.id for place in (*plain[: asked.results], *refined[: asked.results])}
            if not asked.refine_ranked and not all(shown <= known.keys() for known in places_of):
                far_ranks = ranks(self.reco.memory.store, np.stack([query.frozen, query.vector]), by)
                places_of, depth = [far | near for far, near in zip(far_ranks, places_of, strict=True)], FAR
        except MemoryStoreError as error:
            problem = to_failure(error).message
        return Compared(
            modality=asked.modality,
            by=by,
            depth=depth,
            refined=query.refined,
            ranked_refined=asked.refine_ranked and problem is None,
            moved=query.moved,
            truncated=query.truncated,
            degraded=degraded,
            why=str(query.why) if query.why else "",
            presence=query.presence,
            plain=query.plain,
            ranked_decided=ranked_decided,
            used=[self._show_used(used) for used in query.used or ()],
            plain_ranking=self._ranking(plain[: asked.results], places_of),
            refined_ranking=self._ranking(refined[: asked.results], places_of),
            ranking_error=problem,
        )

    def _refine(self, asked: CompareRequest, found: Candidates, by: Modality) -> Refinement:
        """Refine candidates (N, D) as one set, each without its own pair, which would only repeat its vector."""
        options = asked.options()
        hidden = [one for one in options.get("exclude") or () if isinstance(one, str)]
        options["exclude"] = [[id_, *hidden] for id_ in found.ids]
        return self.reco.refine(found.vectors, modality=by, role="candidate", **options)

    def _ranking(self, shown: list[Place], ranks: list[dict[str, int]]) -> list[Ranked]:
        return [
            Ranked(
                **vars(describe_pair(place.id, place.payload, self.pictures)),
                similarity=place.similarity,
                rank_plain=ranks[0].get(place.id),
                rank_refined=ranks[1].get(place.id),
            )
            for place in shown
        ]

    def _show_used(self, used: Used) -> Retrieved:
        pair = describe_pair(used.id, used.payload, self.pictures)
        return Retrieved(**vars(pair), similarity=used.similarity, reliability=used.reliability, weight=used.weight)


def describe_pair(id_: str, payload: Payload, pictures: PairPictures) -> Shown:
    """A pair with its caption and picture."""
    return Shown(id=id_, caption=caption_of(payload), picture=pictures.of(id_, payload))
