"""Put a filled memory to use under a name that a reader has open, and go back; a step in a process of its own.

::

    python -m benchmarks.million.swap swap KIND FOLDER PAIRS DIMENSION
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from reco_plugin.memory import open_memory
from reco_plugin.memory.versions import FolderVersions
from reco_plugin.request import Search

from ..synthetic import BLOCK, Synthetic
from .process import K, Kind, fingerprint_of, resident

SMALL = BLOCK
"""Pairs of the version that the filled one replaces."""


def swap(kind: Kind, folder: Path, catalogue: Synthetic) -> dict[str, Any]:
    """Measure it; the memory is in its folder again afterwards."""
    name, fingerprint = folder.with_name(f"{folder.name}-served"), fingerprint_of(catalogue.dimension)
    versions = FolderVersions(name)
    old = versions.begin(fingerprint)
    with_old = open_memory(versions.folder(old), fingerprint, kind=kind)
    with_old.upsert(next(Synthetic(SMALL, catalogue.dimension, seed=1).records(0, SMALL)))
    with_old.close()
    versions.finish(old, SMALL, fingerprint)
    versions.use(old)
    new = versions.begin(fingerprint)
    folder.rename(versions.folder(new))
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.million.swap", "watch", str(name), str(catalogue.dimension)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as reader:  # fmt: skip
            assert reader.stdin is not None and reader.stdout is not None
            reader.stdout.readline()  # it has begun
            finish_s, _ = _timed(lambda: versions.finish(new, catalogue.pairs, fingerprint))
            use_s, _ = _timed(lambda: versions.use(new))
            reader.stdin.close()
            facts = json.loads(reader.stdout.readline())
        open_s, after = _timed(lambda: _count(name))
        rollback_s, _ = _timed(versions.rollback)
        counts = {"after": after, "after_rollback": _count(name)}
        return {**facts, **counts, "finish_s": finish_s, "use_s": use_s, "open_s": open_s, "rollback_s": rollback_s}
    finally:
        versions.folder(new).rename(folder)
        name.unlink()
        shutil.rmtree(versions.folder(old))


def watch(name: Path, dimension: int) -> None:
    """Search the memory of this name over and over, until nobody wants it any more; then tell how that went."""
    query = Synthetic(SMALL, dimension, seed=1).queries(1).image
    store = open_memory(name, fingerprint_of(dimension), create=False)
    store.search(Search(query, by="image", read="text", k=K))
    print("ready", flush=True)
    asked = failed = 0
    slowest = 0.0
    stop = _closed(sys.stdin)
    while not stop():
        seconds, found = _timed(lambda: store.search(Search(query, by="image", read="text", k=K)))
        asked, slowest = asked + 1, max(slowest, seconds)
        failed += len(found.ids[0]) != K
    store.close()
    print(json.dumps({"asked": asked, "failed": failed, "slowest_ms": slowest * 1000}), flush=True)


def _closed(stream: Any) -> Callable[[], bool]:
    """Whether a stream has come to its end, found out in a thread."""
    thread = threading.Thread(target=stream.read, daemon=True)
    thread.start()
    return lambda: not thread.is_alive()


def _count(name: Path) -> int:
    store = open_memory(name, None, create=False)
    try:
        return store.count()
    finally:
        store.close()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main() -> None:
    """Swap, or be the reader."""
    if sys.argv[1] == "watch":
        watch(Path(sys.argv[2]), int(sys.argv[3]))
        return
    kind, folder, pairs, dimension = sys.argv[2:]
    facts = swap(cast(Kind, kind), Path(folder), Synthetic(int(pairs), int(dimension)))
    print(json.dumps(facts | resident()), flush=True)


if __name__ == "__main__":
    main()
