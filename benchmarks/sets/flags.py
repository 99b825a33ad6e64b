"""Flags of countries and territories, as eight icon packages draw them: round, square, rectangular, outlined.

The quickstart leaves all flags out, and so does the pre-training of the shipped encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.drawings.packages import fetch, read_json
from benchmarks.drawings.render import Drawing, IconSet, render_once
from reco_plugin.quickstart.dataset import EMOJI_SOURCES, NAMES_SOURCE, DrawingPackage, iconify

from ..pretrain.generic import bag, mentions
from .assemble import Picture, assemble
from .package_set import Entity, PackageSet, split_of

_EMOJI = ("twemoji", "openmoji", "emojione", "emojione-v1")
SOURCES = (
    iconify("circle-flags", "1.2.11", "MIT", "HatScripts, Circle Flags"),
    iconify("flag", "1.2.12", "MIT", "Panayiotis Lipiridis, Flag Icons"),
    iconify("flagpack", "1.2.8", "MIT", "Yummygum, Flagpack"),
    iconify("cif", "1.2.7", "CC0-1.0", "Łukasz Holeczek, CoreUI Flags"),
    *(source for source in EMOJI_SOURCES if source.name in _EMOJI),
)
FACTS_SOURCE = DrawingPackage(
    "countries-list", "countries-list", "3.4.1", "MIT", "Annexare, Countries List", "facts",
    ("countries.min.json", "continents.min.json"),
)  # fmt: skip
"""Other names, capitals and continents."""
QUERY_STYLES = ("twemoji", "circle-flags")

_BY_CODE = {  # style -> package, and what follows the country's code in the icon's name
    "circle-flags": ("circle-flags", ""),
    "flag-4x3": ("flag", "-4x3"),
    "flag-1x1": ("flag", "-1x1"),
    "flagpack": ("flagpack", ""),
    "cif": ("cif", ""),
}
_TEMPLATES = ("{}", "flag of {}", "flag of {}", "{} flag", "the national flag of {}", "flag: {}", "{} flag icon")
_FLAGS = 9  # emojibase's group
_COUNTRY, _PART = 98, 99  # and its subgroups
_FLIES_ANOTHER = ("bv", "sj", "hm", "um", "cp", "gf", "gp", "mq", "re", "pm", "yt", "mf", "bl", "wf", "nc", "dg", "ea")
"""Territories that some packages draw under the flag of their state: ordered last, so that the state keeps it."""


def load(cache: Path) -> PackageSet:
    """Fetch, render and read the flags; everything is kept in the cache and reused."""
    folders = fetch((*SOURCES, FACTS_SOURCE, NAMES_SOURCE), cache)
    entities = _entities(folders)
    drawings = {style: _drawings(style, entities, folders) for style in (*_BY_CODE, *_EMOJI)}
    families = {style: _BY_CODE.get(style, (style, ""))[0] for style in drawings}
    pictures = [Picture(key, style, families[style]) for style, found in drawings.items() for key in found]
    images = render_once([drawing for found in drawings.values() for drawing in found.values()], cache / "images")
    return assemble("flags", entities, pictures, images, query_styles=QUERY_STYLES, templates=_TEMPLATES)


def _entities(folders: Mapping[str, Path]) -> list[Entity]:
    facts, continents = (
        read_json(folders["countries-list"] / f"{table}.min.json") for table in ("countries", "continents")
    )
    rows = [
        row
        for row in read_json(folders["emojibase-data"] / "en" / "data.json")
        if row.get("group") == _FLAGS and row["subgroup"] in (_COUNTRY, _PART)
    ]
    entities = []
    for row in rows:
        key, name = _code(row["hexcode"]), str(row["label"]).removeprefix("flag: ")
        known = facts.get(key.upper(), {})
        names = dict.fromkeys([name, known.get("name", name), *known.get("alias", [])])
        told = [known.get("capital", ""), continents.get(known.get("continent", ""), "")]
        hints = [hint for hint in told if hint and not mentions(hint, {bag(name) for name in names})]  # Singapore
        entities.append(Entity(key, tuple(names), tuple(hints), split_of(key, "flags")))
    return sorted(entities, key=lambda entity: (entity.key in _FLIES_ANOTHER, entity.key))


def _code(hexcode: str) -> str:
    """A country's code as packages write it: ``de``, and ``gb-eng`` for a part of one.

    >>> _code("1F1E9-1F1EA"), _code("1F3F4-E0067-E0062-E0065-E006E-E0067-E007F")
    ('de', 'gb-eng')
    """
    points = [int(point, 16) for point in hexcode.split("-")]
    if len(points) == 2:
        return "".join(chr(point - 0x1F1E6 + ord("a")) for point in points)
    letters = "".join(chr(point - 0xE0000) for point in points[1:-1])
    return f"{letters[:2]}-{letters[2:]}"


def _hexcode(code: str) -> str:
    """The emoji of a code, the inverse of ``_code``.

    >>> _hexcode("de"), _code(_hexcode("gb-eng"))
    ('1f1e9-1f1ea', 'gb-eng')
    """
    letters = code.replace("-", "")
    if len(letters) == 2:
        return "-".join(f"{0x1F1E6 + ord(letter) - ord('a'):x}" for letter in letters)
    return "-".join(f"{point:x}" for point in (0x1F3F4, *(0xE0000 + ord(letter) for letter in letters), 0xE007F))


def _drawings(style: str, entities: Sequence[Entity], folders: Mapping[str, Path]) -> dict[str, Drawing]:
    """The drawings of one style, by entity."""
    package, suffix = _BY_CODE.get(style, (style, ""))
    path = folders[package] / "icons.json"
    icons = IconSet(path)
    tables = [] if style in _BY_CODE else [read_json(folders[name] / "chars.json") for name in (style, "twemoji")]
    found = {}
    for key in (entity.key for entity in entities):
        names = _emoji_names(key, tables) if tables else [f"{key}{suffix}"]
        if icon := next(filter(None, map(icons.resolve, names)), None):
            found[key] = Drawing(path, icon)
    return found


def _emoji_names(code: str, tables: Sequence[Mapping[str, str]]) -> list[str]:
    """What an emoji package may call a flag, best first: EmojiOne has no table and names of its own."""
    point = _hexcode(code)
    found = [table[point] for table in tables if point in table]
    bare = [name.removeprefix("flag-") for name in found]
    return [*found, *(f"{prefix}{name}" for name in bare for prefix in ("flag-for-", "flag-for-flag-"))]
