"""Vectors of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sets.package_set import Entity, PackageSet
from benchmarks.sets.vectors import vectors
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.encode import Encoder
from reco_plugin.quickstart.dataset import BenchPair
from reco_plugin.types import ImageInput, Vectors


class NoEncoder:
    """Encodes nothing: whoever asks it should have read a file."""

    def images(self, images: Sequence[ImageInput]) -> Vectors:
        raise AssertionError("images were encoded again")

    def texts(self, texts: Sequence[str]) -> Vectors:
        raise AssertionError("texts were encoded again")


@pytest.fixture
def toy() -> PackageSet:
    """Three entities; one drawing each in style one and two, and as a query where it is not blue."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    splits = {"red": "fusion", "green": "dev", "blue": "unseen"}
    items, images = [], []
    for name, colour in colours.items():
        for style in ("ask", "one", "two") if name != "blue" else ("one", "two"):
            items.append(BenchPair(name, style, style, f"{name} in {style}", splits[name]))
            images.append(np.full((64, 64, 3), colour, np.uint8))
    entities = [Entity(name, (name, f"very {name}"), (), splits[name]) for name in colours]
    return PackageSet("toy", np.stack(images), items, entities, ("ask",))


@pytest.fixture
def encoder(model: Path) -> Encoder:
    return Encoder(Artifact.load(model), load_settings())


def test_every_vector_is_of_its_own_drawing_and_words(toy: PackageSet, encoder: Encoder, tmp_path: Path) -> None:
    found = vectors(toy, encoder, "0123456789abcdef", tmp_path)
    assert list(found.memory.ids) == ["red/one", "red/two", "green/one", "green/two", "blue/one", "blue/two"]
    assert found.memory_entity.tolist() == [0, 0, 1, 1, 2, 2]
    assert (list(found.queries.ids), found.truth.tolist()) == (["red/ask", "green/ask"], [0, 1])
    assert (found.names, found.splits) == (("red", "green", "blue"), ("fusion", "dev", "unseen"))
    assert found.memory.payloads[3] == {
        "caption": "green in two", "entity": "green", "style": "two", "family": "two", "split": "dev",
    }  # fmt: skip
    assert np.allclose(found.prompts, encoder.texts(["red", "green", "blue"]), atol=1e-5)
    assert np.allclose(found.queries.text, encoder.texts(["red in ask", "green in ask"]), atol=1e-5)
    assert np.allclose(found.memory.image[0], found.queries.image[0], atol=1e-5)  # the same red square
    assert np.abs(found.memory.image[0] - found.memory.image[2]).max() > 0.01


def test_vectors_are_computed_once_and_again_when_anything_differs(
    toy: PackageSet, encoder: Encoder, tmp_path: Path
) -> None:
    first = vectors(toy, encoder, "0123456789abcdef", tmp_path)
    again = vectors(toy, NoEncoder(), "0123456789abcdef", tmp_path)
    assert np.array_equal(first.memory.image, again.memory.image) and np.array_equal(first.prompts, again.prompts)
    renamed = [Entity(e.key, (e.names[1],), (), e.split) for e in toy.entities]
    others = {
        "encoder": (toy, "fedcba9876543210"),
        "pixels": (PackageSet("toy", 255 - toy.images, toy.items, toy.entities, ("ask",)), "0123456789abcdef"),
        "names": (PackageSet("toy", toy.images, toy.items, renamed, ("ask",)), "0123456789abcdef"),
    }
    for data, digest in others.values():
        with pytest.raises(AssertionError, match="encoded again"):
            vectors(data, NoEncoder(), digest, tmp_path)
