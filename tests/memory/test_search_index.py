"""The search index beside the embedded memory: recall, exactness, upkeep, failures, and life without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import holes
import numpy as np
import pytest

from reco_plugin.memory import search_index
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Fingerprint, Modality, Neighbours, Records, Search, Vectors

pytest.importorskip("faiss", reason="the environment of another Python has the small set of packages")
from reco_plugin.memory import ann

pytestmark = pytest.mark.slow

D, PAIRS, K = 32, 3000, 10
FINGERPRINT = Fingerprint("drawn", "cd" * 32, D)


def drawn(start: int, stop: int, name: str = "pair") -> Records:
    """Pairs around 40 centres, images and texts apart."""
    centres = np.random.default_rng(0).normal(size=(40, D))
    sides = []
    for seed, cone in ((1, 3.0), (2, -3.0)):
        rng = np.random.default_rng([seed, start])
        side = centres[rng.integers(0, 40, stop - start)] + rng.normal(size=(stop - start, D)) * 0.8
        side[:, 0] += cone
        sides.append((side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32))
    payloads = [{"row": row, "shop": "de" if row % 3 else "fr"} for row in range(start, stop)]
    return Records([f"{name}-{row}" for row in range(start, stop)], sides[0], sides[1], payloads)


QUERIES = drawn(PAIRS, PAIRS + 64)
PAYLOADS = dict(zip(drawn(0, PAIRS).ids, drawn(0, PAIRS).payloads, strict=True))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "LEAST", 1000)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory; tests that write work on copies."""
    folder = tmp_path_factory.mktemp("stored") / "memory"
    with opened(folder) as memory:
        memory.upsert(drawn(0, PAIRS))
    return folder


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return holes.copy_folder(stored, tmp_path / "memory")


@contextmanager
def opened(folder: Path, **options: object) -> Iterator[EdgeMemory]:
    memory = EdgeMemory.open(str(folder), FINGERPRINT, MemoryOptions.model_validate(options), create=True)
    try:
        yield memory
    finally:
        memory.close()


def state(memory: EdgeMemory) -> object:
    return memory.index_state


def in_use(memory: EdgeMemory) -> EdgeMemory:
    """The memory when its index is ready, which its first search begins."""
    near(memory, QUERIES.image[:1])
    end = time.monotonic() + 60
    while state(memory) == "being made":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert state(memory) == "in use"
    return memory


def near(memory: EdgeMemory, vectors: Vectors, by: Modality = "image", k: int = K, **options: object) -> Neighbours:
    return memory.search(Search(vectors, by=by, read="text", k=k, **options))  # type: ignore[arg-type]


def recall(found: Neighbours, truth: Neighbours) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.ids, truth.ids, strict=True)]))


@pytest.mark.parametrize("by", ["image", "text"])
@pytest.mark.parametrize("queries", ["image", "text"])
def test_it_finds_what_a_comparison_with_all_finds(stored: Path, by: Modality, queries: Modality) -> None:
    vectors = QUERIES.side(queries)
    with opened(stored, exact=True) as memory:
        truth = near(memory, vectors, by)
    with opened(stored) as memory:
        found = near(in_use(memory), vectors, by)
    assert recall(found, truth) >= (0.95 if by == queries else 0.9)
    for row, names in enumerate(found.ids):
        places = [truth.ids[row].index(name) if name in truth.ids[row] else None for name in names]
        for here, there in enumerate(places):
            if there is not None:
                assert found.similarity[row, here] == pytest.approx(truth.similarity[row, there], abs=1e-6)
                np.testing.assert_array_equal(found.vectors[row, here], truth.vectors[row, there])


@pytest.mark.parametrize(
    "where",
    [{"shop": "de"}, {"row": {"lt": 1500}}, {"row": [1, 2, 3]}, {"shop": "us"}],
    ids=["most", "half", "few", "none"],
)
def test_conditions_and_exclusions_hold(stored: Path, where: dict[str, object]) -> None:
    with opened(stored, exact=True) as memory:
        first = near(memory, QUERIES.image)
        exclude = [names[:5] for names in first.ids]
        truth = near(memory, QUERIES.image, where=where, exclude=exclude, payloads=True)
    with opened(stored) as memory:
        found = near(in_use(memory), QUERIES.image, where=where, exclude=exclude, payloads=True)
    assert [len(names) for names in found.ids] == [len(names) for names in truth.ids]
    assert all(not set(names) & set(gone) for names, gone in zip(found.ids, exclude, strict=True))
    if any(truth.ids):
        assert recall(found, truth) >= 0.95
    for names, shown in zip(found.ids, found.payloads or [], strict=True):
        assert all(payload == PAYLOADS[name] for name, payload in zip(names, shown, strict=True))


def test_what_is_written_is_found_at_once_and_after_reopening(folder: Path) -> None:
    new, changed = drawn(5000, 5064, "new"), QUERIES.take(list(range(8)))
    changed = Records([f"pair-{row}" for row in range(8)], changed.image, changed.text, changed.payloads)
    old = drawn(0, PAIRS).image[:8]

    def check(memory: EdgeMemory) -> None:
        assert [names[0] for names in near(memory, new.image, k=1).ids[8:]] == new.ids[8:]
        assert [names[0] for names in near(memory, changed.image, k=1).ids] == changed.ids
        assert not {names[0] for names in near(memory, old, k=1).ids} & set(changed.ids)
        assert not {name for names in near(memory, new.image).ids for name in names} & set(new.ids[:8])

    with opened(folder) as memory:
        in_use(memory)
        memory.upsert(new)
        memory.upsert(changed)
        assert memory.delete(new.ids[:8]) == 8
        check(memory)
    with opened(folder) as memory:
        check(in_use(memory))


def test_a_smaller_memory_has_none(tmp_path: Path) -> None:
    with opened(tmp_path / "small") as memory:
        memory.upsert(drawn(0, 900))
        near(memory, QUERIES.image)
        assert not memory.index_state
        memory.upsert(drawn(900, 1001))
        in_use(memory)


def test_it_is_made_while_the_memory_is_searched_and_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path / "memory") as memory:
        memory.upsert(drawn(0, 2000))
        near(memory, QUERIES.image[:1])
        assert state(memory) in ("being made", "in use")
        for start in range(2000, PAIRS, 100):
            memory.upsert(drawn(start, start + 100))
            memory.delete([f"pair-{start}"])
        in_use(memory)
        assert memory.count() == PAIRS - 10
        every = drawn(2900, PAIRS)
        assert [names[0] for names in near(memory, every.image, k=1).ids[1:]] == every.ids[1:]
    assert capfd.readouterr().err == ""


def test_a_memory_that_is_closed_while_it_is_made_stops_it(stored: Path) -> None:
    with opened(stored) as memory:
        near(memory, QUERIES.image[:1])
        assert state(memory) == "being made"
    assert not any(thread.name == "reco-index" for thread in threading.enumerate())


@pytest.mark.parametrize("name", ["build", "nearest"])
def test_where_it_fails_every_pair_is_compared(
    stored: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with opened(stored) as memory:
        monkeypatch.setattr(ann if name == "build" else ann.Built, name, fail)
        some = next(memory.scroll(20))
        while "is compared until" not in caplog.text:
            assert [names[0] for names in near(memory, some.image, k=1).ids] == some.ids
        assert state(memory) == ""


def test_a_memory_works_where_faiss_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index.importlib.util, "find_spec", lambda name: None)
    new = drawn(5000, 5010, "new")
    with opened(folder) as memory:
        memory.upsert(new)
        assert [names[0] for names in near(memory, new.image, k=1).ids] == new.ids
        assert state(memory) == ""
