"""The clients against a real `reco serve` behind a socket: what they answer is what the Reco behind it answers."""

from __future__ import annotations

import base64
import io

import httpx
import numpy as np
import pytest
from live_service import serve_on_a_free_port

from reco_plugin import Pair
from reco_plugin.adapters.haystack import RecoTextEmbedder
from reco_plugin.adapters.langchain import RecoEmbeddings
from reco_plugin.adapters.llamaindex import RecoEmbedding
from reco_plugin.adapters.sentence_transformers import RecoSentenceTransformer
from reco_plugin.client import Client

pytestmark = pytest.mark.slow

TEXTS = ["a small red circle", "data:image/png is a text too", "naïve 🦊"]
KEY, ADMIN = "a-key-for-tests", "an-admin-key-for-tests"


@pytest.fixture(scope="module")
def url(stocked):
    with serve_on_a_free_port(stocked, api_keys=[KEY], admin_key=ADMIN) as (served, _):
        yield served


@pytest.fixture
def client(url):
    with Client(url, api_key=KEY, admin_key=ADMIN) as opened:
        yield opened


@pytest.mark.parametrize(("role", "refine"), [("query", True), ("candidate", False)])
def test_vectors_are_those_of_the_reco_behind_it(client, stocked, drawings, refine, role):
    images = [pair.image for pair in drawings[:5]]
    texts, pictures = (
        client.embed_texts(TEXTS, role=role, refine=refine),
        client.embed_images(images, role=role, refine=refine),
    )
    assert np.allclose(texts, stocked.embed_texts(TEXTS, role=role, refine=refine), atol=1e-6)
    assert np.allclose(pictures, stocked.embed_images(images, role=role, refine=refine), atol=1e-6)


IMAGE_QUERIES = {
    "/v1/embeddings": lambda picture: {"model": "clip-reco", "input_type": "query", "input": [{"image": picture}]},
    "/v1/explain": lambda picture: {"input": [{"image": f"data:image/png;base64,{picture}"}]},
    "/v1/multimodalembeddings": lambda picture: {
        "model": "clip-reco",
        "input_type": "query",
        "inputs": [{"content": [{"type": "image_base64", "image_base64": f"data:image/png;base64,{picture}"}]}],
    },
    "/refined/titan": lambda picture: {"inputImage": picture},
    "/refined/vectorize": lambda picture: {"images": [picture]},
    "/v2/embed": lambda picture: {
        "model": "clip-reco",
        "input_type": "search_query",
        "images": [f"data:image/png;base64,{picture}"],
        "embedding_types": ["float"],
    },
}


def vector_in(answer):
    """The first list of numbers in an answer, whatever its shape."""
    if isinstance(answer, list) and answer and all(type(one) is float for one in answer):
        return answer
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    return next(filter(None, map(vector_in, parts)), None)


def test_an_image_query_without_options_gets_the_same_vector_everywhere(client, url, stocked, drawings):
    """It is for an index of images; for texts, which must be asked for, it moves elsewhere."""
    image = drawings[0].image
    expected, plain = stocked.embed_images([image]), stocked.embed_images([image], refine=False)
    assert np.array_equal(expected, stocked.embed_images([image], target="image"))
    assert np.abs(expected - stocked.embed_images([image], target="text")).max() > 0.01
    file = io.BytesIO()
    image.save(file, "PNG")
    found = {
        "refine": stocked.refine(plain, modality="image").vectors,
        "client": client.embed_images([image]),
        "client.refine": client.refine(plain, modality="image").vectors,
    }
    for path, body in IMAGE_QUERIES.items():
        asked = body(base64.b64encode(file.getvalue()).decode())
        answer = httpx.post(url + path, json=asked, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200, (path, answer.text)
        found[path] = np.array([vector_in(answer.json())])
    for name, vectors in found.items():
        assert np.allclose(vectors, expected, atol=1e-5), name


def test_pairs_come_and_go(client, stocked, drawings):
    known = len(stocked.memory)
    vector = stocked.embed_texts(["a fox"], refine=False)[0]
    assert client.add_pairs([Pair("fox", drawings[0].image, "a fox", {"n": 1}), ("wolf", vector, vector)]) == 2
    assert len(stocked.memory) == known + 2
    assert client.explain(["a fox"], k=1).used[0][0].caption == "a fox"
    assert client.remove_pairs(["fox", "wolf", "unknown"]) == 2
    assert len(stocked.memory) == known


def test_every_adapter_works_over_the_service(url, stocked):
    text, far = "a large blue square", {"url": url, "api_key": KEY, "index": "images"}
    refined, plain = (stocked.embed_texts([text], refine=refine)[0] for refine in (True, False))
    langchain, haystack = RecoEmbeddings(**far), RecoTextEmbedder(**far)
    llamaindex, like = RecoEmbedding(**far), RecoSentenceTransformer(**far)
    queries = [
        langchain.embed_query(text),
        llamaindex.get_query_embedding(text),
        haystack.run(text)["embedding"],
        like.encode_query(text),
    ]
    documents = [langchain.embed_documents([text])[0], llamaindex.get_text_embedding(text), like.encode(text)]
    assert np.allclose(queries, refined, atol=1e-6)
    assert np.allclose(documents, plain, atol=1e-6)
    llamaindex.close()
    for adapter in (langchain, haystack, like):
        adapter.source.close()
