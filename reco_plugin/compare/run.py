"""The comparison: queries embedded plain and refined, searched in every way, measured, and a verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.images import RemoteImage
from ..engines import Description, Engine
from ..errors import DataError, EngineError, ImageError, InputError
from ..interleave import Votes
from ..measure.statistics import Figures
from ..options import RefineOptions
from ..reco import Reco
from ..types import ImageInput, Refinement, Target, Vectors, other
from .encoder_check import IndexCheck, check_dimension, check_encoder
from .evidence import Indication, by_captions_of_index
from .judgments import Grades, Judgments, read_run
from .marks import Marks
from .measure import JudgedQueries, QueryRows, changes, judge_all, overlaps
from .queries import QueryLog, SearchQuery
from .search import ArmName, Exactness, FoundHits, Rankings, SearchHow, measure_exactness, questions, search_all
from .verdict import Advice, Heard, decide

Advance = Callable[[int, str], object]
"""Called with how much was done, and of what."""
EXACT = 100
"""Queries that are also searched exactly."""
_TIMED = 50  # queries that are embedded one by one
_SCANNED = 200_000  # documents up to which judged ids are looked for
_UNMOVED = "its results stay"


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison is asked.

    Attributes:
        how: each query is searched.
        target: what the index's vectors are of; None: found out, else the other modality than the query's.
        judgments, marks: what is known of the queries.
        votes: clicks on interleaved lists.
        pictures: folder of relative paths of pictures.
        refine: other options of the refinement.
    """

    how: SearchHow = field(default_factory=SearchHow)
    target: Target | None = None
    judgments: Judgments | None = None
    votes: Votes | None = None
    marks: Marks | None = None
    pictures: Path = Path()
    refine: RefineOptions = field(default_factory=RefineOptions)


@dataclass(frozen=True)
class JudgedIds:
    """Ids of right documents that judgments name."""

    named: int
    missing: int | None  # that the index does not hold; None: not looked for


@dataclass(frozen=True)
class Comparison:
    """All that was measured of B queries.

    Attributes:
        log: the queries.
        how: they were searched.
        rankings: what was found.
        verdict: the sentence.
        changed: (B,) how far both rankings differ.
        overlap: (B,) share of common documents.
        moved: (B,) cosine distance of the query's two vectors; 1 where only rankings are known and differ.
        reasons: B reasons, of a query that stayed or of how far it moved.
        refinement: None where only rankings are known; so are the next four.
        index: its description.
        check: whether it is of this encoder.
        target: what the queries were refined for, by modality.
        times: seconds of ``embed`` and ``refine`` for one query, each several times.
        exactness: of the index; None where it was not measured, and ``no_exactness`` says why.
        judged: against judgments; None without any.
        ids: of the judgments.
        votes: what clicks on interleaved lists say.
        evidence: what the verdict rests on.
        marks: of a person.
    """

    log: QueryLog
    how: SearchHow
    rankings: Rankings
    verdict: Advice
    changed: Figures
    overlap: Figures
    moved: Figures
    reasons: Sequence[str]
    refinement: Refinement | None = None
    index: Description | None = None
    check: IndexCheck | None = None
    target: Mapping[str, Target] = field(default_factory=dict)
    times: Mapping[str, Sequence[float]] = field(default_factory=dict)
    exactness: Exactness | None = None
    no_exactness: str = ""
    judged: JudgedQueries | None = None
    ids: JudgedIds | None = None
    votes: Votes | None = None
    evidence: Indication | None = None
    marks: Marks | None = None

    @property
    def hardest(self) -> QueryRows:
        """(B,) rows of the queries, the largest change of ranking first."""
        return np.argsort(-self.changed, kind="stable")

    def groups(self) -> dict[str, QueryRows]:
        """Names of groups of queries -> their rows; groups without queries are left out."""
        kind = np.array([query.modality for query in self.log.queries])
        filtered = np.array([query.where is not None for query in self.log.queries])
        moving = self.moved > 0
        middle = float(np.median(self.moved[moving])) if moving.any() else 0.0
        found = {
            "texts": kind == "text",
            "images": kind == "image",
            **({"with a filter": filtered, "without a filter": ~filtered} if filtered.any() else {}),
            f"moved by {middle:.3f} or more": moving & (self.moved >= middle),
            "moved by less": moving & (self.moved < middle),
            "stayed plain": ~moving,
        }
        if self.refinement is not None and self.refinement.retrieved is not None:
            found["the memory found nothing"] = ~self.refinement.retrieved
        return {name: np.flatnonzero(rows) for name, rows in found.items() if rows.any()}

    def why_plain(self) -> dict[str, int]:
        """Reasons of queries that stayed plain, and how many there are of each, the most frequent first."""
        stayed = [reason for reason, far in zip(self.reasons, self.moved, strict=True) if not far]
        return dict(Counter(stayed).most_common())


def compare(
    reco: Reco,
    index: Engine,
    log: QueryLog,
    asked: CompareOptions | None = None,
    progress: Advance = lambda n, what: None,
) -> Comparison:
    """Compare plain with refined queries in an index, which is only read.

    Args:
        reco: the encoder of the index, and a memory.
        index: an engine, or :class:`~reco_plugin.compare.FunctionIndex`.
        log: the queries, see :func:`~reco_plugin.compare.read_queries`.
        asked: how, and what is known of the queries; None: ten hits, nothing.
        progress: called with how many queries were embedded (``embed``), how many searches there will be
            (``searches``), and how many were made (``search``).

    Raises:
        FingerprintMismatch: the index is of another dimension or encoder.
        EngineError: the engine refuses, or cannot be reached.
        DataError: no query is left.
    """
    asked = asked or CompareOptions()
    described = index.describe()
    check_dimension(described, reco.manifest.fingerprint)
    check = check_encoder(index, reco.encoder, str(reco.manifest.fingerprint), asked.pictures)
    log, frozen = _embed(reco, log, lambda count: _tell(progress, count))
    target: dict[str, Target] = {m: asked.target or check.target or other(m) for m in ("text", "image")}
    refined = _refine(reco, log.queries, frozen, target, asked.refine)
    vectors = {"plain": refined.frozen, "refined": refined.vectors}
    progress(questions(log.queries, vectors, asked.how, described), "searches")
    rankings = search_all(
        index.search, described, log.queries, vectors, asked.how, lambda count: progress(count, "search")
    )
    moved = np.where(refined.refined, refined.moved, 0.0).astype(np.float64)
    presence = None if refined.presence is None else refined.presence.astype(np.float64)
    known = _Known.of(log, rankings, asked, _held(index, described, asked.judgments))
    sample = np.random.default_rng(asked.how.seed).permutation(len(log.queries))[:EXACT]
    exactness, problem = _exactness(index, described, vectors, asked.how, np.sort(sample), log.queries)
    evidence = known.evidence or by_captions_of_index(log.queries, rankings, asked.how.k)
    heard = Heard(_alarm(reco, check), asked.votes, asked.marks, presence)
    return Comparison(
        log, asked.how, rankings, decide(evidence, log.queries, moved, asked.how, heard),
        changes(*_both(rankings)), overlaps(*_both(rankings)),
        moved, _reasons(refined), refined, described, check, target, _times(reco, log.queries, target, asked.refine),
        exactness, problem, known.judged, known.ids, asked.votes, evidence, asked.marks,
    )  # fmt: skip


def compare_runs(log: QueryLog, runs: Mapping[ArmName, Path], asked: CompareOptions | None = None) -> Comparison:
    """Compare what an engine without an address found: files in TREC's form for ``plain``, ``refined`` and others.

    Raises:
        DataError: a file cannot be read, ``plain`` or ``refined`` is missing, or no query of the log is in them.
    """
    asked = asked or CompareOptions()
    if missing := [arm for arm in ("plain", "refined") if arm not in runs]:
        raise DataError(f"there is no run {missing[0]!r}: give --run plain=FILE and --run refined=FILE")
    read = {arm: read_run(path) for arm, path in runs.items()}
    kept = tuple(one for one in log.queries if any(_own(one, read["plain"])) or any(_own(one, read["refined"])))
    if not kept:
        raise DataError(
            f"no query of the file is in the runs: theirs are called {', '.join(list(read['plain'])[:3])} and ours "
            f"{', '.join(one.id for one in log.queries[:3])}"
        )
    drawn = len(log.queries) if len(kept) < len(log.queries) else None
    log = replace(log, queries=kept, sampled_from=drawn)
    hits = {arm: [_own(query, found)[: asked.how.k] for query in kept] for arm, found in read.items()}
    rankings = Rankings(hits)
    plain, refined = rankings.ids("plain"), rankings.ids("refined")
    changed = changes(plain, refined)
    moved = (changed > 0).astype(np.float64)
    known = _Known.of(log, rankings, asked, None)
    verdict = decide(known.evidence, kept, moved, asked.how, Heard("", asked.votes, asked.marks))
    reasons = ["" if far else _UNMOVED for far in moved]
    return Comparison(
        log, asked.how, rankings, verdict, changed, overlaps(plain, refined), moved, reasons,
        judged=known.judged, ids=known.ids, votes=asked.votes, evidence=known.evidence, marks=asked.marks,
    )  # fmt: skip


@dataclass(frozen=True)
class _Known:
    """What judgments say."""

    judged: JudgedQueries | None = None
    ids: JudgedIds | None = None
    evidence: Indication | None = None
    grades: Sequence[Grades] | None = None  # of each query

    @classmethod
    def of(cls, log: QueryLog, rankings: Rankings, asked: CompareOptions, held: frozenset[str] | None) -> _Known:
        """Judge the rankings; ``held`` are the ids of the index, None where they were not read."""
        if asked.judgments is None:
            return cls()
        named = asked.judgments.documents
        ids = JudgedIds(len(named), None if held is None else len(named - held))
        grades: list[Grades] = asked.judgments.of(log.queries)
        if held is not None:
            grades = [{doc: grade for doc, grade in right.items() if doc in held} for right in grades]
        if not any(grades):
            theirs, ours = list(asked.judgments.by_query)[:3], [query.id for query in log.queries[:3]]
            raise DataError(
                f"{asked.judgments.name} judges none of these queries with a document of the index: its queries are "
                f"called {', '.join(theirs)}, ours {', '.join(ours)}"
                + ("" if not ids.missing else f"; {ids.missing:,} of its {ids.named:,} documents are not in the index")
            )
        judged = judge_all(rankings, grades, asked.how.k)
        values = [judged.values[arm]["ndcg"] for arm in ("plain", "refined")]
        return cls(judged, ids, Indication("judgments", judged.rows, values[0], values[1], len(log.queries)), grades)


def _both(rankings: Rankings) -> tuple[list[list[str]], list[list[str]]]:
    return rankings.ids("plain"), rankings.ids("refined")


def _tell(progress: Advance, count: int) -> None:
    progress(count, "embed")


def _own(query: SearchQuery, found: Mapping[str, FoundHits]) -> FoundHits:
    return next((found[id_] for id_ in query.ids or (query.id,) if id_ in found), [])


def _embed(reco: Reco, log: QueryLog, progress: Callable[[int], None]) -> tuple[QueryLog, Vectors]:
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
            picture: ImageInput = query.image.read() if isinstance(query.image, RemoteImage) else query.image
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
    reco: Reco, queries: Sequence[SearchQuery], frozen: Vectors, target: Mapping[str, Target], options: RefineOptions
) -> Refinement:
    """Refine B vectors, each by its modality, in their order."""
    parts, order = [], []
    for modality in ("text", "image"):
        rows = [row for row, query in enumerate(queries) if query.modality == modality]
        if rows:
            how: Any = {**options, "target": target[modality], "explain": True}
            parts.append(reco.refine(frozen[rows], modality=modality, **how))
            order += rows
    return parts[0] if len(parts) == 1 else _in_order(parts, np.argsort(order))


def _in_order(parts: Sequence[Refinement], order: QueryRows) -> Refinement:
    """Texts and images as one, in the order of the queries; what only one of them has is left out."""
    vectors, frozen = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("vectors", "frozen"))
    reasons = [reason for part in parts for reason in _reasons(part)]
    return _Mixed(vectors, frozen, reasons=tuple(reasons[row] for row in order.tolist()))


@dataclass(frozen=True)
class _Mixed(Refinement):
    """Texts and images in one, with B reasons."""

    reasons: tuple[str, ...] = ()


def _reasons(refinement: Refinement) -> list[str]:
    """Why each of B queries stays, or how far it moved."""
    if isinstance(refinement, _Mixed):
        return list(refinement.reasons)
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
    return frozenset(one.id for page in index.scan(vectors=False) for one in page.documents)


def _exactness(
    index: Engine, described: Description, vectors: Mapping[str, Vectors], how: SearchHow, rows: QueryRows,
    queries: Sequence[SearchQuery],
) -> tuple[Exactness | None, str]:  # fmt: skip
    if described.index.startswith("none"):
        return None, "the index compares with each vector"
    try:
        return measure_exactness(index, described, vectors, how, rows, [query.where for query in queries]), ""
    except EngineError as error:
        return None, f"not measured: {error}"


def _alarm(reco: Reco, check: IndexCheck) -> str:
    """Why nothing can be trusted; empty where nothing is wrong."""
    if check.said.startswith("ALARM"):
        return check.said.partition(": ")[2]
    calibration = reco.memory.calibration
    if calibration is None:
        return (
            "the memory has learned nothing about its pairs: it is empty or too small, or "
            "`reco memory build --relearn` has to be run"
        )
    return ""


def _times(
    reco: Reco, queries: Sequence[SearchQuery], target: Mapping[str, Target], options: RefineOptions
) -> dict[str, list[float]]:
    """Seconds of embedding one text and of refining its vector."""
    texts = [query.text for query in queries if query.text is not None][:_TIMED]
    took: dict[str, list[float]] = {"embed": [], "refine": []}
    for text in texts:
        begun = time.perf_counter()
        vector = reco.encoder.texts([text])
        embedded = time.perf_counter()
        how: Any = {**options, "target": target["text"]}
        reco.refine(vector, modality="text", **how)
        took["embed"].append(embedded - begun)
        took["refine"].append(time.perf_counter() - embedded)
    return took if texts else {}
