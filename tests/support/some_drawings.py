"""The quickstart's drawings, read once by a process; and a part of them, for tests that do not need all."""

from __future__ import annotations

from functools import cache

from reco_plugin.quickstart.dataset import Quickstart, load

all_drawings = cache(load)
"""As a user has them; nobody changes them."""


def load_some(every: int = 6) -> Quickstart:
    """The drawings of every n-th entity; each split keeps about its share."""
    data = all_drawings()
    entities = data.entities[::every]
    keys = {entity.key for entity in entities}
    rows = [row for row, item in enumerate(data.items) if item.entity in keys]
    return Quickstart(data.images[rows], [data.items[row] for row in rows], entities)
