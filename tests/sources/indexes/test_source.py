"""An index as a source of a memory: built, synced, with vectors of this encoder or of another one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.errors import ConfigError, DataError, EngineError, FingerprintMismatch, InputError
from reco_plugin.ingest.fill import ingest
from reco_plugin.ingest.run_options import IngestOptions
from reco_plugin.sources.reading import open_source, source_name
from reco_plugin.types import Pair

from .conftest import Row, Served, unit

pytestmark = pytest.mark.slow

TABLE = "drawn"


@pytest.fixture
def engine(postgresql: Served) -> Served:
    """What the sources have in common is shown with one engine; the contract is all engines'."""
    return postgresql


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, drawings: list[Pair], model: Path) -> tuple[Path, list[Row]]:
    """A folder of drawings, and documents with their vectors by the shipped model."""
    folder = tmp_path_factory.mktemp("shop")
    for pair in drawings:
        assert isinstance(pair.image, Image.Image)
        pair.image.save(folder / f"{pair.id}.png")
    with Reco.open(model, ":memory:") as reco:
        vectors = reco.encoder.images([pair.image for pair in drawings])
    return folder, [
        Row(pair.id, str(pair.text), f"{pair.id}.png", n / 10, n, vectors[n].tolist())
        for n, pair in enumerate(drawings)
    ]


def address(engine: Served, documents: list[Row], *more: str) -> str:
    """The address of an index of these documents, written anew."""
    assert engine.fill is not None
    return "&".join([engine.fill(TABLE, documents), *more])


@pytest.fixture
def reco(tmp_path: Path, model: Path):
    """The shipped model with an empty memory."""
    with Reco.open(model, tmp_path / "memory", on_memory_failure="fail") as opened:
        yield opened


def run(source: str, reco: Reco, tmp_path: Path, **more):
    """Ingest as `sync` does, deleting what is gone."""
    rows = open_source(source, model=reco.settings.model)
    options = IngestOptions(source=source_name(rows), rejected=tmp_path / "rejected.jsonl")
    return rows, ingest(rows, reco, options, finish=lambda writer: writer.delete_gone(1.0), **more)


def test_vectors_of_this_encoder_are_taken_as_they_are(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    _, outcome = run(address(engine, documents, f"images={folder}"), reco, tmp_path)
    assert (outcome.added, outcome.rejected, outcome.pairs) == (24, 0, 24)
    assert "24 pictures agree (mean cosine 1.000)" in str(outcome.vectors)
    stored = dict(reco.memory.store.payloads())
    assert stored[documents[5].sku]["caption"] == documents[5].title
    assert stored[documents[5].sku]["price"] == documents[5].price
    found = reco.embed_texts(["a large red circle"], coverage=1.0)
    assert found.shape == (1, 128)
    held = next(iter(reco.memory.store.scroll(ids=[documents[5].sku])))
    np.testing.assert_allclose(held.image[0], documents[5].clip, atol=1e-3)


def test_vectors_of_captions_are_taken_where_the_address_says_so(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    texts = reco.encoder.texts([str(row.title) for row in documents])
    of_texts = [replace(row, clip=vector.tolist()) for row, vector in zip(documents, texts, strict=True)]
    with pytest.raises(FingerprintMismatch, match="of=text"):
        run(address(engine, of_texts, f"images={folder}"), reco, tmp_path)
    assert len(reco.memory) == 0
    _, outcome = run(address(engine, of_texts, f"images={folder}", "of=text"), reco, tmp_path)
    assert "24 captions agree (mean cosine 1.000)" in str(outcome.vectors)
    assert outcome.added == 24
    held = next(iter(reco.memory.store.scroll(ids=[documents[5].sku])))
    np.testing.assert_allclose(held.image[0], documents[5].clip, atol=1e-3)  # the picture, encoded


def test_vectors_of_another_encoder_are_refused_or_made_anew(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    drawn = np.random.default_rng(0).normal(size=(24, 128)).astype(np.float32)
    other = [replace(row, clip=vector.tolist()) for row, vector in zip(documents, drawn, strict=True)]
    source = address(engine, other, f"images={folder}")
    with pytest.raises(FingerprintMismatch, match=r"another encoder.*of=neither"):
        run(source, reco, tmp_path)
    _, outcome = run(f"{source}&of=neither", reco, tmp_path)
    assert outcome.added == 24
    held = next(iter(reco.memory.store.scroll(ids=[documents[5].sku])))
    np.testing.assert_allclose(held.image[0], documents[5].clip, atol=1e-3)


def test_vectors_of_another_length_are_refused(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    short = [replace(row, clip=vector.tolist()) for row, vector in zip(documents, unit(24, 1), strict=True)]
    source = address(engine, short, f"images={folder}")
    with pytest.raises(FingerprintMismatch, match=r"16 dimensions, and the model makes 128.*of=neither"):
        open_source(source, model=reco.settings.model)
    assert run(f"{source}&of=neither", reco, tmp_path)[1].added == 24


def test_a_sync_replaces_what_changed_and_deletes_what_is_gone(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    run(address(engine, documents, f"images={folder}"), reco, tmp_path)
    again, before = 0, documents[4].title

    later = [row for row in documents if row is not documents[3]]  # one is gone,
    later = [replace(row, title="a new name", changed=100) if row is documents[4] else row for row in later]
    later.append(replace(documents[0], sku="new", title="a new thing", changed=101))
    _, outcome = run(address(engine, later, f"images={folder}"), reco, tmp_path)
    assert (outcome.added, outcome.replaced, outcome.unchanged, outcome.deleted) == (1, 1, 22, 1)
    stored = dict(reco.memory.store.payloads())
    assert stored[documents[4].sku]["caption"] == "a new name" != before
    assert documents[3].sku not in stored
    _, outcome = run(address(engine, later, f"images={folder}"), reco, tmp_path)
    assert (outcome.unchanged, outcome.replaced, outcome.added, outcome.deleted) == (24, 0, again, 0)


def test_documents_that_lack_something_are_listed(engine: Served, shop, reco: Reco, tmp_path: Path):
    folder, documents = shop
    bad = [*documents[3:], replace(documents[0], title=None), replace(documents[1], clip=None),
           replace(documents[2], clip=None, photo=None)]  # fmt: skip
    _, outcome = run(address(engine, bad, f"images={folder}"), reco, tmp_path)
    assert (outcome.added, outcome.rejected) == (22, 2), "a picture without a vector is encoded"
    listed = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert {row["id"] for row in listed} == {documents[0].sku, documents[2].sku}
    assert {row["reason"] for row in listed} == {
        "it has no caption in 'title'",
        "it has neither a vector nor a picture",
    }


def test_what_the_address_must_say(engine: Served, shop, model: Path):
    _, documents = shop
    source = address(engine, documents)
    with pytest.raises(ConfigError, match=r"which field holds the captions, text=NAME. Its fields: .*title"):
        open_source(re.sub("&text=title", "", source), model=str(model))
    with pytest.raises(InputError, match="of must be 'image'"):
        open_source(f"{source}&of=pictures", model=str(model))
    with pytest.raises(EngineError):
        open_source(source.replace(TABLE, f"{TABLE}s"), model=str(model))


def test_the_commands_take_an_index(engine: Served, shop, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, documents = shop
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECO_MODEL", str(model))
    source = address(engine, documents, f"images={folder}")
    built = CliRunner().invoke(app, ["memory", "build", source, "--memory", "m", "--json"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["added"] == 24
    synced = CliRunner().invoke(app, ["memory", "sync", source, "--memory", "m", "--dry-run"])
    assert "would add 0 pairs, 24 unchanged" in synced.stdout, synced.output
    synced = CliRunner().invoke(app, ["memory", "sync", source, "--memory", "m"])
    assert "added 0 pairs, 24 unchanged; the memory holds 24" in synced.stdout, synced.output


def test_what_begins_no_source_is_refused_without_its_password() -> None:
    with pytest.raises(DataError, match="mysql:// cannot be read as a source") as told:
        open_source("mysql://user:s3cret@db/shop?table=products&text=title")
    assert "s3cret" not in str(told.value)
