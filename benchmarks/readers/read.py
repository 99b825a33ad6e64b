"""Read a layout, or build a memory from it, and compare what came out with the catalogue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.data.images import RemoteImage
from reco_plugin.data.rows import Rejected
from reco_plugin.ingest import IngestOptions, Outcome, ingest
from reco_plugin.ingest.source import open_source
from reco_plugin.reco import Reco
from reco_plugin.types import Pair, Records

from .catalogue import Entry
from .layouts import Layout

NEAR = 1e-5
"""Of two vectors' components: a batch of another size rounds otherwise."""


@dataclass(frozen=True)
class Reading:
    """What a reader gave.

    Attributes:
        pairs: how many.
        rejected: rows that it listed.
        seconds: bytes of the images included, not decoded.
        cpu_s: of them, those that processors worked for this process.
        equal: ids, and images and texts, or vectors, are the catalogue's.
    """

    pairs: int
    rejected: int
    seconds: float
    cpu_s: float
    equal: bool


def read(source: str, layout: Layout, entries: Sequence[Entry], vectors: Records) -> Reading:
    """Read all rows of a layout, and compare."""
    begun, worked = time.perf_counter(), time.process_time()
    rows = list(open_source(source))
    pairs = {row.id: _content(row) for row in rows if isinstance(row, Pair)}
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - worked
    expected: dict[str, Any] = (
        {layout.id(entry): (entry.image, entry.caption) for entry in entries}
        if layout.images
        else {layout.id(e): sides for e, *sides in zip(entries, vectors.image, vectors.text, strict=True)}
    )
    rejected = sum(isinstance(row, Rejected) for row in rows)
    equal = pairs.keys() == expected.keys() and all(_same(pairs[id_], expected[id_]) for id_ in expected)
    return Reading(len(pairs), rejected, seconds, cpu_s, equal)


def _content(pair: Pair) -> tuple[Any, Any]:
    image: Any = pair.image
    match image:
        case Path():
            image = image.read_bytes()
        case RemoteImage():
            image = image.read()
    return image, pair.text


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(
        np.allclose(a, b, atol=NEAR) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True)
    )


@dataclass(frozen=True)
class Built:
    """A memory that was built from a layout.

    Attributes:
        outcome: of the run.
        cpu_s: that processors worked for it.
        vectors: (2, D) of each pair, by id.
    """

    outcome: Outcome
    cpu_s: float
    vectors: dict[str, npt.NDArray[np.float32]]


def built(source: str, folder: Path, model: Path) -> Built:
    """Build a memory from a layout."""
    with Reco.open(model, memory=folder / "memory", memory_kind="edge") as reco:
        worked = time.process_time()
        outcome = ingest(open_source(source), reco, IngestOptions(rejected=folder / "rejected.jsonl"))
        cpu_s = time.process_time() - worked
        found = Records.join(list(reco.memory.store.scroll()), reco.encoder.dimension)
    sides = zip(found.image, found.text, strict=True)
    vectors = {id_: np.stack(both) for id_, both in zip(found.ids, sides, strict=True)}
    return Built(outcome, cpu_s, vectors)


def same_vectors(
    found: Mapping[str, npt.NDArray[np.float32]], layout: Layout, entries: Sequence[Entry], vectors: Records
) -> bool:
    """Whether a memory holds just the catalogue's pairs, with its vectors."""
    expected = {layout.id(entry): row for row, entry in enumerate(entries)}
    return found.keys() == expected.keys() and all(
        np.allclose(found[id_], (vectors.image[row], vectors.text[row]), atol=NEAR) for id_, row in expected.items()
    )
