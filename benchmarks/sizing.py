"""How much RAM, disk and how many nodes a memory needs, and how many replicas of Triton a rate of queries.

    python -m benchmarks.sizing                                    the tables of docs/measurements/sizing.md
    python -m benchmarks.sizing --pairs 5e6 --dimension 768        for your memory
    python -m benchmarks.sizing --rate 2000 --image-ms 4 --text-ms 1    for your encoder

Arithmetic but for the constants marked "measured"; ``python -m benchmarks.memory_bytes`` measures bytes with Qdrant's
own engine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .markdown import table

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
IMAGE_GFLOP = 8.8  # of ViT-B/32; the fusion adds 0.07 at most
GPU_SHARE = 0.3  # of a GPU's peak that such a model reaches: a guess


@dataclass(frozen=True)
class Layout:
    """How vectors are kept.

    Attributes:
        dimension: numbers per vector.
        originals: type of the stored vectors, which the fusion reads.
        copy: quantised copy that is searched instead of the originals.
        originals_in_ram: else they are read from an SSD, k of them per query.
        links: HNSW's m; level 0 has twice as many links.
        payload_bytes: caption and everything else, per pair, on disk.
    """

    dimension: int = 512
    originals: Literal["fp32", "fp16"] = "fp16"
    copy: Copy = "none"
    originals_in_ram: bool = True
    links: int = 16
    payload_bytes: int = 256


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
    return PairBytes(
        originals, copy, index, layout.payload_bytes, ram, originals + copy + index + ID_BYTES + layout.payload_bytes
    )


@dataclass(frozen=True)
class Cluster:
    """What all nodes together hold, and how many there are.

    Attributes:
        ram_bytes: that must stay in RAM, all copies together.
        disk_bytes: to provide, all copies together, with room for the optimiser.
        nodes: that these need.
    """

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


def _size(count: float) -> str:
    return f"{count / TIB:,.1f} TiB" if count >= TIB else f"{count / GIB:,.1f} GiB"


def _count(pairs: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if pairs >= unit:
            return f"{pairs / unit:g} {name}"
    return f"{pairs:g}"


LAYOUTS = {
    "fp32 in RAM": Layout(originals="fp32"),
    "fp16 in RAM": Layout(),
    "int8 copy in RAM, fp16 on SSD": Layout(copy="int8", originals_in_ram=False),
    "4-bit copy in RAM, fp16 on SSD": Layout(copy="4-bit", originals_in_ram=False),
}


def bytes_table(pairs: Sequence[float], dimension: int, payload: int) -> str:
    """One copy of the memory, by what it holds."""
    each = pair_bytes(Layout(dimension, payload_bytes=payload))
    parts = {
        **{f"vectors, {name}": dimension * MODALITIES * size for name, size in BYTES.items()},
        "HNSW links, at most": each.index,
        "ids": float(ID_BYTES),
        "payload": each.payload,
    }
    head = ["one copy", "per pair", *map(_count, pairs)]
    return table(
        head, ([name, f"{size:,.0f} B", *(_size(count * size) for count in pairs)] for name, size in parts.items())
    )


def cluster_table(
    pairs: Sequence[float], dimension: int, payload: int, copies: int, ram_gib: float, disk_gib: float
) -> str:
    """RAM, disk and nodes of each layout."""
    rows = []
    for count in pairs:
        for name, base in LAYOUTS.items():
            layout = Layout(dimension, base.originals, base.copy, base.originals_in_ram, base.links, payload)
            need = cluster(count, layout, copies, ram_gib, disk_gib)
            rows.append([f"{_count(count)}, {name}", _size(need.ram_bytes), _size(need.disk_bytes), f"{need.nodes}"])
    return table(
        [f"{copies} copies of each shard", "RAM", "disk", f"nodes of {ram_gib:g} GiB, {disk_gib:g} GiB disk"], rows
    )


def replica_table(rates: Sequence[float], items_ms: dict[str, float]) -> str:
    """Replicas of Triton for each rate of items per second."""
    head = ["per second", "ms per item", *(f"{rate:,.0f}" for rate in rates)]
    return table(
        head, ([name, f"{ms:.2f}", *(f"{replicas(rate, ms)}" for rate in rates)] for name, ms in items_ms.items())
    )


MEASURED_MS = {  # ViT-B/32, random weights, batch 32, ONNX Runtime on 2 shared AVX-512 cores (text: on one)
    "image, fp32, 2 cores (measured)": 47.2,
    "image, int8, 2 cores (measured)": 17.7,
    "text of 16 tokens, fp32, 1 core (measured)": 16.5,
    "text of 16 tokens, int8, 1 core (measured)": 5.7,
}
GPUS = {"L4": 121.0, "H100": 989.0}  # peak fp16 TFLOPS without sparsity, from NVIDIA's data sheets


def items(image_ms: float | None = None, text_ms: float | None = None) -> dict[str, float]:
    """What an item costs: what was told, else what was measured and what arithmetic says of GPUs."""
    told = {"image": image_ms, "text": text_ms}
    if own := {name: ms for name, ms in told.items() if ms is not None}:
        return own
    guessed = {f"image, fp16, one {gpu} (arithmetic)": gpu_ms(IMAGE_GFLOP, peak) for gpu, peak in GPUS.items()}
    return MEASURED_MS | guessed


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
    told = parser.parse_args(arguments)
    print(bytes_table(told.pairs, told.dimension, told.payload_bytes), end="\n\n")
    sizes = (told.payload_bytes, told.copies, told.node_ram_gib, told.node_disk_gib)
    print(cluster_table(told.pairs, told.dimension, *sizes), end="\n\n")
    print(replica_table(told.rate, items(told.image_ms, told.text_ms)))


if __name__ == "__main__":
    main()
