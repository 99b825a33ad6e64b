"""One list of plain and refined results, for applications that show one; and which of both its clicks prefer.

Team draft interleaving, of F. Radlinski, M. Kurup and T. Joachims, "How Does Clickthrough Data Reflect Retrieval
Quality?", CIKM 2008: in each round a coin says which list begins, and each takes its best result that is not taken.
Both get as many results, in places that are as good, so that who clicks at random favours none. Unlike in the paper,
two kinds of results have no team: those of the beginning that both lists share, where only the coin would speak, and
those that follow when one list has nothing left to choose.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, Literal, TypeAlias, TypeVar, get_args

from ..errors import InputError
from ..values import show
from .statistics import sign_test

Id = TypeVar("Id", bound=Hashable)
Team: TypeAlias = Literal["plain", "refined"]
"""Which list put a result in its place."""
TEAMS: tuple[Team, ...] = get_args(Team)


@dataclass(frozen=True)
class Interleaved(Generic[Id]):
    """One list to show, best first: at most k ids, and of each the list whose choice it was; None: of neither."""

    ids: tuple[Id, ...]
    teams: tuple[Team | None, ...]


@dataclass(frozen=True)
class Votes:
    """What clicks favour: results of one list by their teams, or people by the team that they clicked more."""

    plain: int
    refined: int

    @property
    def p(self) -> float:
        """How often votes would differ at least as much if nobody preferred either: the binomial, on two sides."""
        return sign_test(self.plain, self.refined)

    @property
    def preferred(self) -> Team | None:
        """The one that is preferred, by less than a chance of 5 %; None: nothing can be said yet."""
        return None if self.p >= 0.05 else "refined" if self.refined > self.plain else "plain"

    def __str__(self) -> str:
        head = "nothing can be said yet" if self.preferred is None else f"{self.preferred} is preferred"
        return f"{head}: {self.refined:,} for refined, {self.plain:,} for plain (p = {self.p:.2g})"


def interleave(plain: Iterable[Id], refined: Iterable[Id], k: int = 10, *, seed: str | bytes | int) -> Interleaved[Id]:
    """Make one list of two by team draft.

    Args:
        plain: ids of the plain results, best first; of an id that comes twice, the first counts.
        refined: likewise of the refined ones.
        k: results to show; fewer if both lists hold no more.
        seed: whom it is for, as a user or session: a reload shows the same, and a larger k of the same lists only adds.

    Raises:
        InputError: k below 1, or a text in place of a list.

    >>> shown = interleave(["a", "b", "c"], ["a", "c", "d"], 4, seed="session-7")
    >>> shown.ids[0], shown.teams[0], sorted(shown.teams[1:3])
    ('a', None, ['plain', 'refined'])
    """
    if k < 1 or isinstance(plain, str | bytes) or isinstance(refined, str | bytes):
        raise InputError(f"two lists of ids and k of at least 1 are needed, got {show(plain)}, {show(refined)}, {k}")
    left: dict[Team, list[Id]] = {"plain": list(dict.fromkeys(plain)), "refined": list(dict.fromkeys(refined))}
    ids = [one for one, _ in takewhile(lambda both: both[0] == both[1], zip(*left.values(), strict=False))]
    teams: list[Team | None] = [None] * len(ids)
    left = {team: given[len(ids) :] for team, given in left.items()}
    coin = random.Random(f"{seed!r} {[given[:1] for given in left.values()]!r}")
    while len(ids) < k and all(left.values()) and not _one_choice(left["plain"], left["refined"]):
        for team in coin.sample(TEAMS, 2):
            chosen = left[team][0]
            ids.append(chosen)
            teams.append(team)
            left = {name: [id_ for id_ in given if id_ != chosen] for name, given in left.items()}
    rest = dict.fromkeys([*left["plain"], *left["refined"]])
    return Interleaved(tuple([*ids, *rest][:k]), tuple([*teams, *[None] * len(rest)][:k]))


def credit(shown: Interleaved[Id], clicked: Iterable[object]) -> Votes:
    """Count the clicks on a list for its teams: each result once, by its id as text, since clicks come over HTTP.

    >>> credit(Interleaved((7, 8, 9), (None, "plain", "refined")), ["9", "9", "7", "12"])
    Votes(plain=0, refined=1)
    """
    hits = set(map(str, clicked))
    teams = [team for id_, team in zip(shown.ids, shown.teams, strict=True) if str(id_) in hits]
    return Votes(teams.count("plain"), teams.count("refined"))


def _one_choice(one: Sequence[Id], other: Sequence[Id]) -> bool:
    """Whether the list that chooses first may leave the other nothing to choose."""
    return one[0] == other[0] and 1 in (len(one), len(other))
