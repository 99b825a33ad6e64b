"""The quickstart benchmark as arrays: images, captions, splits and styles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DataError
from .entities import ALL_SPLITS, Entity, EntitySplit, caption
from .sources import EMOJI_SOURCES, MEMORY_STYLES, QUERY_STYLES

DRAWINGS = Path(__file__).with_name("drawings")
"""A sheet of drawings per style, the table of entities, and the licences of both."""
SIDE = 64
"""Pixels per side of a drawing."""


@dataclass(frozen=True)
class BenchPair:
    """One drawing: an image-text pair of the benchmark."""

    entity: str
    style: str
    family: str
    caption: str
    split: EntitySplit | None  # None for a generic drawing, which has no entity

    @property
    def key(self) -> str:
        """Identity of the pair, as in ``1f98a/noto``."""
        return f"{self.entity}/{self.style}"


@dataclass(frozen=True)
class Quickstart:
    """All drawings. Row i of ``images`` belongs to item i."""

    images: npt.NDArray[np.uint8]  # (N, 64, 64, 3) uint8
    items: list[BenchPair]  # N items
    entities: list[Entity]  # entities that at least three styles draw

    @cached_property
    def by_key(self) -> dict[str, Entity]:
        """Entity key -> entity."""
        return {entity.key: entity for entity in self.entities}

    def rows(self, *, splits: Iterable[EntitySplit | None] = (), styles: Iterable[str] = ()) -> npt.NDArray[np.int64]:
        """Rows (M,) of the items of these splits and styles (empty: all of them)."""
        wanted_splits, wanted_styles = set(splits), set(styles)
        return np.array(
            [
                row
                for row, item in enumerate(self.items)
                if (not wanted_splits or item.split in wanted_splits)
                and (not wanted_styles or item.style in wanted_styles)
            ],
            np.int64,
        )

    def memory_rows(self, splits: Iterable[EntitySplit] = ALL_SPLITS) -> npt.NDArray[np.int64]:
        """Rows (M,) of the pairs for a memory: entities in memory styles."""
        return self.rows(splits=splits, styles=MEMORY_STYLES)

    def query_rows(self, split: EntitySplit) -> npt.NDArray[np.int64]:
        """Rows (Q,) of the test queries: drawings in styles that no memory and no training holds."""
        return self.rows(splits=[split], styles=QUERY_STYLES)

    def labels(self, splits: Iterable[EntitySplit]) -> list[Entity]:
        """The candidates of a classification: all entities of these splits."""
        wanted = set(splits)
        return [entity for entity in self.entities if entity.split in wanted]


def load() -> Quickstart:
    """Read the drawings that come with this package.

    Raises:
        DataError: they are missing or damaged.
    """
    try:
        table = json.loads((DRAWINGS / "entities.json").read_text(encoding="utf-8"))
        entities = [entity for entity, _ in map(read_entity, table)]
        items = [
            BenchPair(entity.key, source.name, source.family, caption(entity, source.name), entity.split)
            for source in EMOJI_SOURCES
            for entity, styles in map(read_entity, table)
            if source.name in styles
        ]
        images = np.empty((len(items), SIDE, SIDE, 3), np.uint8)
        done = 0
        for source in EMOJI_SOURCES:
            count = sum(item.style == source.name for item in items)
            images[done : done + count] = unpack(DRAWINGS / f"{source.name}.webp", count)
            done += count
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"the drawings in {DRAWINGS} cannot be read: {error}. An image of deploy/Dockerfile comes without them; "
            "elsewhere install reco-plugin again"
        ) from None
    return Quickstart(images, items, entities)


def read_entity(row: dict[str, Any]) -> tuple[Entity, frozenset[str]]:
    """Make an entity of its row in ``entities.json``, and the styles that draw it."""
    fields = {**row, "tags": tuple(row["tags"])}
    return Entity(**{name: value for name, value in fields.items() if name != "styles"}), frozenset(row["styles"])


def unpack(path: Path, count: int) -> npt.NDArray[np.uint8]:
    """Read the first drawings of a sheet, row by row; (count, SIDE, SIDE, 3) uint8."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    high, wide = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    single = pixels.reshape(high, SIDE, wide, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    if len(single) < count:
        raise ValueError(f"{path.name} holds {len(single)} drawings of {count}")
    return single[:count]
