"""Requests as the providers' official clients send them, and answers as the providers document them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cohere
import openai
import pytest
from api_server import Api, Reply
from PIL import Image

from reco_plugin.encoders.api_client import ApiClient
from reco_plugin.encoders.api_dialects import parse_address
from reco_plugin.settings import load_settings

ROWS = [[0.6, 0.8], [-0.8, 0.6]]
TEXTS = [b"a red fox", b"ein Haus"]


def _png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(out, "PNG")
    return out.getvalue()


IMAGES = [_png("red"), _png("blue")]
BASE64 = [base64.b64encode(image).decode() for image in IMAGES]
URIS = [f"data:image/png;base64,{one}" for one in BASE64]


def _data(model: str, usage: dict[str, int]) -> Any:
    rows = [{"object": "embedding", "index": row, "embedding": vector} for row, vector in enumerate(ROWS)]
    return {"object": "list", "data": rows, "model": model, "usage": usage}


def _cohere(billed: dict[str, int]) -> Any:
    meta = {"api_version": {"version": "2"}, "billed_units": billed, "warnings": []}
    found = {"id": "5807ee2e", "embeddings": {"float": ROWS}, "texts": [], "images": []}
    return found | {"response_type": "embeddings_by_type", "meta": meta}


def _image_url(uri: str) -> Any:
    return {"content": [{"type": "image_url", "image_url": {"url": uri}}]}


@dataclass(frozen=True)
class Shape:
    """One dialect, by its makers' documents."""

    address: str  # below the server's URL
    path: str
    texts: Any  # bodies
    images: Any
    answer: Any


SHAPES = {
    "OpenAI": Shape(
        "openai+{url}/v1?model=text-embedding-3-small&dimensions=2",
        "/v1/embeddings",
        {
            "model": "text-embedding-3-small",
            "input": ["a red fox", "ein Haus"],
            "dimensions": 2,
            "encoding_format": "float",
        },
        None,
        _data("text-embedding-3-small", {"prompt_tokens": 8, "total_tokens": 8}),
    ),
    "Jina": Shape(
        "jina+{url}/v1?model=jina-clip-v2",
        "/v1/embeddings",
        {"model": "jina-clip-v2", "input": [{"text": "a red fox"}, {"text": "ein Haus"}]},
        {"model": "jina-clip-v2", "input": [{"image": one} for one in BASE64]},
        _data("jina-clip-v2", {"total_tokens": 4000, "prompt_tokens": 4000}),
    ),
    "Cohere": Shape(
        "cohere+{url}?model=embed-v4.0&dimensions=2",
        "/v2/embed",
        {
            "model": "embed-v4.0",
            "texts": ["a red fox", "ein Haus"],
            "input_type": "search_document",
            "embedding_types": ["float"],
            "output_dimension": 2,
        },
        {
            "model": "embed-v4.0",
            "inputs": [_image_url(uri) for uri in URIS],
            "input_type": "search_document",
            "embedding_types": ["float"],
            "output_dimension": 2,
        },
        _cohere({"input_tokens": 6, "image_tokens": 20}),
    ),
    "vLLM": Shape(
        "vllm+{url}?model=openai/clip-vit-base-patch32",
        "/v2/embed",
        {
            "model": "openai/clip-vit-base-patch32",
            "texts": ["a red fox", "ein Haus"],
            "embedding_types": ["float"],
        },
        {"model": "openai/clip-vit-base-patch32", "images": URIS, "embedding_types": ["float"]},
        _cohere({"input_tokens": 12}),
    ),
}


def client_of(api: Api, shape: Shape) -> ApiClient:
    return ApiClient(parse_address(shape.address.format(url=api.url)), load_settings(encoder_patience_s=0))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_requests_and_answers_are_as_the_provider_documents_them(api: Api, shape: Shape) -> None:
    client = client_of(api, shape)
    api.next = [Reply(body=shape.answer)] * 2
    assert client.embed(TEXTS, "text").round(6).tolist() == [pytest.approx(row) for row in ROWS]
    expected = [shape.texts]
    if shape.images is not None:
        assert client.embed(IMAGES, "image").shape == (2, 2)
        expected.append(shape.images)
    client.close()
    assert (api.asked, set(api.paths)) == (expected, {shape.path})


def _ask_openai(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk:
        sdk.embeddings.create(
            model="text-embedding-3-small",
            input=["a red fox", "ein Haus"],
            dimensions=2,
            encoding_format="float",
        )


def _ask_cohere(url: str) -> None:
    cohere.ClientV2("k", base_url=url).embed(
        model="embed-v4.0",
        texts=["a red fox", "ein Haus"],
        input_type="search_document",
        embedding_types=["float"],
        output_dimension=2,
    )


SDKS: dict[str, Callable[[str], None]] = {"OpenAI": _ask_openai, "Cohere": _ask_cohere}
ONLY_SDK = {"stream"}
"""A field with its default, which is no part of what is asked."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SDKS)
def test_the_official_client_asks_the_same(api: Api, name: str) -> None:
    shape = SHAPES[name]
    api.next = [Reply(body=shape.answer)]
    SDKS[name](api.url)
    ((asked,), (path,)) = api.asked, api.paths
    assert path == shape.path
    assert {**asked, **{field: shape.texts[field] for field in ONLY_SDK & shape.texts.keys()}} == {
        **shape.texts,
        **{field: asked[field] for field in ONLY_SDK & asked.keys() - shape.texts.keys()},
    }
