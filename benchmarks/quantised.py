"""What int8 and binary vectors cost: how many of the ten nearest by float vectors are found, on a real CLIP's.

    python -m benchmarks.quantised --data DIRECTORY          # writes docs/measurements/quantised.md; seconds

Needs the files of vectors that `benchmarks.realclip_gate` names. An index of images is asked by other images and by
texts; both sides are quantised, as a search engine does that stores what the service answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.serve.dialects.words import RANGE, quantise
from reco_plugin.types import Vectors

from .markdown import table

K = 10
PAGE = Path("docs", "measurements", "quantised.md")
_HEAD = f"""# Quantised vectors: what they cost

Share of the {K} nearest by float vectors that is among the {K} nearest by quantised ones; in the last column among the
{4 * K} nearest, for an engine that looks those up again by float vectors. OpenAI's ViT-B/32 (D = 512): an index of
images, asked by other images and by class names. Both sides are quantised; binary is compared by Hamming distance.

One range fits all components, vectors and memories (127 is {RANGE:g}/√D): CLIP has a dimension in which every image is
near -14/√D, and a range per dimension, taken from the memory, loses the weight of it, as its column shows.

Command: `python -m benchmarks.quantised --data DIRECTORY`.

"""


def recall(index: Vectors, queries: Vectors, dtype: str, depth: int = K) -> float:
    """recall@10 of quantised (N, D) vectors asked by quantised (B, D), against float; binary by Hamming distance."""
    if dtype == "binary":
        bits = [np.unpackbits(quantise(side, "ubinary"), axis=1) for side in (queries, index)]
        sides = [side.astype(np.float32) * 2 - 1 for side in bits]
    else:
        sides = [quantise(side, dtype).astype(np.float32) for side in (queries, index)]
    return shared(queries @ index.T, sides[0] @ sides[1].T, depth)


def per_dimension(index: Vectors, queries: Vectors) -> float:
    """recall@10 of int8 where each dimension has the range of the index."""
    low, high = index.min(axis=0), index.max(axis=0)
    sides = [np.clip(np.rint((side - low) / (high - low) * 255) - 128, -128, 127) for side in (queries, index)]
    return shared(queries @ index.T, sides[0] @ sides[1].T, K)


def shared(exact: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], depth: int) -> float:
    """Share of the ten best by exact scores (B, N) that is among the best by others."""
    pairs = zip(nearest(exact, K), nearest(scores, depth), strict=True)
    return float(np.mean([len(set(one) & set(other)) / K for one, other in pairs]))


def nearest(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """(B, k) columns of the largest scores."""
    return np.argpartition(-scores, k, axis=1)[:, :k]


def unit(vectors: npt.NDArray[np.generic]) -> Vectors:
    """float32 rows of norm 1."""
    rows = vectors.astype(np.float32)
    norms: Vectors = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / norms


def protocols(data: Path) -> dict[str, tuple[Vectors, Vectors]]:
    """Name -> index and queries."""
    imagenet = np.load(data / "clip_vit_b32_imagenet.npz")
    pets = np.load(data / "clip_vit_b32_oxford_pets.npz")
    images = unit(imagenet["image"])
    return {
        "ImageNet: images asked by images": (images[:, :3].reshape(-1, images.shape[-1]), images[:, 3]),
        "ImageNet: images asked by texts": (images.reshape(-1, images.shape[-1]), unit(imagenet["text_a"])),
        "Pets: images asked by images": (unit(pets["test_image"]), unit(pets["val_image"])),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the vectors")
    rows = []
    for name, (index, queries) in protocols(parser.parse_args().data).items():
        int8, binary = recall(index, queries, "int8"), recall(index, queries, "binary")
        parts = [int8, per_dimension(index, queries), binary, recall(index, queries, "binary", 4 * K)]
        rows.append([name, f"{len(index):,}", f"{len(queries):,}", *(f"{part:.3f}" for part in parts)])
    head = ["", "index", "queries", "int8, uint8", "range per dimension", "binary, ubinary", f"binary, of {4 * K}"]
    made = table(head, rows)
    PAGE.write_text(_HEAD + made + "\n", "utf-8")
    print(made)


if __name__ == "__main__":
    main()
