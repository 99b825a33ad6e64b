"""A cut-off with a promise for an index that exists: a memory's pairs ask it, each hidden from its own refinement.

The right answer of a pair is the document with its id, or any with its value of a field. What the index gives is
compared by its metric: a cosine, a dot product, or minus a distance; refined queries' cosines and dot
products on the scale of plain ones, as an application has them by ``Refinement.plain_scores``. Where too few pairs are
not in the index to stand for queries without an answer, others ask as if their answer were not there: one more result
is asked for, and their own is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .calibration.cutoff import FirstAnswers, Promise, fewest, find_cutoff
from .calibration.learn import WhoAsk, who_ask
from .calibration.match import ABSENT, FEWEST_THINGS, KINDS, LOOKED, WAYS, QueryWay, QuestionKind, check_promise
from .calibration.questions import HIDDEN, find_things, number_names
from .engines import Description, Engine, Question
from .engines.base import Similarity
from .errors import InputError, VectorError
from .match import PRECISION
from .memory import Memory
from .types import MODALITIES, Modality, Vectors
from .values import check_choice, show

ASKED = 600
"""Things that ask at most; each searches the index two or three times."""
IndexPassesBy: TypeAlias = Literal["score", "lead"]
TellsStep: TypeAlias = Callable[[str, int, int], object]
"""Is told a part of the work, how much more of it is done, and how much it is in all."""
INDEX_BY: tuple[IndexPassesBy, ...] = get_args(IndexPassesBy)
SCORES: Mapping[Similarity, str] = {
    "cosine": "cosines; of refined queries on the scale of plain ones",
    "dot": "dot products; of refined queries on the scale of plain ones",
    "euclid": "minus the distance, not squared; of refined queries as they are",
}
"""What is compared with a cut-off, by the engine's metric."""
_CHOSEN = 0.2  # of the questions choose what is tested; the others test it
_OWN = 100  # documents of a thing that asks, at most: so many more results are asked for to leave them out
_TIE = 1e-6  # of scores
_ITSELF = 5e-4  # of a cosine of 1: the document is what asks
_BLOCK = 128
_Rows = npt.NDArray[np.intp]
_Promised = tuple[dict[QueryWay, dict[IndexPassesBy, Promise | None]], dict[QueryWay, str]]  # cut-offs, and why not
_Two = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]  # scores (n, 2) of the first two; which firsts are right


def _tell_nobody(what: str, more: int, total: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True)
class IndexCutoffs:
    """What can be promised of the first answers of an index.

    Attributes:
        index: as its engine describes it.
        modality: of the queries.
        precision, absent: what is promised, and up to which share of queries without an answer.
        pairs: of the memory.
        common: of these, how many have a document in the index.
        asked: things that asked, one question each.
        outside: of these, how many have no document in the index.
        left_out: of these, how many have one, which was left out of the results.
        found: of those with an answer, how often it was first, by kind of question.
        of: by way and by what passes: ``score`` of the first answer; its ``lead`` over the second. None: none can be
            promised.
        why: by way, what stands against a promise, and what to do; empty where nothing does.
    """

    index: Description
    modality: Modality
    precision: float
    absent: float
    pairs: int
    common: int
    asked: int
    outside: int
    left_out: int
    found: Mapping[QuestionKind, float]
    of: Mapping[QueryWay, Mapping[IndexPassesBy, Promise | None]]
    why: Mapping[QueryWay, str]

    def cutoff(self, way: QueryWay = "refined", by: IndexPassesBy = "score") -> float | None:
        """One number, in scores of :class:`~reco_plugin.engines.IndexHit`: what passes is promised; None: nothing is.

        Raises:
            InputError: another word.
        """
        check_choice("way", way, WAYS)
        check_choice("by", by, INDEX_BY)
        promise = self.of[way][by]
        return None if promise is None else promise.cut


@dataclass(frozen=True)
class _Asks:
    """Who asks: n pairs, one a thing.

    Attributes:
        rows: (n,) of the pairs.
        gone: (n,) whether the right answer counts as missing.
        own: n collections of the ids of the right documents; empty: it has none.
    """

    rows: _Rows
    gone: npt.NDArray[np.bool_]
    own: Sequence[Collection[str]]


@dataclass(frozen=True)
class _First:
    """First answers of one kind of questions: n of them.

    Attributes:
        score, lead: (n,) of the first answer, and how far it leads the second.
        right: (n,) whether it is right.
        itself: (n,) whether it is the very vector that asked.
        here: (n,) places of the questions among all that ask.
    """

    score: npt.NDArray[np.float64]
    lead: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    itself: npt.NDArray[np.bool_]
    here: _Rows


def ask_index(
    store: Memory,
    index: Engine,
    *,
    modality: Modality = "text",
    precision: float = PRECISION,
    absent: float = ABSENT,
    group: str = "",
    progress: TellsStep = _tell_nobody,
) -> IndexCutoffs:
    """Ask an index with a memory's pairs, and find cut-offs that hold there; both are only read.

    Args:
        store: a memory that was calibrated.
        index: that holds the other modality, as :func:`reco_plugin.engines.open_index` opens it. All of its ids are
            read once, then it is searched at most 1,800 times.
        modality: of the queries.
        precision: share of right ones that is promised of the first answers that pass, from .5 to below 1.
        absent: up to which share of the queries may have no right answer in the index.
        group: field that names a pair's thing, in the memory's payloads and in the index's: a document of the same
            value is right. An index without the field has it by the memory's pair of the same id, or has the values
            as its ids. Empty: the document with the pair's id is right.
        progress: is told the part of the work, how much more of it is done, and how much it is; it may raise.

    Raises:
        InputError: a share that cannot be, or no pair has the field.
        VectorError: the index's vectors have another dimension than the memory's.
        ConfigError: the memory is not calibrated.
        EngineError: the index refuses, or there is none.
    """
    check_promise(precision, absent)
    check_choice("modality", modality, MODALITIES)
    described = index.describe()
    if described.dimension != (dimension := store.header.fingerprint.dimension):
        raise VectorError(
            f"the vectors of {described.name!r} have {described.dimension} dimensions, the memory's {dimension}: they "
            "are of another encoder"
        )
    pairs = store.count()
    asking = who_ask(store, group, lambda more: progress("read the memory", more, pairs))
    names = asking.pairs.ids if asking.groups is None else asking.groups
    read = partial(_read_ids, index, asking.pairs.ids, names, group)
    documents, example = read(lambda more: progress("read the index", more, described.documents))
    common = sum(name in documents for name in names)
    thing = find_things(asking.pairs.text) if asking.groups is None else number_names(names)
    asks, inside = _draw(thing, names, documents, absent)
    numbers = len(thing), common, len(asks.rows), *_count_gone(asks)
    if inside < FEWEST_THINGS:
        why, numbers = _too_few(asking, inside, common, example, group), (*numbers[:2], 0, 0, 0)
        return IndexCutoffs(described, modality, precision, absent, *numbers, {}, *_nothing(why))
    firsts = {kind: one for kind, one in _ask(index, described, asking, modality, thing, asks, progress) if one}
    there = {kind: ~asks.gone[one.here] for kind, one in firsts.items()}
    found = {kind: float(firsts[kind].right[some].mean()) for kind, some in there.items() if some.any()}
    promised = _promise(firsts, asks, precision)
    if _finds_itself(firsts["plain"], asks):
        promised = _nothing(
            f"most pairs found their own {modality}s, with a cosine of 1: the index holds {modality}s, and queries of "
            "the other modality are compared with these"
        )
    return IndexCutoffs(described, modality, precision, absent, *numbers, found, *promised)


def _nothing(why: str) -> _Promised:
    """No cut-off, either way."""
    return {way: dict.fromkeys(INDEX_BY) for way in WAYS}, dict.fromkeys(WAYS, why)


def _read_ids(
    index: Engine, ids: Sequence[str], names: Sequence[str], group: str, progress: Callable[[int], object]
) -> tuple[dict[str, set[str]], str]:
    """The ids of the documents of each name that has any; and the first id of the index, to show."""
    name_of, known, example = dict(zip(ids, names, strict=True)), set(names), ""
    documents: dict[str, set[str]] = {}
    for page in index.scan(vectors=False):
        progress(len(page.documents))
        for document in page.documents:
            example = example or document.id
            value = document.payload.get(group) if group else None
            name = str(value) if value is not None else name_of.get(document.id, document.id)
            if name in known and document.id:
                documents.setdefault(name, set()).add(document.id)
    return documents, example


def _draw(
    thing: _Rows, names: Sequence[str], documents: Mapping[str, Collection[str]], absent: float
) -> tuple[_Asks, int]:
    """One pair a thing, so that a share of them has no answer: first those that have none; how many things have one."""
    rng = np.random.default_rng(0)
    counts = np.bincount(thing)
    own = [documents.get(name, ()) for name in names]
    order = rng.permutation(len(thing))
    order = order[np.argsort([not own[row] for row in order.tolist()], kind="stable")]  # those with an answer first
    one = order[np.unique(thing[order], return_index=True)[1]]
    one = rng.permutation(one[counts[thing[one]] <= HIDDEN])
    inside = [int(row) for row in one if 0 < len(own[row]) <= _OWN]
    outside = [int(row) for row in one if not own[row]]
    many, rows, gone = len(inside), list[int](), list[bool]()
    for missing in (rng.random(ASKED) < absent).tolist():
        pool = outside if missing and outside else inside
        if not pool:
            break
        rows.append(pool.pop())
        gone.append(missing)
    return _Asks(np.asarray(rows, np.intp), np.asarray(gone, np.bool_), [own[row] for row in rows]), many


def _count_gone(asks: _Asks) -> tuple[int, int]:
    """How many that ask have no document, and how many have one that is left out."""
    has = np.asarray([bool(own) for own in asks.own], np.bool_)
    return int((~has).sum()), int((has & asks.gone).sum())


def _too_few(asking: WhoAsk, inside: int, common: int, example: str, group: str) -> str:
    pairs = asking.pairs
    told = (
        f"too few in common: the index holds {common:,} of the memory's {len(pairs):,} pairs, of {inside:,} things, "
        f"and {FEWEST_THINGS} must ask"
    )
    if not example:
        return f"{told}. The index is empty"
    by = f"values of {group!r}" if group else "ids"
    mine = (asking.groups or pairs.ids)[0]
    return (
        f"{told}. The memory's {by} are like {show(mine)}, the index's ids like {show(example)}: name the field of the "
        "index that holds the memory's with id=FIELD in the address, or a field that both have (group)"
    )


def _ask(
    index: Engine,
    described: Description,
    asking: WhoAsk,
    modality: Modality,
    thing: _Rows,
    asks: _Asks,
    progress: TellsStep,
) -> Iterator[tuple[QuestionKind, _First | None]]:
    """First answers of each kind; None where no thing can ask it."""
    vectors, ids = asking.pairs.side(modality)[asks.rows], asking.pairs.ids
    linear = described.metric != "euclid"
    members: dict[int, list[str]] = {one: [] for one in thing[asks.rows].tolist()}
    for row, one in enumerate(thing.tolist()):
        if one in members:
            members[one].append(ids[row])
    same = [members[one] for one in thing[asks.rows].tolist()]
    everyone = np.arange(len(asks.rows), dtype=np.intp)
    several = np.asarray([row for row in everyone if len(same[row]) > 1], np.intp)
    kinds: dict[QuestionKind, _Rows] = {"plain": everyone, "known": several, "unknown": everyone}
    questions = sum(len(here) for here in kinds.values() if len(here) >= FEWEST_THINGS)
    for kind, here in kinds.items():
        if len(here) < FEWEST_THINGS:
            yield kind, None
            continue
        parts = list[_Two]()
        for some in np.split(here, range(_BLOCK, len(here), _BLOCK)):
            if kind == "plain":
                parts.append(_search(index, vectors[some], some, asks))
                progress("ask the index", len(some), questions)
                continue
            hidden = [[ids[asks.rows[row]]] if kind == "known" else same[row] for row in some.tolist()]
            refined = asking.refine(vectors[some], modality, hidden)
            two, right = _search(index, refined.vectors, some, asks)
            parts.append((refined.plain_scores(two) if linear else two, right))
            progress("ask the index", len(some), questions)
        yield kind, _first(parts, here, linear)


def _search(index: Engine, queries: Vectors, here: _Rows, asks: _Asks) -> _Two:
    """The first two scores (n, 2) of each, NaN where there is none, and whether the first is right (n,)."""
    two, right = np.full((len(here), 2), np.nan, np.float32), np.zeros(len(here), np.bool_)
    for place, row in enumerate(here.tolist()):
        own, gone = asks.own[row], bool(asks.gone[row])
        hits = index.search(Question(queries[place], k=LOOKED + (len(own) if gone else 0)))  # as applications ask
        hits = [hit for hit in hits if not (gone and hit.id in own)][:2]
        two[place, : len(hits)] = [hit.score for hit in hits]
        rival = any(hit.id not in own and hit.score >= hits[0].score - _TIE for hit in hits)  # of equal ones, luck
        right[place] = bool(hits) and not rival
    return two, right


def _first(parts: Sequence[_Two], here: _Rows, linear: bool) -> _First:
    two = np.concatenate([scores for scores, _ in parts]).astype(np.float64)
    two[~np.isfinite(two)] = np.nan
    right = np.concatenate([one for _, one in parts])
    score, lead = two[:, 0], np.where(np.isnan(two[:, 1]), 0.0, two[:, 0] - two[:, 1])
    empty = np.isnan(score)
    if empty.all():
        raise InputError("the index found nothing for any query: are its vectors empty, or not loaded?")
    itself = np.abs(score - 1.0) < _ITSELF if linear else score > -np.sqrt(2.0 * _ITSELF)
    lowest = score[~empty].min() - 1.0  # where nothing is found, nothing passes
    return _First(np.where(empty, lowest, score), np.where(empty, -1.0, lead), right, itself & ~empty, here)


def _finds_itself(plain: _First, asks: _Asks) -> bool:
    """Whether most right answers are the very vectors that asked."""
    right = plain.right & ~asks.gone[plain.here]
    return bool(right.any() and plain.itself[right].mean() > 0.5)


def _promise(firsts: Mapping[QuestionKind, _First], asks: _Asks, precision: float) -> _Promised:
    """Cut-offs by Learn then Test, see :mod:`reco_plugin.calibration.cutoff`, and why there are none."""
    chosen = np.random.default_rng(1).random(len(asks.rows)) < _CHOSEN
    promises: dict[QueryWay, dict[IndexPassesBy, Promise | None]] = {}
    whys: dict[QueryWay, str] = {}
    for way in WAYS:
        kinds = [firsts[kind] for kind in KINDS[way] if kind in firsts]
        promises[way] = {}
        for by in INDEX_BY:
            choose, test = (
                [
                    FirstAnswers(one.score[part] if by == "score" else one.lead[part], one.right[part])
                    for one in kinds
                    for part in [chosen[one.here] == which]
                ]
                for which in (True, False)
            )
            promises[way][by] = find_cutoff(choose, test, precision)
        if not any(promises[way].values()):
            tested = min(int((~chosen[one.here]).sum()) for one in kinds)
            whys[way] = (
                f"none holds {precision:.0%} for sure with {tested:,} questions, of which {fewest(precision)} or more "
                "must pass with hardly a wrong one. Ask for less (precision), say that fewer queries have no answer "
                "(absent), or name the things (group)"
            )
        elif len(kinds) < len(KINDS[way]):
            whys[way] = (
                "not promised for things that the memory has: too few have a second pair, by which refined queries for "
                "them could be asked. Add second pairs, or use plain scores"
            )
        else:
            whys[way] = ""
    return promises, whys
