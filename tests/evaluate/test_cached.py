"""Frozen vectors that are kept: the same numbers, nothing encoded twice, and files that are whole or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.data import Labelled
from reco_plugin.errors import DataError, InputError
from reco_plugin.evaluate import zero_shot
from reco_plugin.evaluate.encoding import CachingReco, stored_vectors


class Broken:
    """Whoever asks it to encode fails."""

    templates = ("{}",)  # the shipped model's
    changed = None  # as of an encoder that is no API

    def close(self) -> None:
        """Nothing is open."""

    def images(self, images: Sequence[Any], progress: Any) -> np.ndarray:
        raise AssertionError(f"{len(images)} images were encoded again")

    def texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        raise AssertionError(f"{len(texts)} texts were encoded again")


@pytest.fixture
def labelled(drawings: list[Pair], tmp_path: Path) -> Labelled:
    """Drawings as files, classified by colour with two templates."""
    colours = sorted({str(pair.payload["colour"]) for pair in drawings})
    files = [tmp_path / f"{pair.id}.png" for pair in drawings]
    for file, pair in zip(files, drawings, strict=True):
        pair.image.save(file)
    labels = np.array([colours.index(pair.payload["colour"]) for pair in drawings])
    return Labelled("drawings", files, labels, tuple(colours), ("a {} thing", "something {}"))


def test_the_second_run_encodes_nothing_and_says_the_same(filled: Reco, labelled: Labelled, tmp_path: Path) -> None:
    told: list[int] = []
    cached: Any = CachingReco(filled, tmp_path / "cache")
    first = zero_shot(cached, labelled, progress=told.append)
    assert first == zero_shot(filled, labelled)
    filled.encoder = Broken()  # type: ignore[assignment]
    again = zero_shot(cached, labelled, progress=told.append)
    assert again == first
    assert sum(told) == 2 * (24 + 2 * 4)
    kept = sorted((tmp_path / "cache").rglob("*.npy"))
    assert [path.name.partition("-")[0] for path in kept] == ["image", "text", "text"]
    assert {path.parent.name for path in kept} == {filled.manifest.digest[:16]}


def test_a_changed_image_is_encoded_again(filled: Reco, labelled: Labelled, drawings: list[Pair]) -> None:
    cached: Any = CachingReco(filled, labelled.images[0].parent / "cache")
    before = zero_shot(cached, labelled)
    drawings[-1].image.save(labelled.images[0])
    filled_again = zero_shot(cached, labelled)
    assert filled_again == zero_shot(filled, labelled)
    assert filled_again["image"].moved != before["image"].moved


def encode(rows: slice) -> np.ndarray:
    return np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.zeros(3, np.float32)


def test_a_file_is_mapped_and_read_only(tmp_path: Path) -> None:
    vectors = stored_vectors(tmp_path / "deep" / "v.npy", (5, 3), encode)
    assert isinstance(vectors, np.memmap)
    assert vectors[:, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="read-only"):
        vectors[0] = 1


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    stored_vectors(path, (5, 3), encode)
    with pytest.raises(DataError, match=r"holds float32 \(5, 3\), not float32 \(6, 3\): remove it"):
        stored_vectors(path, (6, 3), encode)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cannot be read as stored vectors"):
        stored_vectors(path, (5, 3), encode)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made to keep vectors in"):
        stored_vectors(tmp_path / "file" / "v.npy", (5, 3), encode)


def test_a_text_that_is_none_is_refused_with_a_cache_as_without(filled: Reco, tmp_path: Path) -> None:
    cached = CachingReco(filled, tmp_path / "cache")
    for reco in (filled, cached):
        with pytest.raises(InputError, match="half of a surrogate pair"):
            reco.encoder.texts(["a fox", "a \ud83d"], lambda _: None)
    assert not list((tmp_path / "cache").rglob("*.npy"))
