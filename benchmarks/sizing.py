"""How much RAM, disk, and how many machines a memory needs, and how long it takes to fill it; by arithmetic.

    python -m benchmarks.sizing                                         tables of docs/measurements/{sizing,scale}.md
    python -m benchmarks.sizing --pairs 5e6 --dimension 768             for your memory
    python -m benchmarks.sizing --rate 2000 --image-ms 4 --text-ms 1    for your encoder; `--encodes 900` pairs a second
    python -m benchmarks.sizing --measure                               bytes with Qdrant's own engine, a minute

What is not arithmetic is a constant marked "measured".
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .page import table

Copy = Literal["none", "int8", "4-bit"]
BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "4-bit": 0.5}
"""Of a number, in the originals or in the quantised copy."""
MODALITIES = 2  # a pair has a vector of its image and one of its text, each with an index
GIB, TIB = 2**30, 2**40

ID_BYTES = 24  # measured: Qdrant's table of ids, per pair
USABLE_RAM = 0.75  # the rest is for the system, the optimiser and answers under way
DISK_FACTOR = 2.0  # measured: while it optimises, Qdrant writes the new segment beside the old one
FEWEST_NODES = 3  # fewer cannot lose one and still agree

BUSY = 0.7  # how busy a replica may be on average; beyond, queues grow fast
FEWEST_REPLICAS = 2
IMAGE_GFLOP, TEXT_GFLOP = 8.8, 1.2  # of ViT-B/32, 16 tokens (77 take 5.9); the fusion adds 0.07 at most
GPU_SHARE = 0.3  # of a GPU's peak that such a model reaches: a guess
GPUS = {"L4": 121.0, "H100": 989.0}  # peak fp16 TFLOPS without sparsity, from NVIDIA's data sheets
MEASURED_MS = {  # ViT-B/32, random weights, batch 32, ONNX Runtime on 2 shared AVX-512 cores (text: on one)
    "image, fp32, 2 cores (measured)": 47.2,
    "image, int8, 2 cores (measured)": 17.7,
    "text of 16 tokens, fp32, 1 core (measured)": 16.5,
    "text of 16 tokens, int8, 1 core (measured)": 5.7,
}
DECODE_MS = {"256 px": (1.3, 22_600), "1200 × 800": (9.6, 314_000)}
"""Measured as of commit 76a34da (now `python -m benchmarks.speed preparing`): CPU ms to decode and resize; bytes."""
DRIVER_PER_S, DRIVER_BYTES = 2400.0, 170.0
"""Measured, likewise (now `… speed writing`): pairs per CPU second of the writing process, and its RAM per pair."""
INDEX_PAIRS, INDEX_CPU_S = 1_000_000, 1785.0
"""Measured, docs/measurements/million.md: CPU time of Qdrant's index, both vectors of so many pairs (D = 512)."""


@dataclass(frozen=True)
class Layout:
    """How vectors are kept."""

    dimension: int = 512  # numbers per vector
    originals: Literal["fp32", "fp16"] = "fp16"  # the stored vectors, which the fusion reads
    copy: Copy = "none"  # quantised, searched instead of the originals
    originals_in_ram: bool = True  # else they are read from an SSD, k of them per query
    links: int = 16  # HNSW's m; level 0 has twice as many
    payload_bytes: int = 256  # caption and everything else, per pair, on disk


LAYOUTS = {
    "fp32 in RAM": Layout(originals="fp32"),
    "fp16 in RAM": Layout(),
    "int8 copy in RAM, fp16 on SSD": Layout(copy="int8", originals_in_ram=False),
    "4-bit copy in RAM, fp16 on SSD": Layout(copy="4-bit", originals_in_ram=False),
}


@dataclass(frozen=True)
class PairBytes:
    """Bytes of one pair, both modalities together."""

    originals: float
    copy: float
    index: float
    payload: float
    ram: float
    disk: float


def pair_bytes(layout: Layout) -> PairBytes:
    """Add up one pair.

    The index is an upper bound: 2m links of 4 bytes at level 0, and m for each of the levels above, where a share of
    1/m, 1/m² … of the vectors is. Qdrant prunes and compresses them to about half.

    >>> pair_bytes(Layout(dimension=512)).originals
    2048.0
    """
    numbers = layout.dimension * MODALITIES
    originals = numbers * BYTES[layout.originals]
    copy = 0.0 if layout.copy == "none" else numbers * BYTES[layout.copy]
    index = MODALITIES * 4 * (2 * layout.links + layout.links / (layout.links - 1))
    ram = index + copy + ID_BYTES + (originals if layout.originals_in_ram else 0.0)
    disk = originals + copy + index + ID_BYTES + layout.payload_bytes
    return PairBytes(originals, copy, index, layout.payload_bytes, ram, disk)


@dataclass(frozen=True)
class Cluster:
    """What all nodes together must keep in RAM and provide as disk, all copies together, and how many there are."""

    ram_bytes: float
    disk_bytes: float
    nodes: int


def cluster(
    pairs: float, layout: Layout, copies: int = 2, node_ram_gib: float = 64, node_disk_gib: float = 1024
) -> Cluster:
    """Spread a memory over nodes of one size.

    >>> cluster(1e6, Layout()).nodes
    3
    """
    each = pair_bytes(layout)
    ram, disk = pairs * copies * each.ram, pairs * copies * each.disk * DISK_FACTOR
    needed = max(ram / (node_ram_gib * GIB * USABLE_RAM), disk / (node_disk_gib * GIB))
    return Cluster(ram, disk, max(FEWEST_NODES, copies, math.ceil(needed)))


def replicas(rate: float, item_ms: float) -> int:
    """Replicas of Triton that a rate of items per second keeps busy to 70 % at most, and never fewer than two.

    >>> replicas(rate=100, item_ms=17.7)  # 100 a second are 1.77 s of work a second, of which one replica does 0.7
    3
    """
    return max(FEWEST_REPLICAS, math.ceil(rate * item_ms / 1000 / BUSY))


def gpu_ms(gflop: float, peak_tflops: float) -> float:
    """Milliseconds of one item on a GPU, from its peak at the graph's precision."""
    return gflop / (peak_tflops * GPU_SHARE)


def items(image_ms: float | None = None, text_ms: float | None = None) -> dict[str, float]:
    """What an item costs: what was told, else what was measured and what arithmetic says of GPUs."""
    told = {"image": image_ms, "text": text_ms}
    if own := {name: ms for name, ms in told.items() if ms is not None}:
        return own
    guessed = {f"image, fp16, one {gpu} (arithmetic)": gpu_ms(IMAGE_GFLOP, peak) for gpu, peak in GPUS.items()}
    return MEASURED_MS | guessed


def encoders() -> dict[str, float]:
    """Pairs a second, each an image and a text of 16 tokens, by name of what encodes them."""
    image, text = (
        MEASURED_MS[f"{item} (measured)"] for item in ("image, int8, 2 cores", "text of 16 tokens, int8, 1 core")
    )
    found = {"2 cores, int8 (measured)": 1000 / (image + text / 2)}
    for gpu, peak in GPUS.items():
        found[f"one {gpu}, fp16 (arithmetic)"] = 1000 / gpu_ms(IMAGE_GFLOP + TEXT_GFLOP, peak)
    return found | {"8 H100, fp16 (arithmetic)": 8 * found["one H100, fp16 (arithmetic)"]}


def index_cpu_s(pairs: float) -> float:
    """CPU seconds of the index, taken to grow as N log N.

    >>> round(index_cpu_s(1_000_000))
    1785
    """
    return INDEX_CPU_S * pairs * math.log(pairs) / (INDEX_PAIRS * math.log(INDEX_PAIRS))


def bytes_table(pairs: Sequence[float], dimension: int, payload: int) -> str:
    """One copy of the memory, by what it holds."""
    each = pair_bytes(Layout(dimension, payload_bytes=payload))
    parts = {
        **{f"vectors, {name}": dimension * MODALITIES * size for name, size in BYTES.items()},
        "HNSW links, at most": each.index,
        "ids": float(ID_BYTES),
        "payload": each.payload,
    }
    rows = ([name, f"{size:,.0f} B", *(_size(count * size) for count in pairs)] for name, size in parts.items())
    return table(["one copy", "per pair", *map(_count, pairs)], rows)


def cluster_table(pairs: Sequence[float], told: argparse.Namespace) -> str:
    """RAM, disk and nodes of each layout."""
    ram, disk = told.node_ram_gib, told.node_disk_gib
    rows = []
    for count in pairs:
        for name, base in LAYOUTS.items():
            layout = replace(base, dimension=told.dimension, payload_bytes=told.payload_bytes)
            need = cluster(count, layout, told.copies, ram, disk)
            rows.append([f"{_count(count)}, {name}", _size(need.ram_bytes), _size(need.disk_bytes), f"{need.nodes}"])
    return table(
        [f"{told.copies} copies of each shard", "RAM", "disk", f"nodes of {ram:g} GiB, {disk:g} GiB disk"], rows
    )


def replica_table(rates: Sequence[float], items_ms: Mapping[str, float]) -> str:
    """Replicas of Triton for each rate of items per second."""
    rows = ([name, f"{ms:.2f}", *(f"{replicas(rate, ms)}" for rate in rates)] for name, ms in items_ms.items())
    return table(["per second", "ms per item", *(f"{rate:,.0f}" for rate in rates)], rows)


def encode_table(pairs: Sequence[float], known: Mapping[str, float]) -> str:
    """Time to encode, and the cores that decode meanwhile."""
    head = ["encoder", "pairs/s", *map(_count, pairs), *(f"cores that decode: {name}" for name in DECODE_MS)]
    rows = (
        [name, f"{per_s:,.0f}", *(duration(count / per_s) for count in pairs)]
        + [f"{per_s * ms / 1000:,.1f}" for ms, _ in DECODE_MS.values()]
        for name, per_s in known.items()
    )
    return table(head, rows)


def write_table(pairs: Sequence[float], nodes: Sequence[int], cores: int) -> str:
    """What else a build takes: the writer, its RAM, the index; and the source's bytes."""
    copies = [duration(2 * index_cpu_s(count) / (cores * many)) for count, many in zip(pairs, nodes, strict=True)]
    rows = [
        ["one writing process", *(duration(count / DRIVER_PER_S) for count in pairs)],
        ["its RAM", *(_bytes(count * DRIVER_BYTES) for count in pairs)],
        ["index, CPU hours", *(f"{index_cpu_s(count) / 3600:,.1f}" for count in pairs)],
        [f"index, nodes of {cores} cores", *map(str, nodes)],
        ["index, two copies of each shard", *copies],
        *([f"images of {name}", *(_bytes(count * size) for count in pairs)] for name, (_, size) in DECODE_MS.items()),
    ]
    return table(["", *map(_count, pairs)], rows)


def measured_table(pairs: int, dimension: int) -> str:
    """Bytes of a pair in Qdrant's own engine, beside what is computed, for each quantised copy."""
    rows, copies = [], ("none", "int8", "4-bit")
    for copy in copies:
        layout = Layout(dimension, copy=copy, payload_bytes=len(CAPTION.format(0)))  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            found = measure(pairs, layout, Path(folder))
        rows.append([copy, f"{found:,.0f} B", f"{pair_bytes(layout).disk:,.0f} B"])
    return table(["copy beside fp16", "measured", "computed"], rows)


CAPTION = "a caption of about sixty-four characters, for entry number {:9d}"


def measure(pairs: int, layout: Layout, folder: Path) -> float:
    """Bytes per pair of an indexed shard with float16 originals, its write-ahead log left out; from 10 MiB on.

    Vectors are random, which matters to the index alone, whose links Qdrant prunes by distance.
    """
    import numpy as np
    import qdrant_edge as edge

    copies: dict[Copy, Any] = {
        "none": None,
        "int8": edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8),
        "4-bit": edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4),
    }
    vector = edge.EdgeVectorParams(
        size=layout.dimension, distance=edge.Distance.Cosine, datatype=edge.VectorStorageDatatype.Float16
    )
    config = edge.EdgeConfig(
        vectors={"image": vector, "text": vector},
        hnsw_config=edge.HnswIndexConfig(m=layout.links, ef_construct=100, full_scan_threshold=100),
        quantization_config=copies[layout.copy],
    )
    shard, rng = edge.EdgeShard.create(str(folder), config), np.random.default_rng(0)
    for start in range(0, pairs, 1000):
        count = min(1000, pairs - start)
        images, texts = rng.normal(size=(2, count, layout.dimension)).astype(np.float32).tolist()
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
        raise SystemExit(f"only {indexed} of {2 * pairs} vectors were indexed: ask for more pairs")
    files = [path for path in folder.rglob("*") if path.is_file() and "wal" not in path.relative_to(folder).parts]
    return sum(path.stat().st_blocks * 512 for path in files) / pairs  # blocks: files may have holes


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(7200), duration(40), duration(864_000)
    ('2.0 h', '1 min', '10.0 d')
    """
    for unit, length in (("d", 86_400.0), ("h", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(1, seconds / 60):.0f} min"


def _size(count: float) -> str:
    return f"{count / TIB:,.1f} TiB" if count >= TIB else f"{count / GIB:,.1f} GiB"


def _bytes(size: float) -> str:
    return f"{size / 1e12:,.1f} TB" if size >= 1e12 else f"{size / 1e9:,.1f} GB"


def _count(pairs: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if pairs >= unit:
            return f"{pairs / unit:g} {name}"
    return f"{pairs:g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--payload-bytes", type=int, default=256)
    parser.add_argument("--copies", type=int, default=2, help="replicas of each shard")
    parser.add_argument("--node-ram-gib", type=float, default=64)
    parser.add_argument("--node-disk-gib", type=float, default=1024)
    parser.add_argument("--rate", type=float, nargs="+", default=[10, 100, 1000, 10000], help="items per second")
    parser.add_argument("--image-ms", type=float, help="of your image encoder, per image at a large batch")
    parser.add_argument("--text-ms", type=float)
    parser.add_argument("--encodes", type=float, help="pairs that your encoder makes in a second")
    parser.add_argument("--nodes", type=int, help="your Qdrant nodes; else as many as an int8 copy in RAM needs")
    parser.add_argument("--cores", type=int, default=16, help="of a node")
    parser.add_argument("--measure", action="store_true", help="bytes of 12,000 pairs, and print nothing else")
    told = parser.parse_args(arguments)
    if told.measure:
        print(measured_table(12_000, told.dimension))
        return
    layout = replace(LAYOUTS["int8 copy in RAM, fp16 on SSD"], dimension=told.dimension)
    nodes = [told.nodes or cluster(count, layout, told.copies).nodes for count in told.pairs]
    tables = (
        bytes_table(told.pairs, told.dimension, told.payload_bytes),
        cluster_table(told.pairs, told),
        replica_table(told.rate, items(told.image_ms, told.text_ms)),
        encode_table(told.pairs, {"yours": told.encodes} if told.encodes else encoders()),
        write_table(told.pairs, nodes, told.cores),
    )
    print(*tables, sep="\n\n")


if __name__ == "__main__":
    main()
