"""What a memory of fewer than 300 pairs gives: makes a block of docs/measurements/trust.md.

    python -m benchmarks.small_memories --data DIRECTORY --docs docs/measurements

Each holds up to three pairs of each of its things, or one. Its own things ask among themselves; what it does not hold,
among itself: drawings that the encoder knows, other classes of ImageNet, other animals by their right names. The same
pairs are measured twice: by the safe gate alone, and by what is learned from them. Ten minutes on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from reco_plugin.calibration.gate import FITTED, PRIOR
from reco_plugin.calibration.state import ENOUGH, Calibration
from reco_plugin.evaluate.study.memories import ram_memory, stream
from reco_plugin.refine import VectorMemory
from reco_plugin.types import Fingerprint, Records

from .orders import ANIMALS, WAYS, among, points_of, with_renamed_animals
from .page import table
from .realclip_gate import DOGS, ImageNet, load_imagenet
from .research import STORED, Kept, pairs_of, parser_of, publish, subject_of
from .self_check import Catalogue, Rows, drawings
from .subject import K

SIZES, DRAWS = (50, 100, 250), 4


@dataclass(frozen=True)
class Things:
    """Pairs of which small memories are drawn.

    Attributes:
        name: for people.
        pairs: of all things.
        thing: (N,) of each pair.
        fingerprint: of their encoder.
        asks: queries for any of them.
        others: name and queries for what is asked beside, by their right names; less what the memory holds.
    """

    name: str
    pairs: Records
    thing: Rows
    fingerprint: Fingerprint
    asks: Catalogue
    others: tuple[tuple[str, Catalogue], ...]

    def draw(self, size: int, each: int, seed: int) -> tuple[VectorMemory, Rows]:
        """A memory of whole things, up to so many pairs and so many of each, and what it holds."""
        rows, held = list[int](), list[int]()
        for thing in stream(seed, f"{size} pairs of {self.name}").permutation(np.unique(self.thing)):
            own = np.flatnonzero(self.thing == thing)[:each]
            if len(rows) + len(own) > size:
                break
            rows += own.tolist()
            held.append(int(thing))
        drawn = self.pairs.take(rows)
        ids = [f"{number:06d}" for number in range(len(rows))]
        return ram_memory(replace(drawn, ids=ids), self.fingerprint).at(K), np.sort(np.array(held))

    def measure(self, size: int, each: int, seed: int) -> dict[str, list[list[float]]]:
        """Points over plain CLIP by :data:`WAYS`, with the safe gate alone and as it is, by who asks."""
        memory, held = self.draw(size, each, seed)
        asked = {"held": among(self.asks, "held", held)}
        for name, catalogue in self.others:
            rest = np.setdiff1d(catalogue.classes, held)
            asked[name] = among(catalogue, name, rest)
        assert memory.calibration is not None
        ways = (replace(memory, calibration=safe_alone(memory.calibration)), memory)
        return {name: [points_of(catalogue, one) for one in ways] for name, catalogue in asked.items()}


def safe_alone(state: Calibration) -> Calibration:
    """The same with the safe gate alone, as if nothing could be learned from so few pairs."""
    sides = {
        m: replace(side, gates=dict.fromkeys(FITTED, PRIOR[m]), candidate_gates={}) for m, side in state.sides.items()
    }
    return replace(state, sides=sides, one_image=False)


def drawn(cache: Path) -> Iterator[Things]:
    """Drawings under the shipped encoder."""
    whole = {one.name: one for one in drawings(cache)}
    for name in ("flags", "logos", "glyphs", "emoji"):
        subject, catalogue = subject_of(name, cache), whole[name]
        pairs, thing, of = subject.data.memory, np.asarray(subject.data.memory_entity), subject.fingerprint
        if name != "emoji":
            yield Things(name, pairs, thing, of, catalogue, ())
            continue
        known = among(catalogue, "known emoji", np.flatnonzero(np.array(catalogue.splits) == "seen"))
        for kind, split in (("new emoji", "unseen"), ("known emoji", "seen")):
            rows = np.flatnonzero(np.array(subject.data.splits)[thing] == split)
            yield Things(kind, pairs.take(rows), thing[rows], of, catalogue, (("known emoji, not held", known),))


def real(data: ImageNet) -> Iterator[Things]:
    """ImageNet under OpenAI's CLIP ViT-B/32, and its animals with each other's names."""
    every, strange = np.arange(len(data.prompt)), with_renamed_animals(data)
    image, truth = data.queries(every, (0, 1, 2))
    right = Catalogue("", lambda: data.store(every, (0, 1, 2), K).memory, image, truth, data.prompt, every)
    for name, classes, of, others in (
        ("ImageNet", every, data, {"other classes": every}),
        ("dog breeds", DOGS, data, {"other classes": np.setdiff1d(every, DOGS)}),
        (
            "renamed animals",
            ANIMALS,
            strange,
            {"other animals": ANIMALS, "other classes": np.setdiff1d(every, ANIMALS)},
        ),
    ):
        pairs = pairs_of(
            of.image[classes, :3].reshape(-1, of.image.shape[-1]), np.repeat(of.caption[classes], 3, axis=0)
        )
        thing = np.repeat(classes, 3)
        asks = replace(right, prompt=of.prompt)
        yield Things(
            name, pairs, thing, STORED, asks, tuple((what, among(right, what, some)) for what, some in others.items())
        )


def rows(things: Sequence[Things], kept: Kept) -> Iterator[list[str]]:
    """Of the table: means over the draws."""
    for one in things:
        for each in (1, 3) if one.name in ("ImageNet", "dog breeds") else (3,):
            for size in SIZES:
                found = [
                    kept.get(f"{one.name} {each} {size} {seed}", partial(one.measure, size, each, seed))
                    for seed in range(DRAWS)
                ]
                name = f"{one.name}, {'one pair each' if each == 1 else 'up to three pairs each'}"
                for who in found[0]:
                    safe, now = np.mean([of[who] for of in found], axis=0)
                    print(name, size, who, safe, now, file=sys.stderr, flush=True)
                    yield [name, str(size), who, *(f"{s:+.1f} → {n:+.1f}" for s, n in zip(safe, now, strict=True))]


def main() -> None:
    """Measure and write the block."""
    parser = parser_of(__doc__, "trust", data="the files of real vectors; without them, drawings alone")
    parser.add_argument("--kept", type=Path, default=Path("runs/small.jsonl"), help="file of what was measured")
    given = parser.parse_args()
    things = list(drawn(given.cache))
    if given.data:
        things += real(load_imagenet(given.data))
    told = table(["memory", "pairs", "asked for", *WAYS], rows(things, Kept(given.kept)), left=3)
    publish(given.docs, "trust", {"small": f"{DRAWS} draws, of fewer than {ENOUGH} pairs.\n\n{told}"})


if __name__ == "__main__":
    main()
