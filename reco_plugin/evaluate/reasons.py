"""Why refinement gained nothing, or little: the limiting rule, what was found, and what to do about it.

And pictures of an evaluation that the memory holds: what is gained on them says nothing of new ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from ..measure.statistics import Interval, points
from ..score import Refines
from ..types import Coverage, Role, Search, Vectors
from .measure import Measured

SAME = 0.99
"""Cosine of a picture and a copy of it."""
_ROWS = 4096


def count_own(reco: Refines, images: Vectors, own: Sequence[Collection[str]] | None) -> int:
    """Count images (N, D) that the memory holds under other ids than their own, which are hidden from them."""
    memory: Any = getattr(getattr(reco, "reco", reco), "memory", None)
    searches = getattr(memory, "searches", None)
    if searches is None:
        return 0
    count = 0
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        hidden = None if own is None else own[rows]
        found = searches.search(Search(images[rows], "image", "image", 1, exclude=hidden, ids=hidden is not None))
        count += int((found.similarity[found.found] >= SAME).sum())
    return count


def line_of(own: int, images: int) -> str:
    """A line to print below a table; empty where there are none."""
    if not own:
        return ""
    return (
        f"\nwarning: {own:,} of {images:,} images are pictures of the memory, under other ids: gains on them say "
        "nothing of new pictures. Keep them out (reco memory build --exclude), or give them the pairs' ids"
    )


Rule: TypeAlias = Literal["nothing found", "left plain", "too few covered", "some covered", "no better"]
_LITTLE = 0.01  # of accuracy or recall
_NAMED = 3  # candidates without a caption, or queries that lost, at most


@dataclass(frozen=True)
class Tried:
    """What else was measured of a line: advice names nothing that was not.

    Attributes:
        cautions: gain over frozen with another caution.
        others: gain over frozen of other lines of the same task, by their names.
        lost: of the queries that frozen vectors answer and refined ones do not; their captions, names or ids.
    """

    cautions: Mapping[str, Interval] = field(default_factory=dict)
    others: Mapping[str, Interval] = field(default_factory=dict)
    lost: Sequence[str] = ()


@dataclass(frozen=True)
class Reason:
    """Why one line of a result gained little."""

    refined: str  # the side of that line
    rule: Rule  # what limited the gain
    says: str  # the reason in a sentence, with what was found and what to do
    coverage: Coverage  # of the refinement
    loses: bool = False  # whether the line certainly lost, rather than gained little

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1, and covered candidates are counted."""
        counted = asdict(self.coverage) | {"covered": sum(self.coverage.covered)}
        return {"refined": self.refined, "rule": self.rule, "says": self.says} | counted

    def __str__(self) -> str:
        return f"why {self.refined} {'loses' if self.loses else 'gains little'}: {self.says}"


def why(
    refined: str,
    what: str,
    role: Role,
    gain: Interval,
    coverage: Coverage | None,
    moved: float,
    names: Sequence[str] = (),
    tried: Tried | None = None,
) -> Reason | None:
    """Say why a line gained little; None where it gained, or without coverage.

    Args:
        refined: the side of the line.
        what: name of the refined items, in the plural.
        role: of the refined items.
        gain: over frozen, see :func:`little`.
        coverage: of the refinement.
        moved: mean cosine distance between frozen and refined.
        names: of the candidates, to name those that the memory does not know.
        tried: what else was measured.
    """
    if coverage is None or not little(gain):
        return None
    loses = gain.high < 0.0
    rule, says = _rule(what, coverage, moved, names, loses=loses)
    ways = "; ".join(_ways_out(what, gain, tried or Tried(), loses=loses))
    return Reason(refined, rule, f"{says}; {ways}" if ways else says, coverage, loses=loses)


def little(gain: Interval) -> bool:
    """Whether a gain is below a point, or its interval reaches 0."""
    return gain.mean < _LITTLE or gain.low <= 0.0


def reasons_of(
    found: Mapping[str, Measured],
    gains: Mapping[str, Interval],
    what: str,
    names: Sequence[str] = (),
    tried: Mapping[str, Tried] | None = None,
) -> tuple[Reason, ...]:
    """Say why the refined images or candidates of a classification gained little.

    Args:
        found: refined side -> its ranks.
        gains: refined side -> gain over frozen, see :func:`little`.
        what: the candidates are called, in the plural.
        names: of each candidate.
        tried: refined side -> what else was measured.
    """
    measured = tried or {}
    sides: tuple[tuple[str, str, Role], ...] = (("image", "images", "query"), ("text", what, "candidate"))
    reasons = (
        why(side, called, role, gains[side], found[side].coverage, found[side].moved[place], names, measured.get(side))
        for place, (side, called, role) in enumerate(sides)
        if side in found
    )
    return tuple(reason for reason in reasons if reason is not None)


def lines_of(reasons: Sequence[Reason]) -> str:
    """A line for each reason, to print below a table."""
    return "".join(f"\n{reason}" for reason in reasons)


def _rule(what: str, coverage: Coverage, moved: float, names: Sequence[str], *, loses: bool) -> tuple[Rule, str]:
    """The limiting rule, and a sentence."""
    if coverage.found == 0:
        return "nothing found", (
            f"no pair was found for any of {coverage.asked:,} {what}: the memory is empty, or holds only their own; "
            "fill it by reco memory build"
        )
    if coverage.plain:
        return "left plain", f"{what} stay plain, since {coverage.plain}"
    if coverage.covered and not all(coverage.covered):
        return _by_share(what, coverage, names)
    far = f"{what} moved by a cosine distance of {moved:.2f}"
    if coverage.strength is None:
        return "no better", f"{far}, and no gate says how well neighbours fit"
    if loses:
        return "no better", f"{far}, to neighbours that show other things than those asked for"
    return (
        "no better",
        f"{far}, and the neighbours separate them no better than the encoder does; add more pairs of each",
    )


def _ways_out(what: str, gain: Interval, tried: Tried, *, loses: bool) -> Iterator[str]:
    """What to do, as far as it was measured: another caution, another line, none at all; and which pairs to add."""
    best, changed = max(tried.cautions.items(), key=lambda one: one[1].mean, default=("", gain))
    other, more = max(tried.others.items(), key=lambda one: one[1].mean, default=("", gain))
    if changed.low > 0.0:
        yield f"with --caution {best} they gain {points(changed)}"
    elif loses:
        yield f"leave {what} plain"
        if changed.mean > gain.mean:
            yield f"--caution {best} changes them by {points(changed)}"
    if more.low > 0.0 and more.mean > changed.mean:
        yield f"'{other}' gains {points(more)} here"
    if loses and tried.lost:
        named = ", ".join(f"{name!r:.60}" for name in tried.lost[:_NAMED])
        rest = len(tried.lost) - len(tried.lost[:_NAMED])
        yield f"or add pairs of what was lost: {named}" + (f", {rest:,} more" if rest else "")


def _by_share(what: str, coverage: Coverage, names: Sequence[str]) -> tuple[Rule, str]:
    """The rule where the memory knows only some of the candidates."""
    known, without = sum(coverage.covered), [row for row, knows in enumerate(coverage.covered) if not knows]
    own = "has its own caption" if known == 1 else "have their own caption"
    some = f"{known:,} of {coverage.asked:,} {what} {own} in the memory"
    exact = "exact scores refine those alone, and the others stay plain"
    named = [f"{names[row]!r:.60}" for row in without[:_NAMED]] if len(names) == coverage.asked else []
    more = len(without) - len(named)
    lacking = ", ".join([*named, *([f"{more:,} more"] if more else [])]) if named else "the others"
    add = f"add pairs for {lacking}, or word prompts and captions alike"
    if coverage.held:
        return "too few covered", f"{some}, and below {100 * coverage.needed:.0f} % no vector moves; {exact}; {add}"
    return "some covered", f"{some}, and as vectors the others move with them; {exact}; {add}"
