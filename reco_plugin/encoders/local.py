"""The encoder of a model folder: images and texts -> CLIP vectors, by two ONNX graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..batching import Batcher, Columns
from ..errors import FORKED, InputError, SessionError, UnusableFeatures, VectorError
from ..settings import Settings
from ..types import MODALITIES, ImageInput, Modality, Pair, Records, Vectors
from ..values import check_items, check_vectors, is_unicode, show
from .model_folder import Artifact, clip_graph
from .preprocess import Tokenizer, cut_by_length, cut_to_longest, image_to_array, images_to_array
from .preprocess.image import Decoding
from .preprocess.text import TokenIds, lengths_of, needed_tokens
from .runtimes.base import Session
from .runtimes.graphs import Graphs, check_graph

_SORTED_BATCHES = 16  # batches of texts that are sorted by length together
Progress = Callable[[int], None]
"""Called with the number of items of each finished batch."""


class Encoder:
    """The frozen CLIP of a model folder. Its graphs are loaded at first use."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._artifact = artifact
        self._settings = settings
        self._graphs = Graphs(artifact, settings)
        self._names = {modality: clip_graph(modality) for modality in MODALITIES}
        self._sessions: dict[Modality, Session] = {}
        self._process: int | None = None  # the process that loaded the first graph
        self._batchers: dict[Modality, Batcher[Modality]] = {}  # one each, since texts must not wait for images
        if settings.batch_callers and settings.triton_url is None:  # Triton batches by itself
            self._batchers = {modality: Batcher(self._run, settings.batch_size) for modality in MODALITIES}
        self.preparation = Preparation(artifact, settings.max_pixels)
        """Prepares single items for :meth:`arrays`."""
        self.modalities: tuple[Modality, ...] = MODALITIES
        """The modalities that it encodes."""
        self.client: Any = None
        """The :class:`.ApiClient` of an encoder that is an API; None for a model folder."""
        self.changed: str | None = None
        """Why its vectors no longer fit the memory, since an API may change its model; None if they do."""

    @property
    def dimension(self) -> int:
        """The dimension D of the vectors."""
        return self._artifact.manifest.dimension

    @property
    def batches_callers(self) -> bool:
        """Whether the items of several threads are encoded together in this process."""
        return bool(self._batchers)

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts of the encoder's training, with ``{}`` in place of a name; empty if the manifest has none."""
        return self._artifact.manifest.templates

    def images(self, images: Sequence[ImageInput] | npt.NDArray[np.uint8], progress: Progress | None = None) -> Vectors:
        """Encode images; returns (B, D) float32, unit-norm.

        Args:
            images: B paths, bytes or PIL images; or pixels (B, H, W, 3) uint8 of the encoder's size.
            progress: called after each batch.

        Raises:
            InputError: the batch is empty.
            ImageError: an image cannot be decoded or is too large; the message has its position.
            UnusableFeatures: the graph computed NaN, infinity or zeros for an image; the message has its position.
        """
        return self._encode_batches(images, "image", progress)

    def texts(self, texts: Sequence[str] | TokenIds, progress: Progress | None = None) -> Vectors:
        """Encode texts, truncated to the context length; returns (B, D) float32, unit-norm.

        Args:
            texts: B texts; or token ids (B, L) int32, padded to the context length.
            progress: called after each batch.

        Raises:
            InputError: the batch is empty, or a text is not valid Unicode.
            UnusableFeatures: as in :meth:`images`.
        """
        return self._encode_batches(texts, "text", progress)

    def arrays(
        self, arrays: Sequence[npt.NDArray[Any]], modality: Modality, progress: Progress | None = None
    ) -> Vectors:
        """Encode items that :attr:`preparation` prepared; returns (B, D) as :meth:`images`.

        Args:
            arrays: B arrays: pixels (H, W, 3) uint8, token ids (L,) int32, or vectors (D,) float32, which are returned
                unchanged.
            modality: modality of the items.
            progress: called after each batch.
        """
        encode: Callable[..., Vectors] = self.images if modality == "image" else self.texts
        out, raw = np.empty((len(arrays), self.dimension), np.float32), list[int]()
        for row, array in enumerate(arrays):
            if array.dtype == np.float32:
                out[row] = array
            else:
                raw.append(row)
        size = max(len(raw), 1) if modality == "text" else self._settings.batch_size  # images are large
        for start in range(0, len(raw), size):
            rows = raw[start : start + size]
            try:
                out[rows] = encode(self._stack([arrays[row] for row in rows]), progress)
            except UnusableFeatures as error:
                raise UnusableFeatures(error.what, rows[error.position]) from None
        return out

    def check(self) -> None:
        """Check that the Triton server is ready; without one, do nothing.

        Raises:
            SessionError: the server is not ready, cannot be reached, or does not answer in time.
        """
        for modality in MODALITIES:
            check_graph(clip_graph(modality), self._settings)

    def close(self) -> None:
        """Close the connections to an API; graphs need no closing."""
        if self.client is not None:
            self.client.close()

    def _stack(self, items: list[npt.NDArray[Any]]) -> Any:
        """Join prepared items to a batch."""
        return np.stack(items)

    def _prepare(self, part: Any, modality: Modality) -> npt.NDArray[Any]:
        """Return pixels (B, H, W, 3) or token ids (B, L) of items that may be such an array already."""
        manifest = self._artifact.manifest
        if modality == "image":
            if isinstance(part, np.ndarray) and part.dtype == np.uint8 and part.shape[1:] == (*manifest.image.size, 3):
                return part
            return images_to_array(part, manifest.image, max_pixels=self._settings.max_pixels)
        length = manifest.text.context_length
        if isinstance(part, np.ndarray) and part.dtype == np.int32 and part.shape[1:] == (length,):
            return part
        for text in part:
            if isinstance(text, str) and not (text.isascii() or is_unicode(text)):
                raise InputError(f"the text {show(text)} is not valid Unicode: it has half of a surrogate pair")
        return self.preparation.tokenizer(part).ids

    def _run(self, modality: Modality, rows: Columns) -> Columns:
        (prepared,), session = rows, self._sessions.get(modality) or self._open(modality)
        if modality == "image":
            return (self._run_graph(session, {"pixels": prepared}),)
        # a text runs at its own length, or padded to one of few lengths: see `any_length` of the sessions
        config, exact = self._artifact.manifest.text, getattr(session, "any_length", False)
        if not (self._batchers or exact):
            return (self._run_graph(session, {"tokens": cut_to_longest(prepared, config)}),)
        parts = cut_by_length(prepared, config, exact=exact)
        if len(parts) == 1:
            return (self._run_graph(session, {"tokens": parts[0][1]}),)
        out = np.empty((len(prepared), self.dimension), np.float32)
        for places, ids in parts:
            out[places] = self._run_graph(session, {"tokens": ids})
        return (out,)

    def _open(self, modality: Modality) -> Session:
        session = self._sessions[modality] = self._graphs[self._names[modality]]
        return session

    def _run_graph(self, session: Session, inputs: dict[str, npt.NDArray[np.generic]]) -> Vectors:
        """Return unit-norm vectors (B, D); a row is NaN if its features have no direction."""
        features = session.run(inputs)["features"].astype(np.float32)
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(features, axis=1, keepdims=True)
        norms[(norms == 0) | np.isinf(norms)] = np.nan
        return np.asarray(features / norms, np.float32)

    def _encode_batches(
        self,
        items: Sequence[ImageInput] | Sequence[str] | npt.NDArray[np.generic],
        modality: Modality,
        progress: Progress | None,
    ) -> Vectors:
        """Encode to (B, D), batch by batch; a batcher joins the batches of several threads."""
        what = f"{modality}s"
        items = items if isinstance(items, (list, tuple)) else check_items(items, what)
        if len(items) == 0:
            raise InputError(f"no {what} to encode: the batch is empty")
        if self._process not in {None, os.getpid()}:
            raise SessionError(f"the model at {self._artifact.folder} {FORKED}")
        self._process, run, size = os.getpid(), self._batchers.get(modality, self._run), self._settings.batch_size
        together = _SORTED_BATCHES if modality == "text" else 1
        out = np.empty((len(items), self.dimension), np.float32)
        for begun in range(0, len(items), together * size):
            parts = []
            for start in range(begun, min(begun + together * size, len(items)), size):
                try:
                    parts.append(self._prepare(items[start : start + size], modality))
                except InputError as error:
                    raise type(error)(f"{error} (in the batch that starts at position {start})") from error
            for rows, prepared in self._by_length(parts) if len(parts) > 1 else [(np.arange(len(parts[0])), parts[0])]:
                out[begun + rows] = vectors = run(modality, (prepared,))[0]
                if (bad := np.isnan(vectors[:, 0])).any():  # then the whole row is NaN
                    position = begun + int(rows[bad].min())
                    item = items[position]
                    shown = f"{modality} {show(os.fspath(item))}" if isinstance(item, (str, os.PathLike)) else modality
                    raise UnusableFeatures(shown, position)
                if progress is not None:
                    progress(len(rows))
        return out

    def _by_length(self, batches: Sequence[TokenIds]) -> Iterator[tuple[npt.NDArray[np.intp], TokenIds]]:
        """Regroup batches (B, L) by text length; yields the rows and token ids of each new batch."""
        ids = np.concatenate(batches)
        order = np.argsort(lengths_of(ids, self._artifact.manifest.text, exact=True), kind="stable")
        for start in range(0, len(order), len(batches[0])):
            rows = order[start : start + len(batches[0])]
            yield rows, ids[rows]


class PairEncoder(Protocol):
    """A frozen CLIP, in ONNX or in torch."""

    @property
    def dimension(self) -> int:
        """The dimension D of the vectors."""

    def images(self, images: Sequence[ImageInput], /) -> Vectors:
        """Encode images to (B, D), unit-norm."""

    def texts(self, texts: Sequence[str], /) -> Vectors:
        """Encode texts to (B, D), unit-norm."""


def encode_pairs(encoder: PairEncoder, pairs: Sequence[Pair]) -> Records:
    """Encode N pairs to vectors (N, D). Sides that are vectors already are checked and kept.

    Raises:
        InputError: an invalid side, such as a vector of another dimension.
    """
    image = _encode_side(encoder, [pair.image for pair in pairs], "image")
    text = _encode_side(encoder, [pair.text for pair in pairs], "text")
    return Records([pair.id for pair in pairs], image, text, [pair.stored_payload for pair in pairs])


def _encode_side(encoder: PairEncoder, values: Sequence[Any], modality: Modality) -> Vectors:
    out = np.empty((len(values), encoder.dimension), np.float32)
    given = [row for row, value in enumerate(values) if isinstance(value, np.ndarray)]
    raw = [row for row, value in enumerate(values) if not isinstance(value, np.ndarray)]
    if given:
        stacked = [np.atleast_1d(values[row]) for row in given]
        if len({vector.shape for vector in stacked}) > 1:
            raise InputError(f"{modality} vectors of one batch have different shapes: {stacked[0].shape}, …")
        out[given] = check_vectors(np.stack(stacked), encoder.dimension, f"{modality} vectors")
    if raw:
        encode: Callable[..., Vectors] = encoder.images if modality == "image" else encoder.texts
        out[raw] = encode([values[row] for row in raw])
    return out


@dataclass(frozen=True)
class EncoderInput:
    """One prepared item for :meth:`Encoder.arrays`.

    Attributes:
        array: pixels (H, W, 3) uint8, token ids (L,) int32, or a unit-norm vector (D,) float32.
        truncated: whether a text was longer than the context and was truncated.
        tokens: number of tokens of a text after truncation, start and end included.
    """

    array: npt.NDArray[Any]
    truncated: bool = False
    tokens: int = 0


class Preparation:
    """Decodes, resizes, tokenises and checks items for one model. It can be pickled and shared between threads."""

    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        self._artifact, self._max_pixels = artifact, max_pixels

    def image(self, image: ImageInput, decoding: Decoding = nullcontext) -> EncoderInput:
        """Return an image as pixels (H, W, 3) uint8.

        Raises:
            ImageError: it cannot be decoded or is too large; the message begins with "is", "has" or "cannot".
        """
        return EncoderInput(image_to_array(image, self._artifact.manifest.image, self._max_pixels, decoding))

    def text(self, text: str, what: str) -> EncoderInput:
        """Return a text as token ids (L,) int32; messages call it ``what``.

        Raises:
            InputError: it is not valid Unicode.
        """
        if not is_unicode(text):
            raise InputError(f"{what} is not valid Unicode: it has half of a surrogate pair")
        tokens = self.tokenizer([text])
        count = needed_tokens(tokens.ids, self._artifact.manifest.text)[0]
        return EncoderInput(tokens.ids[0], bool(tokens.truncated[0]), int(count))

    def vector(self, vector: npt.NDArray[Any], what: str) -> EncoderInput:
        """Check a vector (D,); messages call it ``what``.

        Raises:
            VectorError: another shape, NaN, or not unit-norm.
        """
        dimension = self._artifact.manifest.dimension
        if vector.shape != (dimension,):
            raise VectorError(
                f"{what} must have shape ({dimension},), got {vector.shape}: is it from the same encoder?"
            )
        try:
            checked: Vectors = check_vectors(vector[None], dimension, what)
        except VectorError as error:
            raise VectorError(str(error).replace(f"{what}[0]", what, 1)) from None  # the caller sent no batch
        return EncoderInput(checked[0])

    def side(self, value: Any, modality: Modality) -> EncoderInput:
        """Prepare a side of a pair, raw or a vector (D,). Messages begin with "its", to follow the name of the pair."""
        if isinstance(value, np.ndarray):
            return self.vector(value, f"its {modality} vector")
        if modality == "image":
            return self.image(value)
        if not isinstance(value, str):
            raise InputError(f"its text must be a str, or a vector as a NumPy array, got {show(value)}")
        return self.text(value, "its caption")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, loaded at first use."""
        return Tokenizer(self._artifact.tokenizer, self._artifact.manifest.text)
