"""The quickstart benchmark as arrays: images, captions, splits and styles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files import whole_file
from .entities import ALL_SPLITS, Entity, EntitySplit, build, caption
from .render import Drawing, IconSet, render
from .sources import EMOJI_SOURCES, MEMORY_STYLES, NAMES_SOURCE, QUERY_STYLES, fetch, read_json

_SHORTCODES = ("github", "iamcal", "joypixels", "emojibase")
_MIN_STYLES = 3  # an entity that fewer styles draw cannot have a query and a memory


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

    images: npt.NDArray[np.uint8]  # (N, 64, 64, 3) uint8, memory-mapped from the cache
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


def load(cache: Path) -> Quickstart:
    """Fetch, render and read the benchmark, through the cache: a folder for packages and rendered images.

    Raises:
        DataError: the packages could not be fetched.
    """
    names = fetch((NAMES_SOURCE,), cache)["emojibase-data"] / "en"
    tables = {table: read_json(names / "shortcodes" / f"{table}.json") for table in _SHORTCODES}
    entities = build(read_json(names / "data.json"), tables)  # type: ignore[arg-type]
    items, drawings, kept = _entity_drawings(entities, fetch(EMOJI_SOURCES, cache))
    return Quickstart(render_once(drawings, cache / "images"), items, kept)


def _entity_drawings(
    entities: list[Entity], folders: dict[str, Path]
) -> tuple[list[BenchPair], list[Drawing], list[Entity]]:
    sets = {name: IconSet(folder / "icons.json") for name, folder in folders.items()}
    chars = {name: read_json(folder / "chars.json") for name, folder in folders.items()}
    found: dict[str, dict[str, str]] = {  # style -> entity -> icon
        source.name: {
            entity.key: icon
            for entity in entities
            if (icon := _find(entity, sets[source.name], [chars[source.name], *chars.values()]))
        }
        for source in EMOJI_SOURCES
    }
    kept = [e for e in entities if sum(e.key in icons for icons in found.values()) >= _MIN_STYLES]
    items, drawings = [], []
    for source in EMOJI_SOURCES:
        for entity in kept:
            if icon := found[source.name].get(entity.key):
                items.append(
                    BenchPair(entity.key, source.name, source.family, caption(entity, source.name), entity.split)
                )
                drawings.append(Drawing(folders[source.name] / "icons.json", icon))
    return items, drawings, kept


def _find(entity: Entity, icons: IconSet, tables: list[dict[str, str]]) -> str | None:
    """Find the entity's icon in a set: by code point in its own table, by CLDR name, by the other sets' names."""
    named = [table[code] for table in tables for code in entity.code_points if code in table]
    for name in [*named[:1], slug(entity.label), *named[1:]]:
        if icon := icons.resolve(name):
            return icon
    return None


def slug(label: str) -> str:
    """A name as icon sets write it, as in ``red-fox``."""
    plain = "".join(c if c.isalnum() else "-" for c in label.lower().replace("’", "").replace("&", "and"))
    return "-".join(part for part in plain.split("-") if part)


def render_once(drawings: list[Drawing], folder: Path) -> npt.NDArray[np.uint8]:
    """Render once, into a file named after the drawings; (N, SIDE, SIDE, 3) uint8."""
    digest = hashlib.sha256(json.dumps([[d.icons.parent.name, d.name] for d in drawings]).encode()).hexdigest()[:16]
    path = folder / f"{digest}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            np.save(part, render(drawings))
    images: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return images
