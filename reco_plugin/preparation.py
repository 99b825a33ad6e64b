"""Prepare images and texts for the encoder's graphs, one by one, so that a bad one fails alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .artifact import Artifact
from .errors import InputError, VectorError
from .preprocess import TextConfig, Tokenizer, image_to_array
from .preprocess.text import TokenIds
from .types import ImageInput, Modality, Vectors
from .values import check_vectors, is_unicode, show


@dataclass(frozen=True)
class EncoderInput:
    """One item for :meth:`reco_plugin.encode.Encoder.arrays`.

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

    def image(self, image: ImageInput) -> EncoderInput:
        """An image as pixels (H, W, 3).

        Raises:
            ImageError: it cannot be decoded or is too large; the message begins with "is", "has" or "cannot".
        """
        return EncoderInput(image_to_array(image, self._artifact.manifest.image, self._max_pixels))

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
