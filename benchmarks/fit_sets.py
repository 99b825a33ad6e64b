"""Run ``reco fit`` on catalogues that it was not designed on, and keep its reports under ``docs/measurements/fit/``.

    python -m benchmarks.fit_sets            # all: fetch, render, fit, report
    python -m benchmarks.fit_sets coins      # one of them

``interface``: line and solid icons of user interfaces; several packages draw the same thing, so things are groups.
``game``: one package of silhouettes, each under a title of its own, as in a shop without variants.
``coins``: signs of currencies under their ticker symbols, in four packages: codes, as part numbers are. It was
added, and run once, when the command was finished; the first look at the other two had led to changes of it.

No training of the shipped encoder or of any fusion has met them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.drawings.packages import fetch
from benchmarks.drawings.render import Drawing, IconSet, render_once
from reco_plugin.files import whole_file
from reco_plugin.fit import FitConfig, FitResult, run_fit
from reco_plugin.quickstart.dataset import DrawingPackage, iconify

INTERFACE = (
    iconify("tabler", "1.2.41", "MIT", "Paweł Kuna, Tabler Icons"),
    iconify("lucide", "1.2.137", "ISC", "Lucide Contributors"),
    iconify("ph", "1.2.2", "MIT", "Phosphor Icons"),
    iconify("mdi", "1.2.3", "Apache-2.0", "Pictogrammers, Material Design Icons"),
    iconify("carbon", "1.2.29", "Apache-2.0", "IBM, Carbon"),
    iconify("ri", "1.2.10", "Apache-2.0", "Remix Design, Remix Icon"),
    iconify("bi", "1.2.7", "MIT", "The Bootstrap Authors, Bootstrap Icons"),
    iconify("ion", "1.2.7", "MIT", "Ben Sperry, IonIcons"),
)
GAME = (iconify("game-icons", "1.2.4", "CC-BY-3.0", "GameIcons"),)
COINS = (
    iconify("cryptocurrency-color", "1.2.4", "CC0-1.0", "Christopher Downer, Cryptocurrency Color Icons"),
    iconify("cryptocurrency", "1.2.3", "CC0-1.0", "Christopher Downer, Cryptocurrency Icons"),
    iconify("token-branded", "1.2.45", "MIT", "0xa3k5, Web3 Icons Branded"),
    iconify("token", "1.2.40", "MIT", "0xa3k5, Web3 Icons"),
)
_STYLES = {"outline", "filled", "fill", "line", "bold", "thin", "light", "duotone", "regular", "solid", "sharp"}
_SOLID = {"filled", "fill", "bold", "solid"}
_LEAST_PACKAGES = 3
_TEMPLATES = ("{}", "{} icon", "icon: {}", "{} symbol")


class Row(NamedTuple):
    """One pair of a catalogue, and what draws it."""

    id: str
    text: str
    thing: str
    drawing: Drawing


def interface(folders: dict[str, Path]) -> Iterator[Row]:
    """Things that at least three packages draw; of each package one outlined and one solid drawing."""

    def named(name: str) -> tuple[str, str]:
        words = name.split("-")
        thing = " ".join(word for word in words if word not in _STYLES)
        return thing, "/solid" if _SOLID & set(words) else "/outlined"

    for thing, key, drawing in _drawn_often(INTERFACE, folders, named, r"[a-z]{3,}( [a-z]+)*"):
        template = _TEMPLATES[hashlib.sha256(f"{thing} {key}".encode()).digest()[0] % len(_TEMPLATES)]
        yield Row(f"{thing}/{key}".replace(" ", "-"), template.format(thing), thing, drawing)


def game(folders: dict[str, Path]) -> Iterator[Row]:
    """Every silhouette under its own name."""
    path = folders["game-icons"] / "icons.json"
    for name in sorted(IconSet(path).names):
        title = name.replace("-", " ")
        yield Row(name, title, title, Drawing(path, name))


def coins(folders: dict[str, Path]) -> Iterator[Row]:
    """Symbols that at least three packages draw."""
    for thing, key, drawing in _drawn_often(COINS, folders, lambda name: (name, ""), r"[a-z]{3,}"):
        yield Row(f"{thing}/{key}", thing.upper(), thing, drawing)


def _drawn_often(
    sources: tuple[DrawingPackage, ...], folders: dict[str, Path], named: Callable[[str], tuple[str, str]], wanted: str
) -> Iterator[tuple[str, str, Drawing]]:
    """What enough packages draw: thing, package with style, drawing; ``named`` tells thing and style of an icon."""
    found: dict[str, dict[str, Drawing]] = defaultdict(dict)
    for source in sources:
        path = folders[source.name] / "icons.json"
        for name in sorted(IconSet(path).names):
            thing, style = named(name)
            if re.fullmatch(wanted, thing):
                found[thing].setdefault(f"{source.name}{style}", Drawing(path, name))
    for thing, drawings in sorted(found.items()):
        if len({key.partition("/")[0] for key in drawings}) >= _LEAST_PACKAGES:
            for key, drawing in drawings.items():
                yield thing, key, drawing


SETS: dict[str, tuple[tuple[DrawingPackage, ...], Callable[[dict[str, Path]], Iterator[Row]], str | None]] = {
    "interface": (INTERFACE, interface, "thing"),
    "game": (GAME, game, None),
    "coins": (COINS, coins, "thing"),
}
"""Name -> packages, rows, and the column to group by."""


def catalogue(name: str, cache: Path) -> Path:
    """A folder of PNG files with ``captions.csv``, as a user would have it; made once."""
    sources, rows_of, _ = SETS[name]
    folder = cache / "fit" / name
    if (folder / "captions.csv").is_file():
        return folder
    rows = sorted(rows_of(fetch(sources, cache / "quickstart")), key=lambda row: (row.drawing.icons, row.id))
    images = render_once([row.drawing for row in rows], cache / "quickstart" / "images")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{number:05d}.png")
    with whole_file(folder / "captions.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "text", "thing"])
        table.writerows([row.id, f"images/{number:05d}.png", row.text, row.thing] for number, row in enumerate(rows))
    return folder


def fit(name: str, cache: Path, model: str, docs: Path) -> FitResult:
    """Fit to one catalogue, and copy the run's report, whatever it says."""
    out, folder = cache / "fit" / f"run-{name}", docs / name
    result = run_fit(FitConfig(source=str(catalogue(name, cache)), model=model, group=SETS[name][2]), out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(out.glob("report*")):
        if path.suffix != ".json":
            shutil.copyfile(path, folder / path.name)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"some of: {', '.join(SETS)}")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="packages, drawings, runs")
    parser.add_argument("--model", default="triton_models", help="model folder")
    parser.add_argument("--docs", type=Path, default=Path("docs/measurements/fit"), help="where reports go")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - SETS.keys():
        parser.error(f"no catalogue is called {', '.join(sorted(unknown))}: choose from {', '.join(SETS)}")
    for name in arguments.sets:
        result = fit(name, arguments.cache, arguments.model, arguments.docs)
        print(name, *result.words, *result.notes, sep="\n  ")


if __name__ == "__main__":
    main()
