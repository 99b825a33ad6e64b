"""Images and texts to CLIP vectors, through the two encoder graphs."""

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
from .preprocess import TextConfig, Tokenizer, cut_by_length, cut_to_longest, image_to_array, images_to_array
from .preprocess.image import Decoding
from .preprocess.text import TokenIds, lengths_of
from .runtimes.base import Session
from .runtimes.graphs import Graphs, check_graph

_SORTED = 16  # batches of texts that are sorted by length together
Progress = Callable[[int], None]
"""Called with the number of items of each finished batch."""


class Encoder:
    """The frozen CLIP of a model folder. Graphs are loaded at first use."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._artifact = artifact
        self._settings = settings
        self._graphs = Graphs(artifact, settings)
        self._names = {modality: clip_graph(modality) for modality in MODALITIES}
        self._sessions: dict[Modality, Session] = {}
        self._process: int | None = None  # in which the first graph was loaded
        self._batchers: dict[Modality, Batcher[Modality]] = {}  # one each: a text does not wait for images
        if settings.batch_callers and settings.triton_url is None:  # a server has its own
            self._batchers = {modality: Batcher(self._run, settings.batch_size) for modality in MODALITIES}
        self.preparation = Preparation(artifact, settings.max_pixels)
        """Prepares single items for :meth:`arrays`."""
        self.modalities: tuple[Modality, ...] = MODALITIES
        """What it encodes."""
        self.client: Any = None
        """The :class:`.ApiClient` of an encoder that is an API, which counts what it costs; None where graphs run."""
        self.changed: str | None = None
        """Why its vectors are no longer those of the memory: an API may change its model at any time."""

    @property
    def dimension(self) -> int:
        """D."""
        return self._artifact.manifest.dimension

    @property
    def batches_callers(self) -> bool:
        """Whether what several threads encode at the same time is run together here; a server does so itself."""
        return bool(self._batchers)

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts that the encoder was trained with, ``{}`` where a name goes; empty where the manifest names none."""
        return self._artifact.manifest.templates

    def images(self, images: Sequence[ImageInput] | npt.NDArray[np.uint8], progress: Progress | None = None) -> Vectors:
        """Encode images; returns (B, D) float32, unit-norm.

        Args:
            images: B paths, bytes or PIL images; or pixels (B, H, W, 3), decoded and of the encoder's own size.
            progress: called after each batch.

        Raises:
            InputError: nothing to encode.
            ImageError: an image that cannot be decoded or is too large, named by its position.
            UnusableFeatures: the graph computed NaN, infinity or zeros for an image, named by its position.
        """
        return self._encode_batches(images, "image", progress)

    def texts(self, texts: Sequence[str] | TokenIds, progress: Progress | None = None) -> Vectors:
        """Encode texts, cut to the context length; returns (B, D) float32, unit-norm.

        Args:
            texts: B texts; or token ids (B, L) of the whole context.
            progress: called after each batch.

        Raises:
            InputError: nothing to encode, or something that is no text in Unicode.
            UnusableFeatures: as of :meth:`images`.
        """
        return self._encode_batches(texts, "text", progress)

    def arrays(
        self, arrays: Sequence[npt.NDArray[Any]], modality: Modality, progress: Progress | None = None
    ) -> Vectors:
        """Encode the output of a :class:`~reco_plugin.encoders.local.Preparation`; returns (B, D) as :meth:`images`.

        Args:
            arrays: B times pixels (H, W, 3) or token ids (L,), by the modality; or vectors (D,), kept as they are.
            modality: what they are, or embed.
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
        """Check that the server of the graphs is ready; does nothing where they run in process.

        Raises:
            SessionError: it is not ready, is not reached, or does not answer in time.
        """
        for modality in MODALITIES:
            check_graph(clip_graph(modality), self._settings)

    def close(self) -> None:
        """Close connections to an API; graphs need no closing."""
        if self.client is not None:
            self.client.close()

    def _stack(self, items: list[npt.NDArray[Any]]) -> Any:
        """Prepared items as a batch."""
        return np.stack(items)

    def _prepare(self, part: Any, modality: Modality) -> npt.NDArray[Any]:
        """Pixels (B, H, W, 3) or token ids (B, L) of some items, unless they are that already."""
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
                raise InputError(f"the text {show(text)} holds half of a surrogate pair, which is no character")
        return self.preparation.tokenizer(part).ids

    def _run(self, modality: Modality, rows: Columns) -> Columns:
        (prepared,), session = rows, self._sessions.get(modality) or self._open(modality)
        if modality == "image":
            return (self._run_graph(session, {"pixels": prepared}),)
        # a text runs at its own length, but where few lengths are better: see `any_length` of the sessions
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
        """Unit-norm vectors (B, D); a row of NaN where the features have no direction."""
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
        """Encode to (B, D), batch by batch, each together with those of other threads."""
        what = f"{modality}s"
        items = items if isinstance(items, (list, tuple)) else check_items(items, what)
        if len(items) == 0:
            raise InputError(f"no {what} to encode: the batch is empty")
        if self._process not in {None, os.getpid()}:
            raise SessionError(f"the model at {self._artifact.folder} {FORKED}")
        self._process, run, size = os.getpid(), self._batchers.get(modality, self._run), self._settings.batch_size
        together = _SORTED if modality == "text" else 1
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
                if (bad := np.isnan(vectors[:, 0])).any():  # the whole row is
                    position = begun + int(rows[bad].min())
                    item = items[position]
                    shown = f"{modality} {show(os.fspath(item))}" if isinstance(item, (str, os.PathLike)) else modality
                    raise UnusableFeatures(shown, position)
                if progress is not None:
                    progress(len(rows))
        return out

    def _by_length(self, batches: Sequence[TokenIds]) -> Iterator[tuple[npt.NDArray[np.intp], TokenIds]]:
        """The texts of some batches (B, L) in as many of about the same length each, with their rows."""
        ids = np.concatenate(batches)
        order = np.argsort(lengths_of(ids, self._artifact.manifest.text, exact=True), kind="stable")
        for start in range(0, len(order), len(batches[0])):
            rows = order[start : start + len(batches[0])]
            yield rows, ids[rows]


class EncodesPairs(Protocol):
    """A frozen CLIP, served or in torch."""

    @property
    def dimension(self) -> int:
        """D."""

    def images(self, images: Sequence[ImageInput], /) -> Vectors:
        """Encode images; (B, D) unit-norm."""

    def texts(self, texts: Sequence[str], /) -> Vectors:
        """Encode texts; (B, D) unit-norm."""


def encode_pairs(encoder: EncodesPairs, pairs: Sequence[Pair]) -> Records:
    """Encode N pairs; vectors (N, D) among their sides are checked and kept.

    Raises:
        InputError: an invalid side, such as vectors of different dimensions.
    """
    image = _encode_side(encoder, [pair.image for pair in pairs], "image")
    text = _encode_side(encoder, [pair.text for pair in pairs], "text")
    return Records([pair.id for pair in pairs], image, text, [pair.stored_payload for pair in pairs])


def _encode_side(encoder: EncodesPairs, values: Sequence[Any], modality: Modality) -> Vectors:
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
    """One item for :meth:`reco_plugin.encoders.local.Encoder.arrays`.

    Attributes:
        array: pixels (H, W, 3) uint8, token ids (L,) int32, or a vector (D,) float32, unit-norm, which stays as it is.
        truncated: whether a text was too long and was cut.
        tokens: of a text, after truncation, start and end included.
    """

    array: npt.NDArray[Any]
    truncated: bool = False
    tokens: int = 0


class Preparation:
    """Decodes, resizes, tokenises and checks for one model. Can be pickled, and shared between threads."""

    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        self._artifact, self._max_pixels = artifact, max_pixels

    def image(self, image: ImageInput, decoding: Decoding = nullcontext) -> EncoderInput:
        """An image as pixels (H, W, 3).

        Raises:
            ImageError: it cannot be decoded or is too large; the message begins with "is", "has" or "cannot".
        """
        return EncoderInput(image_to_array(image, self._artifact.manifest.image, self._max_pixels, decoding))

    def text(self, text: str, what: str) -> EncoderInput:
        """A text as token ids (L,).

        Raises:
            InputError: it is not valid Unicode; ``what`` names it.
        """
        if not is_unicode(text):
            raise InputError(f"{what} holds half of a surrogate pair, which is no character")
        tokens = self.tokenizer([text])
        ids, cut = tokens.ids[0], bool(tokens.truncated[0])
        return EncoderInput(ids, cut, _count(ids, self._artifact.manifest.text))

    def vector(self, vector: npt.NDArray[Any], what: str) -> EncoderInput:
        """A vector (D,), checked.

        Raises:
            VectorError: another shape, NaN, or not unit-norm; ``what`` names it.
        """
        dimension = self._artifact.manifest.dimension
        if vector.shape != (dimension,):
            raise VectorError(f"{what} must have shape ({dimension},), got {vector.shape}: is it the same encoder?")
        try:
            checked: Vectors = check_vectors(vector[None], dimension, what)
        except VectorError as error:
            raise VectorError(str(error).replace(f"{what}[0]", what, 1)) from None  # it is no row of what a caller sent
        return EncoderInput(checked[0])

    def side(self, value: Any, modality: Modality) -> EncoderInput:
        """A side of a pair, raw or a vector (D,); errors as of each, in words to follow what names the pair."""
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


def _count(ids: TokenIds, config: TextConfig) -> int:
    """Tokens of one row (L,), start and end included.

    >>> _count(np.array([1, 5, 9, 0], np.int32), TextConfig("clip", 4, "lower", pad_id=0, end_id=9))
    3
    """
    if config.end_id is None:
        return int(np.count_nonzero(ids != config.pad_id))
    return int(np.argmax(ids == config.end_id)) + 1
