"""One list of plain and refined results, for applications that show one; and what its clicks say.

::

    plain ids, refined ids ──interleave──► one list, a team for each result ──credit──► clicks of each team
    a file of impressions and clicks ──evaluate_clicks──► which of both is preferred, and how surely

Team draft interleaving, of F. Radlinski, M. Kurup and T. Joachims, "How Does Clickthrough Data Reflect Retrieval
Quality?", CIKM 2008: as captains choose their teams, the lists take turns, a coin says which begins each round, and
each takes its best result that is not taken. Both get as many results, in places that are as good, so that who clicks
at random favours none. Unlike in the paper, two kinds of results have no team: those of the beginning that both lists
share, where only the coin would speak, and those that follow when one list has nothing left to choose.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from .errors import DataError, InputError
from .values import show

Id = TypeVar("Id", bound=Hashable)
Team: TypeAlias = Literal["plain", "refined"]
"""Which list put a result in its place."""
TEAMS: tuple[Team, ...] = get_args(Team)
_LEVEL, _POWER = 1.959964, 0.841621  # quantiles of the normal distribution: 5 % on two sides, 80 %
_SIGNIFICANT = 0.05
_FEWEST = 10  # units in an arm, below which nothing is said of their spread
_EXACT = 100_000  # votes up to which the sign test is the binomial itself
_CLICKED = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_COLUMNS = ("impression", "id", "unit", "team", "arm", "clicked")


@dataclass(frozen=True)
class Interleaved(Generic[Id]):
    """One list to show, best first.

    Attributes:
        ids: at most k, none twice.
        teams: of each, the list whose choice it was; None where both lists had it in that place, or where the other
            list had nothing left to choose: its clicks count for neither.
    """

    ids: tuple[Id, ...]
    teams: tuple[Team | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, impression: str, unit: str = "", clicked: Iterable[Id] = ()) -> list[dict[str, Any]]:
        """The list as rows of a log that :func:`evaluate_clicks` reads; clicks may follow in rows of their own.

        Args:
            impression: names this showing of the list; another one for each.
            unit: who saw it, a user or a session.
            clicked: ids that were clicked.
        """
        hits = set(map(str, clicked))
        return [
            {
                "impression": impression,
                "unit": unit,
                "id": str(id_),
                "team": team or "",
                "clicked": int(str(id_) in hits),
            }
            for id_, team in zip(self.ids, self.teams, strict=True)
        ]


@dataclass(frozen=True)
class Credit:
    """Results of one list that were clicked, each once."""

    plain: int
    refined: int
    neither: int = 0  # of no team
    unknown: int = 0  # not in the list, as of a page that was shown before

    @property
    def preferred(self) -> Team | None:
        """The team with more clicks; None if both have as many."""
        return None if self.plain == self.refined else "refined" if self.refined > self.plain else "plain"


def interleave(plain: Iterable[Id], refined: Iterable[Id], k: int = 10, *, seed: str | bytes | int) -> Interleaved[Id]:
    """Make one list of two by team draft.

    Args:
        plain: ids of the plain results, best first; of an id that comes twice, the first counts. May be shorter than k.
            Ids are compared as texts: 7 of one client is "7" of another.
        refined: likewise of the refined ones.
        k: results to show; fewer if both lists hold no more.
        seed: whom it is for, as the ``x-reco-unit`` of a user or session: the coins are made of it and of the first
            results on which the lists differ. So a reload shows the same, and a larger k of the same lists only adds.

    Raises:
        InputError: k below 1, a text in place of a list, ids that cannot be compared, or a seed of another type.

    >>> shown = interleave(["a", "b", "c"], ["a", "c", "d"], 4, seed="session-7")
    >>> shown.ids, shown.teams
    (('a', 'b', 'c', 'd'), (None, 'plain', 'refined', None))
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k must be a whole number of at least 1, got {show(k)}")
    named = {"plain": _distinct(plain, "plain"), "refined": _distinct(refined, "refined")}
    lists: dict[Team, list[str]] = {"plain": [*named["plain"]], "refined": [*named["refined"]]}
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(*lists.values(), strict=False))
    ids = [one for one, _ in alike]
    left = {team: given[len(ids) :] for team, given in lists.items()}
    teams: list[Team | None] = [None] * len(ids)
    tops = [repr(given[0]) if given else "" for given in left.values()]
    for begins in _coins(_bytes_of(seed) + "\n".join(["", *tops]).encode("utf-8", "surrogatepass")):
        if len(ids) >= k or not (left["plain"] and left["refined"]) or _one_choice(*left.values()):
            break
        for team in (begins, "plain" if begins == "refined" else "refined"):
            chosen = left[team][0]
            ids.append(chosen)
            teams.append(team)
            left = {name: [id_ for id_ in given if id_ != chosen] for name, given in left.items()}
    rest = dict.fromkeys([*max(left.values(), key=len), *min(left.values(), key=len)])
    teams += [None] * len(rest)
    id_of = named["refined"] | named["plain"]
    return Interleaved(tuple(id_of[text] for text in [*ids, *rest][:k]), tuple(teams[:k]))


def credit(shown: Interleaved[Id], clicked: Iterable[object]) -> Credit:
    """Count the clicks on a list for its teams: each result once, by its id as text, since clicks come over HTTP.

    >>> credit(Interleaved((7, 8, 9), (None, "plain", "refined")), ["9", "9", "7", "12"])
    Credit(plain=0, refined=1, neither=1, unknown=1)
    """
    if isinstance(clicked, str | bytes) or not isinstance(clicked, Iterable):
        raise InputError(f"clicked must be a list of ids, got {show(clicked)}: put it in a list")
    team_of = dict(zip(map(str, shown.ids), shown.teams, strict=True))
    hits = dict.fromkeys(map(str, clicked))
    teams = [team_of[id_] for id_ in hits if id_ in team_of]
    return Credit(teams.count("plain"), teams.count("refined"), teams.count(None), len(hits) - len(teams))


def _distinct(ids: Iterable[Id], name: str) -> dict[str, Id]:
    """Each id once, in its first place, by its text."""
    if isinstance(ids, str | bytes | set | frozenset):
        raise InputError(f"{name} must be a list of ids, best first, got {show(ids)}")
    found: dict[str, Id] = {}
    try:
        for id_ in dict.fromkeys(ids):
            found.setdefault(str(id_), id_)
    except TypeError:
        raise InputError(f"{name} must be a list of ids, as texts or numbers, got {show(ids)}") from None
    return found


def _one_choice(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the list that chooses first may leave the other nothing to choose."""
    return (len(one) == 1 and one[0] == other[0]) or (len(other) == 1 and other[0] == one[0])


def _bytes_of(seed: object) -> bytes:
    match seed:
        case bytes():
            return seed
        case str():
            return seed.encode("utf-8", "surrogatepass")
        case int() | np.integer() if not isinstance(seed, bool):
            return str(seed).encode()
    raise InputError(f"seed must be a text, bytes or a whole number, got {show(seed)}")


def _coins(seed: bytes) -> Iterator[Team]:
    """Which team begins each round: the same for a seed in every process."""
    for block in count():
        drawn = hashlib.blake2b(seed, person=b"reco-teams", salt=block.to_bytes(8, "big")).digest()
        for bits in drawn:
            yield from (TEAMS[bits >> place & 1] for place in range(8))


@dataclass(frozen=True)
class ClickVerdict:
    """What the clicks say, of one list by team draft (``teams``), or of units that saw either (``arms``).

    Attributes:
        design: which of both.
        impressions: lists that were shown, as far as the file has them.
        clicks: results that were clicked, each once per impression.
        units: that voted for one team, more clicks on its results than on the other's; or that were in one of the arms.
        plain: share of those votes; or share of the arm's impressions that were clicked.
        refined: the same.
        low: of the 95 % interval of ``refined - plain``.
        high: likewise.
        p: how often clicks would differ at least as much if nobody preferred either: by the sign test of the votes, or
            by the normal approximation of the difference, with the spread of units.
        clicks_needed: how many more to tell a preference of the observed size in four of five tries, at 5 %; 0 if it
            is told; None where there is none to tell.
        notes: what a reader should know of the file.
    """

    design: Literal["teams", "arms"]
    impressions: int
    clicks: int
    units: int
    plain: float
    refined: float
    low: float
    high: float
    p: float
    clicks_needed: int | None
    notes: tuple[str, ...] = ()

    @property
    def preferred(self) -> Team | None:
        """The one that is preferred, by less than a chance of 5 %; None: nothing can be said yet."""
        return None if self.p >= _SIGNIFICANT else "refined" if self.refined > self.plain else "plain"

    def __str__(self) -> str:
        gain, low, high = (100 * value for value in (self.refined - self.plain, self.low, self.high))
        what = "of those who clicked more on one" if self.design == "teams" else "of the lists were clicked"
        seen = (
            f"refined {100 * self.refined:.1f} %, plain {100 * self.plain:.1f} % {what} "
            f"({gain:+.1f} points [{low:+.1f}, {high:+.1f}], p = {self.p:.2g}; {self.units:,} "
            f"{'votes' if self.design == 'teams' else 'units'}, {self.clicks:,} clicks)"
        )
        if self.preferred is not None:
            return f"{self.preferred} is preferred: {seen}"
        if self.clicks_needed is None:
            return f"nothing can be said: {seen}"
        return (
            f"nothing can be said yet: {seen}; about {self.clicks_needed:,} more clicks would tell a difference as this"
        )


@dataclass
class _Impression:
    """One showing of a list, as the file has it."""

    unit: str | None = None
    arm: Team | None = None
    results: dict[object, list[Any]] = field(default_factory=dict)  # id, or row -> team and whether it was clicked

    def clicks(self, *, unless_told: bool) -> list[Team | None]:
        """The teams of the clicked results; ``unless_told``: whether a row that does not say so is a click."""
        return [team for team, clicked in self.results.values() if (unless_told if clicked is None else clicked)]


def evaluate_clicks(path: str | os.PathLike[str]) -> ClickVerdict:
    """Say which of plain and refined results people prefer, from a CSV, TSV or JSONL file of impressions and clicks.

    Columns: ``impression``; ``team`` of a result, as :meth:`Interleaved.rows` writes it, or ``arm`` of the whole list,
    as the service told it in ``x-reco-arm``; ``id`` of the result; ``unit``, a user or session, which then has one
    vote; ``clicked``, 0 or 1, without which each row is a click. A result may have several rows, and counts once.

    Raises:
        DataError: the file cannot be read, lacks a column, or contradicts itself, by line.
    """
    shown, told = _read_impressions(Path(path))
    if any(one.arm for one in shown.values()):
        return _judge_arms(path, list(shown.values()), told=told)
    return _judge_teams(list(shown.values()), told=told)


def _read_impressions(path: Path) -> tuple[dict[str, _Impression], bool]:
    """All impressions by name, and whether any row says if it was clicked."""
    from .data.tables import SUFFIXES, TableFile

    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}: give the clicks as a table with a row per result")
    shown: dict[str, _Impression] = {}
    told, words = False, set[str]()
    for number, row in enumerate(TableFile(path, needed=()).good_rows()):
        values = {name: str(row.values[name]) for name in _COLUMNS if name in row.values}
        if "impression" not in values:
            raise row.error("impression", f"is missing; this row has {sorted(row.values)}")
        clicked = _CLICKED.get(values["clicked"].lower()) if "clicked" in values else None
        if clicked is None and "clicked" in values:
            raise row.error("clicked", f"must be 0 or 1, got {values['clicked']!r:.40}")
        for name in {"team", "arm"} & values.keys():
            if values[name] not in TEAMS:
                raise row.error(name, f"must be plain, refined or empty, got {values[name]!r:.40}")
            words.add(name)
        one = shown.setdefault(values["impression"], _Impression())
        team: Any = values.get("team")
        result = one.results.setdefault(values.get("id", number), [team, clicked])
        for name, before, now in (
            ("team", result[0], team),
            ("arm", one.arm, values.get("arm")),
            ("unit", one.unit, values.get("unit")),
        ):
            if None not in (before, now) and before != now:
                raise row.error(name, f"is {now!r:.40}, and was {before!r:.40} before, in the same impression")
        one.arm, one.unit = one.arm or values.get("arm"), one.unit or values.get("unit")  # type: ignore[assignment]
        result[0], told = result[0] or team, told or clicked is not None
        result[1] = result[1] if clicked is None else bool(clicked or result[1])
    if len(words) != 1:
        said = "both team and arm: leave out one of them" if words else "no team and no arm: plain or refined"
        raise DataError(f"{path} has {said}")
    return shown, told


def _judge_teams(shown: Sequence[_Impression], *, told: bool) -> ClickVerdict:
    """The sign test: of each unit, whether it clicked more lists in favour of one team than of the other."""
    votes: dict[object, int] = {}
    clicks = 0
    for number, one in enumerate(shown):
        hits = one.clicks(unless_told=not told)
        clicks += len(hits)
        lead = hits.count("refined") - hits.count("plain")
        unit = number if one.unit is None else one.unit
        votes[unit] = votes.get(unit, 0) + (lead > 0) - (lead < 0)
    refined, plain = sum(vote > 0 for vote in votes.values()), sum(vote < 0 for vote in votes.values())
    units = refined + plain
    share = refined / units if units else 0.5
    low, high = _wilson(share, units)
    p = _sign_test(refined, plain)
    needed: int | None = None
    if refined != plain:
        wanted = ((_LEVEL / 2 + _POWER * math.sqrt(share * (1 - share))) / (share - 0.5)) ** 2
        needed = 0 if p < _SIGNIFICANT else math.ceil(max(1.0, wanted - units) * clicks / units)
    notes = () if any(one.unit for one in shown) else ("no unit: each impression has a vote, though users repeat",)
    return ClickVerdict(
        "teams", len(shown), clicks, units, 1 - share, share, 2 * low - 1, 2 * high - 1, p, needed, notes
    )


def _judge_arms(path: str | os.PathLike[str], shown: Sequence[_Impression], *, told: bool) -> ClickVerdict:
    """The difference of the shares of lists that were clicked, with the spread of units."""
    if not told:
        raise DataError(f"{path} has arms and no column clicked: lists without a click count, too, as rows of 0")
    by_unit: dict[Team, dict[object, npt.NDArray[np.float64]]] = {team: {} for team in TEAMS}
    clicks, shown = 0, [one for one in shown if one.arm is not None]
    for number, one in enumerate(shown):
        hits = len(one.clicks(unless_told=False))
        clicks += hits
        unit = number if one.unit is None else one.unit
        counted = by_unit[one.arm or "plain"].setdefault(unit, np.zeros(2))
        counted += (hits > 0, 1)
    (plain, below), (refined, above) = (_rate(list(by_unit[team].values())) for team in TEAMS)
    spread, gain = math.sqrt(below + above), refined - plain
    known = all(len(units) >= _FEWEST for units in by_unit.values()) and spread > 0
    z = abs(gain) / spread if known else 0.0
    p = math.erfc(z / math.sqrt(2))
    needed = math.ceil((((_LEVEL + _POWER) / z) ** 2 - 1) * clicks) if z and p >= _SIGNIFICANT else 0 if z else None
    margin = _LEVEL * spread
    low, high = (gain - margin, gain + margin) if known else (-1.0, 1.0)
    units = sum(map(len, by_unit.values()))
    notes = tuple(_notes(by_unit, any(one.unit for one in shown)))
    return ClickVerdict("arms", len(shown), clicks, units, plain, refined, low, high, p, needed, notes)


def _notes(by_unit: Mapping[Team, Mapping[object, object]], named: bool) -> Iterator[str]:
    """What a reader should know of the arms."""
    if not named:
        yield "no unit: impressions are taken for independent, though users repeat"
    for team, units in by_unit.items():
        if len(units) < _FEWEST:
            yield f"units in the {team} arm: {len(units):,}, too few to tell their spread ({_FEWEST})"
    if both := len(by_unit["plain"].keys() & by_unit["refined"].keys()):
        yield f"units in both arms: {both:,}; compare only days of one refined_share"


def _rate(units: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Share of clicked impressions, and its variance over units, each (clicked, shown)."""
    if not units:
        return 0.0, 0.0
    clicked, shown = np.stack(units).T
    rate = clicked.sum() / shown.sum()
    apart = ((clicked - rate * shown) ** 2).sum() * len(units) / max(1, len(units) - 1)
    return float(rate), float(apart / shown.sum() ** 2)


def _wilson(share: float, votes: int) -> tuple[float, float]:
    """Bounds of a share, by Wilson's interval: from 0 to 1 without votes."""
    if not votes:
        return 0.0, 1.0
    square = _LEVEL**2
    middle, scale = share + square / (2 * votes), 1 + square / votes
    margin = _LEVEL * math.sqrt(share * (1 - share) / votes + square / (4 * votes**2))
    return (middle - margin) / scale, (middle + margin) / scale


def _sign_test(one: int, other: int) -> float:
    """Chance of votes that differ at least as much, from fair coins.

    >>> round(_sign_test(1, 9), 9)
    0.021484375
    """
    votes, fewer = one + other, min(one, other)
    if votes > _EXACT:
        return min(1.0, math.erfc(max(0.0, abs(one - other) - 1) / math.sqrt(2 * votes)))
    wins = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((votes - wins + 1) / wins))]) - votes * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))
