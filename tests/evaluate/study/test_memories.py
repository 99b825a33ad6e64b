"""Memories of a study against the exact one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reco_plugin.calibration.learn import learn
from reco_plugin.evaluate.study import memories as study_memories
from reco_plugin.evaluate.study.memories import ApproximateMemory, Memories, RamMemory, RememberingMemory, ram_memory
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.refine import Refiner
from reco_plugin.types import Neighbours, Records, Search

N, D = 400, 16
FINGERPRINT = Fingerprint("made up", "0", D)
ASK: dict[str, Any] = {"by": "image", "read": "text", "k": 5}


def vectors(count: int, seed: int) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=(count, D))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def exact() -> Memory:
    memory = open_memory(":memory:", FINGERPRINT)
    memory.upsert(Records([f"p{i}" for i in range(N)], vectors(N, 0), vectors(N, 1), [{"n": i} for i in range(N)]))
    return memory


def test_a_memory_that_several_sections_need_is_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Records([f"p{i}" for i in range(60)], vectors(60, 0), vectors(60, 1), [{"n": i} for i in range(60)])
    memories, learned = Memories(), list[int]()

    def counting(store: Memory, k: int, **options: Any) -> Any:
        learned.append(k)
        return learn(store, k, **options)

    monkeypatch.setattr(study_memories, "learn", counting)
    first = memories.of(pairs, FINGERPRINT, 5)
    assert memories.of(pairs.take(np.arange(60)), FINGERPRINT, 5) is first  # the same pairs, read anew
    assert memories.of(pairs, FINGERPRINT, 3) is not first
    assert memories.of(pairs.take(np.arange(59)), FINGERPRINT, 5) is not first
    assert learned == [5, 3, 5]
    monkeypatch.setattr(study_memories, "_KEPT_BYTES", 0)
    last = memories.of(pairs, FINGERPRINT, 4)  # the others are dropped, this one is not
    assert memories.of(pairs, FINGERPRINT, 4) is last
    assert memories.of(pairs, FINGERPRINT, 5) is not first


def same(a: Neighbours, b: Neighbours) -> None:
    assert (a.ids, a.payloads) == (b.ids, b.payloads)
    for name in ("similarity", "vectors", "found"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_remembered_answer_is_the_exact_one_and_is_given_again() -> None:
    memory, queries = RememberingMemory(exact()), vectors(30, 2)
    hidden = [[f"p{i}"] for i in range(30)]
    for more in ({}, {"payloads": True}, {"exclude": hidden}, {"where": {"n": {"lt": 100}}}, {"by": "text"}, {"k": 7}):
        first = memory.search(Search(queries, **ASK | more))
        same(first, exact().search(Search(queries, **ASK | more)))
        assert memory.search(Search(queries.copy(), **ASK | more)) is first
    assert memory.search(Search(queries[:10], **ASK)).ids == exact().search(Search(queries[:10], **ASK)).ids


def test_an_index_of_full_recall_is_exact() -> None:
    queries = vectors(20, 3)
    for more in ({}, {"payloads": True, "exclude": [["p1", "p2"]] * 20}, {"k": 300}):
        found = ApproximateMemory(exact(), 1.0, seed=0).search(Search(queries, **ASK | more))
        same(found, exact().search(Search(queries, **ASK | more)))


@pytest.mark.parametrize("recall", [0.9, 0.5])
def test_an_approximate_index_misses_as_many_as_it_says(recall: float) -> None:
    queries = vectors(800, 4)
    found = ApproximateMemory(exact(), recall, seed=0).search(Search(queries, **ASK))
    truth = exact().search(Search(queries, **ASK))
    hits = [len(set(a) & set(b)) / 5 for a, b in zip(found.ids, truth.ids, strict=True)]
    assert np.mean(hits) == pytest.approx(recall, abs=0.03)  # 4,000 draws: standard error below 0.01
    assert found.found.all()
    assert (np.diff(found.similarity, axis=1) <= 0).all()
    known = dict(zip((f"p{i}" for i in range(N)), vectors(N, 1), strict=True))
    np.testing.assert_array_equal(found.vectors[7, 3], known[found.ids[7][3]])


def test_what_is_missed_depends_on_the_query_alone_and_grows() -> None:
    queries = vectors(50, 5)

    def ids(recall: float, rows: slice = slice(None)) -> list[list[str]]:
        return ApproximateMemory(exact(), recall, seed=0).search(Search(queries[rows], **ASK)).ids

    assert ids(0.5)[20:30] == ids(0.5, slice(20, 30))
    truth = exact().search(Search(queries, **ASK)).ids
    missed = [
        {(row, id_) for row, (a, b) in enumerate(zip(truth, ids(recall), strict=True)) for id_ in set(a) - set(b)}
        for recall in (0.9, 0.5)
    ]
    assert missed[0] < missed[1]


def test_a_memory_in_ram_refines_alike_whatever_k_was_asked_for_before() -> None:
    pairs = Records([f"p{i}" for i in range(100)], vectors(100, 0), vectors(100, 1), [{}] * 100)
    used, queries = ram_memory(pairs, FINGERPRINT), vectors(10, 2)

    def refined(memory: RamMemory, k: int) -> np.ndarray:
        return Refiner(memory.at(k), None, k=k).refine(queries, modality="image").vectors

    first = refined(used, 5)
    refined(used, 10)
    np.testing.assert_array_equal(refined(used, 5), first)
    np.testing.assert_array_equal(refined(ram_memory(pairs, FINGERPRINT), 5), first)
    assert used.plain.calibration is None and used.at(5) is used.at(5)
