"""Collections that were there before: use their two vectors in place."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from ..errors import MemoryStoreError
from ..types import MODALITIES, Fingerprint
from ..vectors import NORM_TOLERANCE
from .collection import METADATA_KEY, aliased
from .header import Header, check_fingerprint, from_json, to_json
from .layout import LAYOUT_KEY, Layout
from .reading import refuse_missing
from .server import Server

_SAMPLE = 64


@dataclass(frozen=True)
class Attached:
    """A collection that can now be used as a memory.

    Attributes:
        points: how many points it has.
        pairs: how many of them have both vectors.
    """

    points: int
    pairs: int


def attach(server: Server, collection: str, fingerprint: Fingerprint, layout: Layout) -> Attached:
    """Let a collection that another system filled be a memory, in place.

    Written is only its metadata: which encoder made the vectors, how they are named, later the gate's constants.

    Args:
        server: where it is.
        collection: its name, or an alias of it.
        fingerprint: the encoder that made its vectors, which nothing in the collection can prove.
        layout: names of its two vectors.

    Raises:
        FingerprintMismatch: it is attached already, as vectors of another encoder.
        MemoryStoreError: no such collection, one of our own making, a missing vector, another dimension or distance,
            vectors that are not unit-norm, or no point with both vectors.
    """
    place = f"the collection {collection!r} at {server.location!r}"
    with closing(server.connect()) as client:
        run = server.patience.run
        refuse_missing(client, server, collection)
        config = run("attach", lambda _: client.get_collection(collection)).config
        metadata = config.metadata or {}
        calibration: dict[str, Any] = {}
        if METADATA_KEY in metadata:
            if LAYOUT_KEY not in metadata:
                raise MemoryStoreError(f"{place} is a memory already: open it, there is nothing to attach")
            before = from_json(metadata[METADATA_KEY], f"the metadata of {place}")[1]
            check_fingerprint(before.fingerprint, fingerprint, f"{server.location} (collection {collection})")
            calibration = before.calibration
        layout.check(config.params.vectors, fingerprint.dimension, place)
        complete = models.Filter(must=[*layout.complete()])
        pairs = run("attach", lambda _: client.count(collection, complete, exact=True)).count
        if pairs == 0:
            raise MemoryStoreError(
                f"no point of {place} has both {layout.image!r} and {layout.text!r}: nothing to find"
            )
        _refuse_long(client, server, collection, complete, layout)
        points = run("attach", lambda _: client.count(collection, exact=True)).count
        said = {
            METADATA_KEY: to_json("qdrant", Header(fingerprint, calibration)),
            LAYOUT_KEY: layout.to_json(),
        }
        real = run("attach", lambda _: aliased(client, collection)) or collection
        run("attach", lambda _: client.update_collection(real, metadata=said), write=True)
    return Attached(points, pairs)


def _refuse_long(
    client: QdrantClient, server: Server, collection: str, complete: models.Filter, layout: Layout
) -> None:
    """Cosines can be read from dot products of unit vectors only."""
    names = [layout.image, layout.text]
    points, _ = server.patience.run(
        "attach", lambda _: client.scroll(collection, complete, limit=_SAMPLE, with_payload=False, with_vectors=names)
    )
    for modality in MODALITIES:
        vectors: list[Any] = [point.vector for point in points]  # by name, since names were asked for
        stored = np.asarray([by_name[layout.name(modality)] for by_name in vectors], np.float32)
        norms = np.linalg.norm(stored, axis=1)
        worst = int(np.argmax(np.abs(norms - 1)))
        if abs(norms[worst] - 1) > NORM_TOLERANCE:
            raise MemoryStoreError(
                f"point {points[worst].id} of the collection {collection!r} has a vector {layout.name(modality)!r} of "
                f"norm {norms[worst]:.4g}, expected 1: with distance Dot only unit-norm vectors can be used"
            )
