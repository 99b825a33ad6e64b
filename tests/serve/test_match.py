"""`POST /v1/match`: which results of an index are right, and the threshold of an engine."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from reco_plugin.client import Client

LEARNED = {"weights": [20.0, 0.0, 0.0, -6.0], "cuts": [0.9, 0.5], "holds": [0.95, 0.9], "passes": [0.3, 0.5]}
QUERY = "circle red small"
ROWS = ["small-red-circle", "large-red-circle", "large-blue-square"]


@pytest.fixture
def taught(filled):
    """A memory that knows how sure answers to plain texts are: from a cosine of .3 on, nine of ten are right."""
    store = filled.memory.store
    sides = {"text": {"plain": [LEARNED] * 5, "things": 24}}
    store.set_calibration({**store.header.calibration, "confidence": sides})
    return filled


def test_results_are_judged_by_scores_or_ids(taught, served):
    plain = taught.embed_texts([QUERY], refine=False)[0]
    pairs = taught.memory.get(ROWS)
    own = dict(zip(pairs.ids, (pairs.image @ plain).tolist(), strict=True))
    results = [{"id": name} for name in sorted(own, key=own.__getitem__, reverse=True)]
    with served(taught) as client:
        body = {"input": [{"text": QUERY}] * 2, "refine": False, "documents": 40}
        both = [results, [{"score": 0.6}, {"score": 0.31}, {"score": 0.29}]]
        by_id, by_score = client.post("/v1/match", json=body | {"results": both}).json()["data"]
        forward = httpx.MockTransport(
            lambda sent: httpx.Response(200, content=client.post(sent.url.path, content=sent.content).content)
        )
        with Client("http://testserver", transport=forward) as caller:
            assert caller.match([QUERY], [[0.6, 0.2]], refine=False, documents=40)[0]["right"] == [0]
        nothing = client.post("/v1/match", json=body | {"documents": 5_000}).json()["data"][0]
        refined = client.post("/v1/match", json=body | {"refine": True}).json()["data"][0]
    best = max(own.values())
    assert by_id["chance"] == pytest.approx(1 / (1 + np.exp(6 - 20 * best)), abs=1e-4)
    assert by_score["right"] == [0, 1]
    assert by_score["threshold"] == pytest.approx({"cosine": 0.3, "distance": 0.7, "score": 0.65}, abs=1e-6)
    assert (nothing["threshold"], nothing["right"]) == (None, [])
    assert "was not tested" in nothing["reason"]
    assert refined["threshold"] is None and "does not know" in refined["reason"]
    assert refined["matched_by"] == "words" and ROWS[0] in refined["word_ids"]


def test_an_embedding_carries_the_threshold_of_the_index_in_the_settings(taught, served):
    with served(taught, documents=40) as client:
        one = client.post("/v1/embeddings", json={"model": "clip", "input": QUERY, "input_type": "query", "reco": {}})
        document = client.post("/v1/embeddings", json={"model": "clip", "input": QUERY, "input_type": "document"})
    assert one.headers["x-reco-threshold"] == "cosine=0.3, distance=0.7, score=0.65"
    assert one.json()["data"][0]["threshold"]["score"] == pytest.approx(0.65)
    assert "x-reco-threshold" not in document.headers


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"results": []}, "0 rankings for 1 queries"),
        ({"results": [[{"id": "unknown"}]]}, "results[0][0] needs a score: the memory holds no pair 'unknown'"),
        ({"results": [[{"score": 3.0}]]}, "must hold cosines"),
        ({"precision": 1.0}, "precision"),
        ({"documents": 0}, "documents"),
    ],
)
def test_what_cannot_be_judged_is_refused(taught, served, sent, message):
    with served(taught) as client:
        answer = client.post("/v1/match", json={"input": [{"text": QUERY}], "refine": False} | sent)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True), answer.text
