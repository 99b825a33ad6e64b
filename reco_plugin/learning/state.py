"""The calibration that a memory has learned, and the blob in which it is stored with the memory."""

from __future__ import annotations

import base64
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..fusion.evidence import Evidence, ImageGate, TextGate, Trust, image_evidence, text_evidence
from ..types import MODALITIES, Modality, Neighbours, ToldShort, Vectors, other
from ..vectors import Floats
from .extra import HoldsBack, TellsPresence
from .moments import Values
from .plda import Plda

FORMAT = 4
FEWEST = 20
"""Pairs below which a memory teaches nothing."""
ENOUGH = 300
"""Pairs below which a memory teaches no extra."""
LEVELS = np.linspace(0.0, 0.25, 11)
"""Quantiles of similarity that are kept."""
NEEDED = 0.9
"""Share of a set of texts that the memory must know for their vectors to move: else they take queries from others."""
TYPICAL = 3.0
"""Power by which a query moves less that is less like the memory than its own pairs are."""
_SURE = 0.98  # coverage, and 1 less it, at most: an unknown thing is never impossible
_READING = threading.Lock()  # in Python 3.11, two threads that parse arrays' headers can fail (CPython gh-106905)


@dataclass(frozen=True)
class SideCalibration:
    """Queries of one modality.

    Attributes:
        spread: standard deviation of similarity within it.
        unit: mean standard deviation of a query's plain scores over the other modality.
        typical: (11,) quantiles of the similarity of a pair to the nearest one of another caption.
    """

    spread: float
    unit: float
    typical: npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Calibration(ToldShort):
    """What a memory has learned about its own pairs.

    Attributes:
        values: moments of each modality.
        sides: of each modality.
        same_caption: cosine from which two captions mean the same.
        pairs: how many it was learned from.
        plda: the model of its images.
        trust: how far a pair is trusted.
        text, image: how each modality moves; None: nothing is refined.
        reason: why, for people; empty where both move.
        presence: tells whether the memory holds a query's answer; stored beside this, None where it is not learned.
        feedback: what people said is not what they asked for; stored beside this, None where nobody said anything.
    """

    values: Mapping[Modality, Values]
    sides: Mapping[Modality, SideCalibration]
    same_caption: float
    pairs: int
    plda: Plda
    trust: Trust
    text: TextGate | None
    image: ImageGate | None
    reason: str = ""
    presence: TellsPresence | None = None
    feedback: HoldsBack | None = None

    @property
    def fitted(self) -> bool:
        """Whether it has enough pairs for extras, and is in use."""
        return self.pairs >= ENOUGH and not self.reason

    def presence_of(self, modality: Modality, query: Vectors, found: Neighbours) -> Floats | None:
        """Presence (B,), from 0 to 1, of what queries (B, D) ask for; None: see :meth:`why_no_presence`."""
        if self.presence is None:
            return None
        return self.presence.of(modality, query, found, self.values[other(modality)].mean, self.sides[modality].unit)

    def why_no_presence(self, modality: Modality) -> str:
        """Why there is no presence, for people."""
        if self.presence is not None:
            return self.presence.why_not(modality)
        return self.reason or f"its {self.pairs:,} pairs are too few to learn presence"

    def weigh(
        self, modality: Modality, query: Vectors, found: Neighbours, coverage: float, *, candidate: bool = False
    ) -> Evidence | None:
        """What queries (B, D) found, and how far they move, with the record of the factors that shorten it.

        None where this memory refines nothing.

        Args:
            modality: of the queries.
            query: unit-norm.
            found: K pairs of each, with both vectors.
            coverage: share of what queries ask for that the memory holds.
            candidate: whether candidates are refined: texts of one set compete for each image, and all may be unlike
                the memory's pairs.
        """
        keep, held = None, float(np.clip(coverage, 1 - _SURE, _SURE))
        if self.feedback is not None:
            keep = self.feedback.keep(modality, query, found, self.sides[modality].spread, self.same_caption)
        if modality == "text":
            if self.text is None:
                return None
            mean = self.values["text"].mean
            known = None if candidate else held
            evidence = text_evidence(query, found, self.plda, self.text, self.trust, mean, known, keep)
        else:
            if self.image is None:
                return None
            evidence = image_evidence(query, found, self.plda, self.image, self.trust, self.values["text"], held, keep)
        if not candidate:
            rank = np.interp(found.similarity[:, 0], self.sides[modality].typical, LEVELS / LEVELS[-1], left=0.0)
            evidence = evidence.shortened("typical", np.asarray(rank**TYPICAL, np.float32))
        if keep is not None:
            left = (evidence.trust * keep).sum(axis=1) / np.maximum(evidence.trust.sum(axis=1), 1e-6)
            evidence = evidence.noted("rejected", np.asarray(left, np.float32))
        return evidence

    def to_json(self) -> dict[str, Any]:
        """For the memory's metadata: format, pairs, reason, and all numbers as the base64 of an ``.npz``."""
        file = io.BytesIO()
        arrays: dict[str, Any] = dict(_numbers(replace(self, presence=None, feedback=None), ""))
        np.savez(file, **arrays)
        told = {"format": FORMAT, "pairs": self.pairs, "reason": self.reason}
        return {**told, "blob": base64.b64encode(file.getvalue()).decode()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """Read :meth:`to_json` back.

        Raises:
            ConfigError: another format, or damaged.
        """
        again = "run `reco memory build --relearn`"
        try:
            if stored["format"] != FORMAT:
                raise ConfigError(f"its calibration has format {stored['format']}, not {FORMAT}: {again}")
            arrays = read_arrays(base64.b64decode(stored["blob"], validate=True))
            state: Calibration = _built(cls, arrays, "")
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"its calibration is damaged ({error!r}): {again}") from error
        return state


def _numbers(part: Any, name: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The arrays, numbers and texts in a dataclass, by their path in it."""
    if is_dataclass(part):
        part = {field.name: getattr(part, field.name) for field in fields(part)}
    if isinstance(part, Mapping):
        for key, one in part.items():
            yield from _numbers(one, f"{name}.{key}")
    elif part is not None:
        yield name, np.asarray(part)


def _built(kind: Any, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Any:
    """A value of this type of what :func:`_numbers` gave; None where it may be, and nothing is there."""
    if get_origin(kind) in (Union, UnionType):
        there = any(one.startswith(f"{name}.") for one in arrays)
        return _built(get_args(kind)[0], arrays, name) if there else None
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{field.name: _built(kinds[field.name], arrays, f"{name}.{field.name}") for field in fields(kind)})
    if get_origin(kind) is Mapping:
        return {m: _built(get_args(kind)[1], arrays, f"{name}.{m}") for m in MODALITIES}
    return arrays[name].item() if kind in (float, int, bool, str) else arrays[name]


def read_arrays(blob: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of numbers in an ``.npz``, by name.

    Raises:
        ValueError: an entry is no such array, or not whole.
        zipfile.BadZipFile: it is no archive, or damaged.
    """
    with _READING, np.load(io.BytesIO(blob), allow_pickle=False) as file:
        return dict(file)
