"""MTEB and MIEB on a refined CLIP: ``pip install mteb``, then ``python -m examples.evaluate_mteb MODEL MEMORY TASK …``.

Queries of retrieval and reranking are refined for the modality of the task's documents, which stay plain. Other tasks
stay plain. MTEB stores figures by name and revision, so the memory is the revision.
"""

from __future__ import annotations

import sys
from typing import Any

import mteb
import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from reco_plugin import Reco


class RecoEncoder(AbsEncoder):
    """A model for ``mteb.evaluate``."""

    def __init__(self, reco: Reco, revision: str) -> None:
        self.reco = reco
        known = {"name": "me/clip-reco", "modalities": ["text", "image"], "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty({**known, "revision": revision, "use_instructions": False})

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **_: Any) -> Any:
        """Embed texts, images, or both of each row as the mean of the two: (B, D) float32, unit-norm."""
        after = (task_metadata.category or "").rpartition("2")[2]  # t2i: texts search images
        target = "both" if len(after) > 1 else {"i": "image", "t": "text"}.get(after, "image")
        refine = prompt_type == PromptType.query
        parts: dict[str, list[Any]] = {}
        for batch in inputs:
            for name, embed in (("text", self.reco.embed_texts), ("image", self.reco.embed_images)):
                if name in batch:
                    parts.setdefault(name, []).append(embed(batch[name], refine=refine, target=target))
        mean = np.mean([np.concatenate(vectors) for vectors in parts.values()], axis=0)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


if __name__ == "__main__":
    model, memory, *tasks = sys.argv[1:]
    with Reco.open(model, memory=memory, on_memory_failure="fail") as opened:
        print(mteb.evaluate(RecoEncoder(opened, memory), mteb.get_tasks(tasks)).to_dataframe())
