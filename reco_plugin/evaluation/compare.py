"""``reco compare``: queries in an existing index, embedded as the service embeds them, measured and recorded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, EngineError, ImageError, InputError
from ..options import RefineOptions
from ..reco import Reco
from ..sources.cells import CellError, parse_image
from ..sources.images import RemoteImage
from ..sources.indexes import Description, Engine, IndexAddress
from ..sources.same_encoder import IndexCheck, check_index
from ..types import ImageInput, Refinement, Target
from .hybrid import engine_query
from .judgments import Grades, Judgments, equal_titles, ranking_distances, read_marks
from .queries import QueryLog, SearchQuery, classify_queries
from .record import MARKED, SHOWN, Example, Line, Record, ShownHit, pick_extremes
from .report import Thumbnails
from .search import ARMS, SearchOptions, SearchResults, measure_index_recall, plan_searches, search_all
from .statistics import Figures, compare_pairs
from .verdict import decide

CompareProgress = Callable[[int, str], object]
"""Called with a count and its step: ``embed`` and ``search`` count queries, ``searches`` is the total of searches."""
_MAX_TITLES = 200_000  # documents whose ids and titles are read
_RECALL_QUERIES = 100  # queries that are also searched exactly
_MIN_RECALL = 0.98
_SHOWN_QUERIES = 2 * SHOWN  # shown with their sides named, so not marked blind if there are enough others
_RESULTS = 6  # of each side of an example
_TEXTS = 64  # embedded at a time
_UNMOVED = "its plain and refined results are the same"
_MAX_MISSING = 0.1  # share of the memory's ids that may be missing in the index


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison.

    Attributes:
        target: modality of the index's vectors; None: detected, else the default of the Reco.
        marks: files that the page saved.
        pictures: folder of relative image paths.
        command: the command line, for the record.
        address: of the index, for the engine's own query.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    target: Target | None = None
    judgments: Judgments | None = None
    marks: Sequence[Path] = ()
    pictures: Path = Path()
    refine: RefineOptions = field(default_factory=RefineOptions)
    command: str = ""
    allow_private_urls: bool = False
    address: IndexAddress | None = None


def compare(
    reco: Reco,
    index: Engine,
    log: QueryLog,
    options: CompareOptions | None = None,
    progress: CompareProgress = lambda n, what: None,
) -> Record:
    """Compare plain with refined queries in an index, which is only read.

    Args:
        reco: the encoder of the index and a memory, with the settings of the service.
        index: an engine, or :class:`~reco_plugin.evaluation.function.FunctionIndex`.
        log: the queries.
        options: None: ten hits and no judgments.
        progress: called with counts.

    Raises:
        FingerprintMismatch: the index has another dimension or encoder.
        EngineError: the engine refuses a search, or cannot be reached.
        DataError: no query can be embedded, or judgments or marks do not fit.
    """
    options = options or CompareOptions()
    search, described = options.search, index.describe()
    check = check_index(
        index, described, reco.encoder, reco.manifest.fingerprint, options.pictures, options.allow_private_urls
    )
    target = options.target or check.target or reco.defaults["target"]
    log, embedded, reasons = _embed(reco, log, options, target, lambda count: progress(count, "embed"))
    vectors = {"plain": embedded.frozen, "refined": embedded.vectors}
    plan = plan_searches(described, log.queries, vectors, search)
    progress(sum(question is not None for questions in plan.values() for question in questions), "searches")
    hits, failed = search_all(index.search, log.queries, plan, lambda n: progress(n, "search"))
    moved = np.where(embedded.refined, embedded.moved, 0.0).astype(np.float64)
    titles = _read_titles(index, described)
    grades, notes = _grade(options.judgments, log.queries, None if titles is None else frozenset(titles))
    payloads = dict(reco.memory.store.payloads()) if len(reco.memory) <= _MAX_TITLES else {}
    captions = [str(one.get("caption") or "") for one in payloads.values()]
    kinds = classify_queries(log.queries, captions if titles is None else [*titles.values()])
    results = SearchResults(log.queries, kinds, moved, hits, search, reasons, grades, failed)
    notes = [
        f"The index: {check.summary}.",
        *_recall_notes(index, described, vectors, search, log.queries),
        *notes,
        *_mismatch_notes(reco, titles, payloads, target),
    ]
    documents = {"documents": f"{described.documents:,}"} if described.documents else {}
    setup = {"engine": described.engine, "index": described.name, **documents, "search": described.index}
    setup["target"] = f"texts for {target}s, images for {target}s"
    return make_record(
        results,
        options,
        log,
        setup,
        notes,
        f"{described.engine.partition(' ')[0]} {described.name} {described.vector} {described.dimension}",
        alarm=_alarm(check, learned=reco.memory.calibration is not None),
        titles=titles is not None and grades is not None and equal_titles(log.queries, grades, titles),
        untried=_untried(described, options.address),
        query=lambda weight: engine_query(options.address, described, weight, search.k),
    )


def make_record(
    results: SearchResults,
    options: CompareOptions,
    log: QueryLog,
    setup: Mapping[str, Any],
    notes: Sequence[str],
    index: str,
    **doubts: Any,
) -> Record:
    """Make the record of search results in an index with this identity; ``doubts`` are passed to :func:`decide`."""
    queries, search = results.queries, results.options
    distances = ranking_distances(results.ids("plain"), results.ids("refined"))
    order = np.argsort(-distances * np.array([query.weight for query in queries]), kind="stable")
    changed = [row for row in order.tolist() if distances[row] > 0]
    gains = np.zeros(len(queries))
    gains[results.judged] = results.figures["refined"]["ndcg"] - results.figures["plain"]["ndcg"]
    enough = len(changed) >= _SHOWN_QUERIES + MARKED
    marked = changed[_SHOWN_QUERIES : _SHOWN_QUERIES + MARKED] if enough else changed[:MARKED]
    key = _key(index, results, marked)
    decisions = decide(results, read_marks(options.marks, key) if options.marks else None, **doubts)
    lines: list[Line] = []
    if len(results.judged):
        if "text" in results.hits:
            both = results.fused(decisions.vectors, decisions.weight)
            results = replace(results, hits={**results.hits, "both": both})
        lines = _lines(results)
    examples = _QueryExamples(results, options, gains)
    where = {"filter": search.where} if search.where else {}
    return Record(
        title="Plain and refined queries in this index",
        command=options.command,
        setup={"queries": f"{len(queries):,}", "k": search.k, **setup, **where},
        verdicts=decisions.verdicts,
        metric=f"nDCG@{search.k}",
        lines=lines,
        notes=[*notes, *_notes(results, decisions.weight), f"{'. '.join(log.notes())}."],
        examples=[examples.of(row) for row in pick_extremes(gains) or changed[:_SHOWN_QUERIES]],
        to_mark=[examples.of(row, blind=True) for row in marked],
        key=key,
        queries=_rows(results),
    )


def _lines(results: SearchResults) -> list[Line]:
    """One line for each kind of query; with several kinds, also one for all."""
    kinds = np.array(results.kinds)[results.judged]
    parts = [(name, kinds == name) for name, _ in Counter(kinds.tolist()).most_common()]
    if len(parts) > 1:
        parts.append(("all", np.ones(len(kinds), np.bool_)))
    texts, lines = results.of_modality("text"), list[Line]()
    for name, part in parts:
        values = {
            ARMS[arm]: float(one["ndcg"][part].mean())
            for arm, one in results.figures.items()
            if arm in ("plain", "refined") or texts[part].all()
        }
        gain = (results.figures["refined"]["ndcg"] - results.figures["plain"]["ndcg"])[part]
        weights = results.weights[part]
        traffic = float(gain @ weights / weights.sum()) if len(set(results.weights.tolist())) > 1 else None
        change = compare_pairs(gain, seed=results.options.seed)
        lines.append(Line(name, len(gain), values, change, float((gain > 0).mean()), float((gain < 0).mean()), traffic))
    return lines


def _notes(results: SearchResults, weight: float) -> list[str]:
    """How many queries and results change, and why queries stay plain."""
    moved, total = int((results.moved > 0).sum()), len(results.moved)
    pairs = zip(results.ids("plain"), results.ids("refined"), strict=True)
    common = np.mean([len({*a} & {*b}) / max(len(a), len(b), 1) for a, b in pairs])
    notes = [
        f"{moved:,} of {total:,} queries move; plain and refined have {common:.0%} of their first "
        f"{results.options.k} results in common."
    ]
    stayed = Counter(reason for reason, distance in zip(results.reasons, results.moved, strict=True) if not distance)
    if stayed:
        reasons = "; ".join(f"{count:,} ({reason})" for reason, count in stayed.most_common(3))
        notes.append(f"Queries that stay plain: {reasons}.")
    if "both" in results.hits:
        notes.append(f"Both together: fused by rank (RRF, k = 60), text search with a weight of {weight:g} of 1.")
    return [*notes, *(f"The engine refused a search by {message}." for message in results.failed)]


def _rows(results: SearchResults) -> list[dict[str, Any]]:
    """Results of each query, JSON-like."""
    plain, refined = results.ids("plain"), results.ids("refined")
    return [
        {
            "id": query.id,
            "query": query.text if query.text is not None else str(query.image),
            "kind": results.kinds[row],
            **({} if query.where is None else {"where": query.where}),
            "weight": query.weight,
            "moved": round(float(results.moved[row]), 5),
            "reason": results.reasons[row],
            "plain": plain[row],
            "refined": refined[row],
        }
        for row, query in enumerate(results.queries)
    ]


def _key(index: str, results: SearchResults, rows: Sequence[int]) -> str:
    """Hash of the index, the queries to mark and their results."""
    sides = [results.ids(side) for side in ("plain", "refined")]
    shown = [[results.queries[row].id, *(ids[row] for ids in sides)] for row in rows]
    return hashlib.sha256(json.dumps([index, shown]).encode()).hexdigest()[:16]


@dataclass
class _QueryExamples:
    """Makes examples of queries, by row; ``gains`` is (B,)."""

    results: SearchResults
    options: CompareOptions
    gains: Figures
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    def of(self, row: int, *, blind: bool = False) -> Example:
        """Make one example; a blind one shows no judgments, and its sides are swapped by a hash of the query's id."""
        query, grades = self.results.queries[row], self.results.grades
        right = None if grades is None or blind or not grades[row] else grades[row]
        plain, refined = (
            [
                ShownHit(hit.text or hit.id, self._picture(hit.image), None if right is None else hit.id in right)
                for hit in self.results.hits[side][row][:_RESULTS]
            ]
            for side in ("plain", "refined")
        )
        gain = None if right is None else float(self.gains[row])
        swapped = hashlib.sha256(query.id.encode()).digest()[0] % 2 == 1
        picture = self._picture(query.image) if query.text is None else None
        reason = "" if blind else self.results.reasons[row]
        return Example(query.id, query.name, plain, refined, picture, gain, reason, swapped)

    def _picture(self, value: str | bytes | Path | RemoteImage | None) -> str | None:
        if not value:
            return None
        try:
            image = parse_image(value, self.options.pictures) if isinstance(value, str) else value
        except CellError:
            return None
        if isinstance(image, RemoteImage):
            image = replace(image, allow_private=self.options.allow_private_urls)
        return self.thumbnails.of(hashlib.sha256(value).digest() if isinstance(value, bytes) else str(value), image)


def _read_titles(index: Engine, described: Description) -> Mapping[str, str] | None:
    """Document id -> title, which may be empty; None if the index is too large or cannot be read."""
    if not 0 < described.documents <= _MAX_TITLES:
        return None
    try:
        return {one.id: one.text or "" for page in index.scan(vectors=False) for one in page}
    except EngineError:
        return None


def _grade(
    judgments: Judgments | None, queries: Sequence[SearchQuery], held: frozenset[str] | None
) -> tuple[Sequence[Grades] | None, list[str]]:
    """Grades of each query, and notes; ``held`` are the ids of the index, None if they were not read.

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
    notes = []
    if judgments.clicks:
        notes.append(
            "The grades are clicks: people click what today's search shows first, so what it hides counts as "
            "wrong, and the figures favour today's search."
        )
    if held is None:
        notes.append("Whether the index holds all judged documents was not checked.")
    elif missing:
        notes.append(f"{missing:,} of {len(named):,} judged documents are not in the index, and left out.")
    return grades, notes


def _untried(described: Description, address: IndexAddress | None) -> str:
    """Why text search was not compared; empty if it was."""
    if described.searches_text:
        return ""
    if address is None:
        return "Text search was not tried: the function does not take texts."
    why = "the address names no text=" if address.text is None else f"no index of words is over {address.text!r}"
    return f"Text search was not tried, because {why}: if titles are searched by words, it may find more."


def _embed(
    reco: Reco, log: QueryLog, options: CompareOptions, target: Target | None, progress: Callable[[int], object]
) -> tuple[QueryLog, Refinement, list[str]]:
    """Embed B queries as the service does, and give the reason why each moves or stays.

    Queries whose image cannot be read are left out of the log.
    """
    refine: Any = {**options.refine, "target": target, "explain": True, "refine": True}
    embedded, problems = dict[int, tuple[Any, Any, str]](), list(log.unreadable)
    texts = [row for row, query in enumerate(log.queries) if query.text is not None]
    batches = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
    batches += [[row] for row, query in enumerate(log.queries) if query.text is None]
    for rows in batches:
        modality = log.queries[rows[0]].modality
        try:
            items: Any = [_input_of(log.queries[row], options.allow_private_urls) for row in rows]
            result = reco.embed(items, modality=modality, **refine)
        except (ImageError, DataError, InputError) as error:
            if modality == "text":
                raise
            problems.append(str(error))
        else:
            embedded |= zip(rows, zip(result.vectors, result.frozen, _reasons(result), strict=True), strict=True)
        progress(len(rows))
    if not embedded:
        raise DataError(f"no query can be embedded, the first: {problems[0]}")
    kept = sorted(embedded)
    vectors, frozen = (np.stack([embedded[row][side] for row in kept]) for side in (0, 1))
    log = replace(log, queries=tuple(log.queries[row] for row in kept), unreadable=tuple(problems))
    return log, Refinement(vectors, frozen), [embedded[row][2] for row in kept]


def _input_of(query: SearchQuery, allow_private: bool) -> ImageInput | str | None:
    if isinstance(query.image, RemoteImage) and query.text is None:
        return replace(query.image, allow_private=allow_private).read()
    return query.image if query.text is None else query.text  # type: ignore[return-value]  # a path


def _reasons(refinement: Refinement) -> list[str]:
    """Why each of B queries stays, or moved as far as it did."""
    moved, why = refinement.refined, refinement.why
    return [
        (refinement.why_plain(row) or _UNMOVED)
        if not moved[row]
        else str((why[row] if why is not None else None) or "moved for this kind of index, by the memory's own pairs")
        for row in range(len(refinement.vectors))
    ]


def _mismatch_notes(
    reco: Reco, titles: Mapping[str, str] | None, payloads: Mapping[str, Any], target: Target | None
) -> list[str]:
    """Report ids of the memory that the index lacks, and a target that the service does not use."""
    notes = []
    if titles is not None and (gone := sum(id_ not in titles for id_ in payloads)) > _MAX_MISSING * len(payloads):
        notes.append(
            f"{gone:,} of the memory's {len(payloads):,} ids are not in the index: it was filled from something else, "
            "or before the index changed."
        )
    if target != (served := reco.defaults["target"]):
        notes.append(
            f"The index is searched with vectors for {target}s, and the service refines queries for {served}s: set "
            f"RECO_TARGET={target} there."
        )
    return notes


def _recall_notes(
    index: Engine,
    described: Description,
    vectors: Mapping[str, Any],
    options: SearchOptions,
    queries: Sequence[SearchQuery],
) -> list[str]:
    """Report the recall of an approximate index."""
    if described.index.startswith("none"):
        return []
    rows = np.sort(np.random.default_rng(options.seed).permutation(len(queries))[:_RECALL_QUERIES])
    sampled = [vectors["plain"][rows], vectors["refined"][rows]]
    try:
        recalls = measure_index_recall(index, described, sampled, [queries[row] for row in rows.tolist()], options)
    except EngineError as error:
        return [f"What the index misses of exact search was not measured: {error}."]
    plain, refined = recalls
    note = (
        f"The index finds {plain:.1%} of what exact search finds of plain queries and {refined:.1%} of refined ones "
        f"({described.index})"
    )
    advice = "" if min(recalls) >= _MIN_RECALL else ": let it search more candidates, or rescore with full vectors"
    return [f"{note}{advice}."]


def _alarm(check: IndexCheck, *, learned: bool) -> str:
    """Why no result can be trusted; empty if there is no reason."""
    if check.is_doubtful:
        return check.summary
    if learned:
        return ""
    return (
        "the memory has learned nothing about its pairs: it is empty or too small, or `reco memory build --relearn` "
        "has to be run"
    )
