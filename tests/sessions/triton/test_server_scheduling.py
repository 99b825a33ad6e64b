"""Requests of several callers merge on the server, also where captions differ in length."""

from __future__ import annotations

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

from reco_plugin.config import load_settings
from reco_plugin.sessions import open_graph

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]

CALLERS, EACH = 16, 8


class Counts(NamedTuple):
    """Of one model since the server started."""

    rows: int
    runs: int


def counts(server: Any, graph: str) -> Counts:
    with urllib.request.urlopen(f"{server.http}/v2/models/{graph}/stats") as reply:
        stats = json.load(reply)["model_stats"][0]
    return Counts(stats["inference_count"], stats["execution_count"])


def together(work: Any) -> list[Any]:
    """Each caller does its share of the work; all begin at once."""
    barrier = threading.Barrier(CALLERS)

    def caller(number: int) -> list[Any]:
        barrier.wait()
        return [work(number * EACH + i) for i in range(EACH)]

    with ThreadPoolExecutor(CALLERS) as pool:
        return [result for results in pool.map(caller, range(CALLERS)) for result in results]


def test_concurrent_requests_merge_and_each_gets_its_own_result(server, artifact, fusion_inputs):
    session = open_graph(artifact, "paper_text", load_settings(triton_url=server.grpc))
    inputs = [fusion_inputs(1, 10, seed=seed) for seed in range(CALLERS * EACH)]
    before = counts(server, "paper_text")
    found = together(lambda i: session.run(inputs[i])["refined"])
    after = counts(server, "paper_text")
    rows, runs = after.rows - before.rows, after.runs - before.runs
    assert rows == CALLERS * EACH
    assert rows / runs > 1
    alone = open_graph(artifact, "paper_text", load_settings())
    for each, result in zip(inputs, found, strict=True):
        np.testing.assert_allclose(result, alone.run(each)["refined"], rtol=0, atol=1e-5)
