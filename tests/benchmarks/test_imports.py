"""Imports that try nothing twice, a small one of each kind; and that the driver would see what is lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from some_drawings import all_drawings

from benchmarks import imports

TEXTS = [json.dumps({"input": [f"thing number {n}"], "model": "clip"}).encode() for n in range(60)]


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    return imports.objects(all_drawings(), 600)


def test_one_object_a_request_loses_none_and_a_short_queue_does(bodies: list[bytes]) -> None:
    seen, _ = imports.one_a_request(bodies[:300])
    assert seen == {"200": 300}
    short, _ = imports.one_a_request(bodies[:300], "--queue", "8")
    assert short["429"] and short.total() == 300


def test_one_of_two_services_restarts_and_no_document_is_lost(bodies: list[bytes]) -> None:
    seen, restarts = imports.one_of_two_restarts(bodies)
    assert restarts >= 1
    assert seen == {"200": len(bodies)}


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_kept_connections_are_told_before_they_end(pause_s: float) -> None:
    assert imports.kept_while_it_stops(20, pause_s) == {"told to close, after its answer": 20}


def test_a_full_queue_is_tried_again_by_opensearch_in_every_dialect() -> None:
    asked = imports.queue_is_full(TEXTS, "/v1/embeddings", retries=100)  # ten are two seconds, short on a busy machine
    assert asked == Counter({"200": 60})
    assert imports.queue_is_full(TEXTS, "/v1/embeddings", retries=0)["429"]
