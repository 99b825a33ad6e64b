"""What a memory on a server learned and was told: one reserved point of its collection, without vectors.

Its payload holds what was learned, the note of who learns, and each word of people under a key of its own, so that
two writers do not overwrite each other. ``stamp`` changes with each write: one small request shows whether anything is
new.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import QdrantClient, models

from ..types import Fingerprint
from .filters import WITNESSES
from .header import Header, SaidRecord, change_said, damage_of
from .server import Server

STATE_ID = "5d0b9a8e-7b64-5c1f-8f5e-3a1d6c2e9b47"
"""Id of the reserved point."""
_LEARNED, _LEARNING, _STAMP, _SAID = "learned", "learning", "stamp", "said_"


def make_state(client: QdrantClient, collection: str) -> None:
    """Write the reserved point of a collection."""
    payload = {_STAMP: uuid.uuid4().hex, WITNESSES: [0.0] * 3}  # it is no pair to judge
    client.upsert(collection, [models.PointStruct(id=STATE_ID, vector={}, payload=payload)], wait=True)


def count_pairs(client: QdrantClient, collection: str, timeout: int | None = None) -> int:
    """Number of pairs."""
    there = client.retrieve(collection, [STATE_ID], with_payload=False, with_vectors=False, timeout=timeout)
    return client.count(collection, exact=True, timeout=timeout).count - len(there)


class ServedState:
    """Header of the collection that an alias stands for, read and written."""

    def __init__(self, server: Server, client: Callable[[], QdrantClient], collection: str) -> None:
        """Read nothing yet."""
        self._run, self._client, self._collection = server.run, client, collection
        self._known: dict[str, Any] = {}  # the payload
        self.header: Header | None = None

    def read(self, encoder: Callable[[], Fingerprint]) -> Header:
        """The header of now; what has not changed is neither read again nor made anew.

        Args:
            encoder: reads and checks that of the collection; called where anything is new.
        """
        stamp = self._fetch([_STAMP]).get(_STAMP)
        if self.header is not None and stamp == self._known.get(_STAMP):
            return self.header
        fingerprint, before = encoder(), self._known
        self._known = self._fetch(True)
        header = self.header or Header(fingerprint)
        with damage_of(f"what the memory {self._collection!r} learned"):
            learned, learning = (json.loads(self._known.get(name, "{}")) for name in (_LEARNED, _LEARNING))
            if self._known.get(_LEARNED) == before.get(_LEARNED):
                learned = header.calibration
            said, was = _said_in(self._known), _said_in(before)
            heard = header.said if said == was else change_said({}, map(json.loads, said.values()), ())
        self.header = Header(fingerprint, learned, learning, heard)
        return self.header

    def keep_calibration(self, calibration: dict[str, Any]) -> None:
        """Write what was learned.

        Raises:
            InputError: JSON cannot hold it.
        """
        header = self._there().with_calibration(calibration)
        self._write({_LEARNED: json.dumps(calibration)})
        self._known[_LEARNED] = ""  # to be read again: others may have written it, too
        self.header = header

    def keep_note(self, note: dict[str, Any]) -> None:
        """Write a note of who learns."""
        self._write({_LEARNING: json.dumps(note)})
        self.header = replace(self._there(), learning=dict(note))

    def keep_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Write what somebody said, or took back."""
        told = {_key_of(one["id"]): json.dumps(dict(one)) for one in added}
        left = [_key_of(name) for name in gone]
        self._write(told, left)
        self._known = {name: text for name, text in self._known.items() if name not in left} | told
        self.header = self._there().with_said(added, gone)

    def _there(self) -> Header:
        assert self.header is not None  # noqa: S101 - a memory reads it as it is opened
        return self.header

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


def _said_in(payload: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in payload.items() if name.startswith(_SAID)}


def _key_of(name: object) -> str:
    """The payload key of a word; its id may be any text, and a key may not."""
    return _SAID + hashlib.sha1(str(name).encode(), usedforsecurity=False).hexdigest()
