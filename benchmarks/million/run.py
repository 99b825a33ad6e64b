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

from .process import Kind

KILL_AT = 0.6
"""Share of the pairs after which filling is killed; the reference, which writes its file four times, loses some."""
KINDS: tuple[Kind, ...] = ("exact", "edge")
EFS = (64, 128, 256, 512)
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

    def measure(self, *, index: bool) -> None:
        """Take every step that was not taken; the index is Edge's alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            self._keep(f"{kind} fill", partial(self._fill, kind))
            for step in ("check", "ask", "swap"):
                self._keep(f"{kind} {step}", partial(self._step, step, kind))
        if index:
            self._keep("edge index", partial(self._step, "index", "edge"))
            for ef in EFS:
                self._keep(f"edge ask {ef}", partial(self._step, "ask", "edge", ef))

    def _keep(self, step: str, take: Callable[[], Facts]) -> None:
        if step in (known := results(self.folder)):
            return
        facts = take() | {"load": os.getloadavg()[0]}
        with whole_file(self.folder / "results.json") as part:
            part.write_text(json.dumps(known | {step: facts}))
        self.log(f"{step}: " + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "found"))

    def _step(self, step: str, kind: Kind, search_ef: int | None = None) -> Facts:
        told: Facts = {}
        for _, facts in self._process(step, kind, search_ef):
            told |= facts
        return told | disk_bytes(self.folder / kind)

    def _fill(self, kind: Kind) -> Facts:
        """Fill a memory, kill that on the way, and go on."""
        first: Facts = {}
        for process, facts in self._process("fill", kind):
            first |= facts
            self._progress(kind, facts)
            if "written" not in first and first.get("rows", 0) >= KILL_AT * self.pairs:
                process.kill()
                break
        second: Facts = {}
        for _, facts in self._process("fill", kind):
            second |= facts
            self._progress(kind, facts)
        written = first["rows"] - first["resumed"] + second["written"]
        measured = {
            "killed_at": first["rows"],
            "lost": first["rows"] - second["resumed"],
            "pairs_per_s": written / (first["store_s"] + second["store_s"]),
            "pairs_per_cpu_s": written / (first["store_cpu_s"] + second["store_cpu_s"]),
        }
        return second | measured | disk_bytes(self.folder / kind)

    def _progress(self, kind: Kind, facts: Facts) -> None:
        if "resumed" in facts:
            self.log(f"{kind} holds {facts['resumed']:,} of {self.pairs:,} pairs")
        elif facts.get("rows", 1) % (self.pairs // 20) == 0:
            self.log(f"{kind}: {facts['rows']:,} pairs, the store took {facts['store_s']:.0f} s")

    def _process(
        self, step: str, kind: Kind, search_ef: int | None = None
    ) -> Iterator[tuple[subprocess.Popen[str], Facts]]:
        """The facts that a process of its own prints, as they come.

        Raises:
            SystemExit: the step failed.
        """
        words = [step, kind, self.folder / kind, self.pairs, self.dimension, *([search_ef] if search_ef else [])]
        module = "swap" if step == "swap" else "process"
        command = [sys.executable, "-m", f"benchmarks.million.{module}", *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield process, json.loads(line)
        if process.returncode:
            raise SystemExit(f"step {step!r} of the {kind} memory failed")


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
