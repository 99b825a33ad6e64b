"""Any collection of a Qdrant server, ours or not: its description, and how to attach it as a memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from qdrant_client import QdrantClient

from ..errors import MemoryStoreError
from ..types import MODALITIES, Fingerprint
from ..values import NORM_TOLERANCE
from .collection import METADATA_KEY, collection_of_alias, header_of
from .header import Header, check_fingerprint, to_json
from .layout import LAYOUT_KEY, Layout
from .server import Server

_SHOWN = 10
_SAMPLE = 64


@dataclass(frozen=True)
class Described:
    """A collection."""

    name: str  # its own, not an alias
    points: int  # how many it has
    dimensions: Mapping[str, int | None]  # name of each vector, '' for one without a name -> D; None for a multivector
    header: Header | None = None  # None if it is not a memory
    layout: Layout | None = None  # None if it is not a memory

    def known(self) -> str:
        """Names of its vectors, for messages."""
        names = ", ".join(repr(name) for name in sorted(self.dimensions)) or "none"
        return f"{names} ('' has no name)" if "" in self.dimensions else names


def describe(server: Server, collection: str) -> Described:
    """Describe the collection of this name or alias.

    Raises:
        MemoryStoreError: there is none, or its metadata is damaged.
    """
    with closing(server.connect()) as client:
        run = server.patience.run
        _refuse_missing(client, server, collection)
        config = run("read", lambda _: client.get_collection(collection)).config
        points = run("read", lambda left: client.count(collection, exact=True, timeout=left)).count
        name = run("read", lambda _: collection_of_alias(client, collection)) or collection
    found, metadata = config.params.vectors, config.metadata or {}
    named = found if isinstance(found, dict) else {"": found} if found else {}
    sizes = {key: None if each.multivector_config else each.size for key, each in named.items()}
    if METADATA_KEY not in metadata:
        return Described(name, points, sizes)
    place = f"the metadata of collection {collection!r} at {server.location!r}"
    header = header_of(metadata, place)
    return Described(name, points, sizes, header, Layout.from_metadata(metadata, place))


def own_name(server: Server, collection: str) -> str:
    """The collection that an alias points to; the name itself if it is no alias."""
    with closing(server.connect()) as client:
        return server.patience.run("read", lambda _: collection_of_alias(client, collection)) or collection


@dataclass(frozen=True)
class Attached:
    """A collection that can now be used as a memory."""

    points: int  # how many points it has
    pairs: int  # how many of them have both vectors


def attach(server: Server, collection: str, fingerprint: Fingerprint, layout: Layout) -> Attached:
    """Use a collection that another system filled as a memory, in place, by its name or an alias.

    Only its metadata is written: the encoder, which the collection itself cannot prove, and the names of its vectors;
    later what is learned about its pairs (and three numbers into the payload of each pair, if it is writable).

    Raises:
        FingerprintMismatch: it is attached already, with another encoder.
        MemoryStoreError: no such collection, one of our own, a missing vector, another dimension or distance,
            vectors that are not unit-norm, or no point with both vectors.
    """
    place = f"the collection {collection!r} at {server.location!r}"
    with closing(server.connect()) as client:
        run = server.patience.run
        _refuse_missing(client, server, collection)
        config = run("attach", lambda _: client.get_collection(collection)).config
        metadata = config.metadata or {}
        if METADATA_KEY in metadata:
            if LAYOUT_KEY not in metadata:
                raise MemoryStoreError(f"{place} is a memory already: open it, there is nothing to attach")
            before = header_of(metadata, f"the metadata of {place}")
            check_fingerprint(before.fingerprint, fingerprint, f"{server.location} (collection {collection})")
        layout.check(config.params.vectors, fingerprint.dimension, place)
        pairs = run("attach", lambda _: client.count(collection, layout.pairs_only(), exact=True)).count
        if pairs == 0:
            raise MemoryStoreError(
                f"no point of {place} has both {layout.image!r} and {layout.text!r}: nothing to find"
            )
        _refuse_long(client, server, collection, layout)
        points = run("attach", lambda _: client.count(collection, exact=True)).count
        written = {
            METADATA_KEY: to_json("qdrant", Header(fingerprint)),  # what was learned stays, under its own key
            LAYOUT_KEY: layout.to_json(),
        }
        real = run("attach", lambda _: collection_of_alias(client, collection)) or collection
        run("attach", lambda _: client.update_collection(real, metadata=written), write=True)
    return Attached(points, pairs)


def _refuse_missing(client: QdrantClient, server: Server, collection: str) -> None:
    """Refuse a name of no collection and no alias, and tell the names of those that exist."""
    run = server.patience.run
    if not run("read", lambda _: client.collection_exists(collection)):
        names = [each.name for each in run("read", lambda _: client.get_collections()).collections]
        known = ", ".join(repr(name) for name in sorted(names)[:_SHOWN]) or "none"
        raise MemoryStoreError(f"there is no collection {collection!r} at {server.location!r}; there are: {known}")


def _refuse_long(client: QdrantClient, server: Server, collection: str, layout: Layout) -> None:
    """Refuse vectors that are not unit-norm: only of those the dot product is the cosine."""
    asked: Any = {"limit": _SAMPLE, "with_payload": False, "with_vectors": [layout.image, layout.text]}
    points, _ = server.patience.run("attach", lambda _: client.scroll(collection, layout.pairs_only(), **asked))
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
