"""The decision in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..evaluate.table import gain as points
from ..evaluate.table import percent
from .catalogue import Catalogue
from .choose import TASK_OF, Judged
from .config import SIDES, FitConfig, FitSide
from .result import TestLine
from .split import Split

_NAMES: dict[FitSide, str] = {"text": "Text queries", "image": "Image queries", "names": "Class names"}
_SHOWN = 3
_ENOUGH = 50
"""Pairs of the part ``fit`` that share what they show with another; with fewer there is little to learn."""


def words(
    judged: Sequence[Judged], chosen: Judged | None, lines: Sequence[TestLine], withdrawn: Sequence[FitSide]
) -> tuple[str, ...]:
    """One sentence on all, then one per side."""
    kept = [side for side in (chosen.sides if chosen else ()) if side not in withdrawn]
    told = " and ".join(_NAMES[side].lower() for side in kept)
    if kept and chosen:
        head = f"Refinement helps on this catalogue: {chosen.way.label}, for {told}."
    else:
        head = "Refinement does not help on this catalogue: leave it off. The model refines nothing by default."
    sides = [side for side in SIDES if any(one.verdict(side) for one in judged)]
    return (head, *(_side(side, judged, chosen, lines, withdrawn) for side in sides))


def notes(catalogue: Catalogue, split: Split, config: FitConfig, processes: int) -> tuple[str, ...]:
    """What a reader should know of the run before believing the figures."""
    return tuple(_notes(catalogue, split, config, processes))


def little_to_learn(catalogue: Catalogue, split: Split) -> str | None:
    """What to say where nearly every pair to fit on shows something of its own; None elsewhere."""
    counts = Counter(catalogue.groups[row] for row in split.rows("fit"))
    if (shared := sum(count for count in counts.values() if count > 1)) >= _ENOUGH:
        return None
    return (
        f"Only {shared} of {counts.total()} pairs to fit on show the same as another pair: nearly every title is "
        "unique. There is little to learn from, and what is measured is harm and whether near titles help."
    )


def _notes(catalogue: Catalogue, split: Split, config: FitConfig, processes: int) -> Iterator[str]:
    if config.group is None:
        yield "Pairs belong together when their captions are the same; name a column that says what they show: --group."
    if told := little_to_learn(catalogue, split):
        yield told
    if (used := catalogue.sample) is not None:
        yield (
            f"Fitted and measured on a sample of whole groups: {used.rows:,} of {used.of:,} rows (--max-pairs "
            f"{config.max_pairs}). In a memory of all of them a query has more and nearer neighbours, right ones and "
            "wrong ones: measure that with reco eval, or fit with --max-pairs 0."
        )
    if catalogue.rejected:
        kinds = "; ".join(f"{times:,} x {reason}" for reason, times in list(catalogue.reasons.items())[:_SHOWN])
        yield f"{catalogue.rejected:,} rows could not be used ({kinds}); rejected.jsonl lists them."
    if processes > 1:
        yield f"The paper's layer was trained by {processes} processes, each of which draws its own dropout masks."


def _side(
    side: FitSide,
    judged: Sequence[Judged],
    chosen: Judged | None,
    lines: Sequence[TestLine],
    withdrawn: Sequence[FitSide],
) -> str:
    name = _NAMES[side]
    found = {line.way: line for line in lines if line.task == TASK_OF[side]}
    if chosen is None or side not in chosen.sides:
        return f"{name}: leave plain. {_why_not(side, judged, chosen)}"
    verdict, line = chosen.verdict(side), found["chosen"]
    assert verdict and line.gain and line.loss and line.ahead  # noqa: S101 - it was chosen, so it was measured
    before, after = (percent(found[way].recall[1]) for way in ("frozen", "chosen"))
    figures = (
        f"{before} % -> {after} % recall at 1 ({line.task}, test), {points(line.gain)} points; where the memory knows "
        f"nothing of what is asked for, {points(line.loss)}"
    )
    if side in withdrawn:
        return (
            f"{name}: leave plain. The gain on validation, {points(verdict.gain)} points, is not confirmed by the test "
            f"part: {figures}."
        )
    told = f"{name}: refine. {figures}. Against the best simple baseline: {points(line.ahead)}."
    return " ".join([told, *_ruled_out(side, judged, verdict.gain.mean)])


def _ruled_out(side: FitSide, judged: Sequence[Judged], gained: float) -> Iterator[str]:
    """The candidate that gained most of all, where it harms too much to be chosen."""
    found = [(verdict, one.way) for one in judged if (verdict := one.verdict(side)) and verdict.gains and verdict.harms]
    best, way = max(found, key=lambda row: row[0].gain.mean, default=(None, None))
    if best is not None and way is not None and best.gain.mean > gained:
        yield (
            f"Ruled out: {way.label}, which gains {points(best.gain)} on validation and loses {-100 * best.loss:.1f} "
            "where it has nothing to tell."
        )


def _why_not(side: FitSide, judged: Sequence[Judged], chosen: Judged | None) -> str:
    """Of what was chosen for the other sides, else of the candidate that came nearest."""
    verdicts = [verdict for one in judged if (verdict := one.verdict(side))]
    own = chosen.verdict(side) if chosen else None
    best = own or max(verdicts, key=lambda verdict: (not verdict.harms, verdict.gain.mean))
    of = "The chosen fusion" if own else f"The best of {len(verdicts)} candidates"
    if not best.gains:
        return f"{of} changes recall at 1 by {points(best.gain)} points on validation, no sure gain."
    return (
        f"{of} gains {points(best.gain)} points on validation, but loses {-100 * best.loss:.1f} where it has nothing "
        "to tell."
    )
