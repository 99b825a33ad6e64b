"""An index of LlamaIndex, built, stored, loaded and searched."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from reco_plugin.adapters.llamaindex import RecoEmbedding
from reco_plugin.errors import ConfigError

pytestmark = pytest.mark.slow

QUERY = "a large blue square"


@pytest.fixture
def nodes(drawings):
    return [TextNode(id_=pair.id, text=pair.text) for pair in drawings]


def expected(stocked, nodes, *, refine):
    query = stocked.embed_texts([QUERY], refine=refine)[0]
    cosines = stocked.embed_texts([node.text for node in nodes], refine=False) @ query
    return [(nodes[row].node_id, pytest.approx(cosines[row], abs=1e-5)) for row in np.argsort(-cosines)[:3]]


@pytest.mark.parametrize("options", [{"refine_queries": False}, {"index": "texts"}])
def test_nodes_of_text_are_searched_with_plain_vectors(stocked, nodes, options):
    index = VectorStoreIndex(nodes, embed_model=RecoEmbedding(stocked, **options))
    found = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert [(node.node_id, node.score) for node in found] == expected(stocked, nodes, refine=False)


def test_a_cache_that_would_mix_queries_and_nodes_is_refused(stocked):
    cache = SimpleKVStore()
    for policy in (
        {},
        {"index": "texts"},
        {"refine_queries": True},
        {"refine_documents": True, "refine_queries": False},
    ):
        with pytest.raises(ConfigError, match="IngestionPipeline"):
            RecoEmbedding(stocked, embeddings_cache=cache, **policy)
    embedding = RecoEmbedding(stocked)
    with pytest.raises(ValueError, match="frozen"):
        embedding.embeddings_cache = cache


def test_it_is_stored_without_its_key_and_loaded(on_disk):
    embedding = RecoEmbedding.from_dict(RecoEmbedding(settings=on_disk, index="images", refine_queries=False).to_dict())
    assert (embedding.settings, embedding.index, embedding.refine_queries) == (on_disk, "images", False)
    keyed = RecoEmbedding(url="http://localhost", api_key="very secret")
    assert "very secret" not in f"{keyed.to_dict()} {keyed.to_payload()} {keyed!r}"
    assert "api_key" not in keyed.to_dict()
    assert RecoEmbedding.from_json(keyed.to_json()).url == "http://localhost"
    settings = {"memory": "http://qdrant:6333", "memory_api_key": "very secret", "k": 5}
    keyed = RecoEmbedding(settings=settings)
    assert keyed.settings == settings
    assert "very secret" not in f"{keyed.to_dict()} {keyed.to_json()} {keyed!r} {keyed}"
    assert RecoEmbedding.from_dict(keyed.to_dict()).settings == {"memory": "http://qdrant:6333", "k": 5}
