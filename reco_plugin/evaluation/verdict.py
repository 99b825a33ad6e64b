"""What to do, one decision a sentence: refine text queries, refine image queries, and which search to use.

Judgments decide, else marks. Each query counts once, and how often it is searched for stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .judgments import SURE, Marks
from .record import MARKED, Basis, Verdict
from .search import ArmName, Searched
from .statistics import CHANGED, GROUPS, Difference, compare_pairs, points

_JUDGE = f"mark the {MARKED} queries of the page (press m), or give judgments (--qrels)"
_WEIGHTS = (*(part / 10 for part in range(1, 10)), 0.95)
"""Weights of text search that are tried, beside vectors alone and text search alone."""
EngineQuery = Callable[[float], str]
"""Weight of text search -> the engine's own query."""


class Decided(NamedTuple):
    """The decisions; and which vectors, and what weight of text search, are best together."""

    verdicts: list[Verdict]
    vectors: ArmName = "refined"
    weight: float = 0.5


def decide(
    searched: Searched,
    marks: Marks | None = None,
    *,
    alarm: str = "",
    titles: bool = False,
    untried: str = "",
    query: EngineQuery = lambda weight: "",
) -> Decided:
    """Decide for each kind of query, and for the search.

    Args:
        searched: the queries.
        marks: of people, blind.
        alarm: why nothing can be said without judgments; empty where nothing is wrong.
        titles: whether the judgments equal the titles.
        untried: why there is no text search to compare with; empty where there is one.
        query: the engine's own, by weight.
    """
    if alarm and not len(searched.rows):
        return Decided([Verdict("leave", "nothing", f"Leave it as it is: {alarm}.")])
    if not (searched.moved > 0).any():
        return Decided([Verdict("leave", "nothing", "Leave it as it is: the memory moves none of these queries.")])
    bases: dict[Modality, Basis] = {"text": "titles" if titles else "judgments", "image": "judgments"}
    verdicts, modalities = [], {query.modality for query in searched.queries}
    for modality, basis in bases.items():
        if modality in modalities:
            verdict = _judged(searched, modality, basis)
            if verdict.decision == "not known" and marks is not None:
                verdict = _by_marks(searched, modality, marks) or verdict
            verdicts.append(verdict)
    vectors, weight = "plain" if verdicts[0].decision == "leave" else "refined", 0.5
    if "text" in searched.hits and verdicts[0].basis == bases["text"]:
        weight, found = _choose_search(searched, vectors, bases["text"], query)
        verdicts += found
        if found and found[0].settings.get("text_weight") == 1.0:  # then vectors are the second choice
            sentence = verdicts[0].sentence.replace("text queries", "text queries that vectors search", 1)
            verdicts = [*found, replace(verdicts[0], sentence=sentence), *verdicts[1:-1]]
    elif untried and "text" in modalities:
        verdicts[0] = replace(verdicts[0], sentence=f"{verdicts[0].sentence} {untried}")
    return Decided(verdicts, vectors, weight)


def _judged(searched: Searched, modality: Modality, basis: Basis) -> Verdict:
    """Whether to refine the queries of a modality, by those that are judged."""
    whose, chosen = f"{modality} queries", searched.of(modality)
    total = sum(query.modality == modality for query in searched.queries)
    if not chosen.any():
        return Verdict("not known", "nothing", f"Not known for {whose}: nobody judged them. To know, {_JUDGE}.")
    plain, refined = (
        {name: one[chosen] for name, one in searched.figures[arm].items()} for arm in ("plain", "refined")
    )
    gain = refined["ndcg"] - plain["ndcg"]
    change = compare_pairs(gain, seed=searched.how.seed)
    figures = f"{points(change.interval)} points nDCG@{searched.how.k} on {len(gain):,} judged of {total:,} queries"
    weights = searched.weights[chosen]
    if len(set(weights.tolist())) > 1:
        traffic = float(gain @ weights / weights.sum())
        figures += f", and {100 * traffic:+.1f} where each counts as often as it is searched for"
    firsts = float(plain["first"].mean()), float(refined["first"].mean())
    return whether_to_refine(whose, change, firsts, figures, basis, _COPIED)


_COPIED = "The judgments equal the titles word for word, so a wrong title counts as right."


def whether_to_refine(
    whose: str, change: Difference, firsts: tuple[float, float], figures: str, basis: Basis, taken: str
) -> Verdict:
    """Refine, leave, or not known.

    Args:
        whose: what is refined, for people.
        change: by refining.
        firsts: shares of the queries whose first result is right, plain and refined.
        figures: for people.
        basis: what counts as right.
        taken: of titles, what that means.
    """
    before, after = (round(100 * share) for share in firsts)
    shown = f"{after} of 100 show a right result first, before {before}"
    more = f" About {change.more:,} more would tell a difference of this size." if change.more else ""
    tail = f" {taken}" if basis == "titles" else ""
    if change.effect == "too few" and change.interval.high >= 0:
        few = f"the results of {change.changed:,} are better or worse, and {CHANGED}, of {GROUPS} things, are needed"
        return Verdict("not known", basis, f"Not known for {whose}: {few} ({figures}; {shown}).{more}{tail}", change)
    if change.effect == "gains":
        if after > before:
            shown = f"{after - before} of 100 more show a right result first ({after}, before {before})"
        if basis == "titles":
            sentence = f"Refine {whose}, if the titles are right: {shown}; {figures}.{tail}"
            return Verdict("refine if the titles are right", basis, sentence, change)
        return Verdict("refine", basis, f"Refine {whose}: {shown}; {figures}.", change)
    why = "they lose" if change.interval.high < 0 else "nothing changes that is sure"
    return Verdict("leave", basis, f"Leave {whose} plain: refined, {why}: {figures}; {shown}.{more}{tail}", change)


def _by_marks(searched: Searched, modality: Modality, marks: Marks) -> Verdict | None:
    """What follows from marks of queries of a modality; None where they may be by chance."""
    ids = {query.id for query in searched.queries if query.modality == modality}
    own = Marks({id_: better for id_, better in marks.by_query.items() if id_ in ids}, marks.people)
    if own.p >= SURE:
        return None
    if own.count("refined") > own.count("plain"):
        tail = " They do not compare with text search, which may find more." if "text" in searched.hits else ""
        return Verdict("refine", "marks", f"Refine {modality} queries: {own}.{tail}")
    return Verdict("leave", "marks", f"Leave {modality} queries plain: {own}.")


def _choose_search(
    searched: Searched, vectors: ArmName, basis: Basis, query: EngineQuery
) -> tuple[float, list[Verdict]]:
    """Fit the weight of text search on a half of the judged text queries, and test it on the other half."""
    chosen = np.flatnonzero(searched.of("text"))
    if len(chosen) < 2 * CHANGED:
        return 0.5, []
    drawn, k = np.random.default_rng(searched.how.seed).permutation(chosen), searched.how.k
    values = {weight: searched.measure(searched.fused(vectors, weight))["ndcg"] for weight in _WEIGHTS}
    most = max(values[weight][drawn[::2]].mean() for weight in _WEIGHTS)
    best = [weight for weight in _WEIGHTS if values[weight][drawn[::2]].mean() >= most - 1e-9]
    both, names = best[len(best) // 2], {1.0: "text search", 0.0: f"{vectors} vectors"}
    values |= {1.0: searched.figures["text"]["ndcg"], 0.0: searched.figures[vectors]["ndcg"]}
    alone = max(names, key=lambda one: float(values[one][drawn[::2]].mean()))
    text, near, half, fitted = (100 * float(values[one][chosen].mean()) for one in (1.0, 0.0, 0.5, both))
    tail = (
        f"nDCG@{k} of text search is {text:.1f}, of {names[0.0]} {near:.1f}, of both with equal weights {half:.1f}, "
        f"and with {both:g} for text search {fitted:.1f}.{f' {_COPIED}' if basis == 'titles' else ''}"
    )

    def against(one: float, other: float, rows: npt.NDArray[np.int64]) -> Difference:
        return compare_pairs((values[one] - values[other])[rows], seed=searched.how.seed)

    if (gain := against(both, alone, drawn[1::2])).sure:
        head = f"Search texts by text search and {names[0.0]} together, text search with a weight of {both:g} of 1"
        gained = (
            f"{points(gain.interval)} points over {names[alone]} alone, on the half of the queries that did not choose"
        )
        return both, [Verdict("use", basis, f"{head}: {gained}. {tail}", gain, {"text_weight": both}, query(both))]
    if (gain := against(alone, 1.0 - alone, chosen)).sure:
        gained = (
            f"{points(gain.interval)} points over {names[1.0 - alone]}, and both together find no more that is sure"
        )
        sentence = f"Search texts by {names[alone]} alone: {gained}. {tail}"
        return both, [Verdict("use", basis, sentence, gain, {"text_weight": alone})]
    head = (
        f"Not known which search is best for texts: text search, {names[0.0]} and both together differ by nothing sure"
    )
    return both, [Verdict("not known", basis, f"{head}. {tail}", gain)]
