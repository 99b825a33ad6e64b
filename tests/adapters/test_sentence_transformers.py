"""The look-alike answers as the real class does, or says what it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.adapters.sentence_transformers import RecoSentenceTransformer
from reco_plugin.errors import InputError

pytestmark = pytest.mark.slow

TEXTS = ["a small red circle", "a large blue square"]


@pytest.fixture
def like(stocked):
    return RecoSentenceTransformer(stocked, index="images")


def test_queries_are_refined_the_rest_is_plain(like, stocked):
    plain, refined = stocked.embed_texts(TEXTS, refine=False), stocked.embed_texts(TEXTS, refine=True)
    assert np.array_equal(like.encode_query(TEXTS), refined)
    assert np.array_equal(like.encode(TEXTS, prompt_name="query"), refined)
    for encode in (like.encode, like.encode_document):
        assert np.array_equal(encode(TEXTS, batch_size=1, show_progress_bar=False), plain)


def test_texts_and_images_mix_and_keep_their_places(like, drawings, files):
    image, path = drawings[0].image, files[0]
    mixed = like.encode([image, TEXTS[0], {"image": image}, {"text": TEXTS[1]}, path, path.read_bytes()])
    apart = [like.encode(each) for each in (image, TEXTS[0], image, TEXTS[1], path, path.read_bytes())]
    assert np.allclose(mixed, apart, atol=1e-6)
    assert np.allclose(apart[-2:], apart[:1], atol=1e-6)


@pytest.mark.parametrize("wrong", [1, [{"text": "a", "image": "b"}], [None]])
def test_other_inputs_are_refused(like, wrong):
    with pytest.raises(InputError, match="a text, a PIL image, a Path, bytes, or a mapping"):
        like.encode(wrong)


@pytest.mark.fetched
def test_similarities_are_those_of_the_real_functions(like):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.util import cos_sim

    one, two = like.encode_query(TEXTS), 3 * like.encode(TEXTS)
    assert np.allclose(like.similarity(one, two), cos_sim(one, two), atol=1e-6)
    assert np.allclose(like.similarity_pairwise(one, two), np.diag(like.similarity(one, two)), atol=1e-6)
    assert like.similarity(one[0], two).shape == (1, 2)


@pytest.mark.fetched
def test_the_evaluators_of_sentence_transformers_ask_refined_queries_and_plain_documents(like):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import evaluation

    queries, documents = {"q": TEXTS[0]}, {str(n): text for n, text in enumerate([*TEXTS, "a green cross"])}
    scores = like.similarity(like.encode_query(TEXTS[0]), like.encode([*documents.values()]))[0]
    wanted = 1 + int((scores > scores[1]).sum())
    search = evaluation.InformationRetrievalEvaluator(queries, documents, {"q": {"1"}}, mrr_at_k=[3])
    assert search(like)["cosine_mrr@3"] == pytest.approx(1 / wanted)
    ranked = evaluation.RerankingEvaluator([{"query": TEXTS[0], "positive": TEXTS[1:], "negative": ["a green cross"]}])
    assert ranked(like)["mrr@10"] in (1, 0.5)
    assert evaluation.TripletEvaluator(TEXTS[:1], TEXTS[:1], TEXTS[1:])(like) == {"cosine_accuracy": 1}
    pairs = [*TEXTS, "a green cross"], [TEXTS[0], "a small blue square", "a large red star"]
    alike = evaluation.EmbeddingSimilarityEvaluator(*pairs, [1, 0.5, 0])(like)
    assert alike["spearman_cosine"] > 0
