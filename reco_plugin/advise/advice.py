"""Which things of a list search will fail for, how sure that is, and what to add next to gain most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..calibration.cutoff import Chances
from ..calibration.nearest import RowNumbers
from ..data.rows import Rejected
from ..defaults import NEIGHBOURS
from ..errors import ConfigError, InputError
from ..fuse import Learned
from ..machine.blas import Floats
from ..reco import Reco
from ..refine import Refiner
from ..types import Neighbours, caption_of
from ..values import counted
from .forecast import Forecast, OwnQuestions, ask_own, learn_forecast
from .index import IndexView, PictureIndex, ThingQueries
from .things import KnownPairs, Listed, WantedList, WantedThing, encode_things, read_known

AGAIN = 0.25
"""What the next pair of a thing gains, of what the one before it did."""
_BADLY = 0.35  # reliability below which the pairs of a thing are called doubtful
_ALIKE_WORDS = 0.9  # similarity below which the memory words a thing otherwise
_PAIRS_NAMED = 3
_MANY = 0.5  # chance from which search is said to fail


@dataclass(frozen=True)
class LookAlike:
    """Another thing that the words of a thing find."""

    name: str
    ahead: bool  # whether its picture stands before the thing's own


@dataclass(frozen=True)
class ThingAdvice:
    """One thing of the list.

    Attributes:
        name: of the thing.
        fails: chance that search does not find it first; None where the memory is too small to tell.
        sure: 95 % interval of the share that failed, of the memory's own things with the nearest chances.
        pairs: how many the memory holds of it.
        place: of its picture among those of the list and the memory, 1 is the first; None without a picture.
        presence: probability that the memory holds what its words ask for; None where it cannot be known.
        near: similarity of the memory's nearest caption.
        nearest: that caption; None where the memory stores none.
        reliability: mean of its pairs that its words find in the memory; None where they find none.
        doubtful: ids of such pairs that fit badly.
        look_alikes: other things that its words find, the nearest first.
        add: ids of rows of the list to add next, the best first.
        gain: searches of a hundred that the first of them is expected to put right.
        why: in words, most important first.
    """

    name: str
    fails: float | None
    sure: tuple[float, float] | None
    pairs: int
    place: int | None
    presence: float | None
    near: float
    nearest: str | None
    reliability: float | None
    doubtful: tuple[str, ...]
    look_alikes: tuple[LookAlike, ...]
    add: tuple[str, ...]
    gain: float | None
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "thing": self.name,
            "fails": _rounded(self.fails),
            "sure": None if self.sure is None else [_rounded(end) for end in self.sure],
            "pairs": self.pairs,
            "place": self.place,
            "presence": _rounded(self.presence),
            "near": _rounded(self.near),
            "nearest": self.nearest,
            "reliability": _rounded(self.reliability),
            "doubtful": list(self.doubtful),
            "look_alikes": [{"thing": one.name, "ahead": one.ahead} for one in self.look_alikes],
            "add": list(self.add),
            "gain": _rounded(self.gain),
            "why": list(self.why),
        }


@dataclass(frozen=True)
class MemoryAdvice:
    """What to do for a list.

    Attributes:
        things: T, where adding gains most first.
        order: ids of all rows that can be added, in the order that gains most.
        forecasts: what chances are learned from: of rows with a picture, and of words alone; empty: the memory is too
            small.
        mended: share of the memory's own failing things that their pairs put right.
        pairs: of the memory.
        rejected: rows that could not be read, or whose picture could not.
    """

    things: Sequence[ThingAdvice]
    order: Sequence[str]
    forecasts: Sequence[Forecast]
    mended: float | None
    pairs: int
    rejected: Sequence[Rejected] = field(default=())

    @property
    def failing(self) -> int:
        """Things that search fails for more likely than not."""
        return sum(one.fails is not None and one.fails >= _MANY for one in self.things)

    def summary(self) -> Iterator[str]:
        """What it comes to, in sentences."""
        yield (
            f"{len(self.things):,} things, a memory of {self.pairs:,} pairs, {len(self.order):,} pictures of the list "
            "that it lacks"
        )
        if not self.forecasts:
            yield (
                "the memory is too small to tell chances: things that it lacks come first, then those that it holds "
                "least of"
            )
            return
        forecast = self.forecasts[0 if self.order or any(one.place for one in self.things) else 1]
        auc = f", AUC {forecast.auc:.2f}" if forecast.auc == forecast.auc else ""
        yield (
            f"search is likely to fail for {self.failing:,} of them (forecast on the memory's own "
            f"{len(forecast.failed):,} questions: {forecast.failed.mean():.0%} fail{auc}, calibration error "
            f"{forecast.error:.3f})"
        )
        if self.mended is not None:
            yield f"of its own things that fail without their pairs, {self.mended:.0%} are found with them"


def advise(
    reco: Reco,
    things: WantedList | Sequence[str] | Sequence[WantedThing],
    *,
    group: str | None = None,
    progress: Callable[[int], object] = int,
) -> MemoryAdvice:
    """Say which things search will fail for, and what to add next.

    Example::

        with Reco.open(memory="./memory") as reco:
            advice = advise(reco, ["red fox", "arctic fox"])
            for thing in advice.things:
                print(thing.name, thing.fails, *thing.why)

    Args:
        reco: with the memory.
        things: names, rows, or what :func:`read_things` reads.
        group: field of the payload, in the list and in the memory, that names a thing; None: words and captions do.
        progress: gets a number of rows or queries, each time that some are done.

    Raises:
        InputError: no thing, or no row or pair has the field ``group``.
        SessionError: the encoder failed.
        MemoryStoreError: the memory failed.
    """
    wanted = things if isinstance(things, WantedList) else WantedList([_wanted(one) for one in things])
    if not wanted.rows:
        raise InputError("things: give one or more, got none")
    listed, failed = encode_things(reco.encoder, wanted, group, progress)
    found = advise_listed(reco.memory, listed, k=reco.defaults["k"] or NEIGHBOURS, group=group, progress=progress)
    return MemoryAdvice(
        found.things, found.order, found.forecasts, found.mended, found.pairs, [*wanted.rejected, *failed]
    )


def _wanted(one: str | WantedThing) -> WantedThing:
    return WantedThing(one, one) if isinstance(one, str) else one


def advise_listed(
    memory: Learned,
    listed: Listed,
    *,
    k: int,
    group: str | None = None,
    progress: Callable[[int], object] = int,
) -> MemoryAdvice:
    """The same of vectors, without an encoder; arguments and errors as in :func:`advise`."""
    known = read_known(memory.store, listed, group)
    if group and known.ids_of and not _has_field(memory, group):
        raise ConfigError(f"group: no pair of the memory has a field {group!r} in its payload")
    refiner = Refiner(memory, None, k=k)
    own = ask_own(refiner, known, progress=progress)
    forecasts = [] if own is None else [learn_forecast(own, pictured=pictured) for pictured in (True, False)]
    seen = _look(refiner, listed, known, group, progress)
    return _Adviser(listed, known, own, forecasts, seen).advise()


def _has_field(memory: Learned, group: str) -> bool:
    return any(payload.get(group) is not None for _, payload in memory.store.payloads())


@dataclass(frozen=True)
class _Seen:
    """What rows (R,) show, and what their words find of their own thing in the memory."""

    shown: IndexView
    index_thing: RowNumbers  # of each picture in the index
    reliability: Sequence[float | None]
    doubtful: Sequence[tuple[str, ...]]
    nearest: Sequence[str | None]  # captions


def _look(
    refiner: Refiner, listed: Listed, known: KnownPairs, group: str | None, progress: Callable[[int], object]
) -> _Seen:
    """Ask by the words of each row, in an index of one picture of each thing of the memory and of the list."""
    first = np.unique(known.thing, return_index=True)[1]
    pictured = np.flatnonzero(listed.pictured)
    first_listed = pictured[np.unique(listed.thing[pictured], return_index=True)[1]]
    inside = set(listed.thing[first_listed].tolist())
    kept = [row for row in first.tolist() if int(known.thing[row]) not in inside]
    image = np.concatenate([listed.image[first_listed], known.pairs.image[kept]])
    thing = np.concatenate([listed.thing[first_listed], known.thing[kept]]).astype(np.intp)
    right = listed.image.copy()
    held = {int(number): row for number, row in zip(known.thing[kept], kept, strict=True)}
    for row in np.flatnonzero(~listed.pictured).tolist():  # the memory's own picture stands in
        if (place := held.get(int(listed.thing[row]))) is not None:
            right[row] = known.pairs.image[place]
    reliability, doubtful, nearest = list[float | None](), list[tuple[str, ...]](), list[str | None]()

    def note(found: Neighbours | None, fits: Floats | None) -> None:
        for row in range(0 if found is None else len(found.ids)):
            mine = set(known.ids_of.get(int(listed.thing[len(reliability)]), ()))
            own = [
                (float(fits[row, column]), id_)  # type: ignore[index]
                for column, id_ in enumerate(found.ids[row])  # type: ignore[union-attr]
                if id_ in mine
            ]
            reliability.append(float(np.mean([fit for fit, _ in own])) if own else None)
            doubtful.append(tuple(id_ for fit, id_ in sorted(own) if fit < _BADLY))
            payloads = None if found is None or found.payloads is None else found.payloads[row]
            nearest.append(caption_of(payloads[0]) if payloads else None)

    shown = PictureIndex(image, thing).ask(
        refiner, ThingQueries(listed.text, listed.thing, None, right), note, progress
    )
    nothing = len(listed.thing) - len(reliability)  # an empty memory finds nothing
    empty = [None] * nothing
    return _Seen(shown, thing, [*reliability, *empty], [*doubtful, *[()] * nothing], [*nearest, *empty])


@dataclass(frozen=True)
class _Adviser:
    listed: Listed
    known: KnownPairs
    own: OwnQuestions | None
    forecasts: Sequence[Forecast]
    seen: _Seen

    def advise(self) -> MemoryAdvice:
        """Put together what was seen of each thing."""
        listed = self.listed
        rows_of: dict[int, list[int]] = {number: [] for number in range(len(listed.names))}
        for row, number in enumerate(listed.thing.tolist()):
            rows_of[number].append(row)
        fails, gains = (self._by_thing(how, rows_of) for how in (Forecast.fails, Forecast.gains))
        addable = {number: self._addable(rows) for number, rows in rows_of.items()}
        things = [
            self._thing(number, rows, fails, gains, [listed.ids[row] for row in addable[number]])
            for number, rows in rows_of.items()
        ]
        return MemoryAdvice(
            sorted(
                things, key=lambda one: (-_worth(one.gain, one.pairs if one.gain is None else 0), -(one.fails or 0.0))
            ),
            list(dict.fromkeys(listed.ids[row] for row in self._order(addable, fails, gains))),
            self.forecasts,
            None if self.own is None else self.own.mended,
            sum(len(ids) for ids in self.known.ids_of.values()),
        )

    def _by_thing(
        self, how: Callable[[Forecast, IndexView], Chances], rows_of: Mapping[int, Sequence[int]]
    ) -> Chances | None:
        """Mean (T,) of what a forecast says of a thing's rows, by the picture where there is one."""
        if not self.forecasts:
            return None
        shown = self.seen.shown
        filled = replace(shown, margin=np.nan_to_num(shown.margin))
        pictured, words = (how(one, filled) for one in self.forecasts)
        by_row = np.where(np.isnan(shown.margin), words, pictured)
        return np.array([by_row[rows].mean() for rows in rows_of.values()])

    @cached_property
    def _number_of(self) -> Mapping[str, int]:
        """Id of each pair of the memory -> number of its thing."""
        return {id_: number for number, ids in self.known.ids_of.items() for id_ in ids}

    def _addable(self, rows: Sequence[int]) -> list[int]:
        """Rows of a thing with a picture that the memory lacks, the most typical first; two as they are listed."""
        lacking = {
            self.listed.ids[row]: row
            for row in reversed(rows)
            if self.listed.pictured[row] and self.listed.ids[row] not in self._number_of
        }
        left = sorted(lacking.values())  # an id that is listed twice is one pair
        if len(left) < 3:  # two are as near to their mean, either of them: rounding would choose
            return left
        image = self.listed.image[left]
        return [left[place] for place in np.argsort(-(image @ image.mean(axis=0)), kind="stable").tolist()]

    def _order(
        self, addable: Mapping[int, Sequence[int]], fails: Chances | None, gains: Chances | None
    ) -> Iterator[int]:
        """All rows that can be added, those that gain most first."""
        scored = []
        for number, rows in addable.items():
            first = None if gains is None else AGAIN ** len(self.known.ids_of.get(number, ())) * float(gains[number])
            doubt = 0.0 if fails is None else float(fails[number])
            for place, row in enumerate(rows):
                before = place + (len(self.known.ids_of.get(number, ())) if first is None else 0)
                scored.append((-_worth(first, before), -doubt, before, row))
        yield from (row for *_, row in sorted(scored))

    def _thing(
        self, number: int, rows: Sequence[int], fails: Chances | None, gains: Chances | None, add: Sequence[str]
    ) -> ThingAdvice:
        shown, pairs = self.seen.shown, len(self.known.ids_of.get(number, ()))
        worst = max(rows, key=lambda row: int(shown.place[row]))
        places = [int(shown.place[row]) for row in rows if shown.place[row]]
        place = max(places) if places else None
        presence = float(np.mean(shown.presence[list(rows)]))
        fits = [fit for row in rows if (fit := self.seen.reliability[row]) is not None]
        doubtful = tuple(dict.fromkeys(id_ for row in rows for id_ in self.seen.doubtful[row]))
        alike = tuple(self._look_alikes(worst, place))
        near = float(shown.near[list(rows)].max())
        forecast = self.forecasts[0 if place is not None else 1] if self.forecasts else None
        chance = None if fails is None else float(fails[number])
        found = ThingAdvice(
            self.listed.names[number],
            chance,
            None if chance is None or forecast is None else forecast.interval(chance),
            pairs,
            place,
            None if np.isnan(presence) else presence,
            near,
            self.seen.nearest[max(rows, key=lambda row: float(shown.near[row]))],
            float(np.mean(fits)) if fits else None,
            doubtful,
            alike,
            tuple(add),
            None if gains is None else 100.0 * float(gains[number]) * AGAIN**pairs,
            (),
        )
        elsewhere = {
            id_: own for row in rows if (own := self._number_of.get(id_ := self.listed.ids[row], number)) != number
        }
        return replace(found, why=(*explain(found), *self._misnamed(elsewhere)))

    def _misnamed(self, elsewhere: Mapping[str, int]) -> Iterator[str]:
        """What to do where the memory has rows of a thing under the name of another, by id."""
        for id_, number in list(elsewhere.items())[:1]:
            more = f" and {len(elsewhere) - 1:,} more" if len(elsewhere) > 1 else ""
            yield (
                f"the memory has {id_}{more} as “{self.known.names[number]}”: sync the list, or name things by a field "
                "(--group)"
            )

    def _look_alikes(self, row: int, place: int | None) -> Iterator[LookAlike]:
        for rank, column in enumerate(self.seen.shown.rivals[row].tolist()):
            if column >= 0:
                name = self.known.names[int(self.seen.index_thing[column])]
                yield LookAlike(name, place is not None and rank < place - 1)


def _worth(gain: float | None, before: int) -> float:
    """What a pair is worth beside others: its gain, where one of the thing came before; without one, by that alone.

    A gain of a :class:`ThingAdvice` counts the memory's own pairs already.
    """
    return AGAIN**before if gain is None else gain * AGAIN**before


def explain(thing: ThingAdvice) -> Iterator[str]:
    """Why search fails for a thing, and what helps, in words."""
    ahead = [f"“{one.name}”" for one in thing.look_alikes if one.ahead]
    if thing.place is not None and thing.place > 1:
        behind = f", behind {', '.join(ahead)}" if ahead else ""
        yield f"its own words find it at place {thing.place}{behind}"
    if not thing.pairs:
        nearest = "" if thing.nearest is None else f"; its nearest caption is “{thing.nearest}” ({thing.near:.2f})"
        yield f"the memory holds no pair of it{nearest}"
    elif thing.near < _ALIKE_WORDS:
        yield f"the memory words it otherwise (similarity {thing.near:.2f}): add a caption in these words"
    if thing.place == 1 and thing.fails is not None and thing.fails >= _MANY:
        yield "its own words find it, by a lead that other words are likely to lose"
    if thing.doubtful:
        some = ", ".join(thing.doubtful[:_PAIRS_NAMED])
        fit = counted(len(thing.doubtful), "of its pairs fits", "of its pairs fit")
        yield f"{fit} badly, as {some}: are picture and caption right?"
    if not thing.add and (thing.fails is None or thing.fails >= _MANY) and not thing.doubtful:
        yield "the list has no new picture of it: add one or two, captioned as people ask"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
