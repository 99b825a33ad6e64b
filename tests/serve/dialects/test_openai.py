"""``/v1/embeddings`` as its callers use it: the official clients over a socket, Jina's objects, NIM's strings."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Reco

TEXTS = ["a small red circle", "a large blue square"]
LONG = "a red circle " * 50


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


class TestPythonClient:
    def test_the_default_is_base64_and_the_same_as_floats(self, sdk: openai.OpenAI, filled: Reco) -> None:
        expected = filled.embed_texts(TEXTS, refine=False)
        default = sdk.embeddings.create(model="clip", input=TEXTS)
        floats = sdk.embeddings.create(model="clip", input=TEXTS, encoding_format="float")
        for answer in (default, floats):
            assert [one.index for one in answer.data] == [0, 1]
            assert np.allclose([one.embedding for one in answer.data], expected, atol=1e-6)
        assert default.model == "clip" and default.object == "list"
        assert default.usage.prompt_tokens == default.usage.total_tokens > 2 * len(TEXTS)

    def test_a_single_text_and_an_image(self, sdk: openai.OpenAI, filled: Reco, picture: Image.Image) -> None:
        raw = io.BytesIO()
        picture.save(raw, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(raw.getvalue()).decode()
        answer = sdk.embeddings.create(model="clip", input=[uri])
        assert np.allclose(answer.data[0].embedding, filled.embed_images([picture], refine=False)[0], atol=1e-5)
        assert len(sdk.embeddings.create(model="clip", input="a fox").data) == 1

    def test_errors_arrive_as_the_clients_own(self, sdk: openai.OpenAI, url: str) -> None:
        with pytest.raises(openai.NotFoundError) as raised:
            sdk.embeddings.create(model="gpt", input="a fox")
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
        assert raised.value.type == "not_found_error" and raised.value.request_id
        with pytest.raises(openai.BadRequestError, match=r"input\[1\]"):
            sdk.embeddings.create(model="clip", input=["a fox", ""])
        with pytest.raises(openai.BadRequestError, match="list is empty") as unreadable:
            sdk.embeddings.create(model="clip", input=[])
        assert unreadable.value.code == "invalid_request" and unreadable.value.param == "input"
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.embeddings.create(model="clip", input="a fox")

    def test_token_ids_are_refused_with_the_way_out(self, sdk: openai.OpenAI) -> None:
        for ids in ([1, 2, 3], [[1, 2], [3]]):
            with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
                sdk.embeddings.create(model="clip", input=ids)

    def test_models_are_listed(self, sdk: openai.OpenAI) -> None:
        assert {model.id for model in sdk.models.list()} == {"clip", "clip-reco", "clip-reco-query"}

    def test_what_the_client_does_not_know_goes_through_extra_body(self, sdk: openai.OpenAI, filled: Reco) -> None:
        extra = {"input_type": "query", "reco": {"k": 2, "where": {"colour": "red"}}}
        answer = sdk.embeddings.create(model="clip-reco", input=TEXTS, extra_body=extra)
        expected = filled.embed(TEXTS, modality="text", k=2, where={"colour": "red"})
        assert np.allclose([one.embedding for one in answer.data], expected.vectors, atol=1e-5)
        assert np.allclose([one.moved for one in answer.data], expected.moved, atol=1e-5)  # told with `reco` only
        assert not hasattr(sdk.embeddings.create(model="clip", input=TEXTS).data[0], "moved")

    def test_a_prefix_in_the_base_url(self, url: str, filled: Reco) -> None:
        with openai.OpenAI(base_url=f"{url}/refined/v1", api_key="any") as refined:
            answer = refined.embeddings.create(model="clip", input=TEXTS)
        assert np.allclose([one.embedding for one in answer.data], filled.embed_texts(TEXTS), atol=1e-5)


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/embeddings", json={"model": "clip", **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def refused(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/embeddings", json={"model": "clip", "input": "a fox", **body})
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert response.json()["detail"] == error["message"]  # Jina's and Voyage's clients read this
    assert response.json()["message"] == error["message"]  # NVIDIA's, and Weaviate's module for them
    return dict(error)


class TestInputs:
    def test_texts_and_images_mixed_in_all_spellings(
        self, client: TestClient, filled: Reco, red_square: str, picture: Image.Image
    ) -> None:
        uri = f"data:image/jpeg;base64,{red_square}"
        untyped = (
            f"data:application/octet-stream;base64,{red_square}"  # a browser's, of a file whose type it does not know
        )
        items = ["a fox", {"text": "a fox"}, uri, untyped, {"image": uri}, {"image": red_square}]
        vectors = [one["embedding"] for one in ask(client, input=items)["data"]]
        text, image = filled.embed_texts(["a fox"], refine=False), filled.embed_images([picture], refine=False)
        assert np.allclose(vectors, np.concatenate([text, text, image, image, image, image]), atol=1e-5)

    def test_modality_makes_images_of_strings(self, client: TestClient, red_square: str) -> None:
        expected = ask(client, input=[{"image": red_square}, "a fox"])["data"]
        assert ask(client, input=[red_square, "a fox"], modality=["image", "text"])["data"] == expected
        assert ask(client, input=red_square, modality="image")["data"] == expected[:1]
        assert "as many" in refused(client, input=["a", "b"], modality=["text"])["message"]

    def test_one_object(self, client: TestClient) -> None:
        assert ask(client, input={"text": "a fox"})["data"] == ask(client, input="a fox")["data"]

    def test_a_text_that_speaks_of_a_url_or_of_data_is_a_text(self, client: TestClient) -> None:
        assert len(ask(client, input=["http://a.example/fox.png", "data: a fox"])["data"]) == 2

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
    def test_a_bare_picture_is_no_text(self, client: TestClient, picture: Image.Image, form: str) -> None:
        """OpenSearch's text connector sends one where the multimodal one is meant."""
        raw = io.BytesIO()
        picture.resize((64, 64)).save(raw, form)
        plain = base64.b64encode(raw.getvalue()).decode()
        wrapped = base64.encodebytes(raw.getvalue()).decode()
        for one in (plain, wrapped, {"text": plain}):
            error = refused(client, input=["a fox", one])
            assert (error["code"], error["param"]) == ("image_as_text", "input[1]")
            assert '{"image": …}' in error["message"]
        assert len(ask(client, input=[{"image": plain}, f"{plain[:11]} is how it begins"])["data"]) == 2

    @pytest.mark.parametrize(
        "item",
        [
            None,
            1.5,
            True,
            {},
            {"text": 1},
            {"text": "a", "image": "b"},
            {"url": "a"},
            [["a"]],
            [1, "a"],
            [[1], "a"],
            [[]],
        ],
    )
    def test_everything_else_is_refused_in_one_sentence(self, client: TestClient, item: Any) -> None:
        error = refused(client, input=item if isinstance(item, list) else [item])
        assert error["message"].startswith("input: item ") and error["param"] == "input"

    def test_odd_texts(self, client: TestClient) -> None:
        texts = ["🦊🦊🦊", "שועל אדום", "a\u0000b", "x" * 10_000, "🦊" * 60_000]
        vectors = np.array([one["embedding"] for one in ask(client, input=texts)["data"]])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_an_empty_title_beside_a_picture_is_zeros(self, client: TestClient, red_square: str) -> None:
        """Of Weaviate's module for Jina, which adds both vectors of an object and compares directions."""
        zeros, image = ask(client, input=[{}, {"image": red_square}])["data"]
        assert not any(zeros["embedding"])
        assert image["embedding"] == ask(client, input=[{"image": red_square}])["data"][0]["embedding"]
        for alone in ([{}], [{}, {"text": "a fox"}]):
            assert refused(client, input=alone)["message"].startswith("input: item 0 is another object")

    def test_voyages_inputs_are_sent_where_they_belong(self, client: TestClient) -> None:
        body = {"inputs": [{"content": [{"type": "text", "text": "a fox"}]}]}
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 400 and "it is at /v1/multimodalembeddings" in answer.json()["message"]
        assert client.post("/v1/multimodalembeddings", json=body).is_success


class TestLongTexts:
    def test_are_cut_and_say_so(self, client: TestClient) -> None:
        data = ask(client, input=["a fox", LONG, LONG + "and more"])["data"]
        assert [one.get("truncated") for one in data] == [None, True, True]
        assert data[1]["embedding"] == data[2]["embedding"]

    @pytest.mark.parametrize(
        "word", [{"truncate": False}, {"truncate": "NONE"}, {"truncate": "none"}, {"truncation": False}]
    )
    def test_can_be_refused(self, client: TestClient, word: dict[str, Any]) -> None:
        error = refused(client, input=["a fox", LONG], **word)
        assert (error["code"], error["param"]) == ("text_too_long", "input[1]")
        assert len(ask(client, input="a fox", **word)["data"]) == 1

    def test_are_never_cut_at_their_start(self, client: TestClient) -> None:
        error = refused(client, input=["a fox", LONG], truncate="START")
        assert (error["code"], error["param"]) == ("text_too_long", "input[1]")
        assert ask(client, input="a fox", truncate="START")["data"] == ask(client, input="a fox")["data"]

    def test_the_error_names_the_way_out(self, client: TestClient) -> None:
        assert 'truncate "END"' in refused(client, input=["a fox", LONG], truncate="NONE")["message"]

    @pytest.mark.parametrize("word", ["end", "none", "start"])
    def test_elasticsearch_writes_in_lower_case(self, client: TestClient, word: str) -> None:
        assert ask(client, input="a fox", truncate=word) and ask(client, input=LONG, truncate="end")
        assert "END" in refused(client, truncate="middle")["message"]


class TestWhatIsNotOffered:
    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            ("embedding_type", "base64", "int4"),
            ("encoding_type", "float", "int4"),
            ("output_dtype", "float", "int4"),
            ("dimensions", 128, 64),
            ("output_dimension", 128, 256),
        ],
    )
    def test_is_refused_by_name_and_never_ignored(self, client: TestClient, field: str, good: Any, bad: Any) -> None:
        assert ask(client, input="a fox", **{field: good})["data"]
        error = refused(client, **{field: bad})
        assert error["param"] == field and error["code"].startswith("unsupported_")

    @pytest.mark.parametrize("field", ["temperature", "late_chunking", "prompt_type"])
    def test_unknown_fields(self, client: TestClient, field: str) -> None:
        assert refused(client, **{field: True})["param"] == field

    @pytest.mark.parametrize(
        "field",
        [{"user": "u1"}, {"metadata": {"job": 1}}, {"normalized": False}],
    )
    def test_fields_that_mean_nothing_here(self, client: TestClient, field: dict[str, Any]) -> None:
        assert ask(client, input="a fox", **field)["data"] == ask(client, input="a fox")["data"]
