"""The calibration that a memory has learned, and the blob in which it is stored with the memory."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..types import MODALITIES, Caution, Modality, Neighbours, ToldShort, Vectors, other
from .arrays import read_arrays
from .check import Check
from .extra import HoldsBack, TellsPresence
from .gate import FALL, FITTED, PRIOR, Applied, Gate
from .moments import LowRank, Values, level
from .reliability import Reliability, unknown
from .sharpen import Index, Sharpening
from .signals import Evidence, mean_own, share, weigh

FORMAT = 1
FEWEST = 20
"""Pairs below which a memory teaches nothing."""
ENOUGH = 300
"""Pairs below which the gates lie between the safe ones and their own, and nothing else is learned."""


@dataclass(frozen=True)
class SideCalibration:
    """Queries of one modality.

    Attributes:
        spread: standard deviation of similarity within it.
        unit: mean standard deviation of a query's plain scores over the other modality.
        typical: (11,) quantiles, see :class:`Applied`.
        gates: bold and balanced; empty: this side is not refined.
        candidate_gates: for candidates; empty: they are not refined.
        sharpening: for queries that are compared with vectors of their own modality, or with averages of both.
    """

    spread: float
    unit: float
    typical: npt.NDArray[np.float64]
    gates: Mapping[Caution, Gate] = field(default_factory=dict)
    candidate_gates: Mapping[Caution, Gate] = field(default_factory=dict)
    sharpening: Sharpening = field(default_factory=Sharpening)


@dataclass(frozen=True, repr=False)
class Calibration(ToldShort):
    """What a memory has learned about its own pairs.

    Attributes:
        values: moments of each modality.
        sides: of each modality.
        reliability: turns witnesses into reliability.
        same_caption: cosine from which two captions mean the same.
        pairs: how many it was learned from.
        unanswerable: measured share of queries without an answer: mean of 1 / (1 + other pairs of the caption); at most
            half where most captions have one image.
        own: mean of CLIP's own scores of the pairs.
        fitted: whether the gates are its own; else see :attr:`whose_gates`.
        reason: why a side has no gate, for people; empty where all have.
        check: what refinement does to its own pairs; None for a small memory.
        one_image: whether most captions have one image, so that candidates move by what CLIP does not know, only.
        presence: tells whether the memory holds a query's answer; stored beside this, None where it is not learned.
        feedback: what people said is not what they asked for; stored beside this, None where nobody said anything.
    """

    values: Mapping[Modality, Values]
    sides: Mapping[Modality, SideCalibration]
    reliability: Reliability
    same_caption: float
    pairs: int
    unanswerable: float
    own: float
    fitted: bool
    reason: str = ""
    check: Check | None = None
    one_image: bool = False
    presence: TellsPresence | None = None
    feedback: HoldsBack | None = None

    def gate(
        self, modality: Modality, caution: Caution | float, *, candidate: bool = False, among: bool = False
    ) -> Applied | None:
        """The gate of a side for a caution; None: it stays plain.

        Args:
            modality: of the queries or candidates.
            caution: by name, or as the share of queries without an answer.
            candidate: whether candidates are refined.
            among: whether it is known what the queries are compared with, so that none needs to look typical.
        """
        side = self.sides[modality]
        gates = side.candidate_gates if candidate else side.gates
        if not gates:
            return None
        shares = self.shares
        assumed = shares[caution] if isinstance(caution, str) else caution
        bold, balanced = shares["bold"], shares["balanced"]
        at = float(np.clip((assumed - bold) / (balanced - bold), 0.0, 1.0)) if balanced - bold > 1e-6 else 1.0
        scale = 1.0 if assumed <= balanced else (max(0.0, 1.0 - assumed) / max(1.0 - balanced, 1e-6)) ** FALL
        exempt = among and not self.one_image  # with one image each, the gate has met simulated queries only
        typical = None if candidate or exempt or caution == "bold" else side.typical
        return Applied(gates["bold"].between(gates["balanced"], at), scale, typical, candidate and self.one_image)

    def assume(self, answered: float, caution: Caution | float = "balanced") -> Caution | float:
        """The caution of queries where a share of the candidates is known to the memory.

        The others have no answer, so ``balanced`` takes their share in place of its half, and ``cautious`` a fifth of
        the rest more. ``bold``, and a share, are what the caller says.
        """
        without = max(self.unanswerable, 1.0 - answered)
        if caution == "cautious":
            return more_cautious(without)
        return without if caution == "balanced" else caution

    def known(self, modality: Modality) -> float:
        """Share of its own pairs that plain CLIP answers, asked by a modality; 1, to be careful, if not checked."""
        return self.check.side(modality).frozen / 100.0 if self.check else 1.0

    def why_plain(self, modality: Modality, candidate: bool) -> str:
        """Why a side has no gate, for people."""
        if candidate and modality == "image" and self.one_image and self.sides[modality].gates:
            return "most of its captions have one image, and images that take one of many lose"
        if candidate and not self.fitted and not self.reason:
            return f"its {self.pairs:,} pairs are too few to learn how candidates move"
        if candidate and self.sides[modality].gates:
            return f"its own pairs show no gain for {modality} candidates"
        return self.reason or f"its own pairs show no gain for {modality} queries"

    def presence_of(self, modality: Modality, query: Vectors, found: Neighbours) -> npt.NDArray[np.float32] | None:
        """Presence (B,), from 0 to 1, of what queries (B, D) ask for; None: see :meth:`why_no_presence`."""
        if self.presence is None:
            return None
        return self.presence.of(modality, query, found, self.values[other(modality)].mean, self.sides[modality].unit)

    def why_no_presence(self, modality: Modality) -> str:
        """Why there is no presence, for people."""
        if self.presence is not None:
            return self.presence.why_not(modality)
        return self.reason or f"its {self.pairs:,} pairs are too few to learn presence"

    @property
    def whose_gates(self) -> str:
        """Whether its gates are its own, for people: of few pairs, a side may have the safe one alone."""
        if self.fitted:
            return "fitted on its own pairs"
        sides = {m: self.sides[m].gates.values() for m in MODALITIES if self.sides[m].gates}
        safe = [m for m, gates in sides.items() if all(gate.equals(PRIOR[m]) for gate in gates)]
        if not safe:
            return "a gate between a safe one and its own" if sides else "none"
        if len(safe) == len(sides):
            return "a safe gate"
        return f"a safe gate for {safe[0]} queries, and one between a safe one and its own for {other(safe[0])} queries"

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of queries without an answer that each caution assumes."""
        return shares_of(self.unanswerable)

    def weigh(self, modality: Modality, query: Vectors, found: Neighbours, applied: Applied) -> Evidence:
        """Weigh the neighbours of queries (B, D)."""
        side, reliability = self.sides[modality], self.reliability_of(found)
        shares = share(found.similarity, reliability, found.found, applied.gate.sharpness, side.spread)
        kept = None
        if self.feedback is not None:
            keep = self.feedback.keep(modality, query, found, side.spread, self.same_caption)
            if keep is not None:
                kept = (shares[0] * keep).sum(axis=1).astype(np.float32)
                held = share(found.similarity, reliability * keep, found.found, applied.gate.sharpness, side.spread)
                shares = held[0], shares[1]
        own = self._own(found, reliability)
        values = self._levelled[other(modality)]
        evidence = weigh(query, found.vectors, found.similarity, shares, found.found, own, values, side.unit)
        evidence.signals[:, 7] *= applied.share(found.similarity[:, 0])
        if kept is not None:
            evidence.signals[:, 7] *= kept
        if applied.unknown_only:
            evidence.signals[:, 7] *= (evidence.weights * self._unknown(found)).sum(axis=1)
        return evidence

    @cached_property
    def _levelled(self) -> Mapping[Modality, Values]:
        return level(self.values)  # made once: a query norms by it

    def sharpen(self, modality: Modality, query: Vectors, index: Index) -> Vectors:
        """What to add to queries (B, D) that are compared with their own modality, or with both; 0: they stay plain."""
        return self.sides[modality].sharpening.move(query, self.values[modality], index)

    @property
    def among_own(self) -> str:
        """Whether queries move that are compared with their own modality, or with averages of both, for people."""
        said = []
        for m in MODALITIES:
            index = {f"{m}s": self.sides[m].sharpening.own, "averages of both": self.sides[m].sharpening.both}
            moving = [among for among, length in index.items() if length]
            words = f"move among {' and '.join(moving)}" if moving else "stay plain"
            said.append(f"{m} queries {words}")
        return f"compared with their own kind (see target), {', '.join(said)}"

    def reliability_of(self, found: Neighbours) -> npt.NDArray[np.float32]:
        """Reliability (B, K) of what was found: the mean where a pair was not measured yet, 0 where padded."""
        return self._judge(found, self.reliability.of)

    def shown(self, found: Neighbours) -> npt.NDArray[np.float32]:
        """The same for people, see :meth:`.Reliability.shown`."""
        return self._judge(found, self.reliability.shown)

    def _judge(
        self, found: Neighbours, judge: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        if found.witnesses is None:
            reliability = np.full(found.found.shape, self.reliability.mean, np.float32)
        else:
            reliability = judge(found.witnesses)
        return np.where(found.found, reliability, np.float32(0.0))

    def _own(self, found: Neighbours, reliability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """CLIP's own scores (B,) of what was found; the memory's mean where no pair was measured yet."""
        if found.witnesses is None:
            return np.full(len(found.found), self.own, np.float32)
        return mean_own(found.witnesses[..., 2], reliability, self.own)

    @staticmethod
    def _unknown(found: Neighbours) -> npt.NDArray[np.float32]:
        """How far CLIP does not know what was found, (B, K); 0, to be careful, where a pair was not measured yet."""
        return np.zeros_like(found.similarity) if found.witnesses is None else unknown(found.witnesses[..., 2])

    def to_json(self) -> dict[str, Any]:
        """For the memory's metadata: format, digest, pairs, and the arrays as base64."""
        blob = self._pack()
        return {
            "format": FORMAT,
            "sha256": hashlib.sha256(blob).hexdigest(),
            "pairs": self.pairs,
            "fitted": self.fitted,
            "reason": self.reason,
            "check": self.check.to_json() if self.check else None,
            "blob": base64.b64encode(blob).decode(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """Read :meth:`to_json` back.

        Raises:
            ConfigError: another format, a wrong digest, or damaged arrays.
        """
        again = "run `reco memory build --relearn`"
        try:
            if stored["format"] != FORMAT:
                raise ConfigError(f"its calibration has format {stored['format']}, not {FORMAT}: {again}")
            blob = base64.b64decode(stored["blob"], validate=True)
            if hashlib.sha256(blob).hexdigest() != stored["sha256"]:
                raise ConfigError(f"its calibration does not match its sha256 {str(stored['sha256'])[:12]}…: {again}")
            return _unpack(read_arrays(blob), stored)
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"its calibration is damaged ({error!r}): {again}") from error

    def _pack(self) -> bytes:
        arrays: dict[str, Any] = {}
        for modality in MODALITIES:
            values, side = self.values[modality], self.sides[modality]
            arrays[f"mean_{modality}"] = values.mean.astype(np.float32)
            arrays[f"slack_{modality}"] = values.slack.astype(np.float32)
            arrays[f"typical_{modality}"] = side.typical
            arrays[f"sharpening_{modality}"] = side.sharpening.to_array()
            arrays[f"moments_{modality}"] = np.array([values.length, values.shrinkage, side.spread, side.unit])
            _pack_matrix(arrays, f"covariance_{modality}", values.covariance)
            shared = values.precision.directions is values.covariance.directions
            _pack_matrix(arrays, f"precision_{modality}", values.precision, directions=not shared)
            for role, gates in (("query", side.gates), ("candidate", side.candidate_gates)):
                for caution, gate in sorted(gates.items()):  # the same bits whatever the order of the fit
                    arrays[f"gate_{modality}_{role}_{caution}"] = np.concatenate(
                        [gate.phi, gate.low, gate.high, [gate.sharpness, gate.temperature, gate.gain]]
                    )
        h = self.reliability
        arrays["one_image"] = np.array(self.one_image)
        arrays["reliability"] = np.concatenate(
            [h.weights, [h.wrong, h.mean, self.same_caption, self.unanswerable, self.own]]
        )
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()


def shares_of(unanswerable: float) -> Mapping[str, float]:
    """The share of queries without an answer that each caution assumes, from the measured one.

    >>> shares_of(0.1)
    {'bold': 0.1, 'balanced': 0.5, 'cautious': 0.6}
    """
    balanced = max(0.5, unanswerable)
    return {"bold": min(unanswerable, 0.5), "balanced": balanced, "cautious": more_cautious(balanced)}


def more_cautious(share: float) -> float:
    """A share of queries without an answer, and a fifth of the rest.

    >>> more_cautious(0.5)
    0.6
    """
    return 1.0 - 0.8 * (1.0 - share)


def _pack_matrix(arrays: dict[str, Any], name: str, matrix: LowRank, *, directions: bool = True) -> None:
    arrays[f"{name}_weights"] = np.append(matrix.weights, np.float32(matrix.scale))
    if directions:
        arrays[f"{name}_directions"] = matrix.directions


def _unpack_matrix(arrays: Mapping[str, Any], name: str, otherwise: LowRank | None = None) -> LowRank:
    weights = arrays[f"{name}_weights"]
    directions = arrays.get(f"{name}_directions")
    if directions is None:
        if otherwise is None:
            raise KeyError(f"{name}_directions")
        directions = otherwise.directions
    return LowRank(directions, weights[:-1], float(weights[-1]))


def _unpack(arrays: Mapping[str, Any], stored: Mapping[str, Any]) -> Calibration:
    values, sides = dict[Modality, Values](), dict[Modality, SideCalibration]()
    for modality in MODALITIES:
        length, shrinkage, spread, unit = arrays[f"moments_{modality}"].tolist()
        covariance = _unpack_matrix(arrays, f"covariance_{modality}")
        precision = _unpack_matrix(arrays, f"precision_{modality}", covariance)
        mean, slack = arrays[f"mean_{modality}"], arrays[f"slack_{modality}"]
        values[modality] = Values(mean, covariance, precision, length, shrinkage, slack)
        gates, candidate_gates = (
            {
                caution: _unpack_gate(arrays[f"gate_{modality}_{role}_{caution}"])
                for caution in FITTED
                if f"gate_{modality}_{role}_{caution}" in arrays
            }
            for role in ("query", "candidate")
        )
        sharpening = Sharpening.of_array(arrays[f"sharpening_{modality}"])
        sides[modality] = SideCalibration(
            spread, unit, arrays[f"typical_{modality}"], gates, candidate_gates, sharpening
        )
    witnessed = arrays["reliability"]
    wrong, mean, same, unanswerable, own = witnessed[4:].tolist()
    return Calibration(
        values,
        sides,
        Reliability(witnessed[:4], wrong, mean),
        same,
        int(stored["pairs"]),
        unanswerable,
        own,
        bool(stored["fitted"]),
        str(stored.get("reason", "")),
        Check.from_json(stored["check"]) if stored.get("check") else None,
        bool(arrays["one_image"]),
    )


def _unpack_gate(numbers: npt.NDArray[np.float64]) -> Gate:
    if numbers.shape != (21,):
        raise ValueError(f"a gate of shape {numbers.shape}")
    sharpness, temperature, gain = numbers[18:].tolist()
    return Gate(numbers[:6], numbers[6:12], numbers[12:18], sharpness, temperature, gain)
