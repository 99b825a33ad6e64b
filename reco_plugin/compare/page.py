"""The page of a comparison: the report's, with thirty queries side by side that a person can mark blind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.cells import CellError, image_of
from ..data.images import RemoteImage
from ..engines import IndexHit
from ..files import whole_file
from ..report import Addition, Thumbnails, render_page
from .figures import findings_of, hardest
from .marks import Better
from .run import Comparison

SHOWN = 30
"""Queries on the page."""
RESULTS = 6
"""Results of each side that are shown."""


@dataclass(frozen=True)
class ShownHit:
    """One result: what it says, its picture as a data URI, and whether it is judged right."""

    words: str
    picture: str | None
    right: bool


@dataclass(frozen=True)
class SideBySide:
    """One query on the page; the sides are shuffled."""

    id: str
    name: str
    picture: str | None
    sides: tuple[tuple[Better, Sequence[ShownHit]], ...]  # the left one first
    reason: str
    moved: float

    @property
    def shown(self) -> list[list[str]]:
        """What a mark is of: the results of each side, the left one first, by their words."""
        return [[side, *(hit.words for hit in hits)] for side, hits in self.sides]


@dataclass
class _Pictures:
    """Thumbnails of what an index says of its pictures."""

    folder: Path
    made: Thumbnails = field(default_factory=Thumbnails)

    def of(self, value: str | bytes | Path | RemoteImage | None) -> str | None:
        if not value:
            return None
        try:
            image = image_of(value, self.folder) if isinstance(value, str) else value
        except CellError:
            return None
        return self.made.of(hashlib.sha256(value).digest() if isinstance(value, bytes) else str(value), image)


def write_page(found: Comparison, out: Path, command: str, pictures: Path) -> Path:
    """Write ``compare.html``, one file that loads nothing.

    Args:
        found: the comparison.
        out: folder, which is there.
        command: that makes it again.
        pictures: folder of relative paths of pictures.

    Raises:
        MissingExtra: jinja2 is not installed.
        DataError: it cannot be written.
    """
    shown = side_by_side(found, _Pictures(pictures))
    key = hashlib.sha256(json.dumps([[one.id, one.shown] for one in shown]).encode()).hexdigest()
    addition = Addition("reco_plugin.compare", "compare", {"pairs": shown, "key": key[:16], "k": found.how.k})
    path = out / "compare.html"
    with whole_file(path) as part:
        part.write_text(
            render_page(findings_of(found, command), "Plain and refined queries in this index", addition),
            encoding="utf-8",
        )
    return path


def side_by_side(found: Comparison, pictures: _Pictures) -> list[SideBySide]:
    """The queries whose results change most, sides shuffled by the seed."""
    rng = np.random.default_rng(found.how.seed)
    judged = {} if found.judged is None else found.judged.right
    shown = []
    for row in hardest(found, SHOWN).tolist():
        query, right = found.log.queries[row], judged.get(row, frozenset())
        sides: list[tuple[Better, Sequence[ShownHit]]] = [
            ("plain", _hits(found.rankings.hits["plain"][row], right, pictures)),
            ("refined", _hits(found.rankings.hits["refined"][row], right, pictures)),
        ]
        if rng.random() < 0.5:
            sides.reverse()
        picture = pictures.of(query.image) if query.text is None else None
        shown.append(
            SideBySide(query.id, query.name, picture, tuple(sides), found.reasons[row], float(found.moved[row]))
        )
    return shown


def _hits(hits: Sequence[IndexHit], right: frozenset[str], pictures: _Pictures) -> list[ShownHit]:
    return [ShownHit(hit.text or hit.id, pictures.of(hit.image), hit.id in right) for hit in hits[:RESULTS]]
