"""Points of both Qdrant libraries as pairs: their names, and their vectors in arrays."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reco_plugin.memory.points import _NAMESPACE, point_id, to_records, to_sides

D = 6


def test_a_pair_has_the_name_that_uuid5_gives_it() -> None:
    names = ["", "a", "Straße/ünïcode 猫", "x" * 36, "6E0B7F0C-9D55-4B8E-8A4C-0F6B9A6C2A11"]
    names += [f"pair-{row}" for row in range(500)]  # each variant of a UUID among them
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
    assert to_sides([], D)["text"].shape == (0, D)
    assert to_records(points[:1], D).payloads == [{"n": 1}]


@pytest.mark.parametrize("numbers", [[1.0] * (D - 1), [1.0] * (D + 1), ["a"] * D])
def test_a_vector_of_another_shape_is_refused(numbers: list[Any]) -> None:
    with pytest.raises(ValueError, match="has no vector of 6 numbers"):
        to_sides([stored([0.0] * D, numbers)], D)
