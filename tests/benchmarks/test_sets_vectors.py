"""Vectors of a data set, and the first look at them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sets import __main__ as command
from benchmarks.sets.first_look import HEAD, first_look, sheet
from benchmarks.sets.package_set import Entity, PackageSet
from benchmarks.sets.vectors import VectorSet, vectors
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.encode import Encoder
from reco_plugin.quickstart.dataset import BenchPair
from reco_plugin.types import ImageInput, Records, Vectors


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


def test_arrays_hold_all_of_it_without_objects(toy: PackageSet, encoder: Encoder, tmp_path: Path) -> None:
    arrays = vectors(toy, encoder, "0", tmp_path).arrays()
    np.savez(tmp_path / "all.npz", **arrays)
    with np.load(tmp_path / "all.npz", allow_pickle=False) as stored:
        assert {name: len(stored[name]) for name in stored.files} == {
            **dict.fromkeys(["names", "split", "prompts"], 3),
            **{f"mem_{name}": 6 for name in ("id", "image", "text", "entity", "caption", "style", "family")},
            **{f"query_{name}": 2 for name in ("id", "image", "text", "entity", "caption", "style", "family")},
        }
        assert stored["query_caption"].tolist() == ["red in ask", "green in ask"]


def unit(*degrees: float) -> Vectors:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_first_look_counts_what_one_can_count_by_hand() -> None:
    """Two unseen classes at 0 and 90 degrees; the fusion class at 10 competes in the memory, not among the names."""
    memory = Records(["a", "b", "c"], unit(0, 90, 10), unit(0, 20, 90), [{}] * 3)
    queries = Records(["p", "q", "r"], unit(2, 8, 80), unit(0, 0, 90), [{}] * 3)
    data = VectorSet(
        name="toy",
        memory=memory,
        memory_entity=np.array([0, 1, 2]),
        queries=queries,
        truth=np.array([0, 0, 1]),
        prompts=unit(0, 70, 5),
        names=("x", "y", "z"),
        splits=("unseen", "unseen", "fusion"),
    )
    look = first_look(data)
    assert (look.queries, look.labels) == (3, 2)
    assert look.top1 == look.top5 == 1.0
    assert look.image_hit1 == pytest.approx(2 / 3)  # 8 degrees is nearer to 10 than to 0
    assert look.image_hit5 == 1.0
    assert look.text_hit1 == 0.5  # 70 degrees is nearer to 90, of the fusion class, than to 20
    assert look.across_hit5 == 1.0
    assert len(look.line("unseen")) == len(HEAD)


def test_the_sheet_has_an_entity_a_column_and_query_styles_on_top(toy: PackageSet) -> None:
    pixels = np.asarray(sheet(toy))
    assert pixels.shape == (3 * 66, 3 * 66, 3)
    columns = [tuple(pixels[66 + 32, 66 * place + 32]) for place in range(3)]
    assert set(columns) == {(255, 0, 0), (0, 255, 0), (0, 0, 255)}
    blue = columns.index((0, 0, 255))
    assert tuple(pixels[32, 66 * blue + 32]) not in columns  # it has no query
    assert all(tuple(pixels[32, 66 * place + 32]) == columns[place] for place in range(3) if place != blue)


def test_an_unknown_data_set_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sets", "flgs"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no data set is called flgs: choose from flags, logos, glyphs" in capsys.readouterr().err
