"""What training may retrieve: never the answer. These tests fail when a caption can be copied out of the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.types import MODALITIES, Records

pytest.importorskip("torch")
from reco_plugin.export.training_data import gather, hidden_ids

pytestmark = pytest.mark.torch

N, D = 24, 16
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def pairs_of(count: int, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    image, text = unit(rng.normal(size=(count, D))), unit(rng.normal(size=(count, D)))
    return Records([f"p{i}" for i in range(count)], image, text, [{}] * count)


def copies(pairs: Records, cosine: float, prefix: str, times: int = 1) -> Records:
    """Pairs whose images have this cosine with the originals', and whose captions are quite the same."""
    rng = np.random.default_rng(7)
    image = np.repeat(pairs.image, times, axis=0)
    aside = rng.normal(size=image.shape)
    aside = unit(aside - (aside * image).sum(1, keepdims=True) * image)
    ids = [f"{prefix}{n}-{id_}" for id_ in pairs.ids for n in range(times)]
    turned = unit(cosine * image + np.sqrt(1 - cosine**2) * aside)
    return Records(ids, turned, np.repeat(pairs.text, times, axis=0), [{}] * len(ids))


@pytest.fixture(params=["exact", "edge"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memory]:
    """One that holds pairs, a near-duplicate of each, and one that is near but no duplicate."""
    location = ":memory:" if request.param == "exact" else str(tmp_path / "memory")
    opened = open_memory(location, FINGERPRINT)
    pairs = pairs_of(N)
    for records in (pairs, copies(pairs, 0.985, "twin"), copies(pairs, 0.93, "cousin")):
        opened.upsert(records)
    yield opened
    opened.close()


def test_no_query_finds_its_own_pair_a_near_duplicate_or_what_the_caller_hides(memory: Memory) -> None:
    pairs = pairs_of(N)
    also = [{f"p{(i + 1) % N}", "unknown"} for i in range(N)]
    own = hidden_ids(memory, pairs)
    assert own == [{f"p{i}", f"twin0-p{i}"} for i in range(N)]
    hidden = [ids | more for ids, more in zip(own, also, strict=True)]
    data = gather(memory, pairs, 3 * N, hidden=hidden)
    for side in MODALITIES:
        for row, ids in enumerate(data.neighbours[side].ids):
            assert ids and not hidden[row] & set(ids), (side, row)
            assert f"cousin0-p{row}" in ids  # a look-alike stays: it is what retrieval is for
            assert f"p{(row + 2) % N}" in ids


def test_a_crowd_of_near_duplicates_is_hidden_to_the_last() -> None:
    """A shop's stock photographs: more copies than a first look inspects."""
    with closing(open_memory(":memory:", FINGERPRINT)) as memory:
        pairs = pairs_of(3)
        memory.upsert(pairs)
        memory.upsert(copies(pairs, 0.99, "copy", times=50))
        assert [len(ids) for ids in hidden_ids(memory, pairs)] == [51, 51, 51]
        data = gather(memory, pairs, 200)
        for side in MODALITIES:
            for row, ids in enumerate(data.neighbours[side].ids):
                assert not [id_ for id_ in ids if id_.endswith(f"p{row}")]


def test_rows_stay_aligned_over_several_searches() -> None:
    """More pairs than one search takes: row i still reads what query i finds, of the other modality."""
    count = 300
    with closing(open_memory(":memory:", FINGERPRINT)) as memory:
        pairs = pairs_of(count)
        memory.upsert(pairs)
        data = gather(memory, pairs, 3)
        position = {id_: row for row, id_ in enumerate(pairs.ids)}
        for side, read in (("image", pairs.text), ("text", pairs.image)):
            found = data.neighbours[side]  # type: ignore[index]
            query = pairs.image if side == "image" else pairs.text
            scores = query @ query.T
            np.fill_diagonal(scores, -2)
            for row in (0, 255, 256, 299):
                nearest = np.argsort(-scores[row])[:3]
                assert [position[id_] for id_ in found.ids[row]] == nearest.tolist()
                np.testing.assert_allclose(found.vectors_of(np.array([row]))[0], read[nearest], atol=1e-6)
                np.testing.assert_allclose(found.similarity[row], scores[row, nearest], atol=1e-5)
        assert len(data) == count and found.is_present.all()


def test_a_neighbour_that_many_find_is_held_once_and_padding_is_zero() -> None:
    with closing(open_memory(":memory:", FINGERPRINT)) as memory:
        shop = pairs_of(3, seed=1)
        memory.upsert(Records(["a", "b", "c"], shop.image, shop.text, shop.payloads))
        found = gather(memory, pairs_of(N), k=5).neighbours["image"]
        assert found.table.shape == (1 + 3, D) and found.rows.shape == (N, 5)
        assert {id_ for ids in found.ids for id_ in ids} == {"a", "b", "c"}
        vectors = found.vectors_of(np.arange(N))
        assert found.is_present[:, :3].all() and not found.is_present[:, 3:].any() and not vectors[:, 3:].any()
        nearest = (pairs_of(N).image @ shop.image.T).argmax(1)
        np.testing.assert_allclose(vectors[:, 0], shop.text[nearest], atol=1e-6)
