"""An index of pictures that things are searched in, and what it shows for their words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..calibration.nearest import RowNumbers, nearest_columns
from ..machine.blas import Floats
from ..refine import Refiner
from ..types import Neighbours, Vectors

RIVALS = 3
"""Things that are named as look-alikes, at most."""
_BLOCK, _NUMBERS = 256, 2**25  # queries at a time, and their scores
_NOT_THERE = np.float32(-2.0)


@dataclass(frozen=True)
class ThingQueries:
    """B queries, each for a thing.

    Attributes:
        text: (B, D) plain vectors of the words.
        thing: (B,) number of the thing; its pictures are no rivals.
        hidden: B collections of ids that the memory must not find; None: it finds all.
        right: (B, D) the picture that is right, a row of NaN where none is; None: the thing's own in the index.
    """

    text: Vectors
    thing: RowNumbers
    hidden: Sequence[Collection[str]] | None = None
    right: Vectors | None = None


@dataclass(frozen=True)
class IndexView:
    """What an index shows for B queries.

    Attributes:
        margin: (B,) score of the right picture minus that of the best rival; NaN where there is no right one.
        place: (B,) of the right picture, from 1; 0 where there is none.
        rival: (B,) score of the best rival, on the scale of plain scores.
        near: (B,) similarity of the memory's nearest caption; -1 where nothing was found.
        moved: (B,) cosine distance of the refined query from the plain one.
        presence: (B,) probability that the memory holds what is asked for; NaN where it cannot be known.
        rivals: (B, 3) rows of the best rivals, one of a thing, the best first; -1 where there are fewer.
    """

    margin: Floats
    place: RowNumbers
    rival: Floats
    near: Floats
    moved: Floats
    presence: Floats
    rivals: RowNumbers

    @classmethod
    def join(cls, parts: Sequence[IndexView]) -> IndexView:
        """Blocks below one another."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    def signals(self, *, pictured: bool) -> Floats:
        """(B, 4): a higher one of the first three never makes a failure likelier; with the margin, or without."""
        lead = self.margin if pictured else self.near - self.rival
        return np.stack([lead, self.near, -self.rival, np.sqrt(self.moved)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class PictureIndex:
    """Pictures that are searched.

    Attributes:
        image: (N, D).
        thing: (N,) number of each one's thing.
    """

    image: Vectors
    thing: RowNumbers

    def ask(
        self,
        refiner: Refiner,
        asked: ThingQueries,
        note: Callable[[Neighbours | None, Floats | None], Any] | None = None,
        progress: Callable[[int], object] = int,
    ) -> IndexView:
        """Refine queries, and look what is shown for them.

        Args:
            refiner: of the memory.
            asked: B queries, at least one.
            note: gets what each block found in the memory, and its reliability, in order.
            progress: gets a number of queries.
        """
        parts = list[IndexView]()
        size = int(np.clip(_NUMBERS // max(len(self.image), 1), 1, _BLOCK))
        for start in range(0, len(asked.text), size):
            rows = slice(start, start + size)
            parts.append(self._block(refiner, asked, rows, note))
            progress(len(parts[-1].near))
        return IndexView.join(parts)

    def _block(
        self,
        refiner: Refiner,
        asked: ThingQueries,
        rows: slice,
        note: Callable[[Neighbours | None, Floats | None], Any] | None,
    ) -> IndexView:
        hidden = {} if asked.hidden is None else {"exclude": asked.hidden[rows]}
        found = refiner.refine(asked.text[rows], modality="text", explain=True, **hidden)  # type: ignore[arg-type]
        if note is not None:
            note(found.neighbours, found.reliability)
        scores = found.plain_scores(found.vectors @ self.image.T)
        own = asked.thing[rows, None] == self.thing
        rivals = np.where(own, _NOT_THERE, scores)
        best = rivals.max(axis=1, initial=_NOT_THERE)
        if asked.right is None:
            right = np.where(own, scores, -np.inf).max(axis=1, initial=-np.inf)
        else:
            right = found.plain_scores(np.einsum("bd,bd->b", found.vectors, asked.right[rows]))
        here = np.isfinite(right)
        ahead = (rivals >= right[:, None]).sum(axis=1) + 1
        count = len(right)
        near = np.full(count, -1.0, np.float32)
        if found.neighbours is not None and found.neighbours.similarity.shape[1]:
            near = np.where(found.neighbours.found[:, 0], found.neighbours.similarity[:, 0], near)
        return IndexView(
            np.where(here, right - best, np.nan).astype(np.float32),
            np.where(here, ahead, 0).astype(np.intp),
            best.astype(np.float32),
            near.astype(np.float32),
            np.maximum(found.moved, 0.0),
            np.full(count, np.nan, np.float32) if found.presence is None else found.presence,
            self._first_rivals(rivals),
        )

    def _first_rivals(self, rivals: Floats) -> RowNumbers:
        """Rows (B, 3) of the best rivals, one of a thing."""
        out = np.full((len(rivals), RIVALS), -1, np.intp)
        if not rivals.shape[1]:
            return out
        columns, scores = nearest_columns(rivals, min(4 * RIVALS, rivals.shape[1]))
        for row, (places, values) in enumerate(zip(columns.tolist(), scores.tolist(), strict=True)):
            kept: dict[int, int] = {}
            for place, value in zip(places, values, strict=True):
                if value > _NOT_THERE:
                    kept.setdefault(int(self.thing[place]), place)
            some = list(kept.values())[:RIVALS]
            out[row, : len(some)] = some
        return out
