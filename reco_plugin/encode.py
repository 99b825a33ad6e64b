"""Images and texts to CLIP vectors, through the two encoder graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .artifact import Artifact, clip_graph
from .config import Settings
from .errors import FORKED, InputError, SessionError
from .preprocess import Tokenizer, cut_to_longest, images_to_array
from .preprocess.text import TokenIds
from .sessions import Session, check_graph, open_graph
from .types import MODALITIES, ImageInput, Modality, Vectors
from .values import is_unicode, shown

Progress = Callable[[int], None]
"""Told how many items each finished batch had."""


def _silent(_: int) -> None:
    return None


class Encoder:
    """The frozen CLIP of a model folder. Graphs are loaded at first use."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._artifact = artifact
        self._settings = settings
        self._process: int | None = None  # in which the first graph was loaded

    @property
    def dimension(self) -> int:
        """D."""
        return self._artifact.manifest.dimension

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts that it was trained with, ``{}`` where a name goes; none where the manifest names none."""
        return self._artifact.manifest.templates

    def images(self, images: Sequence[ImageInput], progress: Progress = _silent) -> Vectors:
        """Encode images; returns (B, D) float32, unit-norm.

        Raises:
            InputError: nothing to encode.
            ImageError: an image that cannot be decoded or is too large, named by its position.
        """
        config, limit = self._artifact.manifest.image, self._settings.max_pixels

        def encode(part: Sequence[ImageInput]) -> npt.NDArray[np.float32]:
            return self._run("image", {"pixels": images_to_array(part, config, max_pixels=limit)})

        return self._batched(images, encode, progress, "images")

    def pixels(self, pixels: npt.NDArray[np.uint8]) -> Vectors:
        """Encode images that were decoded and resized already, (B, H, W, 3); returns as :meth:`images`."""
        return self._batched(pixels, lambda part: self._run("image", {"pixels": part}), _silent, "images")

    def texts(self, texts: Sequence[str], progress: Progress = _silent) -> Vectors:
        """Encode texts, cut to the context length; returns (B, D) float32, unit-norm.

        Raises:
            InputError: nothing to encode, or something that is no text in Unicode.
        """
        config = self._artifact.manifest.text

        def encode(part: Sequence[str]) -> npt.NDArray[np.float32]:
            for text in part:
                if isinstance(text, str) and not is_unicode(text):
                    raise InputError(f"the text {shown(text)} holds half of a surrogate pair, which is no character")
            return self._run("text", {"tokens": cut_to_longest(self._tokenizer(part).ids, config)})

        return self._batched(texts, encode, progress, "texts")

    def tokens(self, ids: TokenIds) -> Vectors:
        """Encode texts that are token ids already, (B, L) of the whole context; returns as :meth:`texts`."""
        config = self._artifact.manifest.text
        return self._batched(
            ids, lambda part: self._run("text", {"tokens": cut_to_longest(part, config)}), _silent, "texts"
        )

    def check(self) -> None:
        """Ask the server that runs the graphs whether it has them ready; in process there is nobody to ask.

        Raises:
            SessionError: it has not, is not reached, or does not answer in time.
        """
        for modality in MODALITIES:
            check_graph(clip_graph(modality), self._settings)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._artifact.tokenizer, self._artifact.manifest.text)

    @cached_property
    def _sessions(self) -> dict[Modality, Session]:
        return {}

    def _run(self, modality: Modality, inputs: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
        if self._process not in {None, os.getpid()}:
            raise SessionError(f"the model at {self._artifact.folder} {FORKED}")
        if modality not in self._sessions:
            self._process = os.getpid()
            self._sessions[modality] = open_graph(self._artifact, clip_graph(modality), self._settings)
        features = self._sessions[modality].run(inputs)["features"].astype(np.float32)
        return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)

    def _batched(
        self,
        items: Sequence[ImageInput] | Sequence[str] | npt.NDArray[np.generic],
        encode: Callable[..., npt.NDArray[np.float32]],
        progress: Progress,
        what: str,
    ) -> Vectors:
        if isinstance(items, (str, bytes)) or not hasattr(items, "__len__"):
            raise InputError(f"{what} must be a list of {what}, got the single value {shown(items)}: put it in a list")
        if len(items) == 0:
            raise InputError(f"no {what} to encode: the batch is empty")
        out = np.empty((len(items), self.dimension), np.float32)
        for start in range(0, len(items), self._settings.batch_size):
            part = items[start : start + self._settings.batch_size]
            try:
                out[start : start + len(part)] = encode(part)
            except InputError as error:
                raise type(error)(f"{error} (in the batch that starts at position {start})") from error
            progress(len(part))
        return out
