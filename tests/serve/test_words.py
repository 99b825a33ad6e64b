"""Captions that are found by the words of a query, over HTTP and on the playground."""

from __future__ import annotations

from typing import Any

import pytest

from reco_plugin import Reco

QUERY = "circle blue large"


def test_an_explanation_and_the_playground_say_by_which_words_a_caption_was_found(filled: Reco, served: Any) -> None:
    result = filled.embed([QUERY], modality="text", explain=True)
    assert result.words == [QUERY]
    with served(filled, page=True, admin_key="secret") as client:
        ask = {"input": [{"text": QUERY}]}
        by_words = client.post("/v1/explain", json=ask).json()["data"][0]
        by_vectors = client.post("/v1/explain", json={**ask, "words": False}).json()["data"][0]
        shown = client.post("/page/compare", json={"input": {"text": QUERY}}).json()
        kind = {"input": [QUERY], "model": "clip-reco-query"}
        admin = {"authorization": "Bearer secret"}
        (hit,) = client.post("/v1/memory/search", json={"text": QUERY, "k": 1}, headers=admin).json()["data"]
        plain_api = client.post("/v1/embeddings", json=kind).json()["data"][0]["embedding"]
    assert hit["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert by_words["used"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert by_vectors["used"][0]["similarity"] < 0.999
    assert f"Found by its words: {QUERY}." in by_words["why"]["words"]
    assert "by its words" not in by_vectors["why"]["words"]
    assert shown["why"] == by_words["why"]["words"]
    assert plain_api == pytest.approx(result.vectors[0].tolist(), abs=1e-5)
