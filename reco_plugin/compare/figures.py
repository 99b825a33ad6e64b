"""A comparison as findings: sentences and tables, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..evaluate.findings import Cell, Column, Findings, Section, Table
from ..measure.statistics import Interval, bootstrap
from .measure import METRICS, QueryRows
from .run import Comparison
from .search import ArmName

_NAMES = {"ndcg": "nDCG@{k}", "recall": "recall@{k}", "mrr": "MRR@{k}"}
_LEAST = 5  # queries of a group with figures of its own
_FOUND = 0.98  # share of the exact first k from which an index is good enough


def findings_of(found: Comparison, command: str) -> Findings:
    """All that the page shows besides the rankings."""
    sections = [
        section
        for section in (
            _judged(found),
            _changed(found),
            _exact(found),
            _timed(found),
            _asked(found),
        )
        if section is not None
    ]
    return Findings(
        name="" if found.index is None else found.index.name,
        command=command,
        setup=_setup(found),
        summary=tuple(summary(found)),
        sections=tuple(sections),
    )


def summary(found: Comparison) -> Iterator[str]:
    """The verdict, and what else a reader has to know at once."""
    yield found.verdict.sentence
    if found.votes is not None:
        yield f"Clicks on lists of both: {found.votes}."
    if found.marks is not None:
        yield f"{str(found.marks)[0].upper()}{str(found.marks)[1:]}."
    moved = int((found.moved > 0).sum())
    yield (
        f"{moved:,} of {len(found.moved):,} queries moved; plain and refined have {found.overlap.mean():.0%} of their "
        f"first {found.how.k} results in common."
    )
    if found.check is not None:
        yield f"The index: {found.check.said}."
    yield from (f"The engine's {words}." for words in found.rankings.failed)
    if (exact := found.exactness) is not None and min(exact.plain, exact.refined) < _FOUND:
        yield _cure(found)


def _cure(found: Comparison) -> str:
    exact, index = found.exactness, found.index
    if exact is None or index is None:
        return ""
    return (
        f"The index finds {exact.plain:.1%} of what exact search finds of plain queries and {exact.refined:.1%} of "
        f"refined ones ({index.index}): set it to look at more candidates, or rescore with full vectors, and compare "
        "again."
    )


def _judged(found: Comparison) -> Section | None:
    judged = found.judged
    if judged is None or not len(judged.rows):
        return None
    k, seed = found.how.k, found.how.seed
    rows: list[dict[str, Cell]] = []
    for arm in judged.values:
        row: dict[str, Cell] = {"arm": arm}
        row |= {metric: judged.interval(arm, metric, seed=seed) for metric in METRICS}
        if arm != (base := _base(arm)):
            row["gain"] = judged.interval(arm, "ndcg", minus=base, seed=seed)
        rows.append(row)
    names = {metric: name.format(k=k) for metric, name in _NAMES.items()}
    columns = (
        Column(key="arm", title="search"),
        *(Column(key=metric, title=name, kind="percent") for metric, name in names.items()),
        Column(key="gain", title=f"refined − plain, {names['ndcg']}", kind="points"),
    )
    missing = ""
    if found.ids is not None and found.ids.missing:
        missing = f" {found.ids.missing:,} of {found.ids.named:,} judged documents are not in the index and left out."
    elif found.ids is not None and found.ids.missing is None:
        missing = " Whether all judged documents are in the index was not looked for."
    return Section(
        key="judged",
        title="Against judgments",
        about=(
            f"{len(judged.rows):,} queries have a right document in the index. Intervals (95 %) are a bootstrap over "
            f"queries, differences are paired. Fused searches combine the first {k} of both by rank (RRF, k = 60)."
            f"{missing}"
        ),
        tables=(Table(title="", columns=columns, rows=tuple(rows), best=METRICS), _groups(found)),
    )


def _base(arm: ArmName) -> ArmName:
    return arm.replace("refined", "plain")


def _groups(found: Comparison) -> Table:
    """Of each group of queries, nDCG plain and refined."""
    judged = found.judged
    rows: list[dict[str, Cell]] = []
    if judged is not None:
        plain, refined = (judged.values[arm]["ndcg"] for arm in ("plain", "refined"))
        for name, members in found.groups().items():
            mine = np.isin(judged.rows, members)
            if mine.sum() >= _LEAST:
                rows.append(
                    {
                        "group": name,
                        "queries": int(mine.sum()),
                        "plain": float(plain[mine].mean()),
                        "refined": float(refined[mine].mean()),
                        "gain": bootstrap((refined - plain)[mine], seed=found.how.seed),
                    }
                )
    columns = (
        Column(key="group", title="queries that"),
        Column(key="queries", title="how many", kind="count"),
        Column(key="plain", title="plain", kind="percent"),
        Column(key="refined", title="refined", kind="percent"),
        Column(key="gain", title="refined − plain", kind="points"),
    )
    return Table(title=f"nDCG@{found.how.k} by what the memory did", columns=columns, rows=tuple(rows))


def _changed(found: Comparison) -> Section:
    groups: list[dict[str, Cell]] = [
        {
            "group": name,
            "queries": len(rows),
            "overlap": float(found.overlap[rows].mean()),
            "same": float((found.changed[rows] == 0).mean()),
        }
        for name, rows in found.groups().items()
    ]
    columns = (
        Column(key="group", title="queries that"),
        Column(key="queries", title="how many", kind="count"),
        Column(key="overlap", title=f"overlap@{found.how.k}", kind="percent"),
        Column(key="same", title="same ranking", kind="percent"),
    )
    tables = [Table(title="How far results change", columns=columns, rows=tuple(groups))]
    if reasons := found.why_plain():
        words: list[dict[str, Cell]] = [{"why": why, "queries": count} for why, count in reasons.items()]
        told = (
            Column(key="why", title="why queries stayed plain"),
            Column(key="queries", title="how many", kind="count"),
        )
        tables.append(Table(title="", columns=told, rows=tuple(words)))
    about = "Overlap says nothing of better or worse."
    return Section(key="changed", title="What changes", about=about, tables=tuple(tables))


def _exact(found: Comparison) -> Section | None:
    if found.index is None:
        return None
    exact = found.exactness
    if exact is None:
        why = found.no_exactness
        about = why.replace("not", "Not", 1) if why.startswith("not measured") else f"Nothing to measure: {why}"
        return Section(key="exact", title="What the index misses", about=f"{about}.")
    rows: list[dict[str, Cell]] = [{"plain": exact.plain, "refined": exact.refined}]
    columns = (
        Column(key="plain", title="plain", kind="percent"),
        Column(key="refined", title="refined", kind="percent"),
    )
    return Section(
        key="exact",
        title="What the index misses",
        about=(
            f"Share of the first {found.how.k} of exact search that the index finds ({found.index.index}), "
            f"over {exact.queries:,} queries."
        ),
        tables=(Table(title="", columns=columns, rows=tuple(rows)),),
    )


def _timed(found: Comparison) -> Section | None:
    steps: dict[str, Sequence[float]] = {
        "embedding a text": found.times.get("embed", ()),
        "refining it": found.times.get("refine", ()),
        **{f"the engine: {arm}": took for arm, took in found.rankings.seconds.items()},
    }
    rows: list[dict[str, Cell]] = []
    for step, took in steps.items():
        if len(took):
            middle, high = (1000 * float(value) for value in np.percentile(took, (50, 95)))
            rows.append({"step": step, "p50": middle, "p95": high})
    columns = (
        Column(key="step", title="step"),
        Column(key="p50", title="median", kind="milliseconds"),
        Column(key="p95", title="95th percentile", kind="milliseconds"),
    )
    if not rows:
        return None
    about = "One query at a time, on this machine, in this process; searches include the way to the engine and back."
    return Section(key="times", title="Time", about=about, tables=(Table(title="", columns=columns, rows=tuple(rows)),))


def _asked(found: Comparison) -> Section:
    said = found.log.said()
    weights = " A query counts as often as it was asked." if found.log.weighted else ""
    return Section(key="queries", title="The queries", about=f"{'. '.join(said)}.{weights}")


def _setup(found: Comparison) -> dict[str, Any]:
    setup: dict[str, Any] = {"queries": len(found.log.queries), "k": found.how.k}
    if found.index is not None:
        index = found.index
        setup |= {"engine": index.engine, "index": index.name}
        setup |= {"documents": index.documents} if index.documents else {}  # of a function nobody knows
        setup |= {"search": index.index}
        setup |= {"target": ", ".join(f"{side}s for {target}s" for side, target in found.target.items())}
    setup |= {"filter": found.how.where} if found.how.where else {}
    return setup


def to_json(found: Comparison, command: str) -> dict[str, Any]:
    """All figures as JSON-like values: shares from 0 to 1, seconds, an interval as (mean, low, high)."""
    verdict, judged, exact = found.verdict, found.judged, found.exactness
    rule = verdict.rule and {
        "modalities": list(verdict.rule.modalities), "moved": verdict.rule.moved, "filtered": verdict.rule.filtered,
        "presence": verdict.rule.presence,
    }  # fmt: skip
    told: dict[str, Any] = {
        "verdict": {
            "decision": verdict.decision,
            "sentence": verdict.sentence,
            "rule": rule,
            "gain": _interval(verdict.gain),
            "rests_on": verdict.rests_on,
        },
        "command": command,
        "setup": _setup(found),
        "queries": found.log.said(),
        "index_check": None if found.check is None else {"target": found.check.target, "said": found.check.said},
        "moved": int((found.moved > 0).sum()),
        "overlap": float(found.overlap.mean()),
        "why_plain": found.why_plain(),
        "seconds": {name: _quantiles(took) for name, took in {**found.times, **found.rankings.seconds}.items() if took},
        "refused": list(found.rankings.failed),
    }
    if judged is not None:
        names = {metric: name.format(k=found.how.k) for metric, name in _NAMES.items()}
        told["judged"] = {
            arm: {name: _interval(judged.interval(arm, metric, seed=found.how.seed)) for metric, name in names.items()}
            for arm in judged.values
        } | {"queries": len(judged.rows)}
        told["gain"] = _interval(judged.interval("refined", "ndcg", minus="plain", seed=found.how.seed))
    if found.ids is not None:
        told["judged_documents"] = {"named": found.ids.named, "missing": found.ids.missing}
    if exact is not None:
        told["exact"] = {"plain": exact.plain, "refined": exact.refined}
    else:
        told["exact"] = found.no_exactness or None
    told |= {"votes": asdict(found.votes) | {"p": found.votes.p}} if found.votes else {}
    told |= {"marks": found.marks.to_dict()} if found.marks else {}
    return told


def rows_of(found: Comparison) -> Iterator[dict[str, Any]]:
    """A line of JSON for each query: what was found, how far it moved, and why."""
    plain, refined = found.rankings.ids("plain"), found.rankings.ids("refined")
    for row, query in enumerate(found.log.queries):
        yield {
            "id": query.id,
            "query": query.text if query.text is not None else str(query.image),
            **({} if query.where is None else {"where": query.where}),
            "weight": query.weight,
            "moved": round(float(found.moved[row]), 5),
            "overlap": round(float(found.overlap[row]), 4),
            "reason": found.reasons[row],
            "plain": plain[row],
            "refined": refined[row],
        }


def render(found: Comparison) -> str:
    """For a terminal: the figures, and the sentence at the end."""
    from ..report.markdown import markdown_table

    shown = findings_of(found, "")
    lines: list[str] = []
    for section in shown.sections:
        if section.key in ("judged", "exact", "times"):
            tables = [f"{markdown_table(table)}\n" for table in section.tables if table.rows]
            about = [] if tables else [section.about, ""]
            lines += [section.title, *about, *tables]
    first, *others = shown.summary
    return "\n".join([*lines, *others, "", first])


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(value, 5) for value in interval]


def _quantiles(took: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(took, (50, 95))
    return {"p50": float(p50), "p95": float(p95)}


def hardest(found: Comparison, most: int) -> QueryRows:
    """Rows of the queries whose results change most, at most ``most``; none whose results stay."""
    return np.array([row for row in found.hardest.tolist() if found.changed[row] > 0][:most], np.int64)
