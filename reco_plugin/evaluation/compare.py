"""``reco compare``: queries in an index that exists, each as the service would embed it, measured, and a record."""

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
from ..sources.cells import CellError, image_of
from ..sources.images import RemoteImage
from ..sources.indexes.open_index import Description, Engine, IndexAddress
from ..sources.same_encoder import IndexCheck, check_index
from ..types import ImageInput, Refinement, Target
from .hybrid import engine_query
from .judgments import Grades, Judgments, changes, read_marks, read_run
from .queries import QueryLog, SearchQuery
from .query_kinds import SCANNED, equal_titles, kinds_of, read_titles
from .record import MARKED, SHOWN, Example, Line, Record, ShownHit, pick
from .report import Thumbnails
from .search import ARMS, ArmName, FoundHits, Searched, SearchHow, measure_exactness, questions, search_all
from .statistics import Figures, compare_pairs
from .verdict import decide

Advance = Callable[[int, str], object]
"""Called with how much was done, and of what."""
_EXACT = 100  # queries that are also searched exactly
_FOUND = 0.98  # share of the exact first k from which an index is good enough
_SEEN = 2 * SHOWN  # queries that are shown with their sides named, and not marked blind where there are enough others
_RESULTS = 6  # of each side of an example
_UNMOVED = "its plain and refined results are the same"
_LACKS = 0.1  # share of the memory's ids that may be missing in the index


@dataclass(frozen=True)
class CompareOptions:
    """How a comparison is made.

    Attributes:
        how: each query is searched.
        target: what the index's vectors are of; None: detected, else the default of the Reco.
        judgments: what is right.
        marks: files that people saved on the page.
        pictures: folder of relative paths of pictures.
        refine: other options of the refinement.
        command: that makes the record again.
        allow_private_urls: whether pictures may be fetched from private addresses.
        address: of the index, for the engine's own query; None: its engine is not known.
    """

    how: SearchHow = field(default_factory=SearchHow)
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
    asked: CompareOptions | None = None,
    progress: Advance = lambda n, what: None,
) -> Record:
    """Compare plain with refined queries in an index, which is only read.

    Args:
        reco: the encoder of the index, and a memory, with the settings of the service.
        index: an engine, or :class:`~reco_plugin.evaluation.function.FunctionIndex`.
        log: the queries, see :func:`~reco_plugin.evaluation.queries.read_queries`.
        asked: how, and what is known of the queries; None: ten hits, nothing.
        progress: called with how many queries were embedded (``embed``), how many searches there will be
            (``searches``), and how many were made (``search``).

    Raises:
        FingerprintMismatch: the index is of another dimension or encoder.
        EngineError: the engine refuses, or cannot be reached.
        DataError: no query is left, or judgments or marks do not fit.
    """
    asked = asked or CompareOptions()
    how, described = asked.how, index.describe()
    check = check_index(
        index, described, reco.encoder, reco.manifest.fingerprint, asked.pictures, asked.allow_private_urls
    )
    target = asked.target or check.target or reco.defaults["target"]
    log, embedded, reasons = _embed(reco, log, asked, target, lambda count: progress(count, "embed"))
    vectors = {"plain": embedded.frozen, "refined": embedded.vectors}
    progress(questions(log.queries, vectors, how, described), "searches")
    hits, failed = search_all(index.search, described, log.queries, vectors, how, lambda n: progress(n, "search"))
    moved = np.where(embedded.refined, embedded.moved, 0.0).astype(np.float64)
    titles = read_titles(index, described)
    grades, notes = _grade(asked.judgments, log.queries, None if titles is None else frozenset(titles))
    known = dict(reco.memory.store.payloads()) if len(reco.memory) <= SCANNED else {}
    captions = [str(one.get("caption") or "") for one in known.values()] if titles is None else titles.values()
    searched = Searched(log.queries, kinds_of(log.queries, [*captions]), moved, hits, how, reasons, grades, failed)
    notes = [
        f"The index: {check.said}.",
        *_exactness(index, described, vectors, how, log.queries),
        *notes,
        *_doubts(reco, titles, known, target),
    ]
    setup = {"engine": described.engine, "index": described.name}
    setup |= {"documents": f"{described.documents:,}"} if described.documents else {}  # of a function nobody knows
    setup |= {"search": described.index, "target": f"texts for {target}s, images for {target}s"}
    identity = f"{described.engine.partition(' ')[0]} {described.name} {described.vector} {described.dimension}"
    more: dict[str, Any] = {
        "alarm": _alarm(check, learned=reco.memory.calibration is not None),
        "titles": titles is not None and grades is not None and equal_titles(log.queries, grades, titles),
        "untried": _untried(described, asked.address),
        "query": lambda weight: engine_query(asked.address, described, weight, how.k),
    }
    return _record(searched, asked, log, setup, notes, identity, **more)


def compare_runs(log: QueryLog, runs: Mapping[ArmName, Path], asked: CompareOptions | None = None) -> Record:
    """Compare what an engine without an address found: files in TREC's form for ``plain``, ``refined`` and others.

    Raises:
        DataError: a file cannot be read, ``plain`` or ``refined`` is missing, or no query of the log is in them.
    """
    asked = asked or CompareOptions()
    if missing := [arm for arm in ("plain", "refined") if arm not in runs]:
        raise DataError(f"there is no run {missing[0]!r}: give --run plain=FILE and --run refined=FILE")
    if unknown := [arm for arm in runs if arm not in _RUNS]:
        raise DataError(f"a run is called {unknown[0]!r}: it can be {', '.join(_RUNS)}")
    read = {arm: read_run(path) for arm, path in runs.items()}
    kept = tuple(one for one in log.queries if any(_own(one, read["plain"])) or any(_own(one, read["refined"])))
    if not kept:
        raise DataError(
            f"no query of the file is in the runs: theirs are called {', '.join(list(read['plain'])[:3])} and ours "
            f"{', '.join(one.id for one in log.queries[:3])}"
        )
    log = replace(log, queries=kept, sampled_from=len(log.queries) if len(kept) < len(log.queries) else None)
    hits = {arm: [_own(query, read[arm])[: asked.how.k] for query in kept] for arm in _RUNS if arm in read}
    grades, notes = _grade(asked.judgments, kept, None)
    ids = ([[hit.id for hit in found] for found in hits[side]] for side in ("plain", "refined"))
    moved = (changes(*ids) > 0).astype(np.float64)
    reasons = ["" if far else _UNMOVED for far in moved]
    searched = Searched(kept, kinds_of(kept, ()), moved, hits, asked.how, reasons, grades)
    setup = {"runs": ", ".join(f"{arm}: {path}" for arm, path in runs.items())}
    untried = "" if "text" in hits else "Text search was not tried: there is no run `text`."
    return _record(searched, asked, log, setup, notes, "runs", untried=untried)


_RUNS = ("plain", "refined", "text")


def _record(
    searched: Searched,
    asked: CompareOptions,
    log: QueryLog,
    setup: Mapping[str, Any],
    notes: Sequence[str],
    index: str,
    **doubts: Any,
) -> Record:
    """The record; ``index`` is the identity of what was searched, and ``doubts`` go to :func:`decide`."""
    queries, how, rows = searched.queries, searched.how, searched.rows
    changed = changes(searched.ids("plain"), searched.ids("refined"))
    order = np.argsort(-changed * np.array([query.weight for query in queries]), kind="stable")
    hardest = [row for row in order.tolist() if changed[row] > 0]
    gains = np.zeros(len(queries))
    gains[rows] = searched.figures["refined"]["ndcg"] - searched.figures["plain"]["ndcg"]
    marked = hardest[_SEEN : _SEEN + MARKED] if len(hardest) >= _SEEN + MARKED else hardest[:MARKED]
    key = _key(index, searched, marked)
    decided = decide(searched, read_marks(asked.marks, key) if asked.marks else None, **doubts)
    lines: list[Line] = []
    if len(rows):
        if "text" in searched.hits:
            both = searched.fused(decided.vectors, decided.weight)
            searched = replace(searched, hits={**searched.hits, "both": both})
        lines = _lines(searched)
    made = _Examples(searched, asked, gains)
    shown = pick(gains) or hardest[:_SEEN]
    return Record(
        title="Plain and refined queries in this index",
        command=asked.command,
        setup={"queries": f"{len(queries):,}", "k": how.k, **setup, **({"filter": how.where} if how.where else {})},
        verdicts=decided.verdicts,
        metric=f"nDCG@{how.k}",
        lines=lines,
        notes=[*notes, *_notes(searched, decided.weight), f"{'. '.join(log.notes())}."],
        examples=[made.of(row) for row in shown],
        to_mark=[made.of(row, blind=True) for row in marked],
        key=key,
        queries=_rows(searched),
    )


def _lines(searched: Searched) -> list[Line]:
    """A line for each kind of query, and one for all where there are several."""
    kinds = np.array(searched.kinds)[searched.rows]
    names = [name for name, _ in Counter(kinds.tolist()).most_common()]
    parts = [(name, kinds == name) for name in names]
    if len(parts) > 1:
        parts.append(("all", np.ones(len(kinds), np.bool_)))
    texts, lines = searched.of("text"), list[Line]()
    for name, part in parts:
        values = {
            ARMS[arm]: float(one["ndcg"][part].mean())
            for arm, one in searched.figures.items()
            if arm in ("plain", "refined") or texts[part].all()
        }
        gain = (searched.figures["refined"]["ndcg"] - searched.figures["plain"]["ndcg"])[part]
        weights = searched.weights[part]
        traffic = float(gain @ weights / weights.sum()) if len(set(searched.weights.tolist())) > 1 else None
        change = compare_pairs(gain, seed=searched.how.seed)
        lines.append(Line(name, len(gain), values, change, float((gain > 0).mean()), float((gain < 0).mean()), traffic))
    return lines


def _notes(searched: Searched, weight: float) -> list[str]:
    """What changes, and why queries stay."""
    moved, total = int((searched.moved > 0).sum()), len(searched.moved)
    pairs = zip(searched.ids("plain"), searched.ids("refined"), strict=True)
    both = np.mean([len({*a} & {*b}) / max(len(a), len(b), 1) for a, b in pairs])
    notes = [
        f"{moved:,} of {total:,} queries move; plain and refined have {both:.0%} of their first "
        f"{searched.how.k} results in common."
    ]
    stayed = Counter(reason for reason, far in zip(searched.reasons, searched.moved, strict=True) if not far)
    if stayed:
        notes.append(
            "Queries that stay plain: " + "; ".join(f"{many:,} ({why})" for why, many in stayed.most_common(3)) + "."
        )
    if "both" in searched.hits:
        notes.append(f"Both together: fused by rank (RRF, k = 60), text search with a weight of {weight:g} of 1.")
    return [*notes, *(f"The engine's {words}." for words in searched.failed)]


def _rows(searched: Searched) -> list[dict[str, Any]]:
    """What was found for each query."""
    plain, refined = searched.ids("plain"), searched.ids("refined")
    return [
        {
            "id": query.id,
            "query": query.text if query.text is not None else str(query.image),
            "kind": searched.kinds[row],
            **({} if query.where is None else {"where": query.where}),
            "weight": query.weight,
            "moved": round(float(searched.moved[row]), 5),
            "reason": searched.reasons[row],
            "plain": plain[row],
            "refined": refined[row],
        }
        for row, query in enumerate(searched.queries)
    ]


def _key(index: str, searched: Searched, rows: Sequence[int]) -> str:
    """Of the index, the queries to mark and their results: marks of anything else are refused."""
    sides = [searched.ids(side) for side in ("plain", "refined")]
    shown = [[searched.queries[row].id, *(ids[row] for ids in sides)] for row in rows]
    return hashlib.sha256(json.dumps([index, shown]).encode()).hexdigest()[:16]


@dataclass
class _Examples:
    """Makes examples of rows of the queries, whose gains are (B,)."""

    searched: Searched
    asked: CompareOptions
    gains: Figures
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    def of(self, row: int, *, blind: bool = False) -> Example:
        """One query; whether its sides are swapped hangs on its id, and what is right is not shown where blind."""
        query, grades = self.searched.queries[row], self.searched.grades
        right = None if grades is None or blind or not grades[row] else grades[row]
        plain, refined = (
            [
                ShownHit(hit.text or hit.id, self._picture(hit.image), None if right is None else hit.id in right)
                for hit in self.searched.hits[side][row][:_RESULTS]
            ]
            for side in ("plain", "refined")
        )
        gain = None if right is None else float(self.gains[row])
        swapped = hashlib.sha256(query.id.encode()).digest()[0] % 2 == 1
        picture = self._picture(query.image) if query.text is None else None
        reason = "" if blind else self.searched.reasons[row]
        return Example(query.id, query.name, plain, refined, picture, gain, reason, swapped)

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
    """The grades of each query, and notes; ``held`` are the ids of the index, None where they were not read.

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
    """Why there is no text search to compare with; empty where there is one."""
    if described.searches_text:
        return ""
    if address is None:
        return "Text search was not tried: the function does not take texts."
    why = "the address names no text=" if address.text is None else f"no index of words is over {address.text!r}"
    return f"Text search was not tried, because {why}: where titles are searched by words, it may find more."


def _own(query: SearchQuery, found: Mapping[str, FoundHits]) -> FoundHits:
    return next((found[id_] for id_ in query.ids or (query.id,) if id_ in found), [])


def _embed(
    reco: Reco, log: QueryLog, asked: CompareOptions, target: Target | None, progress: Callable[[int], object]
) -> tuple[QueryLog, Refinement, list[str]]:
    """Embed B queries as the service does, each by its modality, and say why each moves or stays.

    Queries whose picture cannot be read are left out of the log.
    """
    how: Any = {**asked.refine, "target": target, "explain": True, "refine": True}
    found, problems = dict[int, tuple[Any, Any, str]](), list(log.unreadable)
    texts = [row for row, query in enumerate(log.queries) if query.text is not None]
    parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
    parts += [[row] for row, query in enumerate(log.queries) if query.text is None]
    for rows in parts:
        modality = log.queries[rows[0]].modality
        try:
            items: Any = [_item(log.queries[row], asked.allow_private_urls) for row in rows]
            one = reco.embed(items, modality=modality, **how)
        except (ImageError, DataError, InputError) as error:
            if modality == "text":
                raise
            problems.append(str(error))
        else:
            found |= dict(zip(rows, zip(one.vectors, one.frozen, _reasons(one), strict=True), strict=True))
        progress(len(rows))
    if not found:
        raise DataError(f"no query can be embedded, the first: {problems[0]}")
    kept = sorted(found)
    vectors, frozen = (np.stack([found[row][side] for row in kept]) for side in (0, 1))
    log = replace(log, queries=tuple(log.queries[row] for row in kept), unreadable=tuple(problems))
    return log, Refinement(vectors, frozen), [found[row][2] for row in kept]


_TEXTS = 64  # that are embedded at a time


def _item(query: SearchQuery, allow_private: bool) -> ImageInput | str | None:
    """What the encoder takes of a query."""
    if isinstance(query.image, RemoteImage) and query.text is None:
        return replace(query.image, allow_private=allow_private).read()
    return query.image if query.text is None else query.text  # type: ignore[return-value]  # a path


def _reasons(refinement: Refinement) -> list[str]:
    """Why each of B queries stays, or how far it moved."""
    moved, why = refinement.refined, refinement.why
    return [
        (refinement.why_plain(row) or _UNMOVED)
        if not moved[row]
        else str((why[row] if why is not None else None) or "moved for this kind of index, by the memory's own pairs")
        for row in range(len(refinement.vectors))
    ]


def _doubts(reco: Reco, titles: Mapping[str, str] | None, known: Mapping[str, Any], target: Target | None) -> list[str]:
    """Ids of the memory that are not those of the index, and settings of the service that do not fit it."""
    notes = []
    if titles is not None and (gone := sum(id_ not in titles for id_ in known)) > _LACKS * len(known):
        notes.append(
            f"{gone:,} of the memory's {len(known):,} ids are not in the index: it was filled from something else, or "
            "before the index changed."
        )
    if target != (served := reco.defaults["target"]):
        notes.append(
            f"The index is searched with vectors for {target}s, and the service refines queries for {served}s: set "
            f"RECO_TARGET={target} there."
        )
    return notes


def _exactness(
    index: Engine, described: Description, vectors: Mapping[str, Any], how: SearchHow, queries: Sequence[SearchQuery]
) -> list[str]:
    """What the index misses of exact search, where it misses much."""
    if described.index.startswith("none"):
        return []
    rows = np.sort(np.random.default_rng(how.seed).permutation(len(queries))[:_EXACT])
    try:
        some = [vectors["plain"][rows], vectors["refined"][rows]]
        plain, refined = measure_exactness(index, described, some, [queries[row] for row in rows.tolist()], how)
    except EngineError as error:
        return [f"What the index misses of exact search was not measured: {error}."]
    found = (
        f"The index finds {plain:.1%} of what exact search finds of plain queries and {refined:.1%} of refined ones "
        f"({described.index})"
    )
    if min(plain, refined) >= _FOUND:
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
