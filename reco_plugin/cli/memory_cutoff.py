"""``reco memory cutoff``: from which score on an answer can be believed, learned from the memory's own pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import ConfigError, MemoryStoreError
from ..types import MODALITIES
from ..values import counted
from .shared import Given, JsonOption, MemoryFlags, say, take_flags, takes

if TYPE_CHECKING:
    from ..calibration.cutoff import Promise
    from ..calibration.match import MatchState
    from ..memory import Memory
    from ..memory.edge import EdgeMemory

_WORDS = {
    "score": "first score at least",
    "lead": "first score leads the second by at least",
    "match": "chance of a match at least",
}


@takes(MemoryFlags)
def cutoff_command(
    *,
    precision: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the first answers that pass which must be right.")
    ] = 0.9,
    absent: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Up to which share of your queries may have no right answer in the index."),
    ] = 0.2,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field of the payload that names a pair's thing, as in product: ask again by it, and keep to it.",
            show_default="pairs of one caption are a thing",
        ),
    ] = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Print the score from which on a first answer can be believed, and how many queries pass it. Needs no model.

    The memory's own pairs asked, one of each thing, hidden from the memory, so no labels are needed. The promise has a
    finite-sample guarantee (Learn then Test): the chance that it does not hold is at most 10 %. It holds for queries
    like the memory's captions and pictures, in an index like the memory. Scores of refined queries are compared on the
    scale of plain ones (Refinement.plain_scores, or the field `scale` of /v1/refine). More: docs/match.md
    """
    from ..calibration.learn import ask_again
    from ..calibration.match import check_promise, read_matches

    check_promise(precision, absent)
    with closing(take_flags(MemoryFlags, given).open()) as store:
        if group is not None:
            _check_writable(store)
            ask_again(store, group)
        state, pairs = read_matches(store.header.calibration), store.count()
    if state is None:
        raise MemoryStoreError(
            f"nothing can be promised of the memory's {counted(pairs, 'pair')} yet: it needs 300, of 60 things, and "
            "then `reco memory calibrate`"
        )
    say(_shown(state, precision, absent), "\n".join(_lines(state, precision, absent)), as_json)


def _check_writable(store: Memory) -> None:
    """Refuse a memory that would not keep what is asked."""
    if store.kind == "served":
        raise ConfigError(f"a service has the memory at {store.location!r} open: stop it, to ask by another field")
    if store.kind == "edge":
        cast("EdgeMemory", store).check_writable()


def _shown(state: MatchState, precision: float, absent: float) -> dict[str, Any]:
    """All of it as JSON values."""
    from ..calibration.cutoff import RISK
    from ..calibration.match import WAYS

    told: dict[str, Any] = {
        "precision": precision,
        "absent": absent,
        "risk": RISK,
        "things": state.things,
        "index": state.index,
        "group": state.group or None,
    }
    for modality in MODALITIES:
        told[modality] = {}
        for way in WAYS:
            found, sure = state.cutoffs(modality, way, precision, absent), state.sureness(modality, way, absent)
            told[modality][way] = {
                "cutoffs": {by: asdict(one) if one else None for by, one in found.of.items()},
                "auc": sure.auc if sure and isfinite(sure.auc) else None,
                "calibration_error": sure.error if sure else None,
                "why": found.why,
            }
    return told


def _lines(state: MatchState, precision: float, absent: float) -> Iterator[str]:
    from ..calibration.cutoff import RISK
    from ..calibration.match import WAYS

    yield (
        f"at least {precision:.0%} of the first answers that pass are right, where up to {absent:.0%} of the queries "
        f"have none\n(the chance that this does not hold is {RISK:.0%}; {state.things:,} things, one question each, in "
        f"an index of {state.index:,})"
    )
    for modality in MODALITIES:
        for way in WAYS:
            found, sure = state.cutoffs(modality, way, precision, absent), state.sureness(modality, way, absent)
            told = f", calibration error {sure.error:.3f}" if sure else ""
            if sure and isfinite(sure.auc):
                told += f", AUC {sure.auc:.2f}"
            yield f"\n{modality} queries, {way}{told}"
            for by, promise in found.of.items():
                if promise is not None:
                    yield f"  {_WORDS[by]:<42}{promise.cut:.4f}   {_said(promise)}"
            if found.why:
                yield f"  {found.why}"


def _said(promise: Promise) -> str:
    passing, right = ([round(100 * x) for x in one] for one in (promise.passing, promise.right))
    return f"{passing[0]} % pass [{passing[1]}, {passing[2]}], of these {right[0]} % are right [{right[1]}, {right[2]}]"
