"""Pictures of an evaluation that the memory holds: what is gained on them says nothing of new ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..request import Search
from ..score import Refines
from ..types import Vectors

SAME = 0.99
"""Cosine of a picture and a copy of it."""
_ROWS = 4096


def count_own(reco: Refines, images: Vectors, own: Sequence[Collection[str]] | None) -> int:
    """Count images (N, D) that the memory holds under other ids than their own, which are hidden from them."""
    memory: Any = getattr(getattr(reco, "reco", reco), "memory", None)
    searches = getattr(memory, "searches", None)
    if searches is None:
        return 0
    count = 0
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        hidden = None if own is None else own[rows]
        found = searches.search(Search(images[rows], "image", "image", 1, exclude=hidden, ids=hidden is not None))
        count += int((found.similarity[found.found] >= SAME).sum())
    return count


def line_of(own: int, images: int) -> str:
    """A line to print below a table; empty where there are none."""
    if not own:
        return ""
    return (
        f"\nwarning: {own:,} of {images:,} images are pictures of the memory, under other ids: gains on them say "
        "nothing of new pictures. Keep them out (reco memory build --exclude), or give them the pairs' ids"
    )
