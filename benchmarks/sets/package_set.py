"""What every data set of this package is: entities, drawn in several styles, some of which only ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reco_plugin.quickstart.dataset import BenchPair, EntitySplit, make_rng

SPLITS: tuple[EntitySplit, ...] = ("fusion", "dev", "unseen")
"""No entity is in the pre-training of the shipped encoder, so there is no ``seen``: fusion trains, dev chooses,
unseen tests."""
_SHARES: dict[EntitySplit, float] = {"fusion": 0.4, "dev": 0.2, "unseen": 0.4}


@dataclass(frozen=True)
class Entity:
    """One thing that several styles draw.

    Attributes:
        key: identity in its data set, as in ``de`` or ``postgresql``.
        names: what it is called; the first, bare, is the class prompt.
        hints: what a caption may tell of it without its name.
        split: which part of the benchmark it belongs to.
    """

    key: str
    names: tuple[str, ...]
    hints: tuple[str, ...]
    split: EntitySplit


@dataclass(frozen=True)
class PackageSet:
    """All drawings of one data set. Row i of ``images`` belongs to item i.

    Attributes:
        name: of the data set.
        images: (N, 64, 64, 3) uint8.
        items: N drawings with caption, style, family and split.
        entities: the C classes.
        query_styles: in no memory and in no training.
    """

    name: str
    images: npt.NDArray[np.uint8]
    items: Sequence[BenchPair]
    entities: Sequence[Entity]
    query_styles: tuple[str, ...]

    def memory_rows(self, splits: Iterable[EntitySplit] = SPLITS) -> npt.NDArray[np.int64]:
        """Rows of the pairs that belong in a memory."""
        return self._rows(splits, queries=False)

    def query_rows(self, splits: Iterable[EntitySplit] = SPLITS) -> npt.NDArray[np.int64]:
        """Rows of the drawings that ask."""
        return self._rows(splits, queries=True)

    def _rows(self, splits: Iterable[EntitySplit], *, queries: bool) -> npt.NDArray[np.int64]:
        wanted = set(splits)
        found = [
            row
            for row, item in enumerate(self.items)
            if item.split in wanted and (item.style in self.query_styles) == queries
        ]
        return np.array(found, np.int64)


def split_of(concept: str, salt: str) -> EntitySplit:
    """Give a concept its split: 40 % fusion, 20 % dev, 40 % unseen.

    It depends on the arguments alone, so a data set that grows or loses an entity leaves all others where they were.

    >>> [split_of(name, "flags") for name in ("de", "es", "fr")]
    ['unseen', 'dev', 'fusion']
    """
    position = make_rng("split", salt, concept).random()
    for split, share in _SHARES.items():
        if position < share:
            return split
        position -= share
    return SPLITS[-1]
