"""The internal request model: every dialect translates JSON to :class:`EmbedRequest`, and :class:`Embedded` back.

Item i of the request is row i of the answer, also when it failed. An item that a dialect could not read (bad base64, a
URL that does not answer) is a :class:`Failure` in the request and in its row of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..request import RefineOptions
from ..types import Coverage, Degraded, InputType, Modality, Used, Vectors
from ..why import Why
from .failures import Failure, Refused


@dataclass(frozen=True)
class Item:
    """One item to embed."""

    content: str | bytes | npt.NDArray[np.float32]  # a text, an encoded image, or a CLIP vector (D,) of unit norm
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
        """A CLIP vector (D,) of this encoder, made elsewhere.

        Raises:
            Refused: not numbers.
        """
        try:
            with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused later, by row
                return cls(np.asarray(vector, np.float32), modality)
        except (TypeError, ValueError):
            message = f"a vector must be a list of numbers, got {vector!r:.60}"
            raise Refused(Failure(400, "invalid_vector", message)) from None


@dataclass(frozen=True)
class EmbedRequest:
    """A request to embed items."""

    items: Sequence[Item | Failure]  # at least one; a Failure is an item that could not be read
    model: str | None = None  # alias; None if the dialect has none
    side: InputType | None = None  # query or document; None if the caller did not say
    refine: bool | None = None  # final if given; None leaves it to prefix, alias, side and policy
    truncate: bool = True  # cut long texts to the context length; False makes them fail with ``text_too_long``
    options: RefineOptions = field(default_factory=RefineOptions)
    explain: bool = False  # also return the pairs that were used


@dataclass(frozen=True)
class Embedded:
    """The answer; B rows, one per item."""

    vectors: Vectors  # (B, D) float32, unit-norm; zeros where the item failed
    failures: tuple[Failure | None, ...]  # why an item failed; None where it did not
    truncated: tuple[bool, ...]  # whether a text was cut to the context length
    tokens: tuple[int, ...]  # of each text, after truncation; 0 for images and vectors
    refined: tuple[bool, ...]  # whether it may differ from frozen CLIP: refinement was on, and the memory had pairs
    moved: npt.NDArray[np.float32]  # (B,) cosine distance from the frozen vector
    frozen: Vectors  # (B, D) before refinement; zeros where the item failed
    degraded: Degraded | None  # why rows are frozen although refinement was on; None if nothing failed
    used: tuple[tuple[Used, ...], ...] | None  # per row, the pairs that were used, nearest first; None unless explained
    seconds: Mapping[str, float]  # of each step that ran: prepare, encode, refine (search and fusion)
    covered: tuple[bool | None, ...]  # whether the memory knows a text candidate; None for all else
    why: tuple[Why | None, ...] | None  # per row, why it moved as far as it did; None unless explained
    coverage: Mapping[Modality, Coverage]  # of each modality that was refined now

    def whole(self, field_name: str = "input") -> Embedded:
        """Return itself, for dialects that cannot report the failure of one item.

        Raises:
            Refused: the first failure, naming the item as ``input[3]``.
        """
        for row, failure in enumerate(self.failures):
            if failure is not None:
                raise Refused(failure.at(f"{field_name}[{row}]"))
        return self
