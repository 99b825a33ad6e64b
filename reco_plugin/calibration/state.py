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
from ..machine.blas import Floats
from ..types import MODALITIES, Modality, Neighbours, ToldShort, Vectors, other
from .corpus import own_scores
from .evidence import Evidence, Gate, mean_own, share, weigh
from .extra import HoldsBack, TellsPresence
from .moments import Values
from .reliability import agreement, unknown

FORMAT = 3
FEWEST = 20
"""Pairs below which a memory teaches nothing."""
ENOUGH = 300
"""Pairs below which a memory teaches no extra."""
LEVELS = np.linspace(0.0, 0.5, 11)
"""Quantiles of similarity that are kept, up to the median."""
HALF = 0.5
"""Share of the queries that is assumed to have no answer in the memory; of a set that must be covered for plain vectors
to move; and of captions with one image, from which a memory counts as one of those."""
TYPICAL = 3.0
"""Power by which it falls for a query that is less like the memory than its own pairs are."""
_READING = threading.Lock()  # in Python 3.11, two threads that parse arrays' headers can fail (CPython gh-106905)


@dataclass(frozen=True)
class SideCalibration:
    """Queries of one modality.

    Attributes:
        spread: standard deviation of similarity within it.
        unit: mean standard deviation of a query's plain scores over the other modality.
        typical: (11,) quantiles of the similarity of a pair to the nearest one of another caption.
        gate: None: nothing is refined.
    """

    spread: float
    unit: float
    typical: npt.NDArray[np.float64]
    gate: Gate | None = None


@dataclass(frozen=True)
class Applied:
    """A gate as one request uses it.

    Attributes:
        gate: the gate.
        coverage: share of its strength; below 1 where the memory holds less than half of what is asked for.
        typical: (11,) quantiles of the memory's own similarities; None: queries need not look like its pairs.
        power: by which a move falls for a query that does not.
        unknown_only: whether only pairs count that CLIP does not know by itself, see :func:`.reliability.unknown`.
    """

    gate: Gate
    coverage: float = 1.0
    typical: npt.NDArray[np.float64] | None = None
    power: float = 0.0
    unknown_only: bool = False

    def factors(self, best: Floats) -> dict[str, Floats]:
        """What it leaves of the strength, by the similarity (B,) of the nearest neighbour.

        A query of another domain finds neighbours, too, and where the encoder does not know the memory's domain, the
        gate is open. So a query that is less similar to what it finds than half of the memory's pairs are to pairs of
        other captions moves less: by the cube of its rank among them, relative to one half; by a lower power the more
        of the candidates the memory knows.
        """
        factors = {}
        if self.coverage < 1.0:
            factors["coverage"] = np.full(len(best), self.coverage, np.float32)
        if self.typical is not None:
            rank = np.interp(best, self.typical, LEVELS, left=0.0, right=LEVELS[-1]) / LEVELS[-1]
            factors["typical"] = np.asarray(rank**self.power, np.float32)
        return factors


@dataclass(frozen=True, repr=False)
class Calibration(ToldShort):
    """What a memory has learned about its own pairs.

    Attributes:
        values: moments of each modality.
        sides: of each modality.
        same_caption: cosine from which two captions mean the same.
        pairs: how many it was learned from.
        doubt: share of its captions that neither the pairs around nor CLIP tell from those of other images; more than
            are wrong.
        reason: why nothing is refined, for people; empty where both sides have a gate.
        one_image: whether most captions have one image, so that candidate texts move by what CLIP does not know only.
        presence: tells whether the memory holds a query's answer; stored beside this, None where it is not learned.
        feedback: what people said is not what they asked for; stored beside this, None where nobody said anything.
    """

    values: Mapping[Modality, Values]
    sides: Mapping[Modality, SideCalibration]
    same_caption: float
    pairs: int
    doubt: float
    reason: str = ""
    one_image: bool = False
    presence: TellsPresence | None = None
    feedback: HoldsBack | None = None

    @property
    def fitted(self) -> bool:
        """Whether it has enough pairs for extras, and is in use."""
        return self.pairs >= ENOUGH and not self.reason

    def gate(self, modality: Modality, coverage: float | None, *, candidate: bool = False) -> Applied | None:
        """The gate of a side for a coverage; None: it stays plain, see :attr:`reason`.

        Args:
            modality: of the queries or candidates.
            coverage: share of what is asked for that the memory holds, None where nobody said: the more, the less must
                a query look typical; below a half, moves are shorter.
            candidate: whether candidates are refined.
        """
        side = self.sides[modality]
        if side.gate is None:
            return None
        left = 1.0 if coverage is None else min(1.0, coverage / (1.0 - HALF))
        known = 0.0 if coverage is None or self.one_image else coverage  # with one image, it met simulated queries only
        typical = None if candidate else side.typical
        return Applied(
            side.gate, left, typical, TYPICAL * (1.0 - known), candidate and modality == "text" and self.one_image
        )

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

    def weigh(self, modality: Modality, query: Vectors, found: Neighbours, applied: Applied) -> Evidence:
        """Weigh the neighbours of queries (B, D), with the record of the factors that shorten their moves."""
        side, reliability = self.sides[modality], self.reliability_of(modality, found)
        sharpness, rejected = applied.gate.sharpness, None
        shares = share(found.similarity, reliability, found.found, sharpness, side.spread)
        if self.feedback is not None:
            keep = self.feedback.keep(modality, query, found, side.spread, self.same_caption)
            if keep is not None:
                rejected = (shares[0] * keep).sum(axis=1).astype(np.float32)
                shares = share(found.similarity, reliability * keep, found.found, sharpness, side.spread)[0], shares[1]
        own, values = own_scores(found.cosine, self.values, self.sides["image"].unit), self.values[other(modality)]
        mean = mean_own(own, reliability)
        plain = query / np.float32(side.unit)
        evidence = weigh(plain, found.vectors, found.similarity, shares, found.found, mean, values)
        factors = applied.factors(evidence.best)
        if rejected is not None:
            factors["rejected"] = rejected
        if applied.unknown_only:
            factors["unknown_to_clip"] = (evidence.weights * unknown(own)).sum(axis=1)
        return replace(evidence, factors=factors)

    def reliability_of(self, modality: Modality, found: Neighbours) -> Floats:
        """Reliability (B, K) of what queries of a modality found; 0 where padded."""
        values, spread = self.values[other(modality)], self.sides[modality].spread
        return agreement(found.similarity, found.vectors, found.found, values, spread)

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
