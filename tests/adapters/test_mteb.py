"""MTEB's own evaluation through our encoder; tasks are made here, nothing is fetched."""

from __future__ import annotations

import numpy as np
import pytest

mteb = pytest.importorskip("mteb", reason="mteb is not installed: there is none for Linux on arm64")
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.mocks.mock_tasks.classification import MockImageClassificationTask
from mteb.mocks.mock_tasks.retrieval import MockAny2AnyRetrievalI2TTask
from mteb.mocks.mock_tasks.sts import MockSTSTask
from mteb.mocks.mock_tasks.zeroshot_classification import MockZeroShotClassificationTask
from mteb.models.models_protocols import EncoderProtocol
from mteb.types import PromptType

from reco_plugin.adapters.mteb import RecoEncoder
from reco_plugin.errors import InputError


class DrawingsByCaption(AbsTaskRetrieval):
    """Captions search drawings."""

    metadata = MockAny2AnyRetrievalI2TTask.metadata.model_copy(
        update={"name": "DrawingsByCaption", "category": "t2i", "main_score": "hit_rate_at_1"}
    )
    pairs = ()

    def load_data(self, num_proc=None, **_):
        ids = [pair.id for pair in self.pairs]
        data = RetrievalSplitData(
            queries=Dataset.from_dict({"id": ids, "text": [pair.text for pair in self.pairs]}),
            corpus=Dataset.from_dict({"id": ids, "image": [pair.image for pair in self.pairs]}),
            relevant_docs={id_: {id_: 1} for id_ in ids},
            top_ranked=None,
        )
        self.dataset, self.data_loaded = {"default": {"test": data}}, True


def scores(encoder, task):
    (result,) = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False, co2_tracker=False).task_results
    return result.scores["test"][0]


def recall_at_1(queries, gallery):
    return float(np.mean(np.argmax(queries @ gallery.T, axis=1) == np.arange(len(queries))))


def test_it_is_what_mteb_calls_an_encoder(stocked):
    assert isinstance(RecoEncoder("tests/reco", "1", reco=stocked), EncoderProtocol)


@pytest.mark.parametrize(
    ("options", "refine"), [({}, True), ({"refine_queries": False}, False), ({"index": "texts"}, False)]
)
def test_a_retrieval_task_gives_what_the_vectors_give(stocked, drawings, options, refine):
    """Its category says what the documents are, unless an index is named."""
    task = DrawingsByCaption()
    task.pairs = drawings
    found = scores(RecoEncoder("tests/reco", "1", reco=stocked, **options), task)
    queries = stocked.embed_texts([pair.text for pair in drawings], refine=refine)
    gallery = stocked.embed_images([pair.image for pair in drawings], refine=False)
    assert found["recall_at_1"] == pytest.approx(recall_at_1(queries, gallery), abs=1e-5)


def test_a_corpus_is_refined_as_one_set(stocked, drawings):
    task = DrawingsByCaption()
    task.pairs = drawings
    encoder = RecoEncoder("tests/reco", "1", reco=stocked, refine_queries=False, refine_documents=True)
    queries = stocked.embed_texts([pair.text for pair in drawings], refine=False)
    gallery = stocked.embed_images([pair.image for pair in drawings], refine=True, role="candidate")
    assert scores(encoder, task)["recall_at_1"] == pytest.approx(recall_at_1(queries, gallery), abs=1e-5)


def test_a_row_with_text_and_image_is_the_mean_of_both(stocked, drawings):
    rows = [{"text": pair.text, "image": pair.image} for pair in drawings[:5]]
    batches = [{name: [row[name] for row in part] for name in ("text", "image")} for part in (rows[:3], rows[3:])]
    found = encode(stocked, batches, "it2it")
    told = {"refine": True, "target": "both"}
    sides = (
        stocked.embed_texts([row["text"] for row in rows], **told),
        stocked.embed_images([row["image"] for row in rows], **told),
    )
    mean = sum(sides) / np.linalg.norm(sum(sides), axis=1, keepdims=True)
    assert np.allclose(found, mean, atol=1e-6)


def encode(stocked, batches, category):
    return RecoEncoder("tests/reco", "1", reco=stocked).encode(
        batches,
        task_metadata=DrawingsByCaption.metadata.model_copy(update={"category": category}),
        hf_split="test",
        hf_subset="default",
        prompt_type=PromptType.query,
    )


@pytest.mark.parametrize(
    ("category", "texts", "images"),
    [("t2t", False, True), ("t2i", True, False), ("i2t", False, True), ("i2i", True, False), ("t2it", False, False)],
)
def test_queries_are_refined_for_what_the_documents_are(stocked, drawings, category, texts, images):
    """The memory is too small to say how far a query moves for documents of its own modality, or of both."""
    words, pictures = [pair.text for pair in drawings[:5]], [pair.image for pair in drawings[:5]]
    found = encode(stocked, [{"text": words}], category), encode(stocked, [{"image": pictures}], category)
    assert np.allclose(found[0], stocked.embed_texts(words, refine=texts), atol=1e-6)
    assert np.allclose(found[1], stocked.embed_images(pictures, refine=images), atol=1e-6)


def test_rows_without_text_or_image_are_refused(stocked):
    batches = [{"audio": [b"x"]}]
    with pytest.raises(InputError, match="DrawingsByCaption: rows have neither 'text' nor 'image'"):
        RecoEncoder("tests/reco", "1", reco=stocked).encode(
            batches, task_metadata=DrawingsByCaption.metadata, hf_split="test", hf_subset="default"
        )


@pytest.mark.filterwarnings("ignore:Precision is ill-defined")  # its tasks have two random images
@pytest.mark.parametrize("task", [MockImageClassificationTask, MockSTSTask, MockZeroShotClassificationTask])
def test_mtebs_own_small_tasks_run(stocked, task):
    assert np.isfinite(scores(RecoEncoder("tests/reco", "1", reco=stocked), task())["main_score"])
