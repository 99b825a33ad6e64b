"""`dimensions` of an encoder that was trained to be cut: refined whole, then cut and made unit-norm; else refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco

CUTS = [32, 64]
TEXT = "a small red circle"
ASKED: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "openai": ("/v1/embeddings", {"input": [TEXT], "dimensions": 32}, lambda found: found["data"][0]["embedding"]),
    "jina": (
        "/v1/embeddings",
        {"input": [{"text": TEXT}], "dimensions": 32, "task": "retrieval.query"},
        lambda found: found["data"][0]["embedding"],
    ),
    "voyage": (
        "/v1/multimodalembeddings",
        {"inputs": [{"content": [{"type": "text", "text": TEXT}]}], "output_dimension": 32},
        lambda found: found["data"][0]["embedding"],
    ),
    "cohere": ("/v2/embed", {"texts": [TEXT], "output_dimension": 32}, lambda found: found["embeddings"]["float"][0]),
    "tei": ("/embed", {"inputs": TEXT, "dimensions": 32}, lambda found: found[0]),
    "titan": (
        "/titan",
        {"inputText": TEXT, "embeddingConfig": {"outputEmbeddingLength": 32}},
        lambda found: found["embedding"],
    ),
}


@pytest.fixture(scope="module")
def cuttable(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, as if it had been trained to be cut."""
    folder = tmp_path_factory.mktemp("models") / "cuttable"
    shutil.copytree(model, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"matryoshka": CUTS}))
    return folder


@pytest.fixture(scope="module")
def reco(cuttable: Path, drawings: list[Pair]) -> Iterator[Reco]:
    with Reco.open(cuttable, memory=":memory:") as opened:
        opened.memory.add(drawings)
        yield opened


@pytest.fixture(scope="module")
def cutting(reco: Reco, served: Any) -> Iterator[TestClient]:
    with served(reco) as opened:
        yield opened


@pytest.mark.parametrize(("path", "body", "read"), ASKED.values(), ids=ASKED)
def test_a_query_is_refined_whole_and_then_cut(
    cutting: TestClient, reco: Reco, path: str, body: dict[str, Any], read: Callable[[Any], Any]
) -> None:
    prefix = "" if "model" in body else "/refined"
    answer = cutting.post(prefix + path, json=body)
    assert (answer.status_code, answer.headers["x-reco-refined"]) == (200, "true"), answer.text
    whole = reco.embed([TEXT], modality="text", refine=True, target="image")
    assert whole.moved[0] > 0
    cut = whole.vectors[0, :32]
    assert np.allclose(read(answer.json()), cut / np.linalg.norm(cut), atol=1e-6)
    assert "x-reco-scale" not in answer.headers, "its two numbers are of whole vectors"


def test_the_models_own_dimension_is_no_cut(cutting: TestClient) -> None:
    answer = cutting.post("/v1/embeddings", json={"model": "clip-reco-query", "input": TEXT, "dimensions": 128})
    assert len(answer.json()["data"][0]["embedding"]) == 128
    assert "x-reco-scale" in answer.headers


def test_parts_are_joined_before_they_are_cut(cutting: TestClient, reco: Reco) -> None:
    parts = [{"type": "text", "text": text} for text in (TEXT, "a fox")]
    body = {"inputs": [{"content": parts}], "output_dimension": 64}
    answer = cutting.post("/plain/v1/multimodalembeddings", json=body).json()
    cut = reco.encoder.texts([TEXT, "a fox"]).mean(axis=0)[:64]
    assert np.allclose(answer["data"][0]["embedding"], cut / np.linalg.norm(cut), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimensions": 33}, "dimensions is 33, the model has 128, or cut to 32, 64, for which it was trained"),
        ({"dimensions": 256}, "dimensions is 256, the model has 128, or cut to"),
        ({"dimensions": 32, "output_dimension": 64}, "dimensions=32 and output_dimension=64 contradict each other"),
    ],
)
def test_another_dimension_is_refused_with_the_reason(cutting: TestClient, fields: Any, words: str) -> None:
    answer = cutting.post("/v1/embeddings", json={"model": "clip", "input": TEXT, **fields})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == "unsupported_dimensions"


def test_models_tell_what_may_be_asked_for(cutting: TestClient, client: TestClient) -> None:
    assert cutting.get("/v1/models/clip").json()["matryoshka"] == CUTS
    assert client.get("/v1/models/clip").json()["matryoshka"] == []
