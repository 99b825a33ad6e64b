"""A drop-in replacement for ``SentenceTransformer``: ``encode`` and related methods. Needs no sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from typing import Any, Unpack, get_args

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from ..errors import InputError, importing
from ..types import MODALITIES, InputType, Modality, Vectors
from .base import Embeds, SourceOptions, VectorSource

_TENSOR = "convert_to_tensor"
_IGNORED = {
    "batch_size",
    "show_progress_bar",
    "device",
    "convert_to_numpy",
    "normalize_embeddings",
    "chunk_size",
    _TENSOR,
}
"""Options that change no vector: the source batches by itself, and all vectors have unit norm."""
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "prompt": (None,),
    "output_value": ("sentence_embedding",),
    "precision": ("float32", None),  # evaluators send None by default
    "truncate_dim": (None,),
    "pool": (None,),
}
"""Options that change vectors -> the supported values; messages name the first."""


class _NoCard:
    """Stands in for the model card, to which sentence-transformers' evaluators add their metrics."""

    def set_evaluation_metrics(self, *_: Any) -> None:
        """Do nothing: the evaluator also returns its metrics."""


class RecoSentenceTransformer:
    """Has the methods of ``SentenceTransformer``, but is no subclass. Only ``encode_query`` refines by default.

    Inputs are texts, images (PIL, ``Path`` or bytes), ``{"text": ...}`` and ``{"image": ...}``, mixed.

    Example::

        model = RecoSentenceTransformer(settings={"model": "triton_models", "memory": "./memory"}, index="images")
        model.similarity(model.encode_query("a red fox"), model.encode_document(pictures))
    """

    similarity_fn_name = "cosine"
    model_card_data = _NoCard()

    def __init__(self, reco: Embeds | None = None, **options: Unpack[SourceOptions]) -> None:
        """Take an opened object, or options to open one at first use: see :class:`~.VectorSource`."""
        self.source = VectorSource(reco, **options)

    def encode(self, inputs: Any, prompt_name: str | None = None, **options: Any) -> Vectors:
        """Embed one input to (D,), or a list of B to (B, D); float32, unit-norm.

        Args:
            inputs: one input, or a list.
            prompt_name: ``"query"`` as in :meth:`encode_query`; ``"document"`` and None as in :meth:`encode_document`.
            options: those of sentence-transformers; an option that would change the vectors is an error.

        Raises:
            InputError: an unsupported option, or an input that is neither text nor image.
        """
        for name, value in options.items():
            if name not in _IGNORED and not (name in _SUPPORTED and value in _SUPPORTED[name]):
                hint = f"only {name}={_SUPPORTED[name][0]!r}" if name in _SUPPORTED else "there is no such option"
                raise InputError(f"{name}={value!r} is not supported: {hint}")
        side: Any = prompt_name or "document"
        if side not in get_args(InputType):
            raise InputError(f"prompt_name must be 'query' or 'document', got {prompt_name!r}")
        vectors = self._embed([inputs], side)[0] if _is_one(inputs) else self._embed(_listed(inputs), side)
        return _tensor(vectors) if options.get(_TENSOR) else np.asarray(vectors)

    def encode_query(self, inputs: Any, **options: Any) -> Vectors:
        """Embed queries, (D,) or (B, D); arguments as in :meth:`encode`."""
        return self.encode(inputs, **{**options, "prompt_name": "query"})  # evaluators pass prompt_name=None

    def encode_document(self, inputs: Any, **options: Any) -> Vectors:
        """Embed documents, (D,) or (B, D); arguments as in :meth:`encode`."""
        return self.encode(inputs, **{"prompt_name": "document", **options})

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Vectors:
        """Cosines (B1, B2) of all rows of (B1, D) and (B2, D); a tensor if either is a tensor."""
        cosines = _unit(embeddings1) @ _unit(embeddings2).T
        return _tensor(cosines) if _is_tensor(embeddings1) or _is_tensor(embeddings2) else cosines

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Vectors:
        """Cosines (B,) of the corresponding rows of (B, D) and (B, D); a tensor if either is a tensor."""
        cosines = np.asarray(np.einsum("bd,bd->b", _unit(embeddings1), _unit(embeddings2)))
        return _tensor(cosines) if _is_tensor(embeddings1) or _is_tensor(embeddings2) else cosines

    def get_embedding_dimension(self) -> int:
        """Return D, which takes one embedding."""
        return int(self.source.reco.embed_texts(["a"], refine=False).shape[1])

    get_sentence_embedding_dimension = get_embedding_dimension

    def _embed(self, inputs: list[Any], side: InputType) -> Vectors:
        """Embed texts in one call and images in another; (B, D) in the order of the inputs."""
        kinds = [_kind(item) for item in inputs]
        out: Vectors = np.empty((0, 0), np.float32)
        for modality in MODALITIES:
            rows = [row for row, (kind, _) in enumerate(kinds) if kind == modality]
            if rows:
                embed = self.source.images if modality == "image" else self.source.texts
                vectors = embed([kinds[row][1] for row in rows], side)
                out = out if len(out) else np.empty((len(inputs), vectors.shape[1]), np.float32)
                out[rows] = vectors
        return out


def _is_one(inputs: Any) -> bool:
    return isinstance(inputs, str | bytes | Image | Mapping) or not isinstance(inputs, Iterable)


def _listed(inputs: Iterable[Any]) -> list[Any]:
    if isinstance(inputs, Set):
        raise InputError(
            f"a {type(inputs).__name__} has no order: give a list, so that row i of the vectors belongs to input i"
        )
    return list(inputs)


def _kind(item: Any) -> tuple[Modality, Any]:
    match item:
        case str():
            return "text", item
        case Image() | bytes() | os.PathLike():
            return "image", item
        case {"text": str(text), **others} if not others:
            return "text", text
        case {"image": image, **others} if not others:
            return "image", image
    raise InputError(
        f"an input must be a text, a PIL image, a Path, bytes, or a mapping with one of them, got {item!r:.60}"
    )


def _is_tensor(vectors: object) -> bool:
    return type(vectors).__module__.partition(".")[0] == "torch"


def _tensor(array: Vectors) -> Any:
    with importing("torch", "train", "convert_to_tensor=True"):
        import torch
    return torch.from_numpy(array)


def _unit(vectors: npt.ArrayLike) -> Vectors:
    array = np.atleast_2d(np.asarray(vectors, np.float32))
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))
