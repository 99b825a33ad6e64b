"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..markdown import table
from .process import BATCH, K
from .run import EFS, KINDS, Facts, results

SHOWN = {"exact": "the reference (numpy)", "edge": "Qdrant Edge"}
_WRITING = (
    "memory of", "pairs", "D", "pairs/s", "per CPU second", "killed at", "of these lost", "opens then in",
    "after resuming", "bytes/pair", "of these not vectors", "log, once",
)  # fmt: skip
_SEARCHING = (
    "memory of", "pairs", "D", "search", f"recall@{K}", "one query: p50", "p99", "CPU",
    f"in {BATCH}s, each: p50", "CPU", "opens in", "RAM: own", "with mapped files",
)  # fmt: skip


def measured(folder: Path) -> list[tuple[int, int, dict[str, Facts]]]:
    """Pairs, dimension and results of all that was measured in a folder, smallest first."""
    found = []
    for path in folder.glob("*x*/results.json"):
        pairs, dimension = path.parent.name.split("x")
        found.append((int(pairs), int(dimension), results(path.parent)))
    return sorted(found, key=lambda size: size[:2])


def writing(folder: Path) -> str:
    """Filling, killed once on the way."""
    rows = []
    for pairs, dimension, found in measured(folder):
        for kind in KINDS:
            if (facts := found.get(f"{kind} fill")) is None:
                continue
            check = found.get(f"{kind} check", {}).get("equal")
            each = facts["disk_bytes"] / pairs
            rows.append([
                SHOWN[kind], f"{pairs:,}", str(dimension), f"{facts['pairs_per_s']:,.0f}",
                f"{facts['pairs_per_cpu_s']:,.0f}", f"{facts['killed_at']:,}", f"{facts['lost']:,}",
                f"{facts['open_s']:.1f} s", {True: "all equal", False: "**differs**", None: "not checked"}[check],
                f"{each:,.0f}", f"{each - 8 * dimension:,.0f}", f"{facts['log_bytes'] / 1e6:,.0f} MB",
            ])  # fmt: skip
    return table(_WRITING, rows, left=1)


def searching(folder: Path) -> str:
    """Recall against the reference, latencies and RAM."""
    rows = []
    for pairs, dimension, found in measured(folder):
        truth = found.get("exact ask", {}).get("found")
        asked = [("exact ask", "exact", "all pairs"), ("edge ask", "edge", "all pairs")]
        asked += [(f"edge ask {ef}", "edge", f"index, ef {ef}") for ef in EFS]
        for step, kind, how in asked:
            if (facts := found.get(step)) is None:
                continue
            right = "" if truth is None else f"{recall(facts['found'], truth):.3f}"
            rows.append([
                SHOWN[kind], f"{pairs:,}", str(dimension), how, right,
                *(f"{ms:,.1f} ms" for ms in (*facts["single_ms"], facts["single_cpu_ms"])),
                *(f"{facts[name] / BATCH:,.1f} ms" for name in ("batch_ms", "batch_cpu_ms")),
                f"{_opening(found, kind):.1f} s",
                *(f"{facts[name] / 1000:.1f} GB" for name in ("rss_own_mb", "rss_mb")),
            ])  # fmt: skip
    return table(_SEARCHING, rows, left=4)


def indexing(folder: Path) -> str:
    """What the index took."""
    rows = []
    for pairs, dimension, found in measured(folder):
        if (facts := found.get("edge index")) is not None:
            each = (facts["disk_bytes"] - found["edge fill"]["disk_bytes"]) / pairs
            rows.append([
                f"{pairs:,}", str(dimension), f"{facts['index_s']:,.0f} s", f"{facts['index_cpu_s']:,.0f} s",
                f"{facts['rss_peak_mb'] / 1000:.1f} GB", f"{each:+,.0f}",
            ])  # fmt: skip
    head = ("pairs", "D", "building the index", "CPU", "most RAM", "bytes/pair more")
    return table(head, rows, left=0) if rows else "The index was not built."


def swapping(folder: Path) -> str:
    """A filled memory put to use behind a reader's back."""
    rows = []
    for pairs, dimension, found in measured(folder):
        for kind in KINDS:
            if (facts := found.get(f"{kind} swap")) is None:
                continue
            rows.append([
                SHOWN[kind], f"{pairs:,}", str(dimension), f"{facts['finish_s']:.1f} s", f"{facts['use_s']:.1f} s",
                f"{facts['asked']:,}", f"{facts['failed']:,}", f"{facts['slowest_ms']:,.0f} ms",
                f"{facts['after']:,}", f"{facts['rollback_s']:.1f} s", f"{facts['after_rollback']:,}",
            ])  # fmt: skip
    head = (
        "memory of", "pairs", "D", "verify", "swap", "searches of a reader meanwhile", "failed", "slowest",
        "pairs under the name then", "roll back", "pairs then",
    )  # fmt: skip
    return table(head, rows, left=1)


def _opening(found: Mapping[str, Facts], kind: str) -> float:
    """The fastest of all openings that were measured: others waited for the disk or for other processes."""
    return min(float(facts["open_s"]) for step, facts in found.items() if step.startswith(kind) and "swap" not in step)


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """The mean share of the right neighbours that were found, whatever their order."""
    hits = [len({*ids} & {*right}) / len(right) for ids, right in zip(found, truth, strict=True)]
    return sum(hits) / len(hits)


def page(template: str, folder: Path, compared: str) -> str:
    """The page of the docs."""
    parts = {
        "GEOMETRY": compared,
        "WRITING": writing(folder),
        "SEARCHING": searching(folder),
        "INDEXING": indexing(folder),
        "SWAPPING": swapping(folder),
    }
    for name, part in parts.items():
        template = template.replace(f"<!-- {name} -->", part)
    return template
