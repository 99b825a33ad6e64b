"""Memories as sources, row by row: streamed, picklable, without marks and keys; an interrupted run goes on."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_stand_in import Refusal, StandIn, serving

from reco_plugin import Pair, Reco
from reco_plugin.data.rows import Rows
from reco_plugin.errors import DataError, FingerprintMismatch, MemoryStoreError
from reco_plugin.ingest import IngestOptions, ingest
from reco_plugin.ingest import source as source_module
from reco_plugin.ingest.source import open_source
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records

from .conftest import assert_equal, content

pytestmark = pytest.mark.slow

D, COUNT = 128, 60


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_AT_ONCE", 4)


def pairs(count: int = COUNT, dimension: int = D) -> Records:
    made = np.random.default_rng(7).standard_normal((2, count, dimension)).astype(np.float32)
    image, text = made / np.linalg.norm(made, axis=-1, keepdims=True)
    payloads = [{"caption": f"thing {n}", "reco_row": "old", "reco_source": "old.csv", "n": n} for n in range(count)]
    return Records([f"shop/{n}" for n in range(count)], image, text, payloads)


def filled(place: str | Path, model: Path) -> str:
    """A memory of the model with 60 pairs; what it is called as a source."""
    with Reco.open(model, place, on_memory_failure="fail") as reco:
        reco.memory.store.upsert(pairs())
    return str(place)


@pytest.fixture(params=["edge", "grpc"])
def source(request: pytest.FixtureRequest, model: Path, tmp_path: Path, server: StandIn) -> str:
    """A memory of each kind."""
    if request.param == "edge":
        return filled(tmp_path / "old", model)
    filled(server.url("grpc"), model)
    return server.url(request.param)


def test_rows_are_pairs_of_vectors_without_marks(source: str, model: Path) -> None:
    rows = open_source(source, model=str(model))
    assert rows.total == COUNT
    found = {row.id: row for row in rows if isinstance(row, Pair)}
    wanted = pairs()
    assert len(found) == COUNT
    for id_, image, text, payload in zip(wanted.ids, wanted.image, wanted.text, wanted.payloads, strict=True):
        np.testing.assert_allclose(found[id_].image, image, atol=1e-6)
        np.testing.assert_allclose(found[id_].text, text, atol=1e-6)
        assert found[id_].payload == {"caption": payload["caption"], "n": payload["n"]}


def test_parts_can_be_sent_without_the_key(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    (part,) = open_source(source).parts
    packed = pickle.dumps(part)
    assert b"s3cret" not in packed
    assert "s3cret" not in repr(part) + part.name
    monkeypatch.delenv("RECO_MEMORY_API_KEY")
    assert len(list(pickle.loads(packed).read())) == COUNT


def test_a_server_that_fails_in_the_middle_ends_the_run(
    server: StandIn, shop: Reco, model: Path, tmp_path: Path, few_at_once: None
) -> None:
    source, rows = filled(server.url("grpc"), model), []
    with pytest.raises(MemoryStoreError, match="out of luck"):
        for row in open_source(source):
            rows.append(row)
            server.engine.refusals["scroll"] = Refusal(500, "out of luck")
    assert [type(row) for row in rows] == [Pair] * 4  # and no row that says what is not read
    with pytest.raises(MemoryStoreError, match="out of luck"):
        run(open_source(source), shop, tmp_path)


def test_an_interrupted_run_goes_on(source: str, shop: Reco, model: Path, tmp_path: Path) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*_: int) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        run(open_source(source, model=str(model)), shop, tmp_path, progress=interrupt)
    there = len(shop.memory)
    assert 0 < there < COUNT
    outcome = run(open_source(source, model=str(model)), shop, tmp_path)
    assert (outcome.added, outcome.unchanged, outcome.replaced) == (COUNT - there, there, 0)
    with Reco.open(model, tmp_path / "straight", on_memory_failure="fail") as straight:
        run(open_source(source), straight, tmp_path)
        assert_equal(content(straight), content(shop))


def run(rows: Rows, reco: Reco, folder: Path, **more: Any) -> Any:
    options = IngestOptions(batch_size=7, rejected=folder / "rejected.jsonl")
    return ingest(rows, reco, options, **more)


def test_a_version_that_is_put_to_use_meanwhile_changes_nothing(
    server: StandIn, model: Path, tmp_path: Path, few_at_once: None
) -> None:
    old, link = tmp_path / "memory--v1", tmp_path / "memory"
    filled(old, model)
    link.symlink_to(old.name)
    rows = open_source(link)
    link.unlink()
    link.symlink_to("memory--v2")
    assert len(list(rows)) == COUNT
    assert rows.name == str(link)


def test_another_encoder_is_refused_and_none_is_asked_for_where_no_model_is_named(model: Path, tmp_path: Path) -> None:
    other = Fingerprint("other/clip", "ab" * 32, 8)
    with closing(open_memory(tmp_path / "old", other)) as memory:
        memory.upsert(pairs(3, 8))
    with pytest.raises(FingerprintMismatch, match=r"other/clip .*but the model in use is "):
        open_source(tmp_path / "old", model=str(model))
    assert open_source(tmp_path / "old").total == 3


def test_an_empty_memory_is_no_source(model: Path, tmp_path: Path) -> None:
    Reco.open(model, tmp_path / "old").close()
    with pytest.raises(DataError, match="holds no pairs: it is empty"):
        open_source(tmp_path / "old")


def test_what_begins_no_source_is_refused_without_its_password() -> None:
    with pytest.raises(DataError, match=r"mysql:// begins no source that can be read.*postgresql") as told:
        open_source("mysql://user:s3cret@db/shop?table=products&text=title")
    assert "s3cret" not in str(told.value)
