"""LangChain's own suites of embeddings, and a vector store filled and searched."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from reco_plugin import Reco
from reco_plugin.adapters.langchain import PlainScoreRetriever, RecoEmbeddings
from reco_plugin.errors import ConfigError


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return RecoEmbeddings

    @property
    def embedding_model_params(self):
        return {"url": "http://127.0.0.1:1", "api_key": "k", "index": "texts"}  # where nobody listens


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:.*but it is not an async function")  # the mark reaches all of the suite
class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _opened(self, stocked):
        self._reco = stocked

    @property
    def embeddings_class(self):
        return RecoEmbeddings

    @property
    def embedding_model_params(self):
        return {"reco": self._reco, "index": "images"}


@pytest.mark.parametrize(("options", "refine"), [({"index": "texts"}, False), ({"refine_queries": True}, True)])
def test_a_store_of_captions_is_searched_with_vectors_for_captions_unless_told(stocked, drawings, options, refine):
    captions = [pair.text for pair in drawings]
    store = InMemoryVectorStore.from_texts(captions, RecoEmbeddings(stocked, **options))
    found = store.similarity_search_with_score("a large blue square", k=3)
    query = stocked.embed_texts(["a large blue square"], refine=refine)[0]
    cosines = stocked.embed_texts(captions, refine=False) @ query
    best = np.argsort(-cosines)[:3]
    assert [document.page_content for document, _ in found] == [captions[row] for row in best]
    assert [score for _, score in found] == pytest.approx(cosines[best].tolist(), abs=1e-5)


def test_images_share_the_space(stocked, files):
    embeddings = RecoEmbeddings(stocked, index="texts")
    paths = [str(path) for path in files]
    assert np.allclose(embeddings.embed_image(paths), stocked.embed_images(paths, refine=False))
    assert np.allclose(embeddings.embed_image_query(paths[0]), stocked.embed_images(paths[:1], refine=True)[0])


def test_no_texts_have_no_vectors(stocked):
    assert RecoEmbeddings(stocked).embed_documents([]) == []


def test_settings_open_what_is_needed(on_disk):
    embeddings = RecoEmbeddings(settings=on_disk, index="images")
    vector = embeddings.embed_query("a small red circle")
    embeddings.source.close()
    with Reco.open(**on_disk) as reco:
        assert np.allclose(vector, reco.embed_texts(["a small red circle"], refine=True)[0])


def test_a_threshold_of_plain_clip_holds_for_refined_queries(stocked, files):
    embeddings = RecoEmbeddings(stocked, index="images")
    store = InMemoryVectorStore(embeddings)
    paths = [str(path) for path in files]
    store.add_texts(paths)
    vectors = stocked.embed_images(paths, refine=False)
    for kept, vector in zip(store.store.values(), vectors, strict=True):
        kept["vector"] = vector.tolist()
    asked = stocked.embed(["a small red circle"], modality="text", refine=True)
    expected = np.sort(asked.plain_scores(vectors @ asked.vectors[0])[None])[0][::-1]
    found = PlainScoreRetriever(store=store, embeddings=embeddings, k=4).invoke("a small red circle")
    assert [one.metadata["score"] for one in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all("score" not in one["metadata"] for one in store.store.values())
    least = float(expected[1]) - 1e-3
    some = PlainScoreRetriever(store=store, embeddings=embeddings, k=4, score_threshold=least)
    assert len(some.invoke("a small red circle")) == 2
    distances = PlainScoreRetriever(store=store, embeddings=embeddings, cosine=lambda score: 1 - (1 - score))
    assert distances.invoke("a small red circle")[0].metadata["score"] == pytest.approx(expected[0], abs=1e-4)


def test_chroma_tells_its_distances_by_a_search_of_another_name(stocked):
    class Chroma:
        def similarity_search_by_vector_with_relevance_scores(self, embedding, k):
            found = store.similarity_search_with_score_by_vector(embedding, k)
            return [(document, 1 - score) for document, score in found]

    embeddings = RecoEmbeddings(stocked, index="texts")
    store = InMemoryVectorStore.from_texts(["a small red circle", "a large blue square"], embeddings)
    expected = PlainScoreRetriever(store=store, embeddings=embeddings).invoke("a small red circle")
    found = PlainScoreRetriever(store=Chroma(), embeddings=embeddings, cosine=lambda distance: 1 - distance)
    assert found.invoke("a small red circle") == expected


def test_a_misspelt_field_is_not_ignored(stocked):
    with pytest.raises(ConfigError, match="no field 'score_treshold': did you mean 'score_threshold'"):
        PlainScoreRetriever(store=object(), embeddings=RecoEmbeddings(stocked), score_treshold=0.25)


def test_a_store_that_tells_no_scores_is_refused_with_the_way_out(stocked):
    with pytest.raises(ConfigError, match=r"object has no similarity_search_with_score_by_vector.*plain_scores"):
        PlainScoreRetriever(store=object(), embeddings=RecoEmbeddings(stocked))


def test_scores_without_a_way_back_are_refused_instead_of_compared_with_plain_ones(ungated):
    embeddings = RecoEmbeddings(ungated, index="images")
    store = InMemoryVectorStore.from_texts(["a red fox"], embeddings)
    with pytest.raises(ConfigError, match=r"no way back to the scale of plain CLIP.*without the gate"):
        PlainScoreRetriever(store=store, embeddings=embeddings).invoke("a small red circle")


def test_distances_that_are_taken_for_cosines_are_refused_with_the_way_out(stocked):
    class Distances(InMemoryVectorStore):
        def similarity_search_with_score_by_vector(self, *args, **kwargs):
            found = super().similarity_search_with_score_by_vector(*args, **kwargs)
            return [(document, 1 - score) for document, score in found]

    embeddings = RecoEmbeddings(stocked, index="texts")
    store = Distances.from_texts(["a small red circle", "a large blue square"], embeddings)
    with pytest.raises(ConfigError, match=r"scores of Distances rise.*cosine=lambda distance: 1 - distance"):
        PlainScoreRetriever(store=store, embeddings=embeddings).invoke("a small red circle")
    twice = PlainScoreRetriever(store=store, embeddings=embeddings, cosine=lambda score: score)
    with pytest.raises(ConfigError, match=r"scores of Distances rise.* as cosine= makes them: the store may tell"):
        twice.invoke("a small red circle")
    told = PlainScoreRetriever(store=store, embeddings=embeddings, cosine=lambda distance: 1 - distance)
    assert [one.page_content for one in told.invoke("a small red circle")] == [
        "a small red circle",
        "a large blue square",
    ]
