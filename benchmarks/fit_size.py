"""What ``reco fit`` takes of a catalogue that is far larger than a fit needs: seconds, memory, and what it uses.

    python -m benchmarks.fit_size                          # 10 M pairs, 15 GB of Parquet under .cache/fit-size
    python -m benchmarks.fit_size --pairs 1000000 --max-pairs 0

The pairs are synthetic vectors that lie as CLIP's do (benchmarks/synthetic.py), of the shipped model's dimension; the
column ``cluster`` says what a pair shows. What refinement gains on them means nothing: they are drawn, not seen.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.synthetic import Synthetic
from reco_plugin.artifact import Artifact
from reco_plugin.data import write_pairs
from reco_plugin.fit import FitResult

_SHARD = 1_000_000


def catalogue(pairs: int, dimension: int, folder: Path) -> str:
    """Shards of the catalogue, made where they are missing; returns their pattern."""
    made = Synthetic(pairs, dimension)
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, pairs, _SHARD):
        path = folder / f"{start // _SHARD:03d}.parquet"
        if not path.is_file():
            write_pairs(path, made.records(start, min(start + _SHARD, pairs)))
    return str(folder / "*.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000, help="of the catalogue")
    parser.add_argument("--max-pairs", type=int, default=200_000, help="as of reco fit")
    parser.add_argument("--fuser", default="auto", help="as of reco fit")
    parser.add_argument("--cache", type=Path, default=Path(".cache/fit-size"), help="catalogue and run")
    parser.add_argument("--model", default="triton_models", help="model folder")
    given = parser.parse_args()
    dimension = Artifact.load(given.model).manifest.dimension
    source = catalogue(given.pairs, dimension, given.cache / str(given.pairs))
    out = given.cache / f"run-{given.pairs}-{given.max_pairs}-{given.fuser}"
    shutil.rmtree(out, ignore_errors=True)
    words = ["fit", source, "--model", given.model, "--group", "cluster", "--fuser", given.fuser]
    command = [sys.executable, "-m", "reco_plugin", *words, "--max-pairs", str(given.max_pairs), "--out", str(out)]
    begun = time.monotonic()
    subprocess.run(command, check=True)
    seconds, peak = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    used = FitResult.read(out).counts
    print(
        f"{given.pairs:,} rows of {dimension} dimensions, {used['pairs']:,} used in {used['groups']:,} groups: "
        f"{seconds:,.0f} s, {peak:.1f} GiB at most"
    )


if __name__ == "__main__":
    main()
