"""Measure what a pair takes in Qdrant's own engine, beside what benchmarks/sizing.py computes.

    python -m benchmarks.memory_bytes --pairs 12000 --dimension 512    about a minute on two cores

Vectors are random. That matters to the index alone, whose links Qdrant prunes by distance. Needs the extra `edge`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from .sizing import Copy, Layout, pair_bytes

BATCH = 1000
CAPTION = "a caption of about sixty-four characters, for entry number {:9d}"
COPIES: dict[Copy, Callable[[], Any]] = {
    "none": lambda: None,
    "int8": lambda: edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8),
    "4-bit": lambda: edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4),
}


def measure(pairs: int, dimension: int, copy: Copy, folder: Path) -> float:
    """Bytes per pair of an indexed shard with float16 originals, its write-ahead log left out.

    Args:
        pairs: at least 10 MiB of float16 vectors, or no index is built.
        dimension: numbers per vector.
        copy: none, int8 or 4-bit.
        folder: an empty one.
    """
    vector = edge.EdgeVectorParams(
        size=dimension, distance=edge.Distance.Cosine, datatype=edge.VectorStorageDatatype.Float16
    )
    config = edge.EdgeConfig(
        vectors={"image": vector, "text": vector},
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=100),
        quantization_config=COPIES[copy](),
    )
    shard = edge.EdgeShard.create(str(folder), config)
    rng = np.random.default_rng(0)
    for start in range(0, pairs, BATCH):
        count = min(BATCH, pairs - start)
        images, texts = rng.normal(size=(2, count, dimension)).astype(np.float32).tolist()
        points = [
            edge.Point(start + i, {"image": images[i], "text": texts[i]}, {"caption": CAPTION.format(start + i)})
            for i in range(count)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    indexed = shard.info().indexed_vectors_count
    shard.close()
    if indexed < 2 * pairs:
        raise SystemExit(f"only {indexed} of {2 * pairs} vectors were indexed: ask for more --pairs")
    files = [path for path in folder.rglob("*") if path.is_file() and "wal" not in path.relative_to(folder).parts]
    return sum(path.stat().st_blocks * 512 for path in files) / pairs  # blocks: files may have holes


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each quantised copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--dimension", type=int, default=512)
    told = parser.parse_args(arguments)
    print("| copy beside fp16 | measured | computed |\n|---|--:|--:|")
    for copy in COPIES:
        layout = replace(Layout(told.dimension, payload_bytes=len(CAPTION.format(0))), copy=copy)
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(told.pairs, told.dimension, copy, Path(folder))
        print(f"| {copy} | {measured:,.0f} B | {pair_bytes(layout).disk:,.0f} B |", flush=True)


if __name__ == "__main__":
    main()
