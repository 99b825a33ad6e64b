"""A drop-in for ``SentenceTransformer``, without sentence-transformers: ``encode`` and related methods."""

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
_NO_MATTER = {
    "batch_size",
    "show_progress_bar",
    "device",
    "convert_to_numpy",
    "normalize_embeddings",
    "chunk_size",
    _TENSOR,
}
"""Options that change no vector: the source batches, and all vectors are of unit norm; of one, what holds them."""
_ONLY: dict[str, tuple[Any, ...]] = {
    "prompt": (None,),
    "output_value": ("sentence_embedding",),
    "precision": ("float32", None),  # the latter is what evaluators send where none was chosen
    "truncate_dim": (None,),
    "pool": (None,),
}
"""Options that would change the answer -> the only values that are supported, the first of them for messages."""


class _NoCard:
    """In the place of a model's card, in which sentence-transformers' evaluators write what they found."""

    def set_evaluation_metrics(self, *found: Any) -> None:
        """Keep nothing: the evaluator gives its figures to who called it."""


class RecoSentenceTransformer:
    """Same methods, not a subclass. ``encode_query`` is refined for what the index holds; the rest is plain.

    Inputs are texts, images (PIL, ``Path`` or bytes), ``{"text": ...}`` and ``{"image": ...}``, mixed.

    Example::

        model = RecoSentenceTransformer(settings={"model": "triton_models", "memory": "./memory"}, index="images")
        model.similarity(model.encode_query("a red fox"), model.encode_document(pictures))
    """

    similarity_fn_name = "cosine"
    model_card_data = _NoCard()

    def __init__(self, reco: Embeds | None = None, **options: Unpack[SourceOptions]) -> None:
        """Take an opened object, or say what to open at first use: see :class:`~.VectorSource`."""
        self.source = VectorSource(reco, **options)

    def encode(self, inputs: Any, prompt_name: str | None = None, **options: Any) -> Vectors:
        """Embed one input, (D,), or a list of them, (B, D); float32, unit-norm, in a tensor if asked for.

        Args:
            inputs: one or many.
            prompt_name: ``"query"`` as in :meth:`encode_query`; ``"document"`` and None as in :meth:`encode_document`.
            options: those of sentence-transformers; one that would change the answer is refused, not ignored.

        Raises:
            InputError: an unsupported option, or an input that is neither text nor image.
        """
        for name, value in options.items():
            if name not in _NO_MATTER and not (name in _ONLY and value in _ONLY[name]):
                hint = f"only {name}={_ONLY[name][0]!r}" if name in _ONLY else "there is no such option"
                raise InputError(f"{name}={value!r} cannot be followed: {hint}")
        side: Any = prompt_name or "document"
        if side not in get_args(InputType):
            raise InputError(f"prompt_name must be 'query' or 'document', got {prompt_name!r}")
        vectors = self._embed([inputs], side)[0] if _is_one(inputs) else self._embed(_listed(inputs), side)
        return _tensor(vectors) if options.get(_TENSOR) else np.asarray(vectors)

    def encode_query(self, inputs: Any, **options: Any) -> Vectors:
        """Embed queries, (D,) or (B, D); arguments as in :meth:`encode`."""
        return self.encode(inputs, **{**options, "prompt_name": "query"})  # evaluators say None

    def encode_document(self, inputs: Any, **options: Any) -> Vectors:
        """Embed documents, (D,) or (B, D); arguments as in :meth:`encode`."""
        return self.encode(inputs, **{"prompt_name": "document", **options})

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Vectors:
        """Cosines of all rows (B1, D) with all rows (B2, D): (B1, B2); of tensors a tensor."""
        cosines = _unit(embeddings1) @ _unit(embeddings2).T
        return _tensor(cosines) if _is_tensor(embeddings1) or _is_tensor(embeddings2) else cosines

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Vectors:
        """Cosines row by row of (B, D) and (B, D): (B,); of tensors a tensor."""
        cosines = np.asarray(np.einsum("bd,bd->b", _unit(embeddings1), _unit(embeddings2)))
        return _tensor(cosines) if _is_tensor(embeddings1) or _is_tensor(embeddings2) else cosines

    def get_embedding_dimension(self) -> int:
        """D, found by embedding a word."""
        return int(self.source.reco.embed_texts(["a"], refine=False).shape[1])

    get_sentence_embedding_dimension = get_embedding_dimension

    def _embed(self, inputs: list[Any], side: InputType) -> Vectors:
        """Texts in one call and images in another; (B, D) in the order of the inputs."""
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
        raise InputError(f"a {type(inputs).__name__} has no order, and vectors come in that of the inputs: give a list")
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
