"""How long it takes to fill a memory of some size, and what one run needs: the tables of docs/measurements/scale.md.

    python -m benchmarks.scale                                  the tables of docs/measurements/scale.md
    python -m benchmarks.scale --pairs 5e7 --encodes 900        your size, your encoder's pairs per second
    python -m benchmarks.scale --nodes 12 --cores 32            your Qdrant nodes

Arithmetic but for the constants marked "measured".
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markdown import table
from .sizing import GPUS, IMAGE_GFLOP, MEASURED_MS, Layout, cluster, gpu_ms

TEXT_GFLOP = 1.2  # of ViT-B/32's text tower at 16 tokens: 77 take 5.9
DECODE_MS = {"256 px": (1.3, 22_600), "1200 × 800": (9.6, 314_000)}
"""Measured, `python -m benchmarks.scale --decode`: CPU ms to decode and resize a JPEG, and its bytes."""
DRIVER_PER_S = 2400.0
"""Measured, `python -m benchmarks.write_rate`: pairs (D = 512) per CPU second of the writing process, by gRPC."""
DRIVER_BYTES = 170.0
"""Of RAM per pair in the writing process: 70 for the ids it saw (measured there), 100 while it reads what is there."""
INDEX_PAIRS, INDEX_CPU_S = 1_000_000, 1785.0
"""Measured, docs/measurements/million.md: CPU time of Qdrant's index, both vectors of so many pairs (D = 512)."""
SECONDS = {"d": 86_400.0, "h": 3600.0, "min": 60.0}


@dataclass(frozen=True)
class Encoder:
    """What encodes.

    Attributes:
        name: with how its rate is known.
        per_s: pairs a second; each is an image and a text of 16 tokens.
    """

    name: str
    per_s: float


def encoders() -> list[Encoder]:
    """The machines of docs/measurements/sizing.md, per pair."""
    image, text = (
        MEASURED_MS[f"{item} (measured)"] for item in ("image, int8, 2 cores", "text of 16 tokens, int8, 1 core")
    )
    known = [Encoder("2 cores, int8 (measured)", 1000 / (image + text / 2))]
    for gpu, peak in GPUS.items():
        known.append(Encoder(f"one {gpu}, fp16 (arithmetic)", 1000 / gpu_ms(IMAGE_GFLOP + TEXT_GFLOP, peak)))
    return [*known, Encoder("8 H100, fp16 (arithmetic)", 8 * known[-1].per_s)]


def index_cpu_s(pairs: float) -> float:
    """CPU seconds of the index, taken to grow as N log N.

    >>> round(index_cpu_s(1_000_000))
    1785
    """
    return INDEX_CPU_S * pairs * math.log(pairs) / (INDEX_PAIRS * math.log(INDEX_PAIRS))


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(7200), duration(40), duration(864_000)
    ('2.0 h', '1 min', '10.0 d')
    """
    unit = next((unit for unit, length in SECONDS.items() if seconds >= 2 * length), "min")
    return f"{seconds / SECONDS[unit]:.1f} {unit}" if unit != "min" else f"{max(1, seconds / 60):.0f} min"


def encode_table(pairs: Sequence[float], known: Sequence[Encoder]) -> str:
    """Time to encode, and the cores that decode meanwhile."""
    head = ["encoder", "pairs/s", *map(_count, pairs), *(f"cores that decode: {name}" for name in DECODE_MS)]
    rows = [
        [
            each.name,
            f"{each.per_s:,.0f}",
            *(duration(count / each.per_s) for count in pairs),
            *(f"{each.per_s * ms / 1000:,.1f}" for ms, _ in DECODE_MS.values()),
        ]
        for each in known
    ]
    return table(head, rows)


def write_table(pairs: Sequence[float], nodes: Sequence[int], cores: int) -> str:
    """What else a build takes: the writer, its RAM, the index; and the source's bytes."""
    rows = [
        ["one writing process", *(duration(count / DRIVER_PER_S) for count in pairs)],
        ["its RAM", *(_bytes(count * DRIVER_BYTES) for count in pairs)],
        ["index, CPU hours", *(f"{index_cpu_s(count) / 3600:,.1f}" for count in pairs)],
        [f"index, nodes of {cores} cores", *map(str, nodes)],
        ["index, two copies of each shard",
         *(duration(2 * index_cpu_s(count) / (cores * many)) for count, many in zip(pairs, nodes, strict=True))],
        *([f"images of {name}", *(_bytes(count * size) for count in pairs)] for name, (_, size) in DECODE_MS.items()),
    ]  # fmt: skip
    return table(["", *map(_count, pairs)], rows)


def nodes_for(pairs: float) -> int:
    """Qdrant nodes of docs/measurements/sizing.md: an int8 copy in RAM, fp16 on SSD, two copies, 64 GiB."""
    return cluster(pairs, Layout(copy="int8", originals_in_ram=False)).nodes


def decode() -> str:
    """Measure what an image costs before it is encoded."""
    import io
    import time

    import numpy as np
    from PIL import Image

    lines = []
    rng = np.random.default_rng(0)
    for size in ((256, 256), (1200, 800)):
        smooth = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)).resize(size)
        noise = rng.normal(scale=6, size=(size[1], size[0], 3))
        file = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        begun = time.process_time()
        for _ in range(50):
            image = Image.open(file).convert("RGB")
            side = min(size)
            image.resize((224, 224), Image.Resampling.BICUBIC, box=(0, 0, side, side))
        each = (time.process_time() - begun) / 50
        lines.append(f"{size[0]} x {size[1]}, {len(file.getvalue()):,} bytes: {1000 * each:.1f} ms of a core")
    return "\n".join(lines)


def _count(pairs: float) -> str:
    return f"{pairs / 1e9:g} B" if pairs >= 1e9 else f"{pairs / 1e6:g} M"


def _bytes(size: float) -> str:
    return f"{size / 1e12:,.1f} TB" if size >= 1e12 else f"{size / 1e9:,.1f} GB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--encodes", type=float, help="pairs that your encoder makes in a second")
    parser.add_argument("--nodes", type=int, help="Qdrant nodes; else those of docs/measurements/sizing.md")
    parser.add_argument("--cores", type=int, default=16, help="of a node")
    parser.add_argument("--decode", action="store_true", help="measure decoding, print nothing else")
    told = parser.parse_args(arguments)
    if told.decode:
        print(decode())
        return
    known = encoders() if told.encodes is None else [Encoder("yours", told.encodes)]
    print(encode_table(told.pairs, known), end="\n\n")
    print(write_table(told.pairs, [told.nodes or nodes_for(count) for count in told.pairs], told.cores))


if __name__ == "__main__":
    main()
