"""Voyage's API: its client, and what Weaviate's multi2vec-voyageai sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import voyageai
from PIL import Image
from starlette.testclient import TestClient
from voyageai.api_resources import api_requestor

from reco_plugin import Reco

TEXTS = ["a small red circle", "a large blue square"]
LONG = "a red circle " * 50


class TestVoyageClient:
    @pytest.fixture
    def sdk(self, url: str) -> Iterator[voyageai.Client]:
        yield voyageai.Client(api_key="any", base_url=f"{url}/v1")
        api_requestor._thread_context.session.close()  # it has no close of its own
        del api_requestor._thread_context.session

    def test_texts_images_and_both(self, sdk: voyageai.Client, filled: Reco, picture: Image.Image) -> None:
        answer = sdk.multimodal_embed([["a fox"], [picture], ["a fox", picture]], model="clip")
        text, image = filled.embed_texts(["a fox"], refine=False)[0], filled.embed_images([picture], refine=False)[0]
        both = (text + image) / np.linalg.norm(text + image)  # direction of the mean
        assert np.allclose(answer.embeddings, [text, image, both], atol=1e-5)
        assert answer.total_tokens == answer.text_tokens > 0

    def test_query_and_document(self, sdk: voyageai.Client, filled: Reco) -> None:
        def embed(side: str) -> Any:
            return sdk.multimodal_embed([[text] for text in TEXTS], model="clip-reco", input_type=side).embeddings

        assert np.allclose(embed("query"), filled.embed_texts(TEXTS), atol=1e-5)
        assert np.allclose(embed("document"), filled.embed_texts(TEXTS, refine=False), atol=1e-5)

    def test_texts_through_its_other_call(self, sdk: voyageai.Client, filled: Reco) -> None:
        answer = sdk.embed(TEXTS, model="clip-reco", input_type="query")
        assert np.allclose(answer.embeddings, filled.embed_texts(TEXTS), atol=1e-5)

    def test_errors_arrive_as_the_clients_own(self, sdk: voyageai.Client) -> None:
        with pytest.raises(voyageai.error.InvalidRequestError, match="output_dimension"):
            sdk.multimodal_embed([["a fox"]], model="clip", output_dimension=3)
        with pytest.raises(voyageai.error.InvalidRequestError, match=r"inputs\[1\]: a text is longer"):
            sdk.multimodal_embed([["a fox"], [LONG]], model="clip", truncation=False)
        assert len(sdk.multimodal_embed([[LONG]], model="clip").embeddings) == 1


class TestWeaviateThroughVoyage:
    """What multi2vec-voyageai sends and how it reads the answer."""

    def test_an_empty_title_beside_a_picture_is_zeros(self, client: TestClient, red_square: str) -> None:
        """It asks for one vector each, adds them, and compares directions: the object is its picture."""
        image = {"type": "image_base64", "image_base64": f"data:image/png;base64,{red_square}"}

        def embed(*inputs: list[Any]) -> list[list[float]]:
            body = {"inputs": [{"content": one} for one in inputs], "model": "clip-reco", "input_type": "document"}
            answer = client.post("/v1/multimodalembeddings", json=body)
            assert answer.status_code == 200, answer.text
            return [row["embedding"] for row in answer.json()["data"]]

        (alone,) = embed([image])
        zeros, beside = embed([{"type": "text"}], [image])
        assert not any(zeros) and beside == alone
        for title in ({"type": "text", "text": ""}, {"type": "text", "text": " "}, {"type": "text"}):
            assert embed([title, image]) == [alone]  # one input: the mean of what is there

    def test_its_api_for_texts_is_named(self, client: TestClient) -> None:
        response = client.post("/v1/multimodalembeddings", json={"input": ["a fox"], "input_type": "query"})
        assert response.status_code == 400 and "which is at /v1/embeddings" in response.json()["detail"]

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ({"type": "video"}, "inputs[0].content[0]: Input tag 'video'"),
            ({"type": "text", "text": 3}, "inputs[0].content[0].text.text: must be a valid string, got 3"),
            ("a", "inputs[0].content[0]: must be an object, got 'a'"),
        ],
    )
    def test_a_bad_part_is_named_as_it_was_sent(self, client: TestClient, part: Any, message: str) -> None:
        response = client.post("/v1/multimodalembeddings", json={"inputs": [{"content": [part]}]})
        assert response.json()["detail"].startswith(message)
