"""A task of MTEB's that is made here, and how it is run: imported by the tests that do, since MTEB takes a second."""

from __future__ import annotations

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.mocks.mock_tasks.retrieval import MockAny2AnyRetrievalI2TTask


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
