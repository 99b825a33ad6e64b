"""An index of LlamaIndex, built, stored, loaded and searched."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from reco_plugin.adapters.llamaindex import PlainSimilarityRetriever, RecoEmbedding
from reco_plugin.errors import ConfigError, ImageError, InputError

QUERY = "a large blue square"


@pytest.fixture
def nodes(drawings):
    return [TextNode(id_=pair.id, text=pair.text) for pair in drawings]


def expected(stocked, nodes, *, refine):
    query = stocked.embed_texts([QUERY], refine=refine)[0]
    cosines = stocked.embed_texts([node.text for node in nodes], refine=False) @ query
    return [(nodes[row].node_id, pytest.approx(cosines[row], abs=1e-5)) for row in np.argsort(-cosines)[:3]]


def test_an_index_goes_to_disk_and_back(stocked, nodes, tmp_path):
    embedding = RecoEmbedding(stocked, refine_queries=True)
    VectorStoreIndex(nodes, embed_model=embedding).storage_context.persist(str(tmp_path))
    loaded = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=embedding)
    found = loaded.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert [(node.node_id, node.score) for node in found] == expected(stocked, nodes, refine=True)


def test_asynchronously_it_is_the_same(stocked, nodes):
    retriever = VectorStoreIndex(nodes, embed_model=RecoEmbedding(stocked, refine_queries=True)).as_retriever(
        similarity_top_k=3
    )
    found = asyncio.run(retriever.aretrieve(QUERY))
    assert [(node.node_id, node.score) for node in found] == expected(stocked, nodes, refine=True)


@pytest.mark.parametrize("options", [{"refine_queries": False}, {"index": "texts"}])
def test_nodes_of_text_are_searched_with_plain_vectors(stocked, nodes, options):
    index = VectorStoreIndex(nodes, embed_model=RecoEmbedding(stocked, **options))
    found = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert [(node.node_id, node.score) for node in found] == expected(stocked, nodes, refine=False)


def test_batches_and_single_texts_agree_in_both_ways_of_calling(stocked, nodes):
    embedding, texts = RecoEmbedding(stocked, embed_batch_size=5), [node.text for node in nodes]
    plain = stocked.embed_texts(texts, refine=False)
    assert np.allclose(embedding.get_text_embedding_batch(texts), plain, atol=1e-6)
    assert np.allclose(asyncio.run(embedding.aget_text_embedding_batch(texts)), plain, atol=1e-6)
    assert np.allclose(embedding.get_text_embedding(texts[0]), plain[0], atol=1e-6)
    assert np.allclose(asyncio.run(embedding.aget_text_embedding(texts[0])), plain[0], atol=1e-6)


def test_images_are_paths_or_streams(stocked, files):
    embedding = RecoEmbedding(stocked)
    paths, streams = [str(path) for path in files], [io.BytesIO(path.read_bytes()) for path in files]
    plain = stocked.embed_images(paths, refine=False)
    assert np.allclose(embedding.get_image_embedding_batch(paths), plain, atol=1e-6)
    assert np.allclose(asyncio.run(embedding.aget_image_embedding_batch(streams)), plain, atol=1e-6)
    assert np.allclose(embedding.get_image_embedding(streams[0]), plain[0], atol=1e-6)
    assert np.allclose(asyncio.run(embedding.aget_image_embedding(paths[0])), plain[0], atol=1e-6)


def test_images_are_also_what_every_adapter_takes(stocked, drawings, files):
    """Not only the two kinds that LlamaIndex names: a path as an object, bytes, a picture."""
    embedding, plain = RecoEmbedding(stocked), stocked.embed_images(files[:1], refine=False)[0]
    for image in (files[0], files[0].read_bytes(), drawings[0].image):
        assert np.allclose(embedding.get_image_embedding(image), plain, atol=1e-6)
    with pytest.raises(ImageError, match="pass a path, the bytes of an image file or a PIL image"):
        embedding.get_image_embedding(np.zeros((9, 9, 3), np.uint8))


def test_an_image_can_be_the_query(stocked, nodes, files):
    embedding = RecoEmbedding(stocked)
    vector = embedding.get_image_query_embedding(str(files[0]))
    assert np.allclose(vector, stocked.embed_images([files[0]], refine=True)[0])
    retriever = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=1)
    (found,) = retriever.retrieve(QueryBundle("", embedding=vector))
    assert found.score == pytest.approx(
        max(embedding.get_text_embedding_batch([n.text for n in nodes]) @ np.array(vector))
    )


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


def test_where_no_text_is_refined_the_cache_is_sound(stocked):
    embedding = RecoEmbedding(stocked, refine_queries=False, embeddings_cache=SimpleKVStore())
    assert embedding.get_text_embedding(QUERY) == embedding.get_query_embedding(QUERY)


def test_the_cache_of_ingestion_holds_nodes_only(stocked, nodes):
    pipeline = IngestionPipeline(transformations=[RecoEmbedding(stocked)], cache=IngestionCache())
    first, again = pipeline.run(nodes=nodes), pipeline.run(nodes=nodes)
    assert (
        len(pipeline.cache.cache.get_all(collection=pipeline.cache.collection)) == 1
    )  # the second run was read from it
    assert [node.embedding for node in first] == [node.embedding for node in again]
    assert np.allclose(first[0].embedding, stocked.embed_texts([nodes[0].text], refine=False)[0], atol=1e-6)


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


def test_a_cut_off_of_plain_clip_holds_for_refined_queries(stocked, nodes):
    embedding = RecoEmbedding(stocked, index="images")
    index = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=3)
    asked = stocked.embed([QUERY], modality="text", refine=True)
    raw = index.retrieve(QUERY)
    expected = asked.plain_scores([[one.score for one in raw]])[0]
    assert abs(expected - [one.score for one in raw]).max() > 0.01
    found = PlainSimilarityRetriever(index, embedding).retrieve(QUERY)
    assert [one.node_id for one in found] == [one.node_id for one in raw]
    assert [one.score for one in found] == pytest.approx(expected.tolist(), abs=1e-4)
    least = float(expected[:2].mean())
    cut = PlainSimilarityRetriever(index, embedding, similarity_cutoff=least, cosine=lambda score: score)
    assert [one.node_id for one in asyncio.run(cut.aretrieve(QUERY))] == [raw[0].node_id]


def test_a_picture_can_be_asked_for_with_a_cut_off(stocked, nodes, files):
    embedding = RecoEmbedding(stocked)
    index = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=3)
    retriever = PlainSimilarityRetriever(index, embedding)
    vector = embedding.get_image_query_embedding(str(files[0]))
    raw = index.retrieve(QueryBundle("", embedding=vector))
    found = retriever.retrieve(QueryBundle("", image_path=str(files[0])))
    assert [one.node_id for one in found] == [one.node_id for one in raw]
    with pytest.raises(InputError, match="image_path"):  # and not what is like an empty text
        retriever.retrieve(QueryBundle("", embedding=vector))


def test_results_without_scores_do_not_count_as_zero(stocked, nodes):
    class Unscored(BaseRetriever):
        def _retrieve(self, query_bundle):
            return [NodeWithScore(node=nodes[0])]

    with pytest.raises(ValueError, match="not set"):
        PlainSimilarityRetriever(Unscored(), RecoEmbedding(stocked, index="texts")).retrieve(QUERY)


def test_scores_without_a_way_back_are_refused_instead_of_compared_with_plain_ones(ungated, nodes):
    embedding = RecoEmbedding(ungated, index="images")
    index = VectorStoreIndex(nodes[:2], embed_model=embedding).as_retriever()
    with pytest.raises(ConfigError, match=r"no way back to the scale of plain CLIP.*without the gate"):
        PlainSimilarityRetriever(index, embedding, similarity_cutoff=0.25).retrieve(QUERY)


def test_a_misspelt_field_is_not_ignored():
    with pytest.raises(ConfigError, match="no field 'indx': did you mean 'index'"):
        RecoEmbedding(url="http://localhost", indx="images")
    kept = RecoEmbedding(url="http://localhost", index="images")
    assert RecoEmbedding.model_validate(kept.model_dump()).index == "images"  # which holds the name of the class, too


@pytest.mark.parametrize(
    ("distance", "said"), [(lambda cosine: 2 - 2 * cosine, "rise"), (lambda _: 1.9, "lie beyond 1")]
)
def test_distances_that_are_taken_for_cosines_are_refused_with_the_way_out(stocked, nodes, distance, said):
    class Distances(BaseRetriever):
        """As LlamaIndex's store of FAISS, whose similarities are squared distances."""

        def _retrieve(self, query_bundle):
            found = index.retrieve(query_bundle)
            return [NodeWithScore(node=one.node, score=distance(one.score)) for one in found]

    embedding = RecoEmbedding(stocked, index="texts")
    index = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=3)
    expected = PlainSimilarityRetriever(index, embedding).retrieve(QUERY)
    with pytest.raises(ConfigError, match=f"scores of Distances {said}.*1 - distance / 2"):
        PlainSimilarityRetriever(Distances(), embedding).retrieve(QUERY)
    with pytest.raises(ConfigError, match=f"scores of Distances {said}.* as cosine= makes them"):
        PlainSimilarityRetriever(Distances(), embedding, cosine=lambda score: score).retrieve(QUERY)
    if said == "rise":
        told = PlainSimilarityRetriever(Distances(), embedding, cosine=lambda score: 1 - score / 2).retrieve(QUERY)
        assert [one.score for one in told] == pytest.approx([one.score for one in expected])
