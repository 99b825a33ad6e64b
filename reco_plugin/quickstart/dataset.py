"""The quickstart data set: drawings of entities in several styles, with captions, splits and sources.

They come from npm packages at pinned versions, with licence and credit, and with this package as pictures, in
``drawings/``.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DataError

_ICONIFY = ("icons.json", "chars.json", "info.json")
"""Files to read from an Iconify package."""


@dataclass(frozen=True)
class DrawingPackage:
    """One npm package of drawings, with its licence and credit."""

    name: str
    package: str
    version: str
    license: str
    credit: str
    family: str  # drawings of one family are near-copies of each other and are hidden together
    parts: tuple[str, ...] = _ICONIFY  # prefixes of the paths to unpack


def iconify(name: str, version: str, license_: str, credit: str, family: str | None = None) -> DrawingPackage:
    """Return the package of an icon set by Iconify."""
    return DrawingPackage(name, f"@iconify-json/{name}", version, license_, credit, family or name)


EMOJI_SOURCES = (
    iconify("noto", "1.2.9", "Apache-2.0", "Google, Noto Emoji"),
    iconify("noto-v1", "1.2.5", "Apache-2.0", "Google, Noto Emoji (v1)"),
    iconify("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji, HfG Schwäbisch Gmünd"),
    iconify("emojione", "1.2.3", "CC-BY-4.0", "EmojiOne (JoyPixels), v2"),
    iconify("fluent-emoji", "1.2.7", "MIT", "Microsoft, Fluent Emoji", "fluent"),
    iconify("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft, Fluent Emoji Flat", "fluent"),
    iconify("twemoji", "1.2.5", "CC-BY-4.0", "Twitter, Twemoji"),
    iconify("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "EmojiOne, v1"),
)
"""Drawing styles of the same entities."""

NAMES_SOURCE = DrawingPackage(
    "emojibase-data", "emojibase-data", "17.0.0", "MIT", "Miles Johnson, Emojibase", "names", ("en/",)
)
"""Source of names, tags, shortcodes and groups of the entities, in English."""

QUERY_STYLES = ("twemoji", "emojione-v1")
"""Styles of the test queries, which are in no memory and no training."""

HELD_STYLE = "noto-v1"
"""Style in the memory, but not in the training of the mini CLIP. Its drawings of seen entities train the fusion."""

MEMORY_STYLES = tuple(s.name for s in EMOJI_SOURCES if s.name not in QUERY_STYLES)


EntitySplit = Literal["seen", "fusion", "dev", "unseen"]
"""seen: in the training of the mini CLIP. fusion: only in the training of the fusion. dev: in no training, for choices.
unseen: in no training and no choice; its pairs are added to the memory at test time only."""
ALL_SPLITS: tuple[EntitySplit, ...] = get_args(EntitySplit)

_TEMPLATES = ("{}", "{}", "{}", "{} icon", "a drawing of {}", "a picture of {}", "{} emoji", "{}, clip art")
_NAME_SOURCE = {
    "noto": "cldr",
    "noto-v1": "iamcal",
    "openmoji": "github",
    "emojione": "joypixels",
    "fluent-emoji": "cldr",
    "fluent-emoji-flat": "emojibase",
    "twemoji": "github",
    "emojione-v1": "joypixels",
}


@dataclass(frozen=True)
class Entity:
    """An entity with drawings in several styles."""

    key: str  # code points in lower case, as in ``1f98a``
    label: str  # CLDR name: the class prompt
    tags: tuple[str, ...]
    names: dict[str, str]  # in each vocabulary: cldr, github, iamcal, joypixels, emojibase
    subgroup: int
    split: EntitySplit


def make_rng(*parts: object) -> random.Random:
    """Return a random generator seeded by the parts, the same on every machine and Python version."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def caption(entity: Entity, style: str) -> str:
    """Return the fixed caption of a drawing, in the wording of its source; 15 % of the captions are tags only."""
    rng = make_rng("caption", entity.key, style)
    name = entity.names[_NAME_SOURCE[style]]
    tags = [tag for tag in entity.tags if tag.lower() != name.lower()]
    rng.shuffle(tags)
    if len(tags) >= 2 and rng.random() < 0.15:
        return ", ".join(tags[: rng.randint(2, 4)])
    worded = rng.choice(_TEMPLATES).format(name)
    return ", ".join([worded, *tags[: rng.randint(0, 3)]])


DRAWINGS = Path(__file__).with_name("drawings")
"""Folder of a sheet of drawings per style, the table of entities, and the licences."""
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
        """Id of the pair, as in ``1f98a/noto``."""
        return f"{self.entity}/{self.style}"


@dataclass(frozen=True)
class Quickstart:
    """All drawings; row i of ``images`` belongs to item i."""

    images: npt.NDArray[np.uint8]  # (N, 64, 64, 3) uint8
    items: list[BenchPair]  # N items
    entities: list[Entity]  # entities that at least three styles draw

    @cached_property
    def by_key(self) -> dict[str, Entity]:
        """Entity key -> entity."""
        return {entity.key: entity for entity in self.entities}

    def rows(self, *, splits: Iterable[EntitySplit | None] = (), styles: Iterable[str] = ()) -> npt.NDArray[np.int64]:
        """Return the rows (M,) of items by split and style; an empty filter selects all."""
        chosen_splits, chosen_styles = set(splits), set(styles)
        return np.array(
            [
                row
                for row, item in enumerate(self.items)
                if (not chosen_splits or item.split in chosen_splits)
                and (not chosen_styles or item.style in chosen_styles)
            ],
            np.int64,
        )

    def memory_rows(self, splits: Iterable[EntitySplit] = ALL_SPLITS) -> npt.NDArray[np.int64]:
        """Return the rows (M,) of the pairs for a memory."""
        return self.rows(splits=splits, styles=MEMORY_STYLES)

    def query_rows(self, split: EntitySplit) -> npt.NDArray[np.int64]:
        """Return the rows (Q,) of the test queries."""
        return self.rows(splits=[split], styles=QUERY_STYLES)

    def labels(self, splits: Iterable[EntitySplit]) -> list[Entity]:
        """Return the entities of splits, which are the candidates of a classification."""
        wanted = set(splits)
        return [entity for entity in self.entities if entity.split in wanted]


def load() -> Quickstart:
    """Read the drawings that come with this package.

    Raises:
        DataError: they are missing or damaged.
    """
    try:
        table = json.loads((DRAWINGS / "entities.json").read_text(encoding="utf-8"))
        drawn = [read_entity(row) for row in table]
        items = [
            BenchPair(entity.key, source.name, source.family, caption(entity, source.name), entity.split)
            for source in EMOJI_SOURCES
            for entity, styles in drawn
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
    return Quickstart(images, items, [entity for entity, _ in drawn])


def read_entity(row: dict[str, Any]) -> tuple[Entity, frozenset[str]]:
    """Read an entity, and the styles that draw it, from its row in ``entities.json``."""
    fields = {**row, "tags": tuple(row["tags"])}
    return Entity(**{name: value for name, value in fields.items() if name != "styles"}), frozenset(row["styles"])


def unpack(path: Path, count: int) -> npt.NDArray[np.uint8]:
    """Read the first drawings of a sheet, row by row, to (count, SIDE, SIDE, 3) uint8."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    high, wide = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    single = pixels.reshape(high, SIDE, wide, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    if len(single) < count:
        raise ValueError(f"{path.name} holds {len(single)} drawings of {count}")
    return single[:count]
