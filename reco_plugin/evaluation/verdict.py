"""Decisions, one sentence each: refine text queries, refine image queries, and which search to use.

Judgments decide, else marks. Each query counts once; the mean by search frequency is shown and does not decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .judgments import ALPHA, Marks
from .record import MARKED, Basis, Verdict
from .search import ArmName, SearchResults
from .statistics import MIN_CHANGED, MIN_GROUPS, Difference, compare_pairs, points

_HOW_TO_JUDGE = f"To know, mark the {MARKED} queries of the page (press m), or give judgments (--qrels)"
_WEIGHTS = (*(part / 10 for part in range(1, 10)), 0.95)  # of text search, beside vectors and text search alone
_COPIED = "The judgments equal the titles word for word, so a wrong title counts as right."


class Decisions(NamedTuple):
    """The verdicts, and the vectors and weight of text search that are best together."""

    verdicts: list[Verdict]
    vectors: ArmName = "refined"
    weight: float = 0.5


def decide(
    results: SearchResults,
    marks: Marks | None = None,
    *,
    alarm: str = "",
    titles: bool = False,
    untried: str = "",
    query: Callable[[float], str] = lambda weight: "",
) -> Decisions:
    """Decide for each modality, and for the search.

    Args:
        results: of all arms.
        marks: blind preferences.
        alarm: why refinement cannot be trusted; then only judgments may recommend it.
        titles: whether the judgments equal the titles.
        untried: why text search was not compared.
        query: weight of text search -> the engine's own query.
    """
    if alarm and not len(results.judged):
        return Decisions([Verdict("leave", "nothing", f"Leave it as it is: {alarm}.")])
    if not (results.moved > 0).any():
        return Decisions([Verdict("leave", "nothing", "Leave it as it is: the memory moves none of these queries.")])
    bases: dict[Modality, Basis] = {"text": "titles" if titles else "judgments", "image": "judgments"}
    verdicts, modalities = [], {query.modality for query in results.queries}
    for modality, basis in bases.items():
        if modality in modalities:
            verdict = _by_judgments(results, modality, basis)
            if verdict.decision == "not known" and marks is not None:
                verdict = _by_marks(results, modality, marks) or verdict
            verdicts.append(verdict)
    vectors, weight = "plain" if verdicts[0].decision == "leave" else "refined", 0.5
    if "text" in results.hits and verdicts[0].basis == bases["text"]:
        weight, search = _choose_search(results, vectors, bases["text"], query)
        if search and search.settings.get("text_weight") == 1.0:  # then vectors are the second choice
            sentence = verdicts[0].sentence.replace("text queries", "text queries that vectors search", 1)
            verdicts = [search, replace(verdicts[0], sentence=sentence), *verdicts[1:]]
        elif search:
            verdicts.append(search)
    elif untried and "text" in modalities:
        verdicts[0] = replace(verdicts[0], sentence=f"{verdicts[0].sentence} {untried}")
    return Decisions(verdicts, vectors, weight)


def _by_judgments(results: SearchResults, modality: Modality, basis: Basis) -> Verdict:
    """Whether to refine the queries of a modality, by those that are judged."""
    subject, chosen = f"{modality} queries", results.of_modality(modality)
    total = sum(query.modality == modality for query in results.queries)
    if not chosen.any():
        return Verdict(
            "not known", "nothing", f"Not known for {subject}: nobody judged them. To know, {_HOW_TO_JUDGE}."
        )
    plain, refined = ({name: one[chosen] for name, one in results.figures[arm].items()} for arm in ("plain", "refined"))
    gain = refined["ndcg"] - plain["ndcg"]
    change = compare_pairs(gain, seed=results.options.seed)
    figures = f"{points(change.interval)} points nDCG@{results.options.k} on {len(gain):,} judged of {total:,} queries"
    weights = results.weights[chosen]
    if len(set(weights.tolist())) > 1:
        traffic = float(gain @ weights / weights.sum())
        figures += f", and {100 * traffic:+.1f} where each counts as often as it is searched for"
    firsts = float(plain["first"].mean()), float(refined["first"].mean())
    return decide_refinement(subject, change, firsts, figures, basis, _COPIED)


def decide_refinement(
    subject: str, change: Difference, firsts: tuple[float, float], figures: str, basis: Basis, caveat: str
) -> Verdict:
    """Refine, leave, or not known.

    Args:
        subject: what is refined, for people.
        change: refined minus plain.
        firsts: shares of queries with a right first result, plain and refined.
        figures: the change for people.
        basis: what counts as right.
        caveat: added if the basis is ``titles``.
    """
    before, after = (round(100 * share) for share in firsts)
    shown = f"{after} of 100 show a right result first, before {before}"
    more = f" About {change.more:,} more queries would show a difference of this size." if change.more else ""
    tail = f" {caveat}" if basis == "titles" else ""
    if change.effect == "too few" and change.interval.high >= 0:
        few = (
            f"the results of {change.changed:,} are better or worse, and {MIN_CHANGED}, of {MIN_GROUPS} things, "
            "are needed"
        )
        return Verdict("not known", basis, f"Not known for {subject}: {few} ({figures}; {shown}).{more}{tail}", change)
    if change.is_gain:
        if after > before:
            shown = f"{after - before} of 100 more show a right result first ({after}, before {before})"
        if basis == "titles":
            sentence = f"Refine {subject}, if the titles are right: {shown}; {figures}.{tail}"
            return Verdict("refine if the titles are right", basis, sentence, change)
        return Verdict("refine", basis, f"Refine {subject}: {shown}; {figures}.", change)
    why = "they lose" if change.interval.high < 0 else "no change is significant"
    return Verdict("leave", basis, f"Leave {subject} plain: refined, {why}: {figures}; {shown}.{more}{tail}", change)


def _by_marks(results: SearchResults, modality: Modality, marks: Marks) -> Verdict | None:
    """Decide by the marks of a modality's queries; None if they may be chance."""
    ids = {query.id for query in results.queries if query.modality == modality}
    chosen = Marks({id_: better for id_, better in marks.by_query.items() if id_ in ids}, marks.people)
    if chosen.p >= ALPHA:
        return None
    if chosen.count("refined") > chosen.count("plain"):
        tail = " They do not compare with text search, which may find more." if "text" in results.hits else ""
        return Verdict("refine", "marks", f"Refine {modality} queries: {chosen}.{tail}")
    return Verdict("leave", "marks", f"Leave {modality} queries plain: {chosen}.")


def _choose_search(
    results: SearchResults, vectors: ArmName, basis: Basis, query: Callable[[float], str]
) -> tuple[float, Verdict | None]:
    """Fit the weight of text search on half of the judged text queries, and test it on the other half."""
    chosen, seed = np.flatnonzero(results.of_modality("text")), results.options.seed
    if len(chosen) < 2 * MIN_CHANGED:
        return 0.5, None
    shuffled = np.random.default_rng(seed).permutation(chosen)
    fit, test = shuffled[::2], shuffled[1::2]
    values = {weight: results.measure(results.fused(vectors, weight))["ndcg"] for weight in _WEIGHTS}
    most = max(values[weight][fit].mean() for weight in _WEIGHTS)
    best = [weight for weight in _WEIGHTS if values[weight][fit].mean() >= most - 1e-9]
    both, names = best[len(best) // 2], {1.0: "text search", 0.0: f"{vectors} vectors"}
    values |= {1.0: results.figures["text"]["ndcg"], 0.0: results.figures[vectors]["ndcg"]}
    alone = max(names, key=lambda one: float(values[one][fit].mean()))
    text, near, half, fitted = (100 * float(values[one][chosen].mean()) for one in (1.0, 0.0, 0.5, both))
    tail = (
        f"nDCG@{results.options.k} of text search is {text:.1f}, of {names[0.0]} {near:.1f}, of both with equal "
        f"weights {half:.1f}, and with {both:g} for text search {fitted:.1f}."
        + (f" {_COPIED}" if basis == "titles" else "")
    )

    def against(one: float, other: float, rows: npt.NDArray[np.int64]) -> Difference:
        return compare_pairs((values[one] - values[other])[rows], seed=seed)

    if (gain := against(both, alone, test)).is_gain:
        sentence = (
            f"Search texts by text search and {names[0.0]} together, text search with a weight of {both:g} of 1: "
            f"{points(gain.interval)} points over {names[alone]} alone, on the half that did not fit it. {tail}"
        )
        return both, Verdict("use", basis, sentence, gain, {"text_weight": both}, query(both))
    if (gain := against(alone, 1.0 - alone, chosen)).is_gain:
        sentence = (
            f"Search texts by {names[alone]} alone: {points(gain.interval)} points over {names[1.0 - alone]}. Both "
            f"together find no significant number more. {tail}"
        )
        return both, Verdict("use", basis, sentence, gain, {"text_weight": alone})
    sentence = (
        f"Not known which search is best for texts: text search, {names[0.0]} and both together do not differ "
        f"significantly. {tail}"
    )
    return both, Verdict("not known", basis, sentence, gain)
