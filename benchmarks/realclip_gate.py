"""Gains and losses with vectors of a real CLIP (OpenAI ViT-B/32) on ImageNet, for known and unknown classes.

    python -m benchmarks.realclip_gate --data DIRECTORY  # measures the vectors there; two minutes on one core
    python -m benchmarks.realclip_gate                   # renews page and chart from the stored figures

The file ``clip_vit_b32_imagenet.npz`` is not part of this repository; see :class:`ImageNet`. A row is the mean over
the variants of a protocol: which half is in the memory, and which two of the four images are queries. Both sides are
compared by exact scores.

Memory captions are the prompt set ``text_a``; class prompts are ``text_b``; queries are images outside the memory.
The irrelevant and fine-grained rows use the dog breeds of ImageNet (151-268), classified among themselves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.defaults import DEFAULT_K
from reco_plugin.evaluation.statistics import Interval, bootstrap
from reco_plugin.fusion.exact_scores import score_both
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.types import Vectors

from . import method
from .page import FIGURES, table, write_blocks
from .picture import real_clip

Rows = npt.NDArray[np.int64]
ClassGains = tuple[npt.NDArray[np.float64], Rows]
"""Difference of each query in points, and its class."""
Row = tuple[str, Interval]
DOGS = np.arange(151, 269)
SLOTS = ((0, 1), (2, 3))  # of the four images of a class, those in the memory


def stream(seed: int, draw: str) -> np.random.Generator:
    """A random generator that is independent of all other draws with the same seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(draw.encode())))


class ImageNet:
    """Images (1000, 4, D), four of each class, captions for the memory (1000, D), and prompts (1000, D)."""

    def __init__(self, data: Path) -> None:
        with np.load(data / "clip_vit_b32_imagenet.npz") as stored:
            arrays = [stored[name] for name in ("image", "text_a", "text_b")]
        self.image, self.caption, self.prompt = map(method.unit, arrays)
        self._learned = dict[tuple[Any, ...], Refiner]()

    def refiner(self, classes: Rows, slots: tuple[int, ...], k: int, *, shuffled: float = 0.0) -> Refiner:
        """A refiner with the pairs of some classes, a share of whose captions is shuffled; learned once."""
        key = (classes.tobytes(), slots, k, shuffled)
        if key not in self._learned:
            image = self.image[classes][:, list(slots)].reshape(-1, self.image.shape[-1])
            text = np.repeat(self.caption[classes], len(slots), axis=0)
            rng = stream(0, "wrong captions")
            wrong = np.flatnonzero(rng.random(len(text)) < shuffled)
            text[wrong] = text[rng.permutation(wrong)]
            self._learned[key] = method.refiner(image, text, k=k)
        return self._learned[key]

    def queries(self, classes: Rows, slots: tuple[int, ...]) -> tuple[Vectors, Rows]:
        """Images outside those slots and their classes."""
        rest = [slot for slot in range(self.image.shape[1]) if slot not in slots]
        return self.image[classes][:, rest].reshape(-1, self.image.shape[-1]), np.repeat(classes, len(rest))


ROLES: dict[str, Callable[[Refiner, Vectors, Vectors], Vectors]] = {
    "image queries": lambda refiner, images, texts: refiner.refine(images, modality="image").vectors @ texts.T,
    "text queries": lambda refiner, images, texts: images @ refiner.refine(texts, modality="text").vectors.T,
    "both sides": lambda refiner, images, texts: score_both(refiner, images, texts).scores,
}
"""Refined side -> scores (B, C). Texts search images (R@1), and images are classified (top-1)."""


def right(role: str, scores: Vectors, labels: Rows, classes: Rows) -> npt.NDArray[np.float64]:
    """100 for each query that finds its own first, else 0."""
    if role == "text queries":
        return np.asarray(100.0 * (labels[scores.argmax(axis=0)] == classes))
    return np.asarray(100.0 * (classes[scores.argmax(axis=1)] == labels))


def gain(data: ImageNet, role: str, refiner: Refiner, slots: tuple[int, ...], classes: Rows) -> ClassGains:
    """Difference to plain CLIP for each query in points, and the class of each."""
    image, labels = data.queries(classes, slots)
    prompts = data.prompt[classes]
    plain, refined = image @ prompts.T, ROLES[role](refiner, image, prompts)
    moved = right(role, refined, labels, classes) - right(role, plain, labels, classes)
    return moved, classes if role == "text queries" else labels


def measure(data: ImageNet, k: int) -> Iterator[Row]:
    """Rows of (protocol, gain) on ImageNet."""
    everything = np.arange(len(data.image))
    randoms, strange = [_half(everything, seed) for seed in range(3)], np.setdiff1d(everything, DOGS)
    for role in ROLES:
        yield from _rows(data, role, "all classes", [(data.refiner(everything, s, k), s, everything) for s in SLOTS])
        runs = [(data.refiner(pick, s, k), s, everything) for pick in randoms for s in SLOTS]
        yield from _rows(data, role, "random halves", runs, known=[pick for pick in randoms for _ in SLOTS])
        yield from _rows(data, role, "dogs among dogs", [(data.refiner(DOGS, s, k), s, DOGS) for s in SLOTS])
        yield from _rows(data, role, "no dogs, among dogs", [(data.refiner(strange, s, k), s, DOGS) for s in SLOTS])
    for share in (0.1, 0.3, 0.5, 0.9):
        for role in ("image queries", "text queries"):
            runs = [(data.refiner(everything, s, k, shuffled=share), s, everything) for s in SLOTS]
            yield from _rows(data, role, f"all classes, {share:.0%} shuffled", runs)


def _half(classes: Rows, seed: int) -> Rows:
    return np.sort(stream(seed, "half of the classes").permutation(classes)[: len(classes) // 2])


def _rows(
    data: ImageNet,
    role: str,
    memory: str,
    runs: Sequence[tuple[Refiner, tuple[int, ...], Rows]],
    known: Sequence[Rows] | None = None,
) -> Iterator[Row]:
    """One row, or one for the classes that the memory knows and one for the others."""
    parts: dict[str, list[ClassGains]] = {}
    for number, (refiner, slots, classes) in enumerate(runs):
        delta, labels = gain(data, role, refiner, slots, classes)
        inside = np.isin(labels, known[number]) if known else np.ones(len(labels), np.bool_)
        groups = {"known": inside, "unknown": ~inside} if known else {"": inside}
        for name, mask in groups.items():
            parts.setdefault(name, []).append((delta[mask], labels[mask]))
    for name, drawn in parts.items():
        moved = bootstrap(np.concatenate([gains for gains, _ in drawn]), np.concatenate([of for _, of in drawn]))
        yield f"{role}: {memory}" + (f": {name}" if name else ""), moved


def results(folder: Path, k: int) -> dict[str, Any]:
    """All figures of docs/measurements/realclip.json; a difference is (mean, low, high) in points."""
    data, everything = ImageNet(folder), np.arange(1000)

    def plain(role: str) -> float:
        drawn = [data.queries(everything, slots) for slots in SLOTS]
        return float(np.mean([right(role, image @ data.prompt.T, of, everything).mean() for image, of in drawn]))

    return {
        "neighbours": k,
        "frozen": {"top1": round(plain("image queries"), 2), "recall1": round(plain("text queries"), 2)},
        "gains": {name: [round(x, 2) for x in moved] for name, moved in measure(data, k)},
    }


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """The block of docs/measurements.md: a row a memory, a column a role."""
    gains = found["gains"]
    memories = list(dict.fromkeys(name.split(": ", 1)[1] for name in gains))
    shown = {name: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*moved) for name, moved in gains.items()}
    rows = ([name, *(shown.get(f"{role}: {name}", "") for role in ROLES)] for name in memories)
    about = (
        f"Plain CLIP names {found['frozen']['top1']:.1f} % of the images right and finds an image of the class first "
        f"for {found['frozen']['recall1']:.1f} % of the prompts; k = {found['neighbours']}. Points over plain CLIP "
        f"with 95 % intervals over classes:"
    )
    return {"realclip": f"{about}\n\n{table(('memory', *ROLES), rows)}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the vectors; without it, nothing is measured")
    parser.add_argument("--neighbours", type=int, default=DEFAULT_K)
    options = parser.parse_args()
    kept = FIGURES / "realclip.json"
    if options.data:
        kept.write_text(json.dumps(results(options.data, options.neighbours), indent=1) + "\n")
    figures = json.loads(kept.read_text())
    write_blocks(blocks(figures))
    (FIGURES / "realclip.svg").write_text(real_clip(figures))
    print(*blocks(figures).values(), sep="\n\n")


if __name__ == "__main__":
    main()
