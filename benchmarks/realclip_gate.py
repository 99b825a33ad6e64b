"""What the gate is worth on vectors of a real CLIP (OpenAI ViT-B/32): gains where the memory knows, harm where not.

    python -m benchmarks.realclip_gate --data DIRECTORY  # writes docs/measurements/realclip.* from the vectors there
    python -m benchmarks.realclip_gate                   # the page and the chart again, from that file
    python -m benchmarks.realclip_gate --data DIRECTORY --files FOLDER  # the files that docs/walkthrough.md evaluates

Needs the extra `train` and three files of vectors, which are not part of this repository: `load_imagenet` and
`nearest_neighbour` say what is in them. Takes about four minutes on one core.
Every row is one protocol, every column a difference to frozen CLIP in points with its 95 % interval over classes, over
all variants of the protocol (which memory half, which two of the four images are queries). "no gate" adds the mean of
the neighbours; "gate" is what the product does, with exact scores where both sides are refined.

Memory captions are the prompt set ``text_a``; class prompts are ``text_b``; queries are images outside the memory.
The irrelevant and fine-grained rows use the dog breeds of ImageNet (151-268), classified among themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.data import Captioned, Labelled, write_labelled, write_pairs, write_retrieval
from reco_plugin.evaluate.intervals import Interval, bootstrap
from reco_plugin.evaluate.study.memories import ram_memory, stream
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.score import score_both
from reco_plugin.types import Fingerprint, Modality, Records, Vectors

from .page import table
from .picture import real_clip
from .research import parser_of, publish

Rows = npt.NDArray[np.int64]
STORES: dict[tuple[Any, ...], Store] = {}
"""By what they hold; each is asked by every role."""
Asked = tuple[npt.NDArray[np.float64], Rows]
"""Differences per query in points, and the class of each."""
Row = tuple[str, Interval, Interval]
FINGERPRINT = Fingerprint("OpenAI ViT-B/32", "stored", 512)
DOGS = np.arange(151, 269)
SLOTS = ((0, 1), (2, 3))  # of the four images of a class, those in the memory


@dataclass(frozen=True)
class Store:
    """A memory, its calibration learned from its pairs."""

    memory: VectorMemory
    k: int

    def refine(self, modality: Modality, query: Vectors, *, gated: bool, candidates: bool = False) -> Vectors:
        """Refine (B, D)."""
        refiner = Refiner(self.memory, None, k=self.k, gate=gated)
        return refiner.refine(query, modality=modality, role="candidate" if candidates else "query").vectors

    def scores(self, images: Vectors, texts: Vectors, *, gated: bool) -> Vectors:
        """Scores (B, C) of both sides refined: exact ones, or cosines without a gate."""
        if gated:
            return score_both(Refiner(self.memory, None, k=self.k), images, texts).scores
        moved = self.refine("text", texts, gated=False, candidates=True)
        return np.asarray(self.refine("image", images, gated=False) @ moved.T)


@dataclass(frozen=True)
class ImageNet:
    """The ImageNet vectors: image (1000, 4, D), captions and prompts (1000, D)."""

    image: Vectors
    caption: Vectors
    prompt: Vectors

    def store(self, classes: Rows, slots: tuple[int, ...], k: int, *, shuffled: float = 0.0) -> Store:
        """Take the pairs of some classes; a share of the captions can be dealt out at random. Learned once."""
        key = (classes.tobytes(), slots, k, shuffled)
        if key not in STORES:
            STORES[key] = self._learn(classes, slots, k, shuffled)
        return STORES[key]

    def _learn(self, classes: Rows, slots: tuple[int, ...], k: int, shuffled: float) -> Store:
        image = self.image[classes][:, list(slots)].reshape(-1, self.image.shape[-1])
        text = np.repeat(self.caption[classes], len(slots), axis=0)
        rng = stream(0, "wrong captions")
        wrong = np.flatnonzero(rng.random(len(text)) < shuffled)
        text[wrong] = text[rng.permutation(wrong)]
        ids = [f"{number:06d}" for number in range(len(text))]
        return Store(ram_memory(Records(ids, image, text, [{}] * len(ids)), FINGERPRINT).at(k), k)

    def queries(self, classes: Rows, slots: tuple[int, ...]) -> tuple[Vectors, Rows]:
        """Images outside those slots and their classes."""
        rest = [slot for slot in range(self.image.shape[1]) if slot not in slots]
        return self.image[classes][:, rest].reshape(-1, self.image.shape[-1]), np.repeat(classes, len(rest))


def read(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """All arrays of an .npz; vectors become unit-norm float32."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {name: unit(a.astype(np.float32)) if a.ndim > 1 else a for name, a in arrays.items()}


def unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale to unit norm."""
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def load_imagenet(data: Path) -> ImageNet:
    """Read ``image`` (1000, 4, D), four pictures per class, and two sets of prompts, ``text_a`` and ``text_b``."""
    arrays = read(data / "clip_vit_b32_imagenet.npz")
    return ImageNet(arrays["image"], arrays["text_a"], arrays["text_b"])


def hits(image: Vectors, labels: Rows, prompts: Vectors, classes: Rows) -> npt.NDArray[np.float64]:
    """100 where the nearest prompt is the image's class, else 0."""
    return np.asarray(100.0 * (classes[(image @ prompts.T).argmax(axis=1)] == labels))


def found(prompts: Vectors, classes: Rows, image: Vectors, labels: Rows) -> npt.NDArray[np.float64]:
    """100 where the nearest image shows the prompt's class, else 0: text-to-image search, R@1."""
    return np.asarray(100.0 * (labels[(prompts @ image.T).argmax(axis=1)] == classes))


Gain = Callable[[Store, tuple[int, ...], Rows, bool], tuple[npt.NDArray[np.float64], Rows]]
"""(memory, its slots, candidate classes, gated) -> difference to frozen per query, class of each query."""


Moved = Callable[[Store, Vectors, Vectors, bool], Vectors]
"""(memory, images, prompts, gated) -> scores (B, C)."""


def roles(data: ImageNet) -> dict[str, Gain]:
    """Who is refined, and how that is judged: images among prompts (top-1), or prompts among images (R@1)."""

    def judged(moved: Moved, *, texts: bool = False) -> Gain:
        def gain(
            store: Store, slots: tuple[int, ...], classes: Rows, gated: bool
        ) -> tuple[npt.NDArray[np.float64], Rows]:
            image, labels = data.queries(classes, slots)
            prompts = data.prompt[classes]
            before, after = image @ prompts.T, moved(store, image, prompts, gated)
            if texts:
                right = [labels[scores.argmax(axis=0)] == classes for scores in (before, after)]
            else:
                right = [classes[scores.argmax(axis=1)] == labels for scores in (before, after)]
            return 100.0 * (right[1].astype(np.float64) - right[0]), classes if texts else labels

        return gain

    def image(store: Store, images: Vectors, gated: bool, candidates: bool = False) -> Vectors:
        return store.refine("image", images, gated=gated, candidates=candidates)

    def text(store: Store, prompts: Vectors, gated: bool, candidates: bool = False) -> Vectors:
        return store.refine("text", prompts, gated=gated, candidates=candidates)

    return {
        "image queries": judged(lambda m, i, t, gated: image(m, i, gated) @ t.T),
        "text queries": judged(lambda m, i, t, gated: i @ text(m, t, gated).T, texts=True),
        "image candidates": judged(lambda m, i, t, gated: image(m, i, gated, True) @ t.T, texts=True),
        "text candidates": judged(lambda m, i, t, gated: i @ text(m, t, gated, True).T),
        "image queries + text candidates": judged(lambda m, i, t, gated: m.scores(i, t, gated=gated)),
    }


def measure(data: ImageNet, k: int) -> Iterator[Row]:
    """Rows of (protocol, no gate, gate) on ImageNet."""
    everything = np.arange(len(data.image))
    halves = [("odd classes", [everything[1::2]])]
    randoms = [_half(everything, seed) for seed in range(3)]
    halves.append(("random halves (3 seeds)", randoms))
    for role, gain in roles(data).items():
        yield from _rows(role, "all classes", [(data.store(everything, s, k), s, everything) for s in SLOTS], gain)
        for name, picks in halves:
            runs = [(data.store(pick, s, k), s, everything) for pick in picks for s in SLOTS]
            yield from _rows(role, name, runs, gain, known=[pick for pick in picks for _ in SLOTS])
        fine = [(data.store(DOGS, s, k), s, DOGS) for s in SLOTS]
        yield from _rows(role, "dogs among dogs", fine, gain)
        strange = np.setdiff1d(everything, DOGS)
        yield from _rows(role, "no dogs, among dogs", [(data.store(strange, s, k), s, DOGS) for s in SLOTS], gain)
    for share in (0.1, 0.3, 0.5, 0.9):
        for role in ("image queries", "text queries"):
            runs = [(data.store(everything, s, k, shuffled=share), s, everything) for s in SLOTS]
            yield from _rows(role, f"all classes, {share:.0%} shuffled", runs, roles(data)[role])


def _half(classes: Rows, seed: int) -> Rows:
    return np.sort(stream(seed, "half of the classes").permutation(classes)[: len(classes) // 2])


def _rows(
    role: str,
    memory: str,
    runs: Sequence[tuple[Store, tuple[int, ...], Rows]],
    gain: Gain,
    known: Sequence[Rows] | None = None,
) -> Iterator[Row]:
    """One row, or one for the classes that the memory knows and one for the others."""
    parts: dict[str, list[list[Asked]]] = {}
    for number, (store, slots, classes) in enumerate(runs):
        for column, gated in enumerate((False, True)):
            delta, labels = gain(store, slots, classes, gated)
            inside = np.isin(labels, known[number]) if known else np.ones(len(labels), np.bool_)
            groups = {"known": inside, "unknown": ~inside} if known else {"": inside}
            for name, mask in groups.items():
                parts.setdefault(name, [[], []])[column].append((delta[mask], labels[mask]))
    for name, (plain, gated_gains) in parts.items():
        yield f"{role}: {memory}" + (f": {name}" if name else ""), _interval(plain), _interval(gated_gains)


def _interval(asked: Sequence[Asked]) -> Interval:
    return bootstrap(np.concatenate([gains for gains, _ in asked]), np.concatenate([classes for _, classes in asked]))


def nearest_neighbour(data: ImageNet, folder: Path, k: int) -> Iterator[Row]:
    """Image-to-image search in sets that the memory does not know: refined queries, untouched index.

    The files hold ``test_image``, ``val_image`` (N, D), ``test_label`` and ``val_label`` (N,).
    """
    for name in ("oxford_pets", "caltech101"):
        arrays = read(folder / f"clip_vit_b32_{name}.npz")
        query, index = arrays["test_image"], arrays["val_image"]
        labels, answers = arrays["test_label"].astype(np.int64), arrays["val_label"].astype(np.int64)
        frozen = hits(query, labels, index, answers)
        for memory, classes in (("all classes", np.arange(1000)), ("odd classes", np.arange(1, 1000, 2))):
            store = data.store(classes, SLOTS[0], k)
            plain, gated = (
                bootstrap(hits(store.refine("image", query, gated=on), labels, index, answers) - frozen, labels)
                for on in (False, True)
            )
            yield f"{name}, image to image (frozen {frozen.mean():.1f}): {memory}", plain, gated


def results(folder: Path, k: int) -> dict[str, Any]:
    """Everything, as docs/measurements/realclip.json has it: differences as mean, low and high, in points."""
    data, everything = load_imagenet(folder), np.arange(1000)
    images = [hits(*data.queries(everything, slots), data.prompt, everything) for slots in SLOTS]
    texts = [found(data.prompt, everything, *data.queries(everything, slots)) for slots in SLOTS]

    def told(rows: Iterable[Row], first: str, second: str) -> dict[str, dict[str, list[float]]]:
        return {
            name: {first: [round(x, 2) for x in before], second: [round(x, 2) for x in after]}
            for name, before, after in rows
        }

    return {
        "neighbours": k,
        "frozen": {"top1": round(float(np.mean(images)), 2), "recall1": round(float(np.mean(texts)), 2)},
        "gate": told([*measure(data, k), *nearest_neighbour(data, folder, k)], "no gate", "gate"),
    }


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """The blocks of docs/measurements/realclip.md."""
    rows, columns = found["gate"], ("text queries", "image queries", "image queries + text candidates")
    memories = {
        "all classes": "all classes",
        "a random half, known": "random halves (3 seeds): known",
        "a random half, unknown": "random halves (3 seeds): unknown",
    }
    summary = ([name, *(f"{rows[f'{c}: {key}']['gate'][0]:+.1f}" for c in columns)] for name, key in memories.items())
    unknown = rows["image queries: random halves (3 seeds): unknown"]["no gate"][0]
    about = (
        f"Plain CLIP names {found['frozen']['top1']:.1f} % of the images right and finds an image of the class first "
        f"for {found['frozen']['recall1']:.1f} % of the prompts; k = {found['neighbours']}. Without the gate, image "
        f"queries of the unknown half get {unknown:+.1f}; "
        f"class prompts as single candidates {rows['text candidates: all classes']['gate'][0]:+.1f} with all classes."
    )
    gains = (
        (name, *("{:+.1f} [{:+.1f}, {:+.1f}]".format(*gain) for gain in row.values())) for name, row in rows.items()
    )
    made = table(("memory", "text queries", "image queries", "both sides, by exact scores"), summary)
    return {"summary": f"{about}\n\n{made}", "protocols": table(("protocol", *next(iter(rows.values()))), gains)}


def write_files(data: ImageNet, folder: Path) -> None:
    """Write a memory's pairs (two images a class), test images and captions for `reco eval` to read."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    folder.mkdir(parents=True, exist_ok=True)
    everything = np.arange(len(data.image))
    names = [f"{name} ({number})" for number, name in enumerate(IMAGENET_CLASSNAMES)]  # two names stand twice
    held, of = data.image[:, list(SLOTS[0])], np.repeat(everything, len(SLOTS[0]))
    ids = [f"{number:06d}" for number in range(len(of))]
    payloads = [{"caption": names[number]} for number in of]
    write_pairs(folder / "pairs.npz", [Records(ids, held.reshape(len(of), -1), data.caption[of], payloads)])
    images, labels = data.queries(everything, SLOTS[0])
    write_labelled(folder / "test.npz", Labelled("test", images, labels, tuple(names), prompts=data.prompt))
    write_retrieval(folder / "search.npz", Captioned("search", images[:: len(SLOTS[1])], data.prompt, everything))


def main() -> None:
    parser = parser_of(__doc__, "realclip", data="the vectors; without it, nothing is measured anew", cached=False)
    parser.set_defaults(docs=Path("docs/measurements"))
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--files", type=Path, help="only write ImageNet's pairs and test images to this folder")
    options = parser.parse_args()
    if options.files:
        if options.data is None:
            parser.error("--files needs --data DIRECTORY")
        write_files(load_imagenet(options.data), options.files)
        return
    kept = options.docs / "realclip.json"
    if options.data:
        kept.write_text(json.dumps(results(options.data, options.neighbours), indent=1) + "\n")
    told = json.loads(kept.read_text())
    publish(options.docs, "realclip", blocks(told))
    (options.docs / "realclip.svg").write_text(real_clip(told))
    print(*blocks(told).values(), sep="\n\n")


if __name__ == "__main__":
    main()
