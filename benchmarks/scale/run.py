"""Run the steps one after the other, each in a process that can be killed, and keep what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reco_plugin.files import whole_file

from .process import WAYS

KILL_AT = 0.6
"""Share of the pairs after which filling is killed; the reference, which writes its file four times, loses some."""
FILLED = ("reference", "all pairs")
Facts = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The measurement of so many pairs of a dimension.

    Attributes:
        pairs: N.
        dimension: D.
        folder: for the memories and ``results.json``, which is filled step by step.
        log: told what happens.
    """

    pairs: int
    dimension: int
    folder: Path
    log: Callable[[str], None]

    def measure_learning(self) -> None:
        """Fill the embedded memory and learn from it, unless that was done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep("fill all pairs", partial(self._fill, "all pairs"))
        self._keep("learn all pairs", partial(self._step, "learn", "all pairs"))

    def measure(self, *, graph: bool) -> None:
        """Take every step that was not taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for way in FILLED:
            self._keep(f"fill {way}", partial(self._fill, way))
            self._keep(f"check {way}", partial(self._step, "check", way))
            self._keep(f"ask {way}", partial(self._step, "ask", way))
        self._keep("learn all pairs", partial(self._step, "learn", "all pairs"))
        self._keep("index search index", partial(self._step, "index", "search index"))
        self._keep("ask search index", partial(self._step, "ask", "search index"))
        if graph:
            self._keep("graph all pairs", partial(self._step, "graph", "all pairs"))
            for way in list(WAYS)[3:]:
                self._keep(f"ask {way}", partial(self._step, "ask", way))

    def _keep(self, step: str, take: Callable[[], Facts]) -> None:
        if step in (known := results(self.folder)):
            return
        facts = take() | {"load": os.getloadavg()[0]}
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(known | {step: facts}))
        self.log(f"{step}: " + ", ".join(f"{k} {v}" for k, v in facts.items() if not isinstance(v, dict)))

    def _step(self, step: str, way: str) -> Facts:
        told: Facts = {}
        for _, facts in self._process(step, way):
            told |= facts
        return told | disk_bytes(self._place(way))

    def _fill(self, way: str) -> Facts:
        """Fill a memory, kill that on the way, and go on."""
        first: Facts = {}
        for process, facts in self._process("fill", way):
            first |= facts
            if "written" not in first and first.get("rows", 0) >= KILL_AT * self.pairs:
                process.kill()
                break
        self.log(f"{way}: killed at {first['rows']:,} pairs")
        second: Facts = {}
        for _, facts in self._process("fill", way):
            second |= facts
        written = first["rows"] - first["resumed"] + second["written"]
        measured = {
            "killed_at": first["rows"],
            "lost": first["rows"] - second["resumed"],
            "pairs_per_s": written / (first["store_s"] + second["store_s"]),
            "pairs_per_cpu_s": written / (first["store_cpu_s"] + second["store_cpu_s"]),
        }
        return second | measured | disk_bytes(self._place(way))

    def _place(self, way: str) -> Path:
        return self.folder / WAYS[way][0]

    def _process(self, step: str, way: str) -> Iterator[tuple[subprocess.Popen[str], Facts]]:
        """The facts that a process of its own prints, as they come.

        Raises:
            SystemExit: the step failed.
        """
        words = [step, way, self._place(way), self.pairs, self.dimension]
        command = [sys.executable, "-m", "benchmarks.scale.process", *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield process, json.loads(line)
        if process.returncode:
            raise SystemExit(f"step {step!r} of {way!r} failed")


def results(folder: Path) -> dict[str, Facts]:
    """What was measured in a folder, by step."""
    path = folder / "results.json"
    found: dict[str, Facts] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def disk_bytes(folder: Path) -> Facts:
    """Blocks that the files of a memory take, which may have holes; the write-ahead log's apart."""
    files = {path: path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()}
    log = sum(size for path, size in files.items() if "wal" in path.relative_to(folder).parts)
    return {"disk_bytes": sum(files.values()) - log, "log_bytes": log}
