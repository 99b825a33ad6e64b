"""Titan's shape, as OpenSearch sends it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco


class TestTitan:
    """OpenSearch's ``text_image_embedding``, which writes ``"null"`` where a field is missing."""

    def test_null_is_a_title_where_no_image_is_spoken_of(self, client: TestClient, filled: Reco) -> None:
        """OpenSearch always sends both fields."""
        answer = client.post("/titan", json={"inputText": "null"})
        assert np.allclose(answer.json()["embedding"], filled.embed_texts(["null"], refine=False)[0], atol=1e-5)

    @pytest.mark.parametrize("title", [None, "", "null", " ", "\n"])
    def test_without_a_title_the_image_is_embedded(self, client: TestClient, red_square: str, title: Any) -> None:
        alone = client.post("/titan", json={"inputImage": red_square}).json()
        assert client.post("/titan", json={"inputText": title, "inputImage": red_square}).json() == alone

    def test_bedrocks_path_names_the_model(self, client: TestClient, filled: Reco) -> None:
        response = client.post("/model/clip-reco-query/invoke", json={"inputText": "a fox"})
        assert np.allclose(response.json()["embedding"], filled.embed_texts(["a fox"])[0], atol=1e-5)
        arn = "arn:aws:bedrock:eu-central-1:123456789012:provisioned-model/clip-reco-query"
        for path in (arn, arn.replace(":", "%3A").replace("/", "%2F")):  # boto3 escapes it
            found = client.post(f"/model/{path}/invoke", json={"inputText": "a fox"})
            assert found.json() == response.json()
        unknown = client.post("/model/titan/invoke", json={"inputText": "a fox"})
        assert unknown.status_code == 404 and "clip-reco" in unknown.json()["message"]

    @pytest.mark.parametrize(
        ("body", "status", "named"),
        [
            ({}, 400, "inputText"),
            ({"inputText": "null", "inputImage": "null"}, 400, "inputText"),
            ({"inputText": " ", "inputImage": None}, 400, "inputText"),
            ({"inputText": "a", "inputImage": "!"}, 400, "inputImage: an image must be"),
            ({"inputText": "a", "inputImage": "a red fox"}, 400, "inputImage: an image must be"),
            ({"inputImage": "!"}, 400, "inputImage: "),
            ({"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 256}}, 400, "outputEmbeddingLength"),
            ({"inputtext": "a"}, 400, "inputtext"),
        ],
    )
    def test_errors(self, client: TestClient, body: Any, status: int, named: str) -> None:
        response = client.post("/titan", json=body)
        assert response.status_code == status and [*response.json()] == ["message"]
        assert named in response.json()["message"]


def test_fields_of_titan_text_v2(client: TestClient) -> None:
    body = {"inputText": "a fox", "dimensions": 128, "normalize": True}
    found = client.post("/model/clip/invoke", json=body).json()
    assert client.post("/model/clip/invoke", json=body | {"normalize": False}).json() == found
    for wrong in ({"dimensions": 64}, {}):
        refused = client.post("/model/clip/invoke", json={"inputText": "a fox" if wrong else ""} | wrong)
        assert refused.status_code == 400 and refused.headers["x-amzn-errortype"] == "ValidationException"
    assert client.post("/model/no/invoke", json=body).headers["x-amzn-errortype"] == "ResourceNotFoundException"
