"""``python -m benchmarks.clean DATA [--half 1] [--seeds 2]``: captions that were exchanged, and who lists them first.

DATA is a folder of stored vectors of real encoders, which are not part of this repository; the drawings come along.
Constants were chosen on the things of half 0. Exchanged within the category: between things whose pictures look alike.
Without DATA, what 30 decisions of the demo bring back, over exchanges of several seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from reco_plugin import Reco
from reco_plugin.demo.bench import drawing, pairs
from reco_plugin.demo.corrected import correct_captions
from reco_plugin.evaluation.clean import score_captions
from reco_plugin.evaluation.clean_count import count_wrong
from reco_plugin.quickstart.dataset import load
from reco_plugin.types import Vectors

from .page import table

Ints = npt.NDArray[np.int64]
Set = tuple[str, Vectors, Vectors, Ints]
"""Name, images (N, D), the caption of each (N, D), and the thing that each shows (N,)."""
SHARES = (0.05, 0.2, 0.4)
ALIKE = 10


def unit(x: Any) -> Vectors:
    x = np.asarray(x, np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def few(y: Ints, most: int) -> npt.NDArray[np.bool_]:
    """The first so many rows of each thing."""
    order = np.argsort(y, kind="stable")
    place = np.empty(len(y), int)
    place[order] = np.arange(len(y)) - np.searchsorted(y[order], y[order])
    return place < most


def sets(data: Path) -> Iterator[Set]:
    """Several pictures a thing and one; names that CLIP knows, and names that mean nothing to it."""
    cars, classes = np.load(data / "clip_vit_b32_cars_98.npz"), np.load(data / "clip_vit_b32_imagenet.npz")
    names = unit(classes["text_a"])
    y = cars["memory_label"].astype(int)
    for most in (16, 4):
        keep = few(y, most)
        yield f"cars, {most} pictures each", unit(cars["memory"])[keep], unit(cars["text"])[y[keep]], y[keep]
    image, y = unit(classes["image"]).reshape(-1, 512), np.repeat(np.arange(1000), 4)
    for most in (4, 1):
        keep = few(y, most)
        yield f"ImageNet, {most} each", image[keep], names[y[keep]], y[keep]
    raw, meaningless = np.load(data / "images_clip_vit_b32.npz"), names[np.random.default_rng(7).permutation(1000)]
    for key, what in (("fgvc", "aircraft"), ("dtd", "textures")):
        y = raw[f"label_{key}"].astype(int)
        yield f"{what} under unknown names, 12 each", unit(raw[f"image_{key}"]), meaningless[y], y
    for file, what in (("amazon997_clip_vit_b32", "Amazon"), ("marqo_fashionclip_products", "fashion")):
        z = np.load(data / f"{file}.npz")
        yield f"{what}, 1 each", unit(z["image"]), unit(z["text"]), np.arange(len(z["image"]))
    with Reco.open("triton_models", memory=":memory:") as reco:
        drawn = pairs(load(), ("seen", "unseen"))
        reco.memory.add(drawn)
        stored = reco.memory.get([pair.id for pair in drawn])
    thing = np.unique([payload["entity"] for payload in stored.payloads], return_inverse=True)[1]
    seen = {item.entity for item in load().items if item.split == "seen"}
    known = np.array([payload["entity"] in seen for payload in stored.payloads])
    yield "drawings, known", stored.image[known], stored.text[known], thing[known]
    yield "drawings, unknown", stored.image[~known], stored.text[~known], thing[~known]
    one = ~known & few(thing, 1)
    yield "drawings, unknown, 1 each", stored.image[one], stored.text[one], thing[one]


def half_of(one: Set, half: int) -> Set:
    name, image, text, thing = one
    ids = np.unique(thing)
    keep = np.isin(thing, ids[np.random.default_rng(5).permutation(len(ids)) % 2 == half])
    return name, image[keep], text[keep], np.unique(thing[keep], return_inverse=True)[1]


def exchange(image: Vectors, thing: Ints, share: float, near: bool, rng: np.random.Generator) -> Ints:
    """The row whose caption each row gets."""
    count, source = len(thing), np.arange(len(thing))
    wanted = round(share * count)
    if not near:
        rows = rng.choice(count, wanted, replace=False)
        taken = rng.permutation(rows)
        for place in np.flatnonzero(thing[taken] == thing[rows]).tolist():  # another thing's
            mates = np.flatnonzero((thing[taken] != thing[rows[place]]) & (thing[rows] != thing[taken[place]]))
            if len(mates):
                mate = int(rng.choice(mates))
                taken[[place, mate]] = taken[[mate, place]]
        source[rows] = taken
        return source
    means = np.zeros((thing.max() + 1, image.shape[1]), np.float32)
    np.add.at(means, thing, image - image.mean(axis=0))
    scores = unit(means) @ unit(means).T
    np.fill_diagonal(scores, -2)
    alike, free = np.argsort(-scores, axis=1)[:, :ALIKE], np.ones(count, bool)
    for row in rng.permutation(count).tolist():
        mates = np.flatnonzero(free & (thing == rng.choice(alike[thing[row]])))
        if free[row] and wanted > 1 and len(mates):
            mate = int(rng.choice(mates))
            source[row], source[mate], wanted = mate, row, wanted - 2
            free[[row, mate]] = False
    return source


def clip_score(image: Vectors, text: Vectors) -> npt.NDArray[Any]:
    """The usual baseline."""
    return np.asarray(-(image * text).sum(axis=1))


def lemon(image: Vectors, text: Vectors, k: int = 30, weight: float = 5.0) -> npt.NDArray[Any]:
    """LEMoN's score (Zhang et al., ICML 2025) with the fixed constants of its paper, cosine distances."""
    distance, total = 1 - (image * text).sum(axis=1), 0.0
    for own, other in ((image, text), (text, image)):
        scores = own @ own.T
        np.fill_diagonal(scores, -2)
        near = np.argpartition(-scores, k, axis=1)[:, :k]
        fade = np.exp(-0.1 * (1 - np.take_along_axis(scores, near, axis=1))) * np.exp(-5.0 * distance[near])
        total = total + ((1 - np.einsum("nd,nkd->nk", other, other[near])) * fade).mean(axis=1)
    return np.asarray(distance + weight * total)


def cleanlab(image: Vectors, text: Vectors, folds: int = 5) -> npt.NDArray[Any]:
    """Rank as cleanlab does: out-of-sample probabilities of a classifier on the images, ranked by normalised margin.

    A class is a caption. Where each caption has one picture, nothing can be learned of it.
    """
    y = np.unique(np.round(text * 4096).astype(np.int16), axis=0, return_inverse=True)[1].ravel()
    fold, p = np.random.default_rng(0).permutation(len(y)) % folds, np.zeros((len(y), y.max() + 1))
    x = 10 * (image - image.mean(axis=0))
    for number in range(folds):
        rest = fold != number
        truth = np.eye(p.shape[1])[y[rest]]

        def loss(b: npt.NDArray[Any], x: Any = x[rest], truth: Any = truth) -> tuple[float, npt.NDArray[Any]]:
            w = b.reshape(x.shape[1], -1)
            z = x @ w
            q = np.exp(z - z.max(axis=1, keepdims=True))
            q /= q.sum(axis=1, keepdims=True)
            value = -np.log((q * truth).sum(axis=1) + 1e-12).mean() + 1e-3 * (w * w).sum()
            return float(value), (x.T @ (q - truth) / len(x) + 2e-3 * w).ravel()

        start = np.zeros(x.shape[1] * p.shape[1])
        w = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 40}).x.reshape(x.shape[1], -1)
        z = x[~rest] @ w
        q = np.exp(z - z.max(axis=1, keepdims=True))
        p[~rest] = q / q.sum(axis=1, keepdims=True)
    own = p[np.arange(len(y)), y]
    p[np.arange(len(y)), y] = -1
    return np.asarray(p.max(axis=1) - own)


WAYS: dict[str, Callable[[Vectors, Vectors], npt.NDArray[Any]]] = {
    "CLIP's score": clip_score,
    "cleanlab": cleanlab,
    "LEMoN": lemon,
}
MOST_CLASSES = 120  # above, a classifier of captions takes hours, or has one picture a class


def auc(score: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> float:
    rank = np.argsort(np.argsort(score)) + 1
    bad = wrong.sum()
    return float((rank[wrong].sum() - bad * (bad + 1) / 2) / (bad * (len(wrong) - bad)))


def figures(score: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> list[float]:
    order = np.argsort(-score, kind="stable")
    return [auc(score, wrong), *(float(wrong[order[:k]].mean()) for k in (20, 100))]


def measure(chosen: Sequence[Set], seeds: int) -> None:
    rows, held = list[list[str]](), dict[tuple[bool, float, int], list[tuple[bool, float]]]()
    for name, image, text, thing in chosen:
        for near in (False, True):
            for share in (0.0, *SHARES):
                found = dict[str, list[list[float]]]()
                for seed in range(seeds):
                    source = exchange(image, thing, share, near, np.random.default_rng(seed))
                    given, wrong = text[source], thing[source] != thing
                    scores = score_captions(image, given, suggestions=100, seed=seed)
                    for length, count in count_wrong(scores, scores.order, seed=seed).first.items():
                        inside = count.low <= wrong[scores.order[:length]].sum() <= count.high
                        held.setdefault((near, share, length), []).append((inside, (count.high - count.low) / length))
                    if share:
                        few_classes = len(np.unique(thing)) <= MOST_CLASSES
                        for way, rank in WAYS.items():
                            if way != "cleanlab" or few_classes:
                                found.setdefault(way, []).append(figures(rank(image, given), wrong))
                        found.setdefault("reco clean", []).append(figures(scores.score, wrong))
                        right = [thing[source[scores.suggested[r]]] == thing[r] for r in scores.order[:100] if wrong[r]]
                        found.setdefault("suggestion", []).append([float(np.mean(right)) if right else 0.0])
                if share:
                    cells = [name, "category" if near else "random", f"{100 * share:.0f} %"]
                    for way in (*WAYS, "reco clean", "suggestion"):
                        mean = np.mean(found[way], axis=0).tolist() if way in found else []
                        cells.append(
                            f"{mean[0]:.3f}, {100 * mean[1]:.0f}, {100 * mean[2]:.0f}" if len(mean) > 1 else ""
                        )
                    cells[-1] = f"{100 * np.mean(found['suggestion']):.0f}"
                    rows.append(cells)
                    print(" | ".join(cells), flush=True)
    print(table(["set", "exchanged", "wrong", *WAYS, "`reco clean`", "suggestion right"], rows))
    lines = []
    for (near, share, length), seen in sorted(held.items()):
        inside, wide = np.mean(seen, axis=0).tolist()
        kind = "category" if near else "random"
        lines.append(
            [kind, f"{100 * share:.0f} %", str(length), f"{100 * inside:.0f} %", f"{wide:.2f}", str(len(seen))]
        )
    print(table(["exchanged", "wrong", "first", "intervals that hold", "width", "lists"], lines))


def measure_taught(chosen: Sequence[Set], decisions: int = 100) -> None:
    """Share of the wrong among the next 20 after 100 decisions: those are left out, or they teach, too."""
    shares = list[tuple[float, float]]()
    for _, image, text, thing in chosen:
        for near, share in product((False, True), SHARES[:2]):
            source = exchange(image, thing, share, near, np.random.default_rng(0))
            wrong, decided = thing[source] != thing, np.zeros(len(thing), np.int8)
            plain = score_captions(image, text[source], suggestions=1).order
            decided[plain[:decisions]] = np.where(wrong[plain[:decisions]], -1, 1)
            taught = score_captions(image, text[source], decided=decided, suggestions=1).order
            left, again = (wrong[order[decided[order] == 0][:20]].mean() for order in (plain, taught))
            shares.append((float(left), float(again)))
    left, again = (100 * np.mean(shares, axis=0)).tolist()
    print(f"{len(shares)} lists; of the next 20, left out: {left:.1f} % are wrong, taught: {again:.1f} %")


def measure_gain(seeds: int, folder: Path) -> None:
    """Mean and deviation of what the demo measures: top-1 of all unseen things, and of those that were corrected."""
    data = load()
    for pair in pairs(data, ("unseen",)):
        path = folder / f"{pair.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(data, pair.payload["row"]).save(path)
    runs = [correct_captions(Path("triton_models"), data, folder, folder / str(seed), seed) for seed in range(seeds)]
    for name in runs[0]:
        figures = np.array([run[name] for run in runs])
        both = zip(figures.mean(axis=0).tolist(), figures.std(axis=0, ddof=1).tolist(), strict=True)
        print(name, ", ".join(f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in both))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--half", type=int, default=1, choices=(0, 1))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--taught", action="store_true", help="only measure what decisions teach the list")
    options = parser.parse_args()
    if options.data is None:
        with TemporaryDirectory() as folder:
            measure_gain(options.seeds, Path(folder))
        return
    chosen = [half_of(one, options.half) for one in sets(options.data)]
    measure_taught(chosen) if options.taught else measure(chosen, options.seeds)


if __name__ == "__main__":
    main()
