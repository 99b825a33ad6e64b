"""Pipelines of Haystack: stored, loaded and run."""

from __future__ import annotations

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from reco_plugin.adapters.haystack import (
    RecoDocumentEmbedder,
    RecoDocumentImageEmbedder,
    RecoTextEmbedder,
)
from reco_plugin.errors import ConfigError

pytestmark = pytest.mark.slow

TRUSTED = ["reco_plugin.adapters.haystack"]
QUERY = "a large blue square"


@pytest.fixture
def documents(drawings):
    return [Document(id=pair.id, content=pair.text, meta=dict(pair.payload)) for pair in drawings]


@pytest.fixture
def store():
    return InMemoryDocumentStore(embedding_similarity_function="dot_product")


def searching(embedder, store, pipeline):
    pipeline.add_component("embed", embedder)
    pipeline.add_component("retrieve", InMemoryEmbeddingRetriever(store, top_k=3, scale_score=False))
    pipeline.connect("embed.embedding", "retrieve.query_embedding")
    return pipeline


def expected(stocked, documents, *, refine):
    query = stocked.embed_texts([QUERY], refine=refine)[0]
    cosines = stocked.embed_texts([document.content for document in documents], refine=False) @ query
    return [(documents[row].id, pytest.approx(cosines[row], abs=1e-5)) for row in np.argsort(-cosines)[:3]]


@pytest.mark.parametrize(
    ("options", "refine"),
    [({"index": "images"}, True), ({"index": "texts"}, False)],
)
def test_an_index_is_plain_and_queries_are_refined_for_what_it_holds(stocked, documents, store, options, refine):
    indexing = Pipeline()
    indexing.add_component("embed", RecoDocumentEmbedder(stocked))
    indexing.add_component("write", DocumentWriter(store))
    indexing.connect("embed.documents", "write.documents")
    assert indexing.run({"embed": {"documents": documents}})["write"] == {"documents_written": len(documents)}
    found = searching(RecoTextEmbedder(stocked, **options), store, Pipeline()).run({"embed": {"text": QUERY}})
    hits = [(hit.id, hit.score) for hit in found["retrieve"]["documents"]]
    assert hits == expected(stocked, documents, refine=refine)
    assert RecoTextEmbedder(stocked, **options).run(QUERY)["meta"] == {"refine": options.get("refine", True)}


def test_a_pipeline_is_stored_loaded_and_run(on_disk, stocked):
    pipeline = Pipeline()
    pipeline.add_component("query", RecoTextEmbedder(settings=on_disk, index="images"))
    text = pipeline.dumps()
    loaded = Pipeline.loads(text, allowed_modules=TRUSTED)
    assert loaded.dumps() == text
    vector = loaded.run({"query": {"text": QUERY}})["query"]["embedding"]
    loaded.get_component("query").close()
    assert np.allclose(vector, stocked.embed_texts([QUERY], refine=True)[0], atol=1e-5)


@pytest.mark.parametrize(
    "embedder",
    [
        RecoTextEmbedder(url="http://localhost:8080", api_key=Secret.from_env_var("A_KEY"), refine=False),
        RecoTextEmbedder(settings={"k": 3}, index="texts"),
        RecoDocumentEmbedder(settings={"k": 3}, meta_fields_to_embed=["shape"], embedding_separator=" "),
        RecoDocumentImageEmbedder(refine=True, file_path_meta_field="path", root_path="/images"),
    ],
    ids=lambda embedder: type(embedder).__name__,
)
def test_every_embedder_is_stored_with_all_that_was_said(embedder):
    pipeline = Pipeline()
    pipeline.add_component("it", embedder)
    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=TRUSTED).get_component("it")
    assert type(loaded) is type(embedder)
    assert loaded.to_dict() == embedder.to_dict()
    assert set(embedder.to_dict()["init_parameters"]) >= {"url", "api_key", "settings", "refine"}


def test_a_key_in_the_settings_is_not_stored():
    embedder = RecoTextEmbedder(settings={"memory": "http://qdrant:6333", "memory_api_key": "very secret"})
    with pytest.raises(ConfigError, match="memory_api_key, which would be stored as text: set RECO_MEMORY_API_KEY"):
        embedder.to_dict()


def test_images_come_from_files_or_bytes(stocked, files):
    embedder = RecoDocumentImageEmbedder(stocked, root_path=str(files[0].parent))
    named = [Document(content="x", meta={"file_path": path.name}) for path in files]
    carried = [Document(blob=ByteStream(path.read_bytes(), mime_type="image/png")) for path in files]
    plain = stocked.embed_images(files, refine=False)
    for documents in (named, carried):
        done = embedder.run(documents)["documents"]
        assert np.allclose([document.embedding for document in done], plain, atol=1e-6)
        assert done[0].meta["embedding_source"]["type"] == "image"
        assert "embedding_source" not in documents[0].meta
