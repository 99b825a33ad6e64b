"""Cohere's API, through its client."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import cohere
import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Reco

TEXTS = ["a small red circle", "a large blue square"]
LONG = "a red circle " * 50


class TestCohereClient:
    @pytest.fixture
    def sdk(self, url: str) -> Iterator[cohere.ClientV2]:
        with httpx.Client() as carrier:
            yield cohere.ClientV2(api_key="any", base_url=url, max_retries=0, httpx_client=carrier)

    def test_texts(self, sdk: cohere.ClientV2, filled: Reco) -> None:
        answer = sdk.embed(
            model="clip-reco", input_type="search_query", texts=TEXTS, embedding_types=["float", "base64"]
        )
        expected = filled.embed_texts(TEXTS)
        assert np.allclose(answer.embeddings.float_, expected, atol=1e-5)
        read = [np.frombuffer(base64.b64decode(one), "<f4") for one in answer.embeddings.base64 or []]
        assert np.allclose(read, expected, atol=1e-5)
        assert answer.texts == TEXTS and answer.id
        plain = sdk.embed(model="clip-reco", input_type="search_document", texts=TEXTS, embedding_types=["float"])
        assert np.allclose(plain.embeddings.float_, filled.embed_texts(TEXTS, refine=False), atol=1e-5)

    def test_images(self, sdk: cohere.ClientV2, filled: Reco, red_square: str, picture: Image.Image) -> None:
        uri = f"data:image/png;base64,{red_square}"
        images = sdk.embed(model="clip", input_type="image", images=[uri], embedding_types=["float"])
        assert np.allclose(images.embeddings.float_, filled.embed_images([picture], refine=False), atol=1e-5)

    def test_models_are_listed_by_the_names_that_it_takes(self, sdk: cohere.ClientV2, filled: Reco) -> None:
        listed = sdk.models.list(endpoint="embed").models
        assert [one.name for one in listed] == ["clip", "clip-reco", "clip-reco-query"]
        length = filled.manifest.text.context_length
        assert all(one.endpoints == ["embed"] and one.context_length == length for one in listed)

    def test_errors_arrive_as_the_clients_own(self, sdk: cohere.ClientV2) -> None:
        with pytest.raises(cohere.BadRequestError, match="int4"):
            sdk.embed(model="clip", input_type="search_query", texts=TEXTS, embedding_types=["int4"])
        with pytest.raises(cohere.NotFoundError, match="embed-v4"):
            sdk.embed(model="embed-v4.0", input_type="search_query", texts=TEXTS)
        with pytest.raises(cohere.BadRequestError, match=r'texts\[1\]: .* truncate "END"'):
            sdk.embed(model="clip", input_type="search_query", texts=["a fox", LONG], truncate="START")
        assert sdk.embed(model="clip", input_type="search_query", texts=TEXTS, truncate="START").embeddings.float_
        with pytest.raises(cohere.BadRequestError, match="texts or images"):
            sdk.embed(model="clip", input_type="search_query", texts=TEXTS, images=["a"])

    def test_a_wrong_key(self, url: str) -> None:
        with httpx.Client() as carrier, pytest.raises(cohere.UnauthorizedError, match="not known"):
            stranger = cohere.ClientV2(api_key="wrong", base_url=url, max_retries=0, httpx_client=carrier)
            stranger.embed(model="clip", input_type="search_query", texts=TEXTS)


def test_version_1_answers_floats_unless_types_are_asked_for(client: TestClient, filled: Reco) -> None:
    body = {"texts": TEXTS, "model": "clip-reco", "input_type": "search_query"}
    found = client.post("/v1/embed", json=body).json()
    assert found["response_type"] == "embeddings_floats" and found["meta"]["api_version"] == {"version": "1"}
    assert np.allclose(found["embeddings"], filled.embed_texts(TEXTS), atol=1e-5)
    found = client.post("/v1/embed", json=body | {"embedding_types": ["base64"]}).json()
    assert found["response_type"] == "embeddings_by_type" and [*found["embeddings"]] == ["base64"]


def test_a_limit_of_tokens_is_refused_in_words(client: TestClient) -> None:
    found = client.post("/v2/embed", json={"texts": TEXTS, "max_tokens": 8})
    words = "max_tokens is 8, which is not offered here: leave it out"
    assert (found.status_code, found.json()["message"]) == (400, words)
