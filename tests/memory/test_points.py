"""Points of both Qdrant libraries as pairs: their names, and their vectors in arrays."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reco_plugin.config import MemoryOptions
from reco_plugin.memory import point_memory
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.memory.points import _NAMESPACE, point_id, to_records, to_sides
from reco_plugin.types import Fingerprint, Records

D = 6


@pytest.mark.parametrize(
    "name", ["", "a", "cat.jpg", "Straße/ünïcode 猫", "x" * 36, "6E0B7F0C-9D55-4B8E-8A4C-0F6B9A6C2A11"]
)
def test_a_pair_has_the_name_that_uuid5_gives_it(name: str) -> None:
    assert point_id(name) == str(uuid.uuid5(_NAMESPACE, name))


def test_many_names_are_those_of_uuid5() -> None:
    names = [f"pair-{row}" for row in range(500)]  # each variant of a UUID among them
    assert [point_id(name) for name in names] == [str(uuid.uuid5(_NAMESPACE, name)) for name in names]


def stored(image: Any, text: Any) -> Any:
    return SimpleNamespace(id="5", payload={"_reco_id": "mine", "n": 1}, vector={"image": image, "text": text})


def test_vectors_are_the_float32_nearest_to_what_is_stored() -> None:
    x = np.random.default_rng(0).standard_normal((4, D))
    points = [stored(x[row].tolist(), (-x[row]).tolist()) for row in range(4)]
    points.append(stored([0, 1, -1, 1e-46, -0.0, 2**24 + 1], [float("nan")] * D))  # a server may send whole numbers
    sides = to_sides(points, D)
    np.testing.assert_array_equal(sides["image"], np.asarray([p.vector["image"] for p in points], np.float32))
    np.testing.assert_array_equal(sides["text"], np.asarray([p.vector["text"] for p in points], np.float32))
    assert sides["image"].dtype == np.float32
    assert to_sides([], D)["text"].shape == (0, D)
    (record,) = to_records(points[:1], D).payloads
    assert record == {"n": 1}


@pytest.mark.parametrize("numbers", [[1.0] * (D - 1), [1.0] * (D + 1), ["a"] * D])
def test_a_vector_of_another_shape_is_refused(numbers: list[Any]) -> None:
    with pytest.raises(ValueError, match="is none of 6 numbers"):
        to_sides([stored([0.0] * D, numbers)], D)


def test_what_is_looked_for_comes_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_memory, "AT_ONCE", 7)
    memory = EdgeMemory.open(str(tmp_path / "memory"), Fingerprint("drawn", "ef" * 32, D), MemoryOptions(), create=True)
    x = np.eye(D, dtype=np.float32)[np.arange(40) % D]
    ids = [f"pair-{row}" for row in range(40)]
    memory.upsert(Records(ids, x, x, [{}] * 40))
    memory.set_witnesses(ids[:11], np.ones((11, 3), np.float32))
    assert sorted(memory.unjudged(100)) == sorted(ids[11:])
    for most in (1, 7, 8, 29):
        assert len(set(memory.unjudged(most)) & set(ids[11:])) == most
    memory.close()
