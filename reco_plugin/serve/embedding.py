"""The internal request model: every dialect translates JSON to :class:`EmbedRequest`, and :class:`Embedded` back.

Item i of the request is row i of the answer, also when it failed. An item that a dialect could not read (bad base64, a
URL that does not answer) is a :class:`Failure` in the request and in its row of the answer. Rows of repeated inputs are
kept in an :class:`AnswerCache`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..calibration.why import Why
from ..options import RefineOptions
from ..types import Coverage, Degraded, InputType, Modality, Target, Used, Vectors
from .failures import Failure, Refused

RowKey: TypeAlias = tuple[Hashable, ...]


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

    items: Sequence[Item | Failure] = ()  # at least one; a Failure is an item that could not be read
    model: str | None = None  # alias; None if the dialect has none
    side: InputType | None = None  # query or document; None if the caller did not say
    refine: bool | None = None  # final if given; None leaves it to prefix, alias, side and policy
    truncate: bool = True  # cut long texts to the context length; False makes them fail with ``text_too_long``
    options: RefineOptions = field(default_factory=RefineOptions)
    explain: bool = False  # also return the pairs that were used
    indexed: bool = True  # whether the vectors are compared with an index: of images, unless ``target`` says otherwise


@dataclass(frozen=True)
class AnswerRow:
    """The answer to one item; without more than the vectors, which are zeros, to one that failed."""

    vector: npt.NDArray[np.float32]  # (D,) unit-norm
    frozen: npt.NDArray[np.float32]  # (D,) before refinement
    moved: float = 0.0  # cosine distance of the two
    refined: bool = False  # whether it differs from frozen CLIP
    truncated: bool = False  # the text was cut to the context length
    tokens: int = 0  # of a text, after truncation; 0 for images and vectors
    used: tuple[Used, ...] | None = None  # the pairs that were used, nearest first; None unless explained
    covered: bool | None = None  # whether the memory knows this text candidate; None for all else
    why: Why | None = None  # why it moved as far as it did; None unless explained
    failure: Failure | None = None  # why the item failed; None where it did not
    plain: str = ""  # why it was to be refined and stays plain, for people; empty where it moved, or was not to be


@dataclass(frozen=True)
class Embedded:
    """The answer."""

    rows: Sequence[AnswerRow]  # B rows, one per item
    degraded: Degraded | None  # why rows are frozen although refinement was on; None if nothing failed
    seconds: Mapping[str, float]  # of each step that ran: prepare, encode, refine (search and fusion)
    coverage: Mapping[Modality, Coverage]  # of each modality that was refined now
    target: Target | None = None  # what they are compared with; None: the other modality, or nothing was to be refined

    @property
    def vectors(self) -> Vectors:
        """(B, D) float32, unit-norm; zeros where the item failed."""
        return np.stack([row.vector for row in self.rows])

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(row.tokens for row in self.rows)

    def whole(self, field_name: str | None = None) -> Embedded:
        """Return itself, for dialects that cannot report the failure of one item.

        Raises:
            Refused: the first failure, naming the item as ``input[3]``; without ``field_name``, it does so already.
        """
        for number, row in enumerate(self.rows):
            if row.failure is not None:
                raise Refused(row.failure.at(f"{field_name}[{number}]") if field_name else row.failure)
        return self


@dataclass
class CacheCounts:
    """Hits and misses since the start, and the size of the cache now."""

    hits: int = 0
    misses: int = 0
    entries: int = 0


class AnswerCache:
    """An LRU cache of rows; safe to use from several threads."""

    def __init__(self, entries: int) -> None:
        self._most, self._rows, self._lock = entries, OrderedDict[RowKey, AnswerRow](), threading.Lock()
        self.seen = CacheCounts()

    @property
    def on(self) -> bool:
        """Whether it keeps any rows."""
        return self._most > 0

    def get(self, key: RowKey) -> AnswerRow | None:
        """Look up a row."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self.seen.misses += 1
            else:
                self.seen.hits += 1
                self._rows.move_to_end(key)
            return row

    def put(self, key: RowKey, row: AnswerRow) -> None:
        """Keep a row, and drop the least recently used one."""
        own = replace(row, vector=row.vector.copy(), frozen=row.frozen.copy())  # a view would keep the whole batch
        with self._lock:
            self._rows[key] = own
            self._rows.move_to_end(key)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
            self.seen.entries = len(self._rows)


def key_of(item: Item, *, refined: bool, options: RefineOptions, version: int) -> RowKey:
    """The key of a row: the input, and for a refined row the options and the version of the memory."""
    raw = item.content.encode("utf-8", "surrogatepass") if isinstance(item.content, str) else bytes(item.content)
    kind = type(item.content).__name__
    digest = hashlib.blake2b(raw, digest_size=16).digest()
    return (item.modality, kind, digest, *((repr(sorted(options.items())), version) if refined else ()))
