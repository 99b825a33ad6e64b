"""Gains of the method on icons that no other page uses, in points over plain vectors.

    python -m benchmarks.ablation --data DIRECTORY            # the development half; DIRECTORY: vectors of real CLIPs
    python -m benchmarks.ablation --data DIRECTORY --final    # the other half, which was measured once

Icons of signs and brands come through npm and are encoded by the shipped encoder. A hash of the name splits the things
into two halves. Each order draws pictures anew and shuffles the pairs. The first run fetches and encodes 5,000 drawings
in four minutes; an order takes half a minute.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin import Reco
from reco_plugin.fusion.exact_scores import score_both
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.quickstart.dataset import iconify
from reco_plugin.types import Vectors

from .drawings.packages import fetch
from .drawings.render import IconSet, rasterise
from .method import refiner, unit
from .page import table

ROOT = Path(__file__).resolve().parents[1]
SIGNS = (
    "carbon 1.2.29, iconoir 1.2.11, mingcute 1.2.8, solar 1.2.13, hugeicons 1.2.35, icon-park-solid 1.2.4, ri 1.2.10, "
    "uil 1.2.3, bxs 1.2.3, majesticons 1.2.5, clarity 1.2.4, fa6-solid 1.2.4, flat-color-icons 1.2.3, guidance 1.2.2, "
    "temaki 1.2.6, healthicons 1.2.13"
)
BRANDS = (
    "logos 1.2.19, bxl 1.2.4, cib 1.2.3, fa6-brands 1.2.6, arcticons 1.2.58, file-icons 1.2.2, catppuccin 1.2.17, "
    "material-icon-theme 1.2.70"
)
CAPTIONS, QUERY = ("{}", "an icon of {}", "{} sign"), "a picture of {}"
_STYLE = re.compile(
    r"-(outlined?|filled?|line|bold|duotone|linear|broken|twotone|solid|fill|light|regular|rounded|icon|alt|o|negative|"
    r"positive|color|24px|20|16|32|24|off|\d+)$"
)
ORDERS = 3
Gains = dict[str, list[float]]
"""Scenario and refined side -> points of top-1 over plain vectors, one for each order."""


def thing_of(icon: str) -> str:
    """Strip words of style from the name of an icon."""
    while (shorter := _STYLE.sub("", icon)) != icon:
        icon = shorter
    return icon


def drawn(cache: Path) -> dict[str, Any]:
    """Vectors of drawings (N, D), their domain and thing, and texts (4, T, D) of the things; encoded once."""
    if not (kept := cache / "fresh.npz").is_file():
        found, rows, pictures = dict[str, dict[str, dict[str, str]]](), list[tuple[str, str]](), list[Image.Image]()
        for domain, sets, least in (("signs", SIGNS, 4), ("brands", BRANDS, 3)):
            sources = tuple(iconify(one.split()[0], one.split()[1], "", "") for one in sets.split(", "))
            icons = {name: IconSet(path / "icons.json") for name, path in fetch(sources, cache).items()}
            by_thing: dict[str, dict[str, str]] = defaultdict(dict)
            for name, icon_set in icons.items():
                for icon in icon_set.names:
                    by_thing[thing_of(icon)].setdefault(name, icon)
            found[domain] = {
                thing: of for thing, of in by_thing.items() if len(of) >= least and thing not in found.get("signs", {})
            }
            for thing, of in sorted(found[domain].items()):
                for name in sorted(of, key=lambda one, thing=thing: zlib.crc32((thing + one).encode()))[:6]:  # type: ignore[misc]
                    svg = icons[name].svg(of[name]).replace("currentColor", "#000")
                    pictures.append(Image.fromarray(rasterise(svg)))
                    rows.append((domain, thing))
        names = sorted(set(rows))
        with Reco.open(ROOT / "triton_models", memory=":memory:") as reco:
            image = np.concatenate([reco.encoder.images(pictures[i : i + 256]) for i in range(0, len(pictures), 256)])
            words = [thing.replace("-", " ") for _, thing in names]
            text = np.stack([reco.encoder.texts([form.format(one) for one in words]) for form in (*CAPTIONS, QUERY)])
        np.savez(kept, image=image, rows=np.array(rows), names=np.array(names), text=text)
    with np.load(kept) as stored:
        return dict(stored)


def stream(*what: object) -> np.random.Generator:
    """A random generator for one draw, by name."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


class Things:
    """Things of a domain in one half: their drawings, captions (3, T, D) and prompts (T, D)."""

    def __init__(self, stored: dict[str, Any], domain: str, half: int) -> None:
        names = [tuple(one) for one in stored["names"].tolist()]
        mine = [n for n, (of, thing) in enumerate(names) if of == domain and zlib.crc32(thing.encode()) % 2 == half]
        place = {names[n]: number for number, n in enumerate(mine)}
        self.rows: list[list[int]] = [[] for _ in mine]
        for row, one in enumerate(stored["rows"].tolist()):
            if (number := place.get(tuple(one))) is not None:
                self.rows[number].append(row)
        self._image, text = stored["image"].astype(np.float32), stored["text"].astype(np.float32)[:, mine]
        self.caption, self.prompt = text[:3], text[3]
        self.all = np.arange(len(mine))

    def pairs(self, order: int, each: int, some: Sequence[int] | None = None) -> tuple[Vectors, Vectors, Vectors]:
        """Images and captions of a memory with ``each`` pairs of some things, and one other image of every thing."""
        rng, held, texts, queries = stream("split", order), list[int](), list[Vectors](), list[int]()
        for thing, rows in enumerate(self.rows):
            first, *others = rng.permutation(rows).tolist()
            queries.append(first)
            if some is None or thing in some:
                held += others[:each]
                texts += [self.caption[n % 3, thing] for n in range(len(others[:each]))]
        return self._image[held], np.stack(texts), self._image[queries]


def shuffled(image: Vectors, text: Vectors, order: int, wrong: float = 0.0) -> Refiner:
    """A refiner with pairs (N, D) in random order and a share of the captions shuffled."""
    rng = stream("memory", order)
    mixed = rng.permutation(len(image))
    image, text = image[mixed], text[mixed].copy()
    spoiled = np.flatnonzero(rng.random(len(mixed)) < wrong)
    text[spoiled] = text[rng.permutation(spoiled)]
    return refiner(image, text)


def put(
    out: Gains, name: str, made: Refiner, images: Vectors, prompts: Vectors, known: Sequence[int] | None = None
) -> None:
    """Measure images (T, D) against prompts (T, D), one of each thing, for each refined side."""
    own = np.arange(len(images))
    plain = images @ prompts.T
    moved = {
        "image": (made.refine(images, modality="image").vectors @ prompts.T, plain),
        "text": ((images @ made.refine(prompts, modality="text").vectors.T).T, plain.T),
        "both": (score_both(made, images, prompts).scores, plain),
    }
    for side, (after, before) in moved.items():
        gain = 100.0 * ((after.argmax(axis=1) == own) - 1.0 * (before.argmax(axis=1) == own))
        inside = np.isin(own, own if known is None else known)
        for part, mask in ((name, inside), (f"{name}, not held", ~inside)):
            if mask.any():
                out.setdefault(f"{part}: {side}", []).append(float(gain[mask].mean()))


def measure(stored: dict[str, Any], data: Path | None, half: int, orders: int) -> Gains:
    """Measure all scenarios."""
    out, signs, brands = Gains(), Things(stored, "signs", half), Things(stored, "brands", half)
    for order in range(orders):
        image, text, queries = signs.pairs(order, 3)
        their_image, their_text, theirs = brands.pairs(order, 2)
        made = shuffled(image, text, order)
        put(out, "signs, 3 each", made, queries, signs.prompt)
        put(out, "signs, 30 % wrong", shuffled(image, text, order, 0.3), queries, signs.prompt)
        made = shuffled(np.concatenate([image, their_image]), np.concatenate([text, their_text]), order)
        put(out, "signs beside brands", made, queries, signs.prompt)
        made = shuffled(their_image, their_text, order)
        put(out, "brands, 2 each", made, theirs, brands.prompt)
        put(out, "signs, a memory of brands", made, queries, signs.prompt)
        for name, share in (("half of the signs", 0.5), ("40 signs", 40 / len(signs.all))):
            some = stream(name, order).permutation(signs.all)[: int(share * len(signs.all))].tolist()
            held, captions, _ = signs.pairs(order, 3, some)
            put(out, name, shuffled(held, captions, order), queries, signs.prompt, some)
        if data:
            _real(out, data, order)
    return out


def _real(out: Gains, data: Path, order: int) -> None:
    with np.load(data / "clip_vit_b32_imagenet.npz") as stored:
        image, caption, prompt = (unit(stored[name]) for name in ("image", "text_a", "text_b"))
    some = np.sort(stream("imagenet", order).permutation(len(image))[: len(image) // 2])
    made = shuffled(image[some, :2].reshape(-1, image.shape[2]), np.repeat(caption[some], 2, axis=0), order)
    put(out, "half of ImageNet", made, image[:, 2 + order % 2], prompt, some.tolist())
    with np.load(data / "marqo_fashionclip_products.npz") as stored:
        image, caption = unit(stored["image"]), unit(stored["text"])
    some = stream("shop", order).permutation(len(image))[: len(image) // 2]
    put(out, "half of a shop", shuffled(image[some], caption[some], order), image, caption, some.tolist())


def _spread(of: Sequence[float]) -> str:
    return f"{np.mean(of):+.1f} ± {np.std(of, ddof=1):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/ablation"))
    parser.add_argument("--data", type=Path, help="folder of vectors of real CLIPs")
    parser.add_argument("--final", action="store_true", help="the half that was measured once")
    parser.add_argument("--orders", type=int, default=ORDERS)
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    base = measure(drawn(given.cache), given.data, int(given.final), given.orders)
    sides = ("image", "text", "both")
    places = dict.fromkeys(place.rpartition(": ")[0] for place in base)
    cells = [[place, *(_spread(base[f"{place}: {side}"]) for side in sides)] for place in places]
    print(table(["memory", "images", "texts", "both"], cells))


if __name__ == "__main__":
    main()
