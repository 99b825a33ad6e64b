"""The one internal request model: every dialect translates JSON to :class:`EmbedRequest`, and :class:`Embedded` back.

Rows stay rows: item i of the request is row i of the answer, also when it failed. An item that a dialect could not even
read (bad base64, a URL that does not answer) goes in as the :class:`Failure` that it is, and comes out in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..request import RefineOptions
from ..types import Degraded, InputType, Modality, Used, Vectors
from .failures import Failure, Refused

Content: TypeAlias = "str | bytes | npt.NDArray[np.float32]"


@dataclass(frozen=True)
class Item:
    """One thing to embed."""

    content: Content  # a text, the bytes of an encoded image, or a CLIP vector (D,) of unit norm
    modality: Modality  # what it is, or what the vector embeds

    @classmethod
    def text(cls, text: str) -> Item:
        """A text."""
        return cls(text, "text")

    @classmethod
    def image(cls, data: bytes) -> Item:
        """An encoded image."""
        return cls(data, "image")

    @classmethod
    def vector(cls, vector: npt.ArrayLike, modality: Modality) -> Item:
        """A CLIP vector of this encoder, made elsewhere.

        Raises:
            Refused: not numbers.
        """
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused later, by its row
                return cls(np.asarray(vector, np.float32), modality)
        except (TypeError, ValueError):
            message = f"a vector must be a list of numbers, got {vector!r:.60}"
            raise Refused(Failure(400, "invalid_vector", message)) from None


@dataclass(frozen=True)
class EmbedRequest:
    """What a caller wants embedded."""

    items: Sequence[Item | Failure]  # at least one; a Failure stands for an item that could not be read
    model: str | None = None  # alias as the caller wrote it; None where the dialect has none
    side: InputType | None = None  # query or document as the caller said it; None where nothing was said
    refine: bool | None = None  # the caller's explicit word; None leaves it to prefix, alias, side and policy
    truncate: bool = True  # cut long texts to the context length; False makes them fail with ``text_too_long``
    options: RefineOptions = field(default_factory=RefineOptions)  # how to refine
    explain: bool = False  # also say which pairs were used


@dataclass(frozen=True)
class Timings:
    """Seconds of one request; None where a step did not happen."""

    queue_s: float | None = None
    prepare_s: float | None = None
    """Tokenise texts; decode and resize images."""
    encode_s: float | None = None
    refine_s: float | None = None
    """Search and fusion; apart in ``/metrics``."""


@dataclass(frozen=True)
class Embedded:
    """The answer; B rows, one per item.

    Attributes:
        vectors: (B, D) float32, unit-norm; zeros where the item failed.
        failures: why an item failed; None where it did not.
        truncated: whether a text was cut to the context length.
        tokens: of each text, as far as it was read; 0 for images and vectors.
        refined: whether the row may differ from frozen CLIP: it was to be refined, and the memory had pairs for it.
        moved: (B,) cosine distance from the frozen vector; 0 where nothing moved.
        degraded: why rows that were to be refined are frozen; None where all went well.
        used: per row, the pairs that were used, nearest first; None unless ``explain``.
        frozen: (B, D) the vectors before refinement; zeros where the item failed.
        timings: of this request.
    """

    vectors: Vectors
    failures: tuple[Failure | None, ...]
    truncated: tuple[bool, ...]
    tokens: tuple[int, ...]
    refined: tuple[bool, ...]
    moved: npt.NDArray[np.float32]
    frozen: Vectors
    degraded: Degraded | None = None
    used: tuple[tuple[Used, ...], ...] | None = None
    timings: Timings = field(default_factory=Timings)

    def whole(self, field_name: str = "input") -> Embedded:
        """Return itself, for dialects that have no place for the failure of one item.

        Raises:
            Refused: the first failure, naming the item as ``input[3]``.
        """
        for row, failure in enumerate(self.failures):
            if failure is not None:
                raise Refused(failure.at(f"{field_name}[{row}]"))
        return self
