"""Why refinement gained nothing, or little: the limiting rule, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from ..types import Coverage, Role
from .intervals import Interval
from .measure import Measured

Rule: TypeAlias = Literal["nothing found", "too few answered", "gate shut", "few answered", "no better"]
_LITTLE = 0.01  # of accuracy or recall
_SHUT = 0.1  # trust of a certain answer below which the gate is shut
_FEW, _ALL = 0.5, 0.9  # share answered


@dataclass(frozen=True)
class Reason:
    """Why one line of a result gained little."""

    refined: str  # the side of that line
    rule: Rule  # what limited the gain
    says: str  # the reason in a sentence, with what was found and what to do
    coverage: Coverage  # of the refinement
    loses: bool = False  # whether the line certainly lost, rather than gained little

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1."""
        return {"refined": self.refined, "rule": self.rule, "says": self.says} | asdict(self.coverage)

    def __str__(self) -> str:
        return f"why {self.refined} {'loses' if self.loses else 'gains little'}: {self.says}"


def why(refined: str, what: str, role: Role, gain: Interval, coverage: Coverage | None, moved: float) -> Reason | None:
    """Say why a line gained little; None where it gained, or without coverage.

    Args:
        refined: the side of the line.
        what: name of the refined items, in the plural.
        role: of the refined items.
        gain: over frozen, see :func:`little`.
        coverage: of the refinement.
        moved: mean cosine distance between frozen and refined.
    """
    if coverage is None or not little(gain):
        return None
    return Reason(refined, *_rule(what, role, coverage, moved), coverage, loses=gain.high < 0.0)


def little(gain: Interval) -> bool:
    """Whether a gain is below a point, or its interval reaches 0."""
    return gain.mean < _LITTLE or gain.low <= 0.0


def reasons_of(found: Mapping[str, Measured], gains: Mapping[str, Interval], names: str) -> tuple[Reason, ...]:
    """Say why the refined images or candidates of a classification gained little.

    Args:
        found: refined side -> its ranks.
        gains: refined side -> gain over frozen, see :func:`little`.
        names: name of the candidates, in the plural.
    """
    sides: tuple[tuple[str, str, Role], ...] = (("image", "images", "query"), ("text", names, "candidate"))
    reasons = (
        why(side, what, role, gains[side], found[side].coverage, found[side].moved[place])
        for place, (side, what, role) in enumerate(sides)
        if side in found
    )
    return tuple(reason for reason in reasons if reason is not None)


def lines_of(reasons: Sequence[Reason]) -> str:
    """A line for each reason, to print below a table."""
    return "".join(f"\n{reason}" for reason in reasons)


def _rule(what: str, role: Role, coverage: Coverage, moved: float) -> tuple[Rule, str]:
    """The limiting rule, and a sentence."""
    if coverage.found == 0:
        return "nothing found", (
            f"no pair was found for any of {coverage.asked:,} {what}: the memory is empty, or holds only their own; "
            "fill it by reco memory build"
        )
    if coverage.answered is None or coverage.voice is None:
        return (
            "no better",
            f"{what} moved by a cosine distance of {moved:.2f}, and no gate says how well neighbours fit",
        )
    if coverage.voice < _SHUT:
        return "gate shut", (
            f"a pair that certainly answers may weigh only {coverage.voice:.2f} of 1, since the memory's captions are "
            "wrong or the encoder already knows its pairs; check the captions"
        )
    return _by_share(what, role, coverage, coverage.answered, moved)


def _by_share(what: str, role: Role, coverage: Coverage, answered: float, moved: float) -> tuple[Rule, str]:
    """The rule where the gate is open, by how many are answered."""
    some = f"about {round(answered * coverage.asked):,} of {coverage.asked:,} {what} ({_percent(answered)}) found"
    if coverage.held:
        return "too few answered", (
            f"{some} a caption of their own in the memory, and below {_percent(coverage.needed)} all stay plain; "
            "add pairs for the others, or word prompts and captions alike"
        )
    if role == "candidate" and answered < _ALL:
        return "few answered", f"{some} a pair of their own, and the others moved as far; add pairs for those"
    far = f"the mean move is a cosine distance of {moved:.2f}"
    if role == "query" and answered < _FEW:
        return "few answered", f"{some} a pair of their own, and {far}; add pairs for the others"
    return "no better", (
        f"{some} a pair of their own, and {far}, but the neighbours separate them no better than the encoder does; "
        "add more pairs of each"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
