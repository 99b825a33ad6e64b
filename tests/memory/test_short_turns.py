"""The embedded engine is asked for a few queries at once, in the thread that asks: it holds Python's lock meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.config import MemoryOptions
from reco_plugin.memory import edge
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.types import Fingerprint, Records, Search

D, PAIRS = 8, 40
FINGERPRINT = Fingerprint("drawn", "ef" * 32, D)


def test_many_queries_are_asked_a_few_at_once_and_answered_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = np.random.default_rng(0).normal(size=(PAIRS, D))
    sides = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    asked, of_engine = list[int](), edge.qe.QueryBatchRequest

    def note(requests: list[Any]) -> Any:
        asked.append(len(requests))
        return of_engine(requests)

    monkeypatch.setattr(edge.qe, "QueryBatchRequest", note)
    memory = EdgeMemory.open(str(tmp_path / "memory"), FINGERPRINT, MemoryOptions(), create=True)
    memory.upsert(Records([f"pair-{row}" for row in range(PAIRS)], sides, sides, [{}] * PAIRS))
    found = memory.search(Search(sides, by="image", read="text", k=1))
    memory.close()
    assert [ids[0] for ids in found.ids] == [f"pair-{row}" for row in range(PAIRS)]
    assert (max(asked), sum(asked)) == (8, PAIRS)


def test_the_engine_gets_one_thread_with_which_the_one_that_asks_searches(tmp_path: Path):
    """Eight, one of which searched, looked for work after each search, on the cores of all others."""
    folder = tmp_path / "memory"
    config = folder / "shard" / "edge_config.json"
    EdgeMemory.open(str(folder), FINGERPRINT, MemoryOptions(), create=True).close()
    made = json.loads(config.read_text())
    assert made["max_search_threads"] == 1
    del made["max_search_threads"]  # as an older one has it
    config.write_text(json.dumps(made))
    EdgeMemory.open(str(folder), FINGERPRINT, MemoryOptions(), create=False).close()
    opened = json.loads(config.read_text())
    assert opened["max_search_threads"] == 1
