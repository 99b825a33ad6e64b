"""The routes of Hugging Face's text-embeddings-inference."""

from __future__ import annotations

import huggingface_hub
import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco

TEXTS = ["a small red circle", "a fox"]


def test_hugging_faces_own_client(url: str, filled: Reco) -> None:
    found = huggingface_hub.InferenceClient(f"{url}/embed", token="any").feature_extraction(TEXTS[0])
    assert np.allclose(found, filled.embed_texts(TEXTS[:1], refine=False), atol=1e-5)
    sdk = huggingface_hub.InferenceClient(f"{url}/refined/embed", token="any")
    assert np.allclose(sdk.feature_extraction(TEXTS[0]), filled.embed_texts(TEXTS[:1]), atol=1e-5)


@pytest.mark.parametrize("base", ["", "/", "/embed/"])
def test_a_base_url_is_enough_for_it(url: str, filled: Reco, base: str) -> None:
    for prefix, refine in (("", False), ("/plain", False), ("/refined", True)):
        sdk = huggingface_hub.InferenceClient(f"{url}{prefix}{base}", token="any")
        assert np.allclose(sdk.feature_extraction(TEXTS[0]), filled.embed_texts(TEXTS[:1], refine=refine), atol=1e-5)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="the key is not known"):
        huggingface_hub.InferenceClient(f"{url}{base}", token="wrong").feature_extraction(TEXTS[0])


def test_embed(client: TestClient, filled: Reco) -> None:
    body = {"inputs": TEXTS, "normalize": True, "truncate": True, "truncation_direction": "Right"}
    assert np.allclose(client.post("/embed", json=body).json(), filled.embed_texts(TEXTS, refine=False), atol=1e-5)
    answer = client.post("/embed", json={"inputs": TEXTS[0], "prompt_name": "query"})
    assert np.allclose(answer.json(), filled.embed_texts(TEXTS[:1]), atol=1e-5)


@pytest.mark.parametrize("options", [{"normalize": False}, {"options": {"use_cache": True, "wait_for_model": False}}])
def test_what_means_nothing_here(client: TestClient, options: dict[str, object]) -> None:
    """All vectors have norm 1, which whoever asks for none can use."""
    found = client.post("/embed", json={"inputs": TEXTS} | options)
    assert found.json() == client.post("/embed", json={"inputs": TEXTS}).json()


@pytest.mark.parametrize("wrong", [{"truncation_direction": "Left"}, {"dimensions": 3}, {"k": 1}])
def test_what_is_not_offered(client: TestClient, wrong: dict[str, object]) -> None:
    found = client.post("/embed", json={"inputs": TEXTS} | wrong)
    assert found.status_code == 400 and found.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a", 1], "inputs[1]: must be a valid string, got 1"),
        (3, "inputs"),
        ([], "nothing to embed"),
        ([""], "inputs[0]: a text is empty"),
    ],
)
def test_bad_inputs_are_named_as_they_were_sent(client: TestClient, inputs: object, message: str) -> None:
    assert message in client.post("/embed", json={"inputs": inputs}).json()["error"]


def test_coheres_request_is_sent_where_it_belongs(client: TestClient) -> None:
    """LangChain4j's Cohere, with a base URL without ``/v1/``."""
    body = {"texts": ["a red fox"], "model": "clip-reco", "input_type": "search_query"}
    found = client.post("/embed", json=body)
    assert found.status_code == 400 and "/v1/embed" in found.json()["error"]
    assert client.post("/v1/embed", json=body).status_code == 200
