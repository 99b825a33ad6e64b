"""What the process that writes a build takes for each pair: CPU time, and RAM for the ids that it has seen.

    reco export --model ViT-B-32 --random-weights --out .cache/ingest/vit-b-32
    python -m benchmarks.write_rate

Pairs of ready-made vectors (D = 512) go through ``reco_plugin.ingest`` into a memory behind gRPC: read, digested,
looked up, written. The server is the tests' stand-in, in a process of its own, so its time does not count, and what a
real one takes is not measured. docs/measurements/scale.md counts with the results.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from reco_plugin import Reco
from reco_plugin.data.opening import open_rows
from reco_plugin.ingest import IngestOptions, ingest
from reco_plugin.ingest.prepare import key_of
from reco_plugin.types import Records

from .stand_in import server
from .synthetic import Synthetic


def pairs_per_cpu_s(model: Path, pairs: int) -> float:
    """How many pairs this process writes in a second of a core."""
    with tempfile.TemporaryDirectory() as name, server("grpc") as url:
        folder = Path(name)
        source = folder / "arrays"
        source.mkdir()
        drawn = Records.join(list(Synthetic(pairs).records(0, pairs)), 512)
        for column, values in (("image", drawn.image), ("text", drawn.text), ("id", np.array(drawn.ids))):
            np.save(source / f"{column}.npy", values)
        lists = IngestOptions(source="shop", rejected=folder / "rejected.jsonl", listed=folder / "listed.jsonl")
        with Reco.open(model, url, on_memory_failure="fail") as reco:
            worked = time.process_time()
            outcome = ingest(open_rows(source), reco, lists)
            spent = time.process_time() - worked
    if outcome.added != pairs:
        raise SystemExit(f"{outcome.added} of {pairs} pairs were written")
    return pairs / spent


def bytes_per_id(ids: int = 500_000) -> float:
    """RAM for each id that a run has seen."""
    tracemalloc.start()
    seen = {key_of(f"pair-{number:09d}") for number in range(ids)}
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(seen)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(".cache/ingest/vit-b-32"), help="any with D = 512")
    parser.add_argument("--pairs", type=int, default=30_000)
    told = parser.parse_args()
    print(f"{pairs_per_cpu_s(told.model, told.pairs):,.0f} pairs per CPU second, {bytes_per_id():.0f} bytes per id")


if __name__ == "__main__":
    main()
