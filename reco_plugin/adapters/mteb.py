"""MTEB and MIEB: queries are refined for what a task's documents are, documents stay plain CLIP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..errors import InputError, importing
from ..types import MODALITIES, InputType, Modality, Vectors
from .source import Embeds, SourceOptions, VectorSource

with importing("mteb", "mteb", "this adapter"):
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata


class RecoEncoder(AbsEncoder):
    """A model for ``mteb.evaluate``.

    MTEB distinguishes queries and documents in retrieval and reranking only, and the task's category says what the
    documents are: a text moves otherwise for images than for texts, or for both. In other tasks (classes,
    clusters, similar sentences) all inputs are compared with one another, and stay plain; for zero-shot classification
    see :mod:`reco_plugin.adapters.clip_benchmark`.

    Example::

        with Reco.open("triton_models", memory="./memory") as reco:
            mteb.evaluate(RecoEncoder("me/clip-reco", "memory-3", reco=reco), tasks)
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None,
        *,
        device: str | None = None,
        reco: Embeds | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        """Take an opened object, or say what to open at first use: see :class:`~.source.VectorSource`.

        Args:
            model_name: ``organisation/name``.
            revision: any text. MTEB stores results by name and revision and does not compute them again, so change it
                with the model, the memory or what is refined.
            device: not used; it is a setting.
            reco: an opened object.
            options: of the source.
        """
        self.source = VectorSource(reco, **options)
        self.mteb_model_meta = _meta(model_name, revision)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> Vectors:
        """Embed texts, images, or both of each row as the mean of the two: (B, D) float32, unit-norm.

        Rows of one call are refined together: a corpus, if documents are refined, as one set.

        Raises:
            InputError: rows without text and image.
        """
        side: InputType = "query" if prompt_type == PromptType.query else "document"
        parts: dict[Modality, list[Vectors]] = {}
        for batch in inputs:
            for modality in MODALITIES:
                if modality in batch:
                    parts.setdefault(modality, []).append(self._plain(batch[modality], modality))
        if not parts:
            raise InputError(f"{task_metadata.name}: rows have neither 'text' nor 'image'")
        among = _documents_of(task_metadata)
        sides = [self.source.refine(np.concatenate(found), modality, side, among) for modality, found in parts.items()]
        mean = np.mean(sides, axis=0)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)

    def _plain(self, items: Sequence[Any], modality: Modality) -> Vectors:
        if modality == "text":
            return self.source.reco.embed_texts(items, refine=False)
        return self.source.reco.embed_images(items, refine=False)


def _documents_of(task: TaskMetadata) -> list[Modality]:
    """What the documents of a task are; ``t2i``: texts search images, ``t2it``: what has both."""
    after = (task.category or "").rpartition("2")[2]
    return [modality for modality in MODALITIES if modality[0] in after]


def _meta(name: str, revision: str | None) -> ModelMeta:
    known = {"name": name, "modalities": ["text", "image"], "similarity_fn_name": ScoringFunction.COSINE}
    return ModelMeta.create_empty({**known, "revision": revision, "use_instructions": False})
