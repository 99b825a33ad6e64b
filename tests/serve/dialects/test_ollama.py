"""Ollama's API, in the words of its clients; `make clients` asks it with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco

TEXTS = ["a small red circle", "a fox"]
LONG = "a red circle " * 50


def embed(client: TestClient, **body: Any) -> Any:
    response = client.post("/api/embed", json={"model": "clip", "input": TEXTS, **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_the_alias_says_what_is_refined(client: TestClient, filled: Reco) -> None:
    plain, refined = filled.embed_texts(TEXTS, refine=False), filled.embed_texts(TEXTS)
    for name, expected in (("clip", plain), ("clip-reco", plain), ("clip-reco-query", refined)):
        for tag in ("", ":latest"):
            found = embed(client, model=name + tag, options={}, keep_alive="5m", truncate=True)
            assert np.allclose(found["embeddings"], expected, atol=1e-5) and found["model"] == name + tag
    assert found["prompt_eval_count"] > 2 * len(TEXTS) and found["total_duration"] > 0
    assert np.allclose(embed(client, input=TEXTS[0], dimensions=128)["embeddings"], plain[:1], atol=1e-5)


def test_older_clients(client: TestClient, filled: Reco) -> None:
    body = {"model": "clip-reco-query", "prompt": TEXTS[0], "options": {"num_ctx": 77}}
    found = client.post("/api/embeddings", json=body).json()
    assert np.allclose(found["embedding"], filled.embed_texts(TEXTS[:1])[0], atol=1e-5)


def test_what_is_asked_before(client: TestClient, filled: Reco) -> None:
    models = client.get("/api/tags").json()["models"]
    assert [one["model"] for one in models] == ["clip", "clip-reco", "clip-reco-query"]
    shown = client.post("/api/show", json={"model": "clip:latest", "verbose": False}).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["clip.embedding_length"] == filled.manifest.dimension
    assert client.get("/api/version").json()["version"]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("embed", {"model": "nomic-embed-text", "input": "a"}, 404, "clip-reco-query"),
        ("show", {"model": "nomic-embed-text"}, 404, "clip-reco-query"),
        ("embed", {"model": "clip", "input": ["a", ""]}, 400, "input[1]: a text is empty"),
        ("embed", {"model": "clip", "input": ["a", LONG], "truncate": False}, 400, "input[1]: a text is longer"),
        ("embed", {"model": "clip", "input": "a", "dimensions": 3}, 400, "dimensions is 3"),
        ("embeddings", {"model": "clip", "prompt": ""}, 400, "prompt: a text is empty"),
        ("embeddings", {"prompt": "a"}, 400, "model is missing"),
    ],
)
def test_errors(client: TestClient, path: str, body: dict[str, Any], status: int, told: str) -> None:
    response = client.post(f"/api/{path}", json=body)
    assert response.status_code == status and [*response.json()] == ["error"]
    assert told in response.json()["error"]
