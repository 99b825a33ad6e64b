"""Every layout of the readers' benchmark, with a few pairs: what is written is what is read and what gets stored."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_stand_in import serving

from benchmarks.readers import layouts as written_as
from benchmarks.readers.__main__ import encoded
from benchmarks.readers.catalogue import Entry
from benchmarks.readers.layouts import FIRST, Layout, layouts
from benchmarks.readers.read import built, read, same_vectors
from benchmarks.readers.served import served
from reco_plugin.types import Fingerprint, Records

PAIRS, DIMENSION = 24, 8
MODEL = Path(__file__).resolve().parents[2] / "triton_models"
MADE_UP = Fingerprint("made up", "0" * 64, DIMENSION)
NAMES = list(layouts(Records([], np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32), []), MADE_UP, "", ""))


def entry(place: int) -> Entry:
    pixels = np.random.default_rng(place).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return Entry(f"{place:09d}", out.getvalue(), f'entry "{place}", drawn, größer\ttoo', f"style {place % 3}")


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return [entry(place) for place in range(PAIRS)]


@pytest.fixture(scope="module")
def vectors(entries) -> Records:
    image, text = np.random.default_rng(0).normal(size=(2, PAIRS, DIMENSION)).astype(np.float32)
    image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text))
    payloads = [{"caption": entry.caption, "style": entry.style} for entry in entries]
    return Records([entry.key for entry in entries], image, text, payloads)


@pytest.fixture(scope="module")
def qdrant():
    """URL of a stand-in for a server."""
    with serving() as server:
        yield server.url("http")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(written_as, "PER_SHARD", 10)


@pytest.fixture
def source(request, tmp_path, entries, vectors, small_shards, qdrant):
    """A layout and what is given to its reader."""
    (tmp_path / "images").mkdir()
    layouts(vectors, MADE_UP, "", "")[FIRST].write(tmp_path / "images", entries)
    with served(tmp_path / "images") as url:
        layout = layouts(vectors, MADE_UP, url, qdrant)[request.param]
        (tmp_path / "layout").mkdir()
        yield layout, str(layout.write(tmp_path / "layout", entries))


@pytest.mark.parametrize("source", NAMES, indirect=True)
def test_what_is_written_is_read(source: tuple[Layout, str], entries, vectors) -> None:
    layout, path = source
    reading = read(path, layout, entries, vectors)
    assert reading.equal and reading.pairs == PAIRS
    assert reading.rejected == 3 * layout.rejected  # shards


@pytest.mark.parametrize("source", [FIRST, "`.npz` of vectors"], indirect=True)
def test_what_differs_is_noticed(source: tuple[Layout, str], entries, vectors) -> None:
    layout, path = source
    fewer = Records(vectors.ids[1:], vectors.image[1:], vectors.text[1:], vectors.payloads[1:])
    assert not read(path, layout, entries[1:], fewer).equal
    assert not read(path, replace(layout, id=lambda entry: entry.key + "x"), entries, vectors).equal
    others = [replace(entries[0], caption="other"), *entries[1:]]
    turned = replace(vectors, text=np.roll(vectors.text, 1, axis=0))
    assert not read(path, layout, others if layout.images else entries, turned).equal


@pytest.mark.parametrize("source", ["`.parquet` of bytes", "`.csv` of URLs"], indirect=True)
def test_a_memory_holds_the_same_vectors(source: tuple[Layout, str], entries, tmp_path) -> None:
    layout, path = source
    expected = encoded(entries, MODEL, tmp_path)
    made = built(path, tmp_path, MODEL)
    found = made.vectors
    assert (made.outcome.added, made.outcome.rejected) == (PAIRS, 0)
    assert same_vectors(found, layout, entries, expected)
    assert not same_vectors(found, layout, entries, replace(expected, text=np.roll(expected.text, 1, axis=0)))
    found.popitem()
    assert not same_vectors(found, layout, entries, expected)
