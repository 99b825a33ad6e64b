"""A part of the quickstart's drawings, for tests that need real ones and not all of them."""

from __future__ import annotations

from reco_plugin.quickstart.dataset import Quickstart, load


def load_some(every: int = 6) -> Quickstart:
    """The drawings of every n-th entity; each split keeps about its share."""
    data = load()
    entities = data.entities[::every]
    keys = {entity.key for entity in entities}
    rows = [row for row, item in enumerate(data.items) if item.entity in keys]
    return Quickstart(data.images[rows], [data.items[row] for row in rows], entities)
