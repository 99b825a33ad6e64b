"""Logos of brands and technologies, in colour, on tiles and in black, as twelve icon packages draw them.

Logos are trademarks of their owners: they are fetched and rendered on the user's machine, never committed. Brands that
the pre-training of the shipped encoder may have met, in a drawing or in a caption, are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.drawings.packages import fetch, read_json
from benchmarks.drawings.render import Drawing, IconSet, render_once
from reco_plugin.quickstart.dataset import DrawingPackage, iconify

from .assemble import Picture, assemble, complete
from .package_set import Entity, PackageSet, split_of


class _Logo(NamedTuple):
    drawing: Drawing
    words: tuple[str, ...]
    """Of the icon's name, without those that name a variant."""


@dataclass(frozen=True)
class _Style:
    """How one package names its logos.

    Attributes:
        source: the package.
        prefixes: that the name of a logo begins with; earlier ones are preferred.
        endings: last words that name a preferred variant and no brand.
        brands: whether it draws brands only; the others draw file types too.
    """

    source: DrawingPackage
    prefixes: tuple[str, ...] = ("",)
    endings: tuple[str, ...] = ()
    brands: bool = True


_FILES = ("file-type-light-", "file-type-")
_MATERIAL = ("material-icon-theme", "1.2.70", "MIT", "Material Extensions, Material Icon Theme")
STYLES = (
    _Style(iconify("vscode-icons", "1.2.97", "MIT", "Roberto Huertas, VSCode Icons"), _FILES, brands=False),
    _Style(iconify("simple-icons", "1.2.102", "CC0-1.0", "Simple Icons Collaborators")),
    _Style(iconify("logos", "1.2.19", "CC0-1.0", "Gil Barbara, SVG Logos"), endings=("icon",)),
    _Style(iconify("devicon", "1.2.68", "MIT", "konpa, Devicon"), endings=("original",)),
    _Style(iconify("devicon-plain", "1.2.57", "MIT", "konpa, Devicon Plain", "devicon"), endings=("plain",)),
    _Style(iconify("skill-icons", "1.2.4", "MIT", "tandpfun, Skill Icons"), endings=("dark",)),
    _Style(iconify(*_MATERIAL), endings=("light",), brands=False),
    _Style(iconify("catppuccin", "1.2.17", "MIT", "Catppuccin"), brands=False),
    _Style(iconify("cib", "1.2.3", "CC0-1.0", "Łukasz Holeczek, CoreUI Brands")),
    _Style(iconify("fa6-brands", "1.2.6", "CC-BY-4.0", "Dave Gandy, Font Awesome 6 Brands")),
    _Style(iconify("file-icons", "1.2.2", "ISC", "John Gardner, File Icons"), brands=False),
    _Style(iconify("bxl", "1.2.4", "MIT", "Boxicons, Boxicons Logo"), endings=("logo",)),
)
SOURCES = tuple(style.source for style in STYLES)
TITLES_SOURCE = DrawingPackage(
    "simple-icons-data", "simple-icons", "16.37.0", "CC0-1.0", "Simple Icons Collaborators", "titles",
    ("data/simple-icons.json",),
)  # fmt: skip
"""How brands write their names, other names, and their colours."""
QUERY_STYLES = ("vscode-icons", "simple-icons")

_TEMPLATES = ("{}", "{} logo", "{} logo", "{} icon", "logo of {}", "the {} brand", "{} file icon")
_OTHER_KEYS = {
    "amazonwebservices": "aws", "cpp": "cplusplus", "css3": "css", "edge": "microsoftedge", "fsharp": "f",
    "gcp": "googlecloud", "golang": "go", "googlechrome": "chrome", "html": "html5", "k8s": "kubernetes",
    "mongo": "mongodb", "photoshop": "adobephotoshop", "postgres": "postgresql", "tailwind": "tailwindcss",
    "vscode": "visualstudiocode",
}  # fmt: skip
_NOT_A_LOGO = {"wordmark", "horizontal", "vertical", "old", "square", "badge"}
_SQUARISH = (0.6, 1.7)  # of the aspect ratio: what is wider spells the name out
_LEAST_BRAND_PACKAGES = 2  # else it may be a file type, such as zip
_COLOURS = {
    "black": (0, 0, 0), "grey": (128, 128, 128), "white": (255, 255, 255), "red": (220, 30, 40),
    "orange": (245, 130, 30), "yellow": (250, 210, 40), "green": (50, 170, 70), "teal": (20, 170, 170),
    "blue": (40, 100, 220), "purple": (120, 60, 190), "pink": (235, 80, 150), "brown": (120, 75, 45),
}  # fmt: skip


def load(cache: Path) -> PackageSet:
    """Fetch, render and read the logos; everything is kept in the cache and reused."""
    folders = fetch((*SOURCES, TITLES_SOURCE), cache)
    logos: dict[str, dict[str, _Logo]] = defaultdict(dict)  # brand -> style -> logo
    for style in STYLES:
        for key, logo in _logos(style, folders[style.source.name] / "icons.json").items():
            logos[key][style.source.name] = logo
    entities = _entities(logos, folders[TITLES_SOURCE.name])
    chosen = [  # package by package: the renderer reads each only once
        (Picture(entity.key, style.source.name, style.source.family), logos[entity.key][style.source.name].drawing)
        for style in STYLES
        for entity in entities
        if style.source.name in logos[entity.key]
    ]
    drawn = defaultdict(list)
    for picture, _ in chosen:
        drawn[picture.entity].append(picture)
    chosen = [row for row in chosen if complete(drawn[row[0].entity], QUERY_STYLES)]  # drawing the others takes seconds
    pictures = [picture for picture, _ in chosen]
    images = render_once([drawing for _, drawing in chosen], cache / "images")
    return assemble("logos", entities, pictures, images, query_styles=QUERY_STYLES, templates=_TEMPLATES)


def _logos(style: _Style, path: Path) -> dict[str, _Logo]:
    """The logos of one package, by brand; of several variants the preferred one."""
    icons = IconSet(path)
    ranked: list[tuple[int, str, _Logo]] = []
    for name in icons.names:
        prefix = next((prefix for prefix in style.prefixes if name.startswith(prefix)), None)
        if prefix is None or not _SQUARISH[0] < icons.aspect(name) < _SQUARISH[1]:
            continue
        words = name.removeprefix(prefix).lower().split("-")
        variant = words.pop() if len(words) > 1 and words[-1] in style.endings else None
        if not _NOT_A_LOGO & {*words}:
            rank = style.prefixes.index(prefix) + (variant is None)
            ranked.append((rank, brand("".join(words)), _Logo(Drawing(path, name), tuple(words))))
    return {key: logo for _, key, logo in sorted(ranked, key=lambda row: (-row[0], row[2].drawing.name))}


def _entities(logos: Mapping[str, Mapping[str, _Logo]], titles: Path) -> list[Entity]:
    told = {brand(row["slug"]): row for row in read_json(titles / "data" / "simple-icons.json")}
    brands = {style.source.name for style in STYLES if style.brands}
    keys = sorted(key for key, drawn_by in logos.items() if len(brands & drawn_by.keys()) >= _LEAST_BRAND_PACKAGES)
    return [_entity(key, logos, told.get(key)) for key in keys]


def _entity(key: str, logos: Mapping[str, Mapping[str, _Logo]], title: Mapping[str, Any] | None) -> Entity:
    if title is None:
        _, spelt = max((len(logo.words), logo.words) for logo in logos[key].values())
        return Entity(key, (" ".join(spelt),), (), split_of(key, "logos"))
    more = title.get("aliases", {})
    others = [name for kind in ("aka", "old") for name in more.get(kind, []) if brand(name) not in logos]
    names = dict.fromkeys([title["title"], *others])
    return Entity(key, tuple(names), (f"brand colour {colour(title['hex'])}",), split_of(key, "logos"))


def brand(slug: str) -> str:
    """One key for the spellings of a brand.

    >>> [brand(slug) for slug in ("nextdotjs", "nextjs", "next", "golang", "socketdotio")]
    ['next', 'next', 'next', 'go', 'socketio']
    """
    plain = re.sub(r"dot(?=(?:js|io|com|org|dev|ai)$)", "", re.sub(r"[^a-z0-9]", "", slug.lower()))
    plain = re.sub(r"(?<=...)js$", "", plain)
    return _OTHER_KEYS.get(plain, plain)


def colour(code: str) -> str:
    """The nearest colour that has a common name.

    >>> colour("3178C6"), colour("000000"), colour("F7DF1E")
    ('blue', 'black', 'yellow')
    """
    wanted = [int(code[place : place + 2], 16) for place in (0, 2, 4)]
    return min(_COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(wanted, _COLOURS[name], strict=True)))
