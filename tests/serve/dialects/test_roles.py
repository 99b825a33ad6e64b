"""Query or document, plain or refined: a field, an alias and a prefix say the same in every dialect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.serve.dialects.fields import input_type_of

TEXT = "a small red circle"
OPENAI = ("/v1/embeddings", {"input": [TEXT]}, lambda body: body["data"][0]["embedding"])
VOYAGE = (
    "/v1/multimodalembeddings",
    {"inputs": [{"content": [{"type": "text", "text": TEXT}]}]},
    lambda body: body["data"][0]["embedding"],
)
COHERE = ("/v2/embed", {"texts": [TEXT]}, lambda body: body["embeddings"]["float"][0])
CLIP = ("/vectorize", {"texts": [TEXT]}, lambda body: body["textVectors"][0])
TITAN = ("/titan", {"inputText": TEXT}, lambda body: body["embedding"])
DIALECTS = {"openai": OPENAI, "voyage": VOYAGE, "cohere": COHERE, "clip": CLIP, "titan": TITAN}


def ask(client: TestClient, dialect: str, prefix: str = "", **extra: Any) -> tuple[np.ndarray, str]:
    path, body, vector = DIALECTS[dialect]
    response = client.post(prefix + path, json=body | extra)
    assert response.status_code == 200, response.text
    return np.array(vector(response.json())), response.headers["x-reco-refined"]


def check(answer: tuple[np.ndarray, str], filled: Reco, *, refined: bool) -> None:
    """The vector is that of the Reco itself, and the header says which."""
    frozen, moved = filled.embed_texts([TEXT], refine=False)[0], filled.embed_texts([TEXT])[0]
    assert np.dot(frozen, moved) < 0.99, "the memory does not move this text: the test would show nothing"
    assert np.allclose(answer[0], moved if refined else frozen, atol=1e-5)
    assert answer[1] == str(refined).lower()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_said_is_plain_and_a_prefix_decides(client: TestClient, filled: Reco, dialect: str) -> None:
    check(ask(client, dialect), filled, refined=False)
    check(ask(client, dialect, "/refined"), filled, refined=True)
    check(ask(client, dialect, "/plain"), filled, refined=False)


@pytest.mark.parametrize("dialect", ["openai", "voyage", "cohere"])
def test_an_alias_for_both_sides_takes_no_guess(client: TestClient, filled: Reco, dialect: str) -> None:
    """A client that sends no role names it for documents, too: as queries they would spoil the index."""
    check(ask(client, dialect, model="clip-reco", input_type="search_query"), filled, refined=True)
    check(ask(client, dialect, model="clip-reco", input_type="search_document"), filled, refined=False)
    check(ask(client, dialect, "/refined", model="clip-reco"), filled, refined=True)
    check(ask(client, dialect, model="clip-reco-query"), filled, refined=True)
    path, body, _ = DIALECTS[dialect]
    refused = client.post(path, json=body | {"model": "clip-reco"})
    assert refused.status_code == 400 and "clip (plain), clip-reco-query (query)" in refused.text


@pytest.mark.parametrize(
    ("dialect", "field", "query", "document"),
    [
        ("openai", "input_type", "query", "document"),
        ("openai", "input_type", "query", "passage"),
        ("openai", "task", "retrieval.query", "retrieval.passage"),
        ("openai", "task", "code.query", "nl2code.passage"),
        ("voyage", "input_type", "query", "document"),
        ("cohere", "input_type", "search_query", "search_document"),
        ("titan", "input_type", "query", "document"),
    ],
)
def test_a_field(client: TestClient, filled: Reco, dialect: str, field: str, query: str, document: str) -> None:
    check(ask(client, dialect, **{field: query}), filled, refined=True)
    check(ask(client, dialect, **{field: document}), filled, refined=False)
    check(ask(client, dialect, "/refined", **{field: document}), filled, refined=False)
    check(ask(client, dialect, "/plain", **{field: query}), filled, refined=False)


def test_refine_is_final(client: TestClient, filled: Reco) -> None:
    check(ask(client, "openai", "/plain", model="clip", refine=True), filled, refined=True)
    check(ask(client, "openai", "/refined", model="clip-reco", refine=False), filled, refined=False)


def test_words_that_are_unknown_or_contradict(client: TestClient) -> None:
    for body, param in (
        ({"input_type": "querry"}, "input_type"),
        ({"input_type": "query", "task": "retrieval.passage"}, "input_type"),
    ):
        response = client.post("/v1/embeddings", json={"input": TEXT, **body})
        assert response.status_code == 400 and response.json()["error"]["param"] == param
    assert input_type_of(input_type="query", task="retrieval.query") == "query"
    assert input_type_of(task="clustering") is None
