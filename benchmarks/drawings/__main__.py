"""Make the drawings that come with the package: reco_plugin/quickstart/drawings/.

    python -m benchmarks.drawings      # fetches 35 MB from npm, draws for a minute, packs for five

A sheet of lossless WebP per style, in the order of the table of entities; a digest of the pixels of each beside them.
Changed pixels change the vectors of the shipped model: remake that afterwards (`make quickstart-model`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin.files import whole_file
from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import DRAWINGS, EMOJI_SOURCES, SIDE, Quickstart

from .find import draw

_WIDE = 8  # drawings beside each other: WebP takes 16,383 pixels from top to bottom, 255 drawings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/quickstart"), help="for packages and drawings")
    parser.add_argument("--out", type=Path, default=DRAWINGS)
    chosen = parser.parse_args()
    write(draw(chosen.cache), chosen.out)


def write(data: Quickstart, out: Path) -> None:
    """Write sheets, table and digests; licences stay as they are."""
    out.mkdir(parents=True, exist_ok=True)
    digests = {}
    for source in progress_bar(EMOJI_SOURCES, desc="pack drawings", unit="style"):
        images = data.images[data.rows(styles=[source.name])]
        digests[source.name] = hashlib.sha256(images.tobytes()).hexdigest()
        with whole_file(out / f"{source.name}.webp") as part:
            sheet(images).save(part, lossless=True, quality=100, method=6)
    with whole_file(out / "entities.json") as part:
        part.write_text(_table(data), encoding="utf-8")
    with whole_file(out / "pixels.json") as part:  # last: what it names is there
        part.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def sheet(images: npt.NDArray[np.uint8]) -> Image.Image:
    """Lay drawings out row by row, on white."""
    high = -(-len(images) // _WIDE)
    cells = np.full((high * _WIDE, SIDE, SIDE, 3), 255, np.uint8)
    cells[: len(images)] = images
    laid = cells.reshape(high, _WIDE, SIDE, SIDE, 3).swapaxes(1, 2)
    return Image.fromarray(np.ascontiguousarray(laid.reshape(high * SIDE, _WIDE * SIDE, 3)))


def _table(data: Quickstart) -> str:
    """One entity a line, so that a change of one is seen."""
    styles: dict[str, list[str]] = {entity.key: [] for entity in data.entities}
    for item in data.items:
        styles[item.entity].append(item.style)
    rows = [json.dumps({**asdict(e), "styles": styles[e.key]}, ensure_ascii=False) for e in data.entities]
    return "[\n" + ",\n".join(rows) + "\n]\n"


if __name__ == "__main__":
    main()
