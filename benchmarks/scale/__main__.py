"""Measure, and print the tables or write them into the page."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..page import table, write_blocks
from . import __doc__ as about
from .process import BATCH, SEARCHES, WAYS
from .run import FILLED, Facts, Run, results

PAGE = Path("docs/measurements/million.md")
SHOWN = {"reference": "the reference (numpy)", "all pairs": "Qdrant Edge"}
_WRITING = (
    "memory of", "pairs", "D", "pairs/s", "per CPU second", "killed at", "of these lost", "opens then in",
    "after resuming", "bytes/pair", "of these not vectors", "log, once",
)  # fmt: skip
_SEARCHING = (
    "pairs", "D", "how", "search", "recall", "one query: p50", "p99", "CPU", f"in {BATCH}s, each: p50", "CPU",
    "opens in", "RAM: own", "with mapped files",
)  # fmt: skip
_INDEXING = (
    "pairs", "D", "index", "until it is in use", "CPU", "searches meanwhile, p50 / p99 / longest", "most RAM",
    "bytes/pair more",
)  # fmt: skip
_LEARNING = (
    "pairs",
    "D",
    "until there is a state",
    "CPU",
    "until all are judged",
    "CPU",
    "not judged",
    "most RAM",
    "load",
)


def tables(folder: Path) -> dict[str, str]:
    """By block of the page: all that was measured in a folder, smallest memories first."""
    sizes = sorted(tuple(map(int, path.parent.name.split("x"))) for path in folder.glob("*x*/results.json"))
    found = [(f"{n:,}", f"{d}", n, d, results(folder / f"{n}x{d}")) for n, d in sizes]
    writing, searching, indexing, learning = (list[list[str]]() for _ in range(4))
    for pairs, dimension, n, d, facts in found:
        writing += [[SHOWN[way], pairs, dimension, *cells] for way, cells in _filled(facts, n, d)]
        searching += [[pairs, dimension, *cells] for cells in _asked(facts)]
        indexing += [[pairs, dimension, *cells] for cells in _indexed(facts, n)]
        learning += [[pairs, dimension, *cells] for cells in _learned(facts)]
    return {
        "writing": table(_WRITING, writing),
        "searching": table(_SEARCHING, searching, left=4),
        "indexing": table(_INDEXING, indexing, left=3),
        "learning": table(_LEARNING, learning, left=0),
    }


def _filled(found: dict[str, Facts], pairs: int, dimension: int) -> Iterator[tuple[str, list[str]]]:
    """Filling, killed once on the way."""
    for way in FILLED:
        if (facts := found.get(f"fill {way}")) is None:
            continue
        equal, each = found.get(f"check {way}", {}).get("equal"), facts["disk_bytes"] / pairs
        yield way, [
            f"{facts['pairs_per_s']:,.0f}", f"{facts['pairs_per_cpu_s']:,.0f}", f"{facts['killed_at']:,}",
            f"{facts['lost']:,}", f"{facts['open_s']:.1f} s",
            {True: "all equal", False: "**differs**", None: "not checked"}[equal],
            f"{each:,.0f}", f"{each - 8 * dimension:,.0f}", f"{facts['log_bytes'] / 1e6:,.0f} MB",
        ]  # fmt: skip


def _asked(found: dict[str, Facts]) -> Iterator[list[str]]:
    """Recall against the reference, latencies and RAM."""
    for way in WAYS:
        for search in SEARCHES:
            if search not in (step := found.get(f"ask {way}", {})):
                continue
            facts, truth = step[search], found["ask reference"][search]["found"]
            yield [
                way, search, f"{recall(facts['found'], truth):.3f}",
                *(f"{ms:,.1f} ms" for ms in (*facts["single_ms"], facts["single_cpu_ms"])),
                *(f"{facts[name]:,.1f} ms" for name in ("batch_ms", "batch_cpu_ms")),
                f"{step['open_s']:.1f} s", *(f"{step[name] / 1000:.1f} GB" for name in ("rss_own_mb", "rss_mb")),
            ]  # fmt: skip


def _indexed(found: dict[str, Facts], pairs: int) -> Iterator[list[str]]:
    """What the indices took, the search index first."""
    before = found.get("check all pairs", {}).get("disk_bytes", 0)
    for step, name in (("index search index", "search index"), ("graph all pairs", "Edge's graph")):
        if (facts := found.get(step)) is not None:
            waits = " / ".join(f"{ms:.0f} ms" for ms in facts["meanwhile_ms"]) or "none"
            yield [
                name, f"{facts['index_s']:,.0f} s", f"{facts['index_cpu_s']:,.0f} s", waits,
                f"{facts['rss_peak_mb'] / 1000:.1f} GB", f"{(facts['disk_bytes'] - before) / pairs:+,.0f}",
            ]  # fmt: skip
            before = facts["disk_bytes"]


def _learned(found: dict[str, Facts]) -> Iterator[list[str]]:
    """What the first calibration took."""
    if (facts := found.get("learn all pairs")) is not None:
        spent = [f"{facts[name]:,.0f} s" for name in ("state_s", "state_cpu_s", "judged_s", "judged_cpu_s")]
        yield [*spent, f"{facts['left']:,}", f"{facts['rss_peak_mb'] / 1000:.1f} GB", f"{facts['load']:.1f}"]


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """The mean share of the right neighbours that were found, whatever their order."""
    hits = [len({*ids} & {*right}) / len(right) for ids, right in zip(found, truth, strict=True) if right]
    return sum(hits) / max(1, len(hits))


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the steps that are asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--graph", action="store_true", help="build Edge's own index too, which takes long")
    parser.add_argument("--learning", action="store_true", help="only fill a folder and learn from it")
    parser.add_argument("--folder", type=Path, required=True, help="keeps memories and results; about 10 kB per pair")
    parser.add_argument("--docs", action="store_true", help=f"measure nothing, write all that was into {PAGE}")
    told = parser.parse_args(arguments)
    if told.docs:
        write_blocks(PAGE, tables(told.folder))
        return
    begun = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {line}", flush=True)

    run = Run(told.pairs, told.dimension, told.folder / f"{told.pairs}x{told.dimension}", log)
    if told.learning:
        run.measure_learning()
    else:
        run.measure(graph=told.graph)
    print(*tables(told.folder).values(), sep="\n\n")


if __name__ == "__main__":
    main()
