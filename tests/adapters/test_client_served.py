"""The clients against a real `reco serve` behind a socket: what they answer is what the Reco behind it answers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import uvicorn
from live_service import wait_until

from reco_plugin import Pair
from reco_plugin.adapters.haystack import RecoTextEmbedder
from reco_plugin.adapters.langchain import RecoEmbeddings
from reco_plugin.adapters.llamaindex import RecoEmbedding
from reco_plugin.adapters.sentence_transformers import RecoSentenceTransformer
from reco_plugin.client import Client
from reco_plugin.serve.app import create_app
from reco_plugin.serve.settings import ServeSettings

pytestmark = pytest.mark.slow

TEXTS = ["a small red circle", "data:image/png is a text too", "naïve 🦊"]
KEY, ADMIN = "a-key-for-tests", "an-admin-key-for-tests"


@pytest.fixture(scope="module")
def url(stocked):
    app = create_app(ServeSettings(api_keys=[KEY], admin_key=ADMIN, page=False), stocked)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


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
