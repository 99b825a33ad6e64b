"""Which icon of which set draws an entity, and the drawings themselves."""

from __future__ import annotations

from pathlib import Path

from reco_plugin.quickstart.dataset import EMOJI_SOURCES, NAMES_SOURCE, BenchPair, Entity, Quickstart, caption

from .entities import build
from .packages import fetch, read_json
from .render import Drawing, IconSet, render_once

_SHORTCODES = ("github", "iamcal", "joypixels", "emojibase")
_MIN_STYLES = 3  # an entity that fewer styles draw cannot have a query and a memory


def draw(cache: Path) -> Quickstart:
    """Fetch and render the quickstart anew, through the cache: a folder for packages and rendered images.

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
