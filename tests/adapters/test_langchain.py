"""LangChain's own suites of embeddings, and a vector store filled and searched."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from reco_plugin.adapters.langchain import RecoEmbeddings

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(("options", "refine"), [({"index": "texts"}, False), ({"index": "images"}, True)])
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
    query = stocked.embed_images(paths[:1], refine=True, target="text")[0]
    assert np.allclose(embeddings.embed_image_query(paths[0]), query)
