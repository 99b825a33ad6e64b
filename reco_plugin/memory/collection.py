"""A Qdrant collection as a memory: made, checked, used through an alias, with what was learned, and the opinions.

That is one reserved point, without vectors. Its payload holds what was learned, the note of who learns, and each word
of people under a key of its own, so that two writers do not overwrite each other. ``stamp`` changes with each write:
one small request shows whether anything is new.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from ..errors import ConfigError, MemoryStoreError, MemoryUnavailable
from ..settings import MemoryOptions
from ..types import MODALITIES, Fingerprint
from .connection import Server, read_fault
from .filters import quoted
from .header import (
    Header,
    check_fingerprint,
    damage_of,
    mark_of,
    new_header,
    read_mark,
)
from .points import WORDS
from .versions import version_name, version_number

METADATA_KEY = "reco"
"""Key of version and encoder in a collection's metadata."""
BUILD_KEY = "reco_build"
"""Key of whether a version is finished."""
STATE_ID = "5d0b9a8e-7b64-5c1f-8f5e-3a1d6c2e9b47"
"""Id of the reserved point."""
PAIRS = models.Filter(must_not=[models.HasIdCondition(has_id=[STATE_ID])])
"""All points but that."""
_LEARNED, _STAMP, _SAID = "learned", "stamp", "said_"
_ALIAS_S = 5.0


def open_served(
    client: QdrantClient, server: Server, name: str, fingerprint: Fingerprint | None, *, create: bool
) -> None:
    """Check the collection of a server; if there is none, a first version and its alias are created."""
    location = server.location
    if not server.run("open", lambda _: client.collection_exists(name)):
        if not create:
            server.run("open", lambda _: _refuse_unused(client, name, location))
        made_by = new_header(fingerprint, f"{location} (collection {name})", create=create).fingerprint
        server.run("create", lambda _: _make_first(client, name, location, made_by, server.options), write=True)
    server.run("open", lambda _: read_collection(client, name, location, fingerprint))
    server.run("open", lambda _: index_tenants(client, name, server.options))


def make_collection(
    client: QdrantClient, name: str, fingerprint: Fingerprint, options: MemoryOptions, **metadata: dict[str, Any]
) -> None:
    """Create an empty collection of an encoder's vectors."""
    metadata = {METADATA_KEY: mark_of(fingerprint), **metadata}
    client.create_collection(name, **_creation(fingerprint.dimension, options, metadata))
    make_state(client, name)
    index_tenants(client, name, options)


def index_tenants(client: QdrantClient, name: str, options: MemoryOptions) -> None:
    """Index the tenants' field of a collection, unless it is, so that Qdrant keeps each tenant's pairs together."""
    if options.tenant_field is not None:
        keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        try:
            client.create_payload_index(name, quoted(options.tenant_field), keyword, wait=True)
        except Exception as error:
            if read_fault(error).kind != "key":  # who may write makes it
                raise


def read_collection(client: QdrantClient, name: str, location: str, fingerprint: Fingerprint | None) -> Fingerprint:
    """The encoder of an existing collection.

    Raises:
        FingerprintMismatch: another encoder than the expected one.
        MemoryStoreError: it is not a memory.
    """
    metadata, place = client.get_collection(name).config.metadata or {}, f"collection {name!r} at {location!r}"
    if METADATA_KEY not in metadata:
        raise MemoryStoreError(
            f"the {place} is no memory of ours: its metadata has no {METADATA_KEY!r}. Choose another name, or "
            f"build a memory from it: reco memory build '{location}?collection={name}&vector=NAME&text=KEY'"
        )
    made_by = read_mark(metadata[METADATA_KEY], f"the metadata of {place}")
    check_fingerprint(made_by, fingerprint, location)
    return made_by


def version_numbers(client: QdrantClient, alias: str) -> list[int]:
    """Numbers of all versions of an alias, smallest first."""
    names = (each.name for each in client.get_collections().collections)
    return sorted(number for name in names if (number := version_number(alias, name)) is not None)


def collection_of_alias(client: QdrantClient, alias: str) -> str | None:
    """The collection that an alias points to; None if there is no such alias."""
    return next((each.collection_name for each in client.get_aliases().aliases if each.alias_name == alias), None)


def create_alias(collection: str, alias: str) -> models.CreateAliasOperation:
    """The operation that creates an alias."""
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def _make_first(client: QdrantClient, name: str, location: str, made_by: Fingerprint, options: MemoryOptions) -> None:
    """Create version 1 and its alias; of several processes at once, one creates it and the others wait."""
    first = version_name(name, 1)
    if not version_numbers(client, name):
        try:
            make_collection(client, first, made_by, options)
        except Exception as error:
            fault = read_fault(error)
            if fault.kind == "key":  # who may fill it does so later
                raise MemoryUnavailable(
                    f"there is no memory {name!r} at {location!r} yet, and the key may not make one. Fill it with one "
                    "that may write (RECO_MEMORY_API_KEY): reco memory build --help"
                ) from error
            if fault.kind != "exists":
                raise
        else:
            client.update_collection_aliases([create_alias(first, name)])
    end = time.monotonic() + _ALIAS_S
    while not client.collection_exists(name):
        if time.monotonic() > end:
            _refuse_unused(client, name, location)
        time.sleep(0.1)


def _refuse_unused(client: QdrantClient, name: str, location: str) -> None:
    """Refuse a memory of whose versions none is in use, as where the first build was interrupted."""
    if names := [version_name(name, number) for number in version_numbers(client, name)]:
        raise MemoryStoreError(
            f"no version of the memory {name!r} at {location!r} is in use, but there are: {', '.join(names)}. Put one "
            f"to use (reco memory versions --use {names[-1]}), or go on with its building (reco memory build --resume)"
        )


def _creation(dimension: int, options: MemoryOptions, metadata: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``create_collection``: two named vectors, compared by cosine, the captions' words, and the options.

    Raises:
        ConfigError: options that Qdrant's request does not have.
    """
    body = dict(options.create_collection)
    sparse = {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    try:
        side = {**body.pop("vectors", {}), "size": dimension, "distance": models.Distance.COSINE}
        ours = {"vectors": dict.fromkeys(MODALITIES, side), "sparse_vectors": sparse, "metadata": metadata}
        made = models.CreateCollection.model_validate({**body, **ours})
    except (TypeError, ValidationError) as error:
        raise ConfigError(
            "memory_options.create_collection: expected the body of Qdrant's request to create a collection, in which "
            f"`vectors` is what those of both sides have in common: {error}"
        ) from error
    given = {name: getattr(made, name) for name in body.keys() - ours.keys()}
    return {"vectors_config": made.vectors, "sparse_vectors_config": sparse, "metadata": metadata, **given}


def search_params(options: MemoryOptions, k: int) -> models.SearchParams:
    """Qdrant's parameters of one query for k neighbours."""
    return models.SearchParams(
        hnsw_ef=None if options.exact else max(options.search_ef, k), exact=options.exact or None
    )


def make_state(client: QdrantClient, collection: str) -> None:
    """Write the reserved point of a collection."""
    payload = {_STAMP: uuid.uuid4().hex}
    client.upsert(collection, [models.PointStruct(id=STATE_ID, vector={}, payload=payload)], wait=True)


def count_pairs(client: QdrantClient, collection: str, timeout: int | None = None, within: Any = None) -> int:
    """Number of pairs, or of those in a filter; a filter in place of the second request would look at each pair."""
    if within is not None:
        return client.count(collection, within, exact=True, timeout=timeout).count
    there = client.retrieve(collection, [STATE_ID], with_payload=False, with_vectors=False, timeout=timeout)
    return client.count(collection, exact=True, timeout=timeout).count - len(there)


class ServedState:
    """What the reserved point of a collection, or of the one that an alias stands for, holds."""

    def __init__(self, server: Server, client: Callable[[], QdrantClient], collection: str) -> None:
        """Read nothing yet."""
        self._run, self._client, self._collection = server.run, client, collection
        self._stamp: str | None = None

    def read(self, known: Header | None, encoder: Callable[[], Fingerprint]) -> Header:
        """The header of now: the known one, unless something changed since it was read.

        Args:
            known: what this returned before.
            encoder: reads and checks that of the collection; called where anything is new.
        """
        if known is not None and self._fetch([_STAMP]).get(_STAMP) == self._stamp:
            return known
        fingerprint, payload = encoder(), self._fetch(True)
        with damage_of(f"what the memory {self._collection!r} learned"):
            learned = json.loads(payload.get(_LEARNED, "{}"))
            said = [json.loads(text) for name, text in payload.items() if name.startswith(_SAID)]
            if known is not None and learned == known.calibration:
                learned = known.calibration  # who has read it need not do so again
            self._stamp = payload.get(_STAMP)
            return Header(fingerprint, learned).with_said(said)

    def write(self, before: Header, after: Header) -> None:
        """Write what has changed in a header; what others write meanwhile stays."""
        payload = {
            _key_of(name): json.dumps(dict(one)) for name, one in after.said.items() if one != before.said.get(name)
        }
        if after.calibration is not before.calibration:
            payload[_LEARNED] = json.dumps(after.calibration)
        self._write(payload, [_key_of(name) for name in before.said.keys() - after.said.keys()])

    def _fetch(self, payload: Any, *, write: bool = False) -> dict[str, Any]:
        client = self._client()
        how: Any = {"with_payload": payload, "with_vectors": False}
        found = self._run(
            "read", lambda left: client.retrieve(self._collection, [STATE_ID], timeout=left, **how), write=write
        )
        return dict(found[0].payload or {}) if found else {}

    def _write(self, payload: dict[str, Any], gone: Sequence[str] = ()) -> None:
        client, point = self._client(), [STATE_ID]
        if not self._fetch([_STAMP], write=True):  # a restore of other points, or a process that died as it made it
            self._run("write", lambda _: make_state(client, self._collection), write=True)
        new = models.SetPayload(payload={**payload, _STAMP: uuid.uuid4().hex}, points=point)
        changes: list[Any] = [models.SetPayloadOperation(set_payload=new)]
        if gone:
            old = models.DeletePayload(keys=list(gone), points=point)
            changes.insert(0, models.DeletePayloadOperation(delete_payload=old))
        self._run(
            "write",
            lambda left: client.batch_update_points(self._collection, changes, wait=True, timeout=left),
            write=True,
        )


def _key_of(name: object) -> str:
    """The payload key of a word; its id may be any text, and a key may not."""
    return _SAID + hashlib.sha1(str(name).encode(), usedforsecurity=False).hexdigest()
