"""Search by words: queries that are part numbers, or names in titles.

    python -m benchmarks.words            # prints its tables
    python -m benchmarks.words --numbers  # only that of part numbers as people type them
    python -m benchmarks.words --page     # fills blocks of docs/measurements.md

Half of the things that no training has are in the memory, with two drawings each. The index holds two other drawings
of every thing. R@1 of a text is given for things in the memory / not in it. Each order draws codes and halves anew.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin import Reco
from reco_plugin.defaults import DEFAULT_K
from reco_plugin.files import whole_file
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.learning.learn import learn
from reco_plugin.memory import open_memory
from reco_plugin.quickstart.dataset import load
from reco_plugin.types import Fingerprint, Records, Vectors

from .page import FIGURES, table, write_blocks

MODEL = Path(__file__).resolve().parents[1] / "triton_models"
HELD, INDEX, FREE = ("noto", "openmoji"), ("fluent-emoji", "twemoji"), "emojione"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
ORDERS = 5
Cell = tuple[float, float]
"""R@1 in per cent, of what is in the memory and of what is not."""


@dataclass(frozen=True)
class Form:
    """Templates of captions and queries; see :func:`variants`."""

    title: str
    caption: str
    query: str


_TITLE, _GLOSSY, _SHORT = (
    "{code} {name} sticker, pack of 10",
    "{name} sticker, glossy, 5 cm, pack of 10",
    "{name} sticker, glossy, 5 cm",
)
_NUMBERED = "Sticker {name} no. {code}, matt, 12 pieces"
FORMS = (
    Form("`QX-4821-B fox sticker, pack of 10` → `QX-4821-B`", _TITLE, "{code}"),
    Form("`Sticker fox no. QX-4821-B, matt, 12 pieces` → `QX-4821-B`", _NUMBERED, "{code}"),
    Form("`fox sticker, glossy, 5 cm, pack of 10` → `fox`", _GLOSSY, "{name}"),
    Form("the same → `fox sticker`", _GLOSSY, "{name} sticker"),
    Form("`fox sticker, glossy, 5 cm` → the whole title", _SHORT, _SHORT),
    Form("`QX-4821-B fox …` → `qx4821b`", _TITLE, "{bare}"),
    Form("the same → `QX-4821-B spare part`", _TITLE, "{code} spare part"),
    Form("the same → `QX-4821`, half of the code", _TITLE, "{half}"),
    Form("the same → one wrong digit", _TITLE, "{wrong_digit}"),
    Form("the same → one wrong letter", _TITLE, "{wrong_letter}"),
    Form("`fox sticker, glossy …` → `do you have a fox for me`", _GLOSSY, "do you have a {name} for me"),
)


def variants(code: str, name: str) -> dict[str, str]:
    """Fields of the templates for a thing with a code such as QX-4821-B."""
    return {
        "code": code,
        "name": name,
        "bare": code.replace("-", "").lower(),
        "half": code[:7],
        "wrong_digit": f"{code[:5]}{(int(code[5]) + 1) % 10}{code[6:]}",
        "wrong_letter": code[:-1] + ("A" if code[-1] != "A" else "B"),
    }


class Drawings:
    """Drawings and texts, each encoded once by the shipped encoder."""

    def __init__(self) -> None:
        found = load()
        self.entities = {one.key: one for one in found.entities if one.split == "unseen"}
        keys = list(self.entities)
        items = [(row, item) for row, item in enumerate(found.items) if item.entity in self.entities]
        self.rows = {
            styles: [(row, keys.index(item.entity)) for row, item in items if item.style in styles]
            for styles in (HELD, INDEX)
        }
        self.free = {keys.index(item.entity): item.caption for _, item in items if item.style == FREE}
        with Reco.open(MODEL, memory=":memory:") as reco:
            self.fingerprint = reco.manifest.fingerprint
        self._encoder, self._texts = reco.encoder, dict[str, Vectors]()
        wanted = sorted({row for rows in self.rows.values() for row, _ in rows})
        vectors = self._encoder.images([Image.fromarray(found.images[row]) for row in wanted])
        self.image = dict(zip(wanted, vectors, strict=True))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Plain vectors (B, D)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._texts |= dict(zip(new, self._encoder.texts(new), strict=True))
        return np.stack([self._texts[text] for text in texts])


@dataclass(frozen=True)
class LearnedIndex:
    """A memory that has learned from its pairs, and an index of images with the thing that each shows."""

    memory: VectorMemory
    index: Vectors
    things: npt.NDArray[np.int64]
    held: Mapping[str, int]
    """Id of a pair -> its thing."""

    @classmethod
    def of(
        cls,
        pairs: Records,
        fingerprint: Fingerprint,
        index: Vectors,
        things: Sequence[int],
        held: Sequence[int] = (),
    ) -> LearnedIndex:
        """Learn from pairs in RAM."""
        store = open_memory(":memory:", fingerprint)
        store.upsert(pairs)
        learned = learn(store, DEFAULT_K)
        store.set_calibration({"pairs": len(pairs)} if learned is None else learned.to_json())
        return cls(VectorMemory(store, learned), index, np.array(things), dict(zip(pairs.ids, held, strict=False)))

    def refined(self, vectors: Vectors, texts: Sequence[str] | None) -> Vectors:
        """Refine queries (B, D), also by words if there are texts."""
        fuser, query = Refiner(self.memory, None).ask(vectors, "text", "query", {}, texts)
        return fuser.refine(query).vectors

    def hits(self, vectors: Vectors, wanted: Sequence[int]) -> npt.NDArray[np.float64]:
        """Whether each query (B, D) finds its thing first, in per cent."""
        return np.where(self.things[(vectors @ self.index.T).argmax(axis=1)] == np.array(wanted), 100.0, 0.0)


@dataclass(frozen=True)
class Shop:
    """Products with part numbers in the formats of car makers, each with an EAN, and titles in three languages."""

    names: Sequence[str]
    seed: int

    FORMATS = ("7L0 698 151 R", "BR1234-567C", "12345-ABC-678", "1K0615301AA", "0986494294")
    SENTENCES = ("looking for spare no. {} please", "Haben Sie das Teil {} auf Lager?", "部品番号{}はありますか")
    TITLES = (
        "Sticker {name} no. {code}, EAN {ean}, matt, 12 pieces",
        "Aufkleber {name}, glänzend, Teilenummer {code}, {ean}, 12 Stück",
        "{name}のステッカー 品番{code} JAN:{ean} 12枚入り",
    )

    def numbers(self, more: int = 0) -> list[str]:
        """A part number for each product, and more that no product has."""
        rng = np.random.default_rng(self.seed)
        formats = (self.FORMATS[place % len(self.FORMATS)] for place in range(len(self.names) + more))
        return ["".join(_drawn(letter, rng) for letter in one) for one in formats]

    def eans(self) -> list[str]:
        """An EAN for each product."""
        rng = np.random.default_rng(self.seed + 100)
        return [_checked(f"40{number:010d}") for number in rng.integers(10**10, size=len(self.names)).tolist()]

    def titles(self) -> list[str]:
        """A title for each product."""
        every = zip(self.names, self.numbers(), self.eans(), strict=True)
        return [self.TITLES[at % 3].format(name=name, code=code, ean=ean) for at, (name, code, ean) in enumerate(every)]

    def forms(self) -> dict[str, list[str]]:
        """Form -> each number as people type it."""
        codes, eans, rng = self.numbers(), self.eans(), np.random.default_rng(self.seed + 200)
        bare = [re.sub("[ -]", "", one) for one in codes]
        at = [int(rng.integers(1, len(one) - 1)) for one in bare]
        wrong = [one[:i] + _other(one[i], rng) + one[i + 1 :] for one, i in zip(bare, at, strict=True)]
        return {
            "as printed": codes,
            "without blanks and hyphens": [one.lower() for one in bare],
            "other blanks": [" ".join(re.findall(".{1,3}", one)) for one in bare],
            "the first half": [one[: (len(one) + 1) // 2] for one in bare],
            "one wrong character": wrong,
            "one missing character": [one[:i] + one[i + 1 :] for one, i in zip(bare, at, strict=True)],
            "in a sentence": [self.SENTENCES[place % 3].format(one) for place, one in enumerate(codes)],
            "in a sentence, without blanks": [self.SENTENCES[place % 3].format(one) for place, one in enumerate(bare)],
            "EAN": eans,
            "EAN, one wrong digit": [one[:5] + _other(one[5], rng) + one[6:] for one in eans],
            "invented": self.numbers(len(self.names))[len(self.names) :],
        }


def _drawn(letter: str, rng: np.random.Generator) -> str:
    if not letter.isalnum():
        return letter
    return str(rng.integers(10)) if letter.isdigit() else LETTERS[int(rng.integers(len(LETTERS)))]


def _other(letter: str, rng: np.random.Generator) -> str:
    """Draw another character of the same kind."""
    while (drawn := _drawn(letter, rng)) == letter:
        pass
    return drawn


def _checked(digits: str) -> str:
    """Append the check digit of an EAN to twelve digits."""
    return digits + str(-sum(int(one) * (1, 3)[place % 2] for place, one in enumerate(digits)) % 10)


@dataclass(frozen=True)
class Order:
    """One random assignment of codes and halves."""

    drawings: Drawings
    seed: int

    def deal(self) -> tuple[list[str], list[str], npt.NDArray[np.bool_], np.random.Generator]:
        """Code and name of each thing, whether the memory holds it, and the generator of further draws."""
        rng = np.random.default_rng(self.seed)
        names = [one.label for one in self.drawings.entities.values()]
        letters = np.array(list(LETTERS))[rng.integers(len(LETTERS), size=(len(names), 3))]
        numbers = rng.integers(1000, 10_000, size=len(names))
        codes = [f"{a}{b}-{number}-{c}" for (a, b, c), number in zip(letters, numbers, strict=True)]
        held = np.zeros(len(names), np.bool_)
        held[rng.permutation(len(names))[: len(names) // 2]] = True
        return codes, names, held, rng

    def learned(self, captions: Sequence[str], held: npt.NDArray[np.bool_], rng: np.random.Generator) -> LearnedIndex:
        """Build a memory of the drawings of the things that are held, with their captions."""
        at = self.drawings
        rows = [at.rows[HELD][place] for place in rng.permutation(len(at.rows[HELD])).tolist()]
        rows = [(row, thing) for row, thing in rows if held[thing]]
        texts = [captions[thing] for _, thing in rows]
        image = np.stack([at.image[row] for row, _ in rows])
        ids, payloads = [f"{number:06d}" for number in range(len(rows))], [{"caption": text} for text in texts]
        index = np.stack([at.image[row] for row, _ in at.rows[INDEX]])
        pairs = Records(ids, image, at.texts(texts), payloads)
        things = [thing for _, thing in at.rows[INDEX]]
        return LearnedIndex.of(pairs, at.fingerprint, index, things, [thing for _, thing in rows])

    def measure(self, form: Form) -> dict[str, Cell]:
        """R@1 of each way to search."""
        codes, names, held, rng = self.deal()
        fields = list(map(variants, codes, names))
        captions = [form.caption.format(**one) for one in fields]
        queries = [form.query.format(**one) for one in fields]
        return self._ways(self.learned(captions, held, rng), captions, dict(enumerate(queries)), held)

    def free(self) -> dict[str, Cell]:
        """R@1 of queries that are captions of another style."""
        _, names, held, rng = self.deal()
        captions = [_GLOSSY.format(name=name) for name in names]
        return self._ways(self.learned(captions, held, rng), captions, self.drawings.free, held)

    def numbers(self) -> dict[str, tuple[float, float, float]]:
        """Form of a number -> R@1 in the memory, and false answers for numbers in it and not in it, in per cent."""
        _, names, held, rng = self.deal()
        shop = Shop(names, self.seed)
        learned = self.learned(shop.titles(), held, rng)
        out = dict[str, tuple[float, float, float]]()
        for form, texts in shop.forms().items():
            vectors = self.drawings.texts(texts)
            fuser, refining = Refiner(learned.memory, None).ask(vectors, "text", "query", {"explain": True}, texts)
            found = fuser.refine(refining)
            nearest = [] if found.neighbours is None else [learned.held[ids[0]] for ids in found.neighbours.ids]
            words = np.array([bool(one) for one in found.words or [""] * len(texts)])
            false = words & (np.array(nearest) != np.arange(len(texts)) if form != "invented" else True)
            hits = learned.hits(found.vectors, range(len(texts)))[held]
            out[form] = (float(hits.mean()), 100 * float(false[held].mean()), 100 * float(false[~held].mean()))
        return out

    def _ways(
        self, learned: LearnedIndex, captions: Sequence[str], queries: Mapping[int, str], held: npt.NDArray[np.bool_]
    ) -> dict[str, Cell]:
        things = [thing for thing in queries if thing in set(learned.things.tolist())]
        texts, known = [queries[thing] for thing in things], held[things]
        plain = self.drawings.texts(texts)
        whole = self.drawings.texts([captions[thing] for thing in things])
        ways = {
            "plain": plain,
            "by vectors": learned.refined(plain, None),
            "the whole caption": learned.refined(whole, None),
            "and by words": learned.refined(plain, texts),
        }
        hits = {way: learned.hits(vectors, things) for way, vectors in ways.items()}
        return {way: (float(one[known].mean()), float(one[~known].mean())) for way, one in hits.items()}


def spread(cells: Sequence[Cell]) -> str:
    """Means of both, and the standard deviation of the first."""
    (known, new), deviation = np.mean(cells, axis=0), np.std(cells, axis=0)
    return f"{known:.1f} ± {deviation[0]:.1f} / {new:.1f}"


def tables(found: Mapping[str, Any]) -> str:
    """The block of the page."""
    ways = ("plain", "by vectors", "the whole caption", "and by words")
    head = ["captions → what is asked", *ways[:2], "the whole caption asked", "and by words"]
    rows = [[title, *(spread(cells[way]) for way in ways)] for title, cells in found["forms"].items()]
    about = f"{found['things']} things, {ORDERS} orders, R@1 in per cent, in the memory / not in it:"
    return f"{about}\n\n{table(head, rows)}"


def number_table() -> str:
    """The table of part numbers as people type them."""
    drawings = Drawings()
    orders = [Order(drawings, seed).numbers() for seed in range(ORDERS)]
    rows = [[form, *(f"{np.mean([one[form][at] for one in orders]):.1f}" for at in range(3))] for form in orders[0]]
    return table(["a number", "R@1", "false answers", "of what the memory lacks"], rows)


def measured() -> dict[str, Any]:
    """Measure all figures, JSON-like."""
    drawings = Drawings()
    orders = [Order(drawings, seed) for seed in range(ORDERS)]
    forms = {form.title: [order.measure(form) for order in orders] for form in FORMS}
    forms["`fox sticker, glossy …` → captions of another style"] = [order.free() for order in orders]
    ways = {title: {way: [one[way] for one in cells] for way in cells[0]} for title, cells in forms.items()}
    means = {
        title: {way: np.mean(one, axis=0).round(3).tolist() for way, one in cells.items()}
        for title, cells in ways.items()
    }
    return {"things": len(drawings.entities), "forms": ways, "means": means}


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="fill the block of docs/measurements.md")
    parser.add_argument("--numbers", action="store_true", help="only part numbers as people type them")
    given = parser.parse_args()
    if given.numbers:
        print(number_table())
        return
    found = measured()
    print(tables(found))
    if given.page:
        with whole_file(FIGURES / "words.json") as part:
            part.write_text(json.dumps(found, indent=1), encoding="utf-8")
        write_blocks({"words": tables(found)})


if __name__ == "__main__":
    main()
