"""A catalogue with good and bad rows, and memories of all three embedded kinds to fill."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.ingest.fill import ingest
from reco_plugin.ingest.run_options import IngestOptions
from reco_plugin.ingest.write import Outcome
from reco_plugin.sources import open_rows
from reco_plugin.types import Records

MANY = 250  # of `many`
Catalogue = Callable[..., Path]
Fill = Callable[..., Outcome]


@pytest.fixture
def write_catalogue(tmp_path: Path, drawings: list[Pair]) -> Catalogue:
    """Writes rows ``(id, image, text)`` beside the drawings' images, ``ID.png``; all drawings when told none."""
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for pair in drawings:
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]

    def write(rows: list[tuple[str, str, str]] | None = None, name: str = "catalogue.csv") -> Path:
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "image", "text"])
            writer.writerows(all_rows(drawings) if rows is None else rows)
        return folder / name

    return write


def all_rows(drawings: list[Pair]) -> list[tuple[str, str, str]]:
    """A row per drawing."""
    return [(pair.id, f"{pair.id}.png", str(pair.text)) for pair in drawings]


@pytest.fixture
def shop(tmp_path: Path, model: Path) -> Iterator[Reco]:
    """The shipped model with an empty embedded memory."""
    with Reco.open(model, tmp_path / "memory", on_memory_failure="fail") as reco:
        yield reco


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Ingests a source, seven rows at a time, with its list in ``lists/``."""

    def run(path: Path, reco: Reco, **more: Any) -> Outcome:
        how = {name: more.pop(name) for name in ("finish", "excluded", "dry_run") if name in more}
        rejected = tmp_path / "lists" / "rejected.jsonl"
        told = IngestOptions(**{"batch_size": 7, "max_error_rate": 1.0, "rejected": rejected, **more})
        return ingest(open_rows(path), reco, told, **how)

    return run


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Pairs of vectors with large payloads: 10 MB, of which Edge makes twice as much; too few to fit gates to."""
    rng = np.random.default_rng(0)
    image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in rng.normal(size=(2, MANY, 128)))
    payload = [json.dumps({"note": os.urandom(20_000).hex()}) for _ in range(MANY)]
    np.savez(tmp_path / "many.npz", id=[f"p{n}" for n in range(MANY)], image=image, text=text, payload=payload)
    return tmp_path / "many.npz"


def content(reco: Reco) -> dict[str, tuple[Any, Any, Any]]:
    """Everything in a memory, by id."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    for records in reco.memory.store.scroll():
        found |= {name: row for name, *row in zip(records.ids, records.image, records.text, records.payloads)}  # type: ignore[misc]  # noqa: B905
    return found


def held(place: Path, model: Path) -> dict[str, tuple[Any, Any, Any]]:
    """Everything in the memory of a folder, by id."""
    with Reco.open(model, place, on_memory_failure="fail") as reco:
        return content(reco)


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    """The same ids, payloads and, to rounding, vectors."""
    assert left.keys() == right.keys()
    for name, (image, text, payload) in left.items():
        other = right[name]
        np.testing.assert_allclose(image, other[0], atol=2e-6, err_msg=name)
        np.testing.assert_allclose(text, other[1], atol=2e-6, err_msg=name)
        assert payload == other[2]


class Watched:
    """A memory that remembers the ids that were written and deleted."""

    def __init__(self, reco: Reco) -> None:
        self.written: list[str] = []
        self.deleted: list[str] = []
        self._store = reco.memory.store
        reco.memory.move_to(self)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, records: Records) -> None:
        self.written += records.ids
        self._store.upsert(records)

    def delete(self, ids: Any) -> int:
        self.deleted += ids
        return self._store.delete(ids)
