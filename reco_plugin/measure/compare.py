"""The comparison in an index that exists: queries plain and refined, searched in every way, measured, and a record."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.cells import CellError, image_of
from ..data.images import RemoteImage
from ..engines import Description, Engine
from ..errors import DataError, EngineError, ImageError, InputError
from ..options import RefineOptions
from ..reco import Reco
from ..types import ImageInput, Refinement, Target, Vectors
from .encoder_check import IndexCheck, check_dimension, check_encoder
from .judgments import Grades, Judgments, changes, judge, overlaps, read_marks, read_run
from .page import Thumbnails
from .queries import QueryLog, SearchQuery
from .record import MARKED, SHOWN, Example, Line, Record, Shares, ShownHit, pick
from .search import ArmName, FoundHits, Rankings, SearchHow, measure_exactness, questions, search_all
from .statistics import Figures, compare_pairs, level
from .titles import estimate_by_titles
from .verdict import ARMS, KnownQueries, decide

Advance = Callable[[int, str], object]
"""Called with how much was done, and of what."""
_EXACT = 100  # queries that are also searched exactly
_FOUND = 0.98  # share of the exact first k from which an index is good enough
_SCANNED = 200_000  # documents up to which judged ids are looked for
_SEEN = 2 * SHOWN  # queries that are shown with their sides named, and not marked blind where there are enough others
_RESULTS = 6  # of each side of an example
_UNMOVED = "its plain and refined results are the same"


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison is asked.

    Attributes:
        how: each query is searched.
        target: what the index's vectors are of; None: found out, else the default of the Reco.
        judgments: what is right.
        marks: files that people saved on the page.
        pictures: folder of relative paths of pictures.
        refine: other options of the refinement.
        command: that makes the record again.
        allow_private_urls: whether pictures may be fetched from private addresses.
    """

    how: SearchHow = field(default_factory=SearchHow)
    target: Target | None = None
    judgments: Judgments | None = None
    marks: Sequence[Path] = ()
    pictures: Path = Path()
    refine: RefineOptions = field(default_factory=RefineOptions)
    command: str = ""
    allow_private_urls: bool = False


@dataclass(frozen=True)
class _FoundQueries:
    """B queries that were searched.

    Attributes:
        log: the queries.
        rankings: what was found.
        moved: (B,) cosine distance of the query's two vectors.
        reasons: B, of a query that stayed or of how far it moved.
        setup: for people.
        notes: what a reader has to know.
        index: identity of what was searched, for the key of the page.
        grades: of each query; None without judgments.
    """

    log: QueryLog
    rankings: Rankings
    moved: Figures
    reasons: Sequence[str]
    setup: Mapping[str, Any]
    notes: Sequence[str]
    index: str
    grades: Sequence[Grades] | None = None


def compare(
    reco: Reco,
    index: Engine,
    log: QueryLog,
    asked: CompareOptions | None = None,
    progress: Advance = lambda n, what: None,
) -> Record:
    """Compare plain with refined queries in an index, which is only read.

    Args:
        reco: the encoder of the index, and a memory.
        index: an engine, or :class:`~reco_plugin.measure.function.FunctionIndex`.
        log: the queries, see :func:`~reco_plugin.measure.queries.read_queries`.
        asked: how, and what is known of the queries; None: ten hits, nothing.
        progress: called with how many queries were embedded (``embed``), how many searches there will be
            (``searches``), and how many were made (``search``).

    Raises:
        FingerprintMismatch: the index is of another dimension or encoder.
        EngineError: the engine refuses, or cannot be reached.
        DataError: no query is left, or judgments or marks do not fit.
    """
    asked = asked or CompareOptions()
    how, private, described = asked.how, asked.allow_private_urls, index.describe()
    check_dimension(described, reco.manifest.fingerprint)
    check = check_encoder(index, reco.encoder, str(reco.manifest.fingerprint), asked.pictures, allow_private=private)
    log, frozen = _embed(reco, log, lambda count: _advance(progress, count), private)
    target = asked.target or check.target or reco.defaults["target"]
    refined, reasons = _refine(reco, log.queries, frozen, target, asked.refine)
    vectors = {"plain": frozen, "refined": refined.vectors}
    progress(questions(log.queries, vectors, how, described), "searches")
    rankings = search_all(index.search, described, log.queries, vectors, how, lambda n: progress(n, "search"))
    moved = np.where(refined.refined, refined.moved, 0.0).astype(np.float64)
    grades, notes = _grade(asked.judgments, log.queries, _held(index, described, asked.judgments))
    notes = [f"The index: {check.said}.", *_exactness(index, described, vectors, asked, log.queries), *notes]
    titles = None
    if grades is None:
        titles = estimate_by_titles(reco, index, log.queries, frozen, how, target, asked.refine)
    if (after := _count(index)) not in (None, described.documents):
        notes.append(
            f"The index changed meanwhile: it held {described.documents:,} documents, and now {after:,}. Compare again "
            "when it rests."
        )
    setup = {"engine": described.engine, "index": described.name}
    setup |= {"documents": f"{described.documents:,}"} if described.documents else {}  # of a function nobody knows
    setup |= {"search": described.index, "target": f"texts for {target}s, images for {target}s"}
    identity = f"{described.engine.partition(' ')[0]} {described.name} {described.vector} {described.dimension}"
    compared = _FoundQueries(log, rankings, moved, reasons, setup, notes, identity, grades)
    calibration = reco.memory.calibration
    known = KnownQueries(
        log.queries,
        moved,
        how,
        titles=titles,
        doubtful=None if calibration is None else calibration.doubt,
        presence=None if refined.presence is None else refined.presence.astype(np.float64),
        searches_text="text" in rankings.hits,
        alarm=_alarm(check, learned=calibration is not None),
    )
    return _record(compared, known, asked)


def compare_runs(log: QueryLog, runs: Mapping[ArmName, Path], asked: CompareOptions | None = None) -> Record:
    """Compare what an engine without an address found: files in TREC's form for ``plain``, ``refined`` and others.

    Raises:
        DataError: a file cannot be read, ``plain`` or ``refined`` is missing, or no query of the log is in them.
    """
    asked = asked or CompareOptions()
    if missing := [arm for arm in ("plain", "refined") if arm not in runs]:
        raise DataError(f"there is no run {missing[0]!r}: give --run plain=FILE and --run refined=FILE")
    if unknown := [arm for arm in runs if arm not in ARMS]:
        raise DataError(f"a run is called {unknown[0]!r}: it can be {', '.join(ARMS)}")
    read = {arm: read_run(path) for arm, path in runs.items()}
    kept = tuple(one for one in log.queries if any(_own(one, read["plain"])) or any(_own(one, read["refined"])))
    if not kept:
        raise DataError(
            f"no query of the file is in the runs: theirs are called {', '.join(list(read['plain'])[:3])} and ours "
            f"{', '.join(one.id for one in log.queries[:3])}"
        )
    log = replace(log, queries=kept, sampled_from=len(log.queries) if len(kept) < len(log.queries) else None)
    hits = {arm: [_own(query, found)[: asked.how.k] for query in kept] for arm, found in read.items()}
    rankings = Rankings({arm: hits[arm] for arm in ARMS if arm in hits})
    moved = (changes(rankings.ids("plain"), rankings.ids("refined")) > 0).astype(np.float64)
    grades, notes = _grade(asked.judgments, kept, None)
    reasons = ["" if far else _UNMOVED for far in moved]
    setup = {"runs": ", ".join(f"{arm}: {path}" for arm, path in runs.items())}
    compared = _FoundQueries(log, rankings, moved, reasons, setup, notes, "runs", grades)
    return _record(compared, KnownQueries(kept, moved, asked.how, searches_text="text" in rankings.hits), asked)


def _record(found: _FoundQueries, known: KnownQueries, asked: CompareOptions) -> Record:
    """The record of queries that were searched."""
    log, rankings, how = found.log, found.rankings, asked.how
    lines: list[Line] = []
    if found.grades is not None:
        rows = np.array([row for row, right in enumerate(found.grades) if right], np.int64)
        right = [found.grades[row] for row in rows.tolist()]
        figures = {
            arm: judge([ranked[row] for row in rows.tolist()], right, how.k)
            for arm in rankings.hits
            for ranked in [rankings.ids(arm)]
        }
        known = replace(known, rows=rows, values={arm: one["ndcg"] for arm, one in figures.items()})
        lines = _lines(figures, known)
    elif known.titles is not None and len(known.titles):
        figures = {side: {"ndcg": getattr(known.titles, side)} for side in ("plain", "refined")}
        rows, right = known.titles.rows, [dict.fromkeys(ids, 1.0) for ids in known.titles.right.values()]
        lines = _lines(figures, replace(known, rows=rows))
    else:
        figures, rows, right = {}, np.empty(0, np.int64), []
    gains = np.zeros(len(log.queries))
    if figures:
        gains[rows] = figures["refined"]["ndcg"] - figures["plain"]["ndcg"]
    changed = changes(rankings.ids("plain"), rankings.ids("refined"))
    order = np.argsort(-changed * known.weights, kind="stable")
    hardest = [row for row in order.tolist() if changed[row] > 0]
    shown = pick(gains) or hardest[:_SEEN]
    marked = hardest[_SEEN : _SEEN + MARKED] if len(hardest) >= _SEEN + MARKED else hardest[:MARKED]
    made = _ExampleQueries(found, asked, dict(zip(rows.tolist(), right, strict=True)), gains if figures else None)
    to_mark = [made.of(row, blind=True) for row in marked]
    key = _key(found, [log.queries[row].id for row in marked], marked)
    if asked.marks:
        known = replace(known, marks=read_marks(asked.marks, key))
    return Record(
        title="Plain and refined queries in this index",
        command=asked.command,
        setup={
            "queries": f"{len(log.queries):,}",
            "k": how.k,
            **found.setup,
            **({"filter": how.where} if how.where else {}),
        },
        verdict=decide(known),
        metric=f"nDCG@{how.k}",
        lines=lines,
        notes=[*found.notes, *_notes(found, known)],
        examples=[made.of(row) for row in shown],
        to_mark=to_mark,
        key=key,
        queries=_rows(found),
    )


def _lines(figures: Mapping[ArmName, Mapping[str, Figures]], known: KnownQueries) -> list[Line]:
    """A line for each way to search; those with refined vectors beside the same with plain ones."""
    weights, lines = known.weights[known.rows], []
    tried = sum("refined" in arm for arm in figures)
    for arm, values in figures.items():
        more = {name: float(one @ weights / weights.sum()) for name, one in values.items() if name != "ndcg"}
        line = Line(ARMS[arm], len(weights), level(values["ndcg"], weights=weights), more=more)
        if (base := arm.replace("refined", "plain")) != arm:
            difference = values["ndcg"] - figures[base]["ndcg"]
            change = compare_pairs(difference, weights=weights, tried=tried, seed=known.how.seed)
            line = replace(line, change=change, shares=Shares.of(difference, weights, known.traffic))
        lines.append(line)
    return lines


def _notes(found: _FoundQueries, known: KnownQueries) -> list[str]:
    """What changes, why queries stay, and what was read."""
    moved = int((found.moved > 0).sum())
    both = overlaps(found.rankings.ids("plain"), found.rankings.ids("refined"))
    notes = [
        f"{moved:,} of {len(found.moved):,} queries move; plain and refined have {both.mean():.0%} of their first "
        f"{known.how.k} results in common."
    ]
    stayed = Counter(reason for reason, far in zip(found.reasons, found.moved, strict=True) if not far)
    if stayed:
        notes.append(
            "Queries that stay plain: " + "; ".join(f"{many:,} ({why})" for why, many in stayed.most_common(3)) + "."
        )
    notes += [f"The engine's {words}." for words in found.rankings.failed]
    weighted = " A query counts as often as it was asked." if found.log.weighted else ""
    return [*notes, f"{'. '.join(found.log.notes())}.{weighted}"]


def _rows(found: _FoundQueries) -> list[dict[str, Any]]:
    """What was found for each query."""
    plain, refined = found.rankings.ids("plain"), found.rankings.ids("refined")
    return [
        {
            "id": query.id,
            "query": query.text if query.text is not None else str(query.image),
            **({} if query.where is None else {"where": query.where}),
            "weight": query.weight,
            "moved": round(float(found.moved[row]), 5),
            "reason": found.reasons[row],
            "plain": plain[row],
            "refined": refined[row],
        }
        for row, query in enumerate(found.log.queries)
    ]


def _key(found: _FoundQueries, ids: Sequence[str], rows: Sequence[int]) -> str:
    """Of the index, the queries to mark and their results: marks of anything else are refused."""
    shown = [
        [id_, *([hit.id for hit in found.rankings.hits[side][row]] for side in ("plain", "refined"))]
        for id_, row in zip(ids, rows, strict=True)
    ]
    return hashlib.sha256(json.dumps([found.index, shown]).encode()).hexdigest()[:16]


@dataclass
class _ExampleQueries:
    """Makes examples of rows of the queries."""

    found: _FoundQueries
    asked: CompareOptions
    right: Mapping[int, Grades]
    gains: Figures | None
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    def of(self, row: int, *, blind: bool = False) -> Example:
        """One query; whether its sides are swapped hangs on its id, and what is right is not shown where blind."""
        query, right = self.found.log.queries[row], {} if blind else self.right.get(row)
        plain, refined = (
            [
                ShownHit(hit.text or hit.id, self._picture(hit.image), None if right is None else hit.id in right)
                for hit in self.found.rankings.hits[side][row][:_RESULTS]
            ]
            for side in ("plain", "refined")
        )
        gain = None if self.gains is None or row not in self.right else float(self.gains[row])
        swapped = hashlib.sha256(query.id.encode()).digest()[0] % 2 == 1
        picture = self._picture(query.image) if query.text is None else None
        reason = "" if blind else self.found.reasons[row]
        return Example(query.id, query.name, plain, refined, picture, None if blind else gain, reason, swapped)

    def _picture(self, value: str | bytes | Path | RemoteImage | None) -> str | None:
        if not value:
            return None
        try:
            image = image_of(value, self.asked.pictures) if isinstance(value, str) else value
        except CellError:
            return None
        if isinstance(image, RemoteImage):
            image = replace(image, allow_private=self.asked.allow_private_urls)
        return self.thumbnails.of(hashlib.sha256(value).digest() if isinstance(value, bytes) else str(value), image)


def _grade(
    judgments: Judgments | None, queries: Sequence[SearchQuery], held: frozenset[str] | None
) -> tuple[Sequence[Grades] | None, list[str]]:
    """The grades of each query, and a note; ``held`` are the ids of the index, None where they were not read.

    Raises:
        DataError: no query is judged with a document of the index.
    """
    if judgments is None:
        return None, []
    named, grades = judgments.documents, judgments.of(queries)
    missing = 0 if held is None else len(named - held)
    if held is not None:
        grades = [{doc: grade for doc, grade in right.items() if doc in held} for right in grades]
    if not any(grades):
        theirs, ours = list(judgments.by_query)[:3], [query.id for query in queries[:3]]
        raise DataError(
            f"{judgments.name} judges none of these queries with a document of the index: its queries are called "
            f"{', '.join(theirs)}, ours {', '.join(ours)}; give the queries a column query_id with the judgments' ids"
            + (f"; {missing:,} of its {len(named):,} documents are not in the index" if missing else "")
        )
    if held is None:
        return grades, ["Whether the index holds all judged documents was not checked."]
    lost = f"{missing:,} of {len(named):,} judged documents are not in the index, and left out."
    return grades, [lost] if missing else []


def _advance(progress: Advance, count: int) -> None:
    progress(count, "embed")


def _own(query: SearchQuery, found: Mapping[str, FoundHits]) -> FoundHits:
    return next((found[id_] for id_ in query.ids or (query.id,) if id_ in found), [])


def _embed(reco: Reco, log: QueryLog, progress: Callable[[int], None], allow_private: bool) -> tuple[QueryLog, Vectors]:
    """Plain vectors (B, D); queries whose picture cannot be read are left out of the log."""
    rows = [row for row, query in enumerate(log.queries) if query.text is not None]
    vectors: dict[int, Vectors] = {}
    if rows:
        made = reco.encoder.texts([log.queries[row].text or "" for row in rows], progress)
        vectors |= dict(zip(rows, made, strict=True))
    problems = list(log.unreadable)
    for row, query in enumerate(log.queries):
        if query.image is None or query.text is not None:
            continue
        try:
            picture: ImageInput | RemoteImage = query.image
            if isinstance(picture, RemoteImage):
                picture = replace(picture, allow_private=allow_private).read()
            vectors[row] = reco.encoder.images([picture])[0]
        except (ImageError, DataError, InputError) as error:
            problems.append(str(error))
        progress(1)
    if not vectors:
        raise DataError(f"no query can be embedded, the first: {problems[0]}")
    kept = sorted(vectors)
    log = replace(log, queries=tuple(log.queries[row] for row in kept), unreadable=tuple(problems))
    return log, np.stack([vectors[row] for row in kept])


def _refine(
    reco: Reco, queries: Sequence[SearchQuery], frozen: Vectors, target: Target | None, options: RefineOptions
) -> tuple[Refinement, list[str]]:
    """Refine B vectors, each by its modality, in their order, and say why each moves or stays."""
    parts, order = [], list[int]()
    for modality in ("text", "image"):
        rows = [row for row, query in enumerate(queries) if query.modality == modality]
        if rows:
            how: Any = {**options, "target": target, "explain": True}
            parts.append(reco.refine(frozen[rows], modality=modality, **how))
            order += rows
    reasons = [reason for part in parts for reason in _reasons(part)]
    if len(parts) == 1:
        return parts[0], reasons
    back = np.argsort(order)
    vectors, plain = (np.concatenate([getattr(part, name) for part in parts])[back] for name in ("vectors", "frozen"))
    return Refinement(vectors, plain), [reasons[row] for row in back.tolist()]


def _reasons(refinement: Refinement) -> list[str]:
    """Why each of B queries stays, or how far it moved."""
    moved, why = refinement.refined, refinement.why
    return [
        (refinement.why_plain(row) or _UNMOVED)
        if not moved[row]
        else str((why[row] if why is not None else None) or "moved for this kind of index, by the memory's own pairs")
        for row in range(len(refinement.vectors))
    ]


def _held(index: Engine, described: Description, judgments: Judgments | None) -> frozenset[str] | None:
    """Ids of the index; None where nobody asks, or it is too large to read."""
    if judgments is None or not 0 < described.documents <= _SCANNED:
        return None
    return frozenset(one.id for page in index.scan(vectors=False) for one in page)


def _count(index: Engine) -> int | None:
    """How many documents it holds now; None where that cannot be told."""
    try:
        return index.describe().documents
    except EngineError:
        return None


def _exactness(
    index: Engine,
    described: Description,
    vectors: Mapping[str, Vectors],
    asked: CompareOptions,
    queries: Sequence[SearchQuery],
) -> list[str]:
    """What the index misses of exact search, where it misses much."""
    if described.index.startswith("none"):
        return []
    sample = np.random.default_rng(asked.how.seed).permutation(len(queries))[:_EXACT]
    try:
        filters = [query.where for query in queries]
        exact = measure_exactness(index, described, vectors, asked.how, np.sort(sample), filters)
    except EngineError as error:
        return [f"What the index misses of exact search was not measured: {error}."]
    found = (
        f"The index finds {exact.plain:.1%} of what exact search finds of plain queries and {exact.refined:.1%} of "
        f"refined ones ({described.index})"
    )
    if min(exact.plain, exact.refined) >= _FOUND:
        return [f"{found}."]
    return [f"{found}: set it to look at more candidates, or rescore with full vectors, and compare again."]


def _alarm(check: IndexCheck, *, learned: bool) -> str:
    """Why nothing can be trusted; empty where nothing is wrong."""
    if check.alarm:
        return check.said
    if learned:
        return ""
    return (
        "the memory has learned nothing about its pairs: it is empty or too small, or `reco memory build --relearn` "
        "has to be run"
    )
