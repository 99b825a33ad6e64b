"""How sure a ranking's first answer is: learned from questions that a memory's pairs asked, see :mod:`.questions`."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..calibration.reliability import logistic, sigmoid
from ..calibration.state import read_arrays
from ..errors import ConfigError, InputError
from ..types import MODALITIES, Modality
from .cutoff import Chances, FirstAnswers, Promise, fewest, find_cutoff

FORMAT = 1
LOOKED = 10
"""Scores of a ranking that are looked at."""
ABSENT = 0.2
"""Share of the queries that are assumed to have no right answer in the index."""
FEWEST_THINGS = 60
"""Things that must have asked before anything is said."""
_CHOSEN = 0.2  # of the questions fit the chances and choose what is tested; the others test it
QueryWay: TypeAlias = Literal["plain", "refined"]
QuestionKind: TypeAlias = Literal["plain", "known", "unknown"]
"""known: refined with the other pairs of its thing visible. unknown: with all of them hidden."""
PassesBy: TypeAlias = Literal["score", "lead", "match"]
BY: tuple[PassesBy, ...] = get_args(PassesBy)
WAYS: tuple[QueryWay, ...] = get_args(QueryWay)
KINDS: Mapping[QueryWay, tuple[QuestionKind, ...]] = {"plain": ("plain",), "refined": ("known", "unknown")}
_SIGNALS = 4
_SHARES_KEPT = 64  # answers for as many shares and precisions are kept: callers may ask for any
_COLUMNS = ("present", "place", "absent", "draw")
_TOLD = ("index", "things", "alone")
_RISING = np.array([True, True, True, False])  # a higher one never makes less sure; how far it moved may go either way


def signals_of(best: npt.NDArray[np.float32], moved: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Signals (B, 4) of rankings: the first score, its lead over the second and over the last, the root of the move.

    Args:
        best: (B, K) the first ten scores on the scale of plain scores, the best first; of shorter rankings, the last
            one again and again, so that nothing leads.
        moved: (B,) cosine distance of the query from its plain vector.
    """
    first, second, last = best[:, 0], best[:, min(1, best.shape[1] - 1)], best[:, -1]
    return np.stack([first, first - second, first - last, np.sqrt(moved)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class ThingQuestions:
    """One kind of questions, one a thing: n things.

    Attributes:
        present: (n, 4) signals where the index holds the right answer.
        place: (n,) of the right answer among the first ten, from 1; 0: it is not among them.
        absent: (n, 4) signals where the index does not hold it.
        draw: (n,) in [0, 1), the same thing's in each kind: below the share of absent answers, it has none; and which
            part it is in.
    """

    present: npt.NDArray[np.float32]
    place: npt.NDArray[np.int16]
    absent: npt.NDArray[np.float32]
    draw: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.place)

    def part(self, *, chosen: bool) -> ThingQuestions:
        """Those that choose, or those that test."""
        mask = (np.modf(self.draw * 1024.0)[0] < _CHOSEN) == chosen
        return ThingQuestions(*(getattr(self, name)[mask] for name in _COLUMNS))

    def mixed(self, absent: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Signals (n, 4), one a thing, so that about this share has no answer; whether the first answer is right."""
        gone = self.draw < absent
        return np.where(gone[:, None], self.absent, self.present), np.asarray((self.place == 1) & ~gone)


@dataclass(frozen=True)
class Logistic:
    """A chance by a weighted sum of signals."""

    mean: Chances
    scale: Chances
    weights: Chances  # (5,) the last is a constant

    def __call__(self, signals: npt.NDArray[np.float32]) -> Chances:
        """Chances (B,) of signals (B, 4)."""
        z = ((signals - self.mean) / self.scale) @ self.weights[:-1] + self.weights[-1]
        return sigmoid(z)


def fit_logistic(
    signals: npt.NDArray[np.float32], yes: npt.NDArray[np.bool_], weights: Chances, sign: float
) -> Logistic:
    """Fit a chance; the first three signals may only make it larger (sign 1), or only smaller (-1)."""
    mean, scale = signals.mean(axis=0, dtype=np.float64), signals.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-9, scale, np.inf)  # what never changes says nothing
    x = np.concatenate([(signals - mean) / scale, np.ones((len(signals), 1))], axis=1)
    used, ridge = np.append(np.isfinite(scale), True), np.append(np.ones(_SIGNALS), 1e-3)  # none on the constant
    while True:
        fitted = np.zeros(_SIGNALS + 1)
        fitted[used] = logistic(x[:, used], yes, weights, ridge[used])
        wrong = np.append(_RISING & (sign * fitted[:-1] < 0.0), False)
        if not wrong.any():
            return Logistic(mean, scale, fitted)
        used &= ~wrong


@dataclass(frozen=True)
class Sureness:
    """Both chances of one side and way, and how well they hold on questions that were not in the fit.

    Attributes:
        first: that the first answer is right.
        none: that none of the first ten is.
        auc: how often a right first answer has the higher chance than a wrong one.
        error: expected calibration error of ``first``.
        curve: ten bins: mean chance, share of right ones, number.
    """

    first: Logistic
    none: Logistic
    auc: float
    error: float
    curve: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Cutoffs:
    """What can be promised of one side and way.

    Attributes:
        precision, absent: what is promised, and up to which share of queries without an answer.
        of: by what passes: ``score`` of the first answer, on the scale of plain scores; its ``lead`` over the second;
            ``match``, the chance that it is right. None: none can be promised.
        why: what stands against a promise, and what to do; empty where nothing does.
    """

    precision: float
    absent: float
    of: Mapping[PassesBy, Promise | None]
    why: str = ""


@dataclass(frozen=True)
class MatchState:
    """What the questions of a memory's pairs say.

    Attributes:
        questions: of each modality, by kind; a kind that cannot be asked is missing.
        index: how many answers the index held.
        things: of the memory.
        alone: share of the things that have one pair.
    """

    questions: Mapping[Modality, Mapping[QuestionKind, ThingQuestions]]
    index: int
    things: int
    alone: float

    @cached_property
    def _sureness(self) -> Callable[[Modality, QueryWay, float], Sureness | None]:
        return lru_cache(_SHARES_KEPT)(self._fit)

    @cached_property
    def _cutoffs(self) -> Callable[[Modality, QueryWay, float, float], Cutoffs]:
        return lru_cache(_SHARES_KEPT)(self._find)

    def asked(self, modality: Modality, way: QueryWay) -> Sequence[ThingQuestions]:
        """The kinds of questions of a side and way that could be asked."""
        of_side = self.questions.get(modality, {})
        return [of_side[kind] for kind in KINDS[way] if kind in of_side and len(of_side[kind]) >= FEWEST_THINGS]

    def sureness(self, modality: Modality, way: QueryWay, absent: float = ABSENT) -> Sureness | None:
        """Chances for a side and way, fitted on a fifth of the questions; None where too few asked."""
        return self._sureness(modality, way, absent)

    def cutoffs(self, modality: Modality, way: QueryWay, precision: float, absent: float = ABSENT) -> Cutoffs:
        """Cut-offs of which a precision can be promised.

        Raises:
            InputError: a precision that is not between .5 and 1, or a share that is not from 0 to below 1.
        """
        check_promise(precision, absent)
        return self._cutoffs(modality, way, precision, absent)

    def _fit(self, modality: Modality, way: QueryWay, absent: float) -> Sureness | None:
        kinds = self.asked(modality, way)
        return _fit(kinds, absent) if kinds else None

    def _find(self, modality: Modality, way: QueryWay, precision: float, absent: float) -> Cutoffs:
        kinds, sure = self.asked(modality, way), self.sureness(modality, way, absent)
        if sure is None:
            return Cutoffs(precision, absent, dict.fromkeys(BY), self.why_not(modality))
        found = dict[PassesBy, Promise | None]()
        for by in BY:
            chosen, tested = (
                [
                    FirstAnswers(measure(by, signals, sure.first), right)
                    for signals, right in (one.part(chosen=part).mixed(absent) for one in kinds)
                ]
                for part in (True, False)
            )
            found[by] = find_cutoff(chosen, tested, precision)
        return Cutoffs(precision, absent, found, self._against(modality, way, precision, found))

    def _against(
        self, modality: Modality, way: QueryWay, precision: float, found: Mapping[PassesBy, Promise | None]
    ) -> str:
        if not any(found.values()):
            asked = min(len(one.part(chosen=False)) for one in self.asked(modality, way))
            return (
                f"none holds {precision:.0%} for sure with {asked:,} questions, of which {fewest(precision)} or more "
                "must pass with hardly a wrong one. Ask for less (precision), say that fewer queries have no answer "
                "(absent), or add things"
            )
        if len(self.asked(modality, way)) < len(KINDS[way]):
            return (
                f"not promised for things that the memory has: {self.alone:.0%} of them have one pair, so that none is "
                "left to ask how refined queries for them do. Add second pairs, or use plain scores"
            )
        return ""

    def why_not(self, modality: Modality) -> str:
        """Why nothing is known of a side."""
        return (
            f"too few of the memory's {self.things:,} things could ask {modality} queries: {FEWEST_THINGS} must, of "
            "300 pairs or more"
        )

    def to_json(self) -> dict[str, Any]:
        """For the memory's metadata."""
        arrays = {
            f"{modality}_{kind}_{name}": getattr(one, name)
            for modality, kinds in self.questions.items()
            for kind, one in kinds.items()
            for name in _COLUMNS
        }
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        blob = file.getvalue()
        told = {name: getattr(self, name) for name in _TOLD}
        digest = hashlib.sha256(blob).hexdigest()
        return {"format": FORMAT, **told, "sha256": digest, "blob": base64.b64encode(blob).decode()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> MatchState:
        """Read :meth:`to_json` back.

        Raises:
            ConfigError: another format, or damaged.
        """
        again = "run `reco memory build --relearn`"
        try:
            if stored["format"] != FORMAT:
                raise ConfigError(f"what it knows of matches has format {stored['format']}, not {FORMAT}: {again}")
            blob = base64.b64decode(stored["blob"], validate=True)
            if hashlib.sha256(blob).hexdigest() != stored["sha256"]:
                raise ValueError(f"its sha256 is not {str(stored['sha256'])[:12]}…")
            arrays = read_arrays(blob)
            questions = {modality: dict(_kinds(arrays, modality)) for modality in MODALITIES}
            numbers = int(stored["index"]), int(stored["things"]), float(stored["alone"])
            return cls(questions, *numbers)
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"what it knows of matches is damaged ({error!r}): {again}") from error


def _kinds(arrays: Any, modality: Modality) -> Iterator[tuple[QuestionKind, ThingQuestions]]:
    for kinds in KINDS.values():
        for kind in kinds:
            name = f"{modality}_{kind}"
            if f"{name}_place" in arrays:
                yield kind, ThingQuestions(*(arrays[f"{name}_{column}"] for column in _COLUMNS))


@lru_cache(maxsize=4)
def _read(stored: tuple[tuple[str, Any], ...]) -> MatchState:
    return MatchState.from_json(dict(stored))


def read_matches(calibration: Mapping[str, Any]) -> MatchState | None:
    """What a memory's header knows of matches; None where nothing was learned.

    Raises:
        ConfigError: it is damaged.
    """
    stored = calibration.get("match")
    if not stored:
        return None
    try:
        return _read(tuple(stored.items()))
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            f"what the memory knows of matches is damaged ({error!r}): run `reco memory build --relearn`"
        ) from error


_BY_WORDS: Mapping[PassesBy, str] = {"score": "score", "lead": "lead over the second", "match": "chance of a match"}


def cutoff_notes(calibration: Mapping[str, Any], precision: float = 0.9) -> list[str]:
    """From which score on a first answer can be believed, a sentence for each modality and way that has one."""
    if (state := read_matches(calibration)) is None:
        return []
    notes = []
    for modality, way in product(MODALITIES, WAYS):
        found = state.cutoffs(modality, way, precision).of
        by = next((by for by in BY if found[by] is not None), None)
        if by is not None and (promise := found[by]) is not None:
            notes.append(
                f"First answers to {way} {modality} queries are right with {precision:.0%} from a {_BY_WORDS[by]} of "
                f"{promise.cut:.3f} on, which {promise.passing[0]:.0%} of the queries reach (docs/match.md)."
            )
    return notes


def measure(by: PassesBy, signals: npt.NDArray[np.float32], first: Logistic) -> Chances:
    """What a cut-off compares (B,), of signals (B, 4)."""
    return first(signals) if by == "match" else signals[:, BY.index(by)].astype(np.float64)


def check_promise(precision: float, absent: float) -> None:
    """Refuse what cannot be promised.

    Raises:
        InputError: naming the value.
    """
    for name, share, least in (("precision", precision, 0.5), ("absent", absent, 0.0)):
        if not isinstance(share, float | int | np.number) or not least <= share < 1.0:
            raise InputError(f"{name} must be a share from {least:g} to below 1, got {share!r}")


def _fit(kinds: Sequence[ThingQuestions], absent: float) -> Sureness:
    parts = [one.part(chosen=True) for one in kinds]
    signals = np.concatenate([side for one in parts for side in (one.present, one.absent)])
    weight = np.concatenate([np.full(len(one), share) for one in parts for share in (1.0 - absent, absent)])
    nothing = [np.zeros(len(one), np.bool_) for one in parts]
    right = np.concatenate([x for one, no in zip(parts, nothing, strict=True) for x in (one.place == 1, no)])
    none = np.concatenate([x for one, no in zip(parts, nothing, strict=True) for x in (one.place == 0, ~no)])
    first = fit_logistic(signals, right, weight, 1.0)
    checked = [one.part(chosen=False).mixed(absent) for one in kinds]
    chance = first(np.concatenate([signals for signals, _ in checked]))
    true = np.concatenate([right for _, right in checked])
    error, curve = reliability_curve(chance, true)
    return Sureness(first, fit_logistic(signals, none, weight, -1.0), auc_of(chance, true), error, curve)


def reliability_curve(
    chance: Chances, true: npt.NDArray[np.bool_], bins: int = 10
) -> tuple[float, tuple[tuple[float, float, int], ...]]:
    """Expected calibration error, and for each bin of the chance its mean, the share of true ones, and the number."""
    place = np.minimum((chance * bins).astype(int), bins - 1)
    curve = tuple(
        (float(chance[here].mean()), float(true[here].mean()), int(here.sum()))
        for here in (place == number for number in range(bins))
        if here.any()
    )
    return sum(number * abs(mean - share) for mean, share, number in curve) / max(len(chance), 1), curve


def auc_of(score: npt.NDArray[np.floating[Any]], true: npt.NDArray[np.bool_]) -> float:
    """How often a true one has the higher score than another, ties counted half; NaN where all are alike."""
    good, bad = np.sort(score[true]), score[~true]
    if not len(good) or not len(bad):
        return float("nan")
    above = len(good) - (np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")) / 2.0
    return float(above.mean() / len(good))
