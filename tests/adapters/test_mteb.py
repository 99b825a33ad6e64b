"""MTEB's own evaluation through our encoder; tasks are made here, nothing is fetched."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import numpy as np
import pytest

from reco_plugin.errors import InputError


@pytest.fixture(scope="module")
def made():
    """The module with our task, imported here: MTEB takes a second, which only the process that runs it should wait."""
    pytest.importorskip("mteb", reason="mteb is not installed: there is none for Linux on arm64")
    import mteb_task

    return mteb_task


@pytest.fixture
def opened(made, stocked):
    """Opens our encoder of the drawings."""
    from reco_plugin.adapters.mteb import RecoEncoder

    return partial(RecoEncoder, "tests/reco", "1", reco=stocked)


def recall_at_1(queries, gallery):
    return float(np.mean(np.argmax(queries @ gallery.T, axis=1) == np.arange(len(queries))))


def test_it_is_what_mteb_calls_an_encoder(opened):
    from mteb.models.models_protocols import EncoderProtocol

    assert isinstance(opened(), EncoderProtocol)


@pytest.mark.parametrize(
    ("options", "refine"), [({}, True), ({"refine_queries": False}, False), ({"index": "texts"}, False)]
)
def test_a_retrieval_task_gives_what_the_vectors_give(made, opened, stocked, drawings, options, refine):
    """Its category says what the documents are, unless an index is named."""
    task = made.DrawingsByCaption()
    task.pairs = drawings
    found = made.scores(opened(**options), task)
    queries = stocked.embed_texts([pair.text for pair in drawings], refine=refine)
    gallery = stocked.embed_images([pair.image for pair in drawings], refine=False)
    assert found["recall_at_1"] == pytest.approx(recall_at_1(queries, gallery), abs=1e-5)


def test_a_corpus_is_refined_as_one_set(made, opened, stocked, drawings):
    task = made.DrawingsByCaption()
    task.pairs = drawings
    encoder = opened(refine_queries=False, refine_documents=True)
    queries = stocked.embed_texts([pair.text for pair in drawings], refine=False)
    gallery = stocked.embed_images([pair.image for pair in drawings], refine=True, role="candidate")
    assert made.scores(encoder, task)["recall_at_1"] == pytest.approx(recall_at_1(queries, gallery), abs=1e-5)


def test_a_row_with_text_and_image_is_the_mean_of_both(encode, stocked, drawings):
    rows = [{"text": pair.text, "image": pair.image} for pair in drawings[:5]]
    batches = [{name: [row[name] for row in part] for name in ("text", "image")} for part in (rows[:3], rows[3:])]
    found = encode(batches, "it2it")
    told = {"refine": True, "target": "both"}
    sides = (
        stocked.embed_texts([row["text"] for row in rows], **told),
        stocked.embed_images([row["image"] for row in rows], **told),
    )
    mean = sum(sides) / np.linalg.norm(sum(sides), axis=1, keepdims=True)
    assert np.allclose(found, mean, atol=1e-6)


@pytest.fixture
def encode(made, opened):
    """Encodes batches of queries of a task of some category."""
    from mteb.types import PromptType

    def run(batches, category):
        return opened().encode(
            batches,
            task_metadata=made.DrawingsByCaption.metadata.model_copy(update={"category": category}),
            hf_split="test",
            hf_subset="default",
            prompt_type=PromptType.query,
        )

    return run


@pytest.mark.parametrize(
    ("category", "texts", "images"),
    [("t2t", False, True), ("t2i", True, False), ("i2t", False, True), ("i2i", True, False), ("t2it", False, False)],
)
def test_queries_are_refined_for_what_the_documents_are(encode, stocked, drawings, category, texts, images):
    """The memory is too small to say how far a query moves for documents of its own modality, or of both."""
    words, pictures = [pair.text for pair in drawings[:5]], [pair.image for pair in drawings[:5]]
    found = encode([{"text": words}], category), encode([{"image": pictures}], category)
    assert np.allclose(found[0], stocked.embed_texts(words, refine=texts), atol=1e-6)
    assert np.allclose(found[1], stocked.embed_images(pictures, refine=images), atol=1e-6)


def test_rows_without_text_or_image_are_refused(made, opened):
    batches = [{"audio": [b"x"]}]
    with pytest.raises(InputError, match="DrawingsByCaption: rows have neither 'text' nor 'image'"):
        opened().encode(batches, task_metadata=made.DrawingsByCaption.metadata, hf_split="test", hf_subset="default")


@pytest.mark.filterwarnings("ignore:Precision is ill-defined")  # its tasks have two random images
@pytest.mark.parametrize(
    "task",
    [
        "classification.MockImageClassificationTask",
        "sts.MockSTSTask",
        "zeroshot_classification.MockZeroShotClassificationTask",
    ],
)
def test_mtebs_own_small_tasks_run(made, opened, task):
    module, _, name = task.partition(".")
    theirs = getattr(import_module(f"mteb.mocks.mock_tasks.{module}"), name)
    assert np.isfinite(made.scores(opened(), theirs())["main_score"])
