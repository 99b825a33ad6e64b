"""A memory's header on a Qdrant server, and the collection ``NAME--learned`` beside it for all that is large.

The metadata of a collection goes through a cluster's consensus and to all who ask for its description, so it holds
figures and a digest. Beside it, what was learned is a point of its own, named by its digest and written before the
metadata names it; each word of people is a point, so none writes over another's. A point that says when people last
said something lets others look for it with one small request. The collection belongs to one version of the memory.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol, TypeVar

from qdrant_client import QdrantClient, models

from ..errors import MemoryStoreError
from ..types import Fingerprint
from .checks import chunks
from .collection import (
    BESIDE_KEY,
    CALIBRATION_KEY,
    FEEDBACK_KEY,
    LEARNING_KEY,
    OpenCollection,
    collection_of_alias,
    exists_already,
    name_beside,
    read_collection,
)
from .faults import is_absent, is_refusal_of_key
from .header import Header
from .learned import digest_of, join_parts, read_large, split_learned
from .points import pages
from .said import SaidRecord, change_said, in_parts
from .versions import version_number

_SPACE = uuid.UUID("9c1b8f0e-3f3c-4a55-8d5f-6a1f0c0b7f10")
_IDS_AT_ONCE, _SAID_AT_ONCE, _BYTES_AT_ONCE = 1_000, 500, 3_500_000
_KEPT_S = 24 * 3_600.0
"""Seconds after which what was learned before is deleted: somebody may just have read its digest, and a snapshot of the
collection that names it may take long."""
_TRIES = 3
log = logging.getLogger(__name__)
T = TypeVar("T")


class RunsCalls(Protocol):
    """Runs a call to the server, again where it fails for a moment; see :meth:`.Patience.run`."""

    def __call__(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        """The result of an action, which takes the seconds that it may use."""


class KeptOnServer:
    """Header, and what lies beside it, of the collection that an alias stands for."""

    def __init__(self, run: RunsCalls, client: Callable[[], QdrantClient], collection: str, location: str) -> None:
        self._run, self._client, self._collection, self._location = run, client, collection, location
        self._of = ""  # the collection that the rest is known of
        self._noted = ""  # the collection that this process learns from
        self._guessed = False  # whether the key may not tell which collection the alias stands for
        self._digest = ""
        self._learned: dict[str, Any] | None = None  # what was learned and has the digest: read once
        self._forget()

    def read(self, fingerprint: Fingerprint | None, *, write: bool = False) -> OpenCollection:
        """Header and layout of now, with what lies beside; what is known of it is not read again.

        Raises:
            FingerprintMismatch: another encoder built it.
            MemoryStoreError: the server fails, or it is no memory.
        """
        client = self._client()
        opened = self._read(client, fingerprint, write=write)
        for _ in range(_TRIES - 1):
            if not digest_of(opened.header.calibration):
                break
            opened = self._read(client, fingerprint, write=write)  # others may have learned meanwhile
        return opened

    @property
    def collection(self) -> str:
        """The collection that the alias stood for when it was looked at last."""
        return self._of

    @property
    def moved(self) -> bool:
        """Whether nothing large is left in the metadata, where older versions kept it."""
        return not (self._older_said or self._older_learned)

    def keep_calibration(self, header: Header, calibration: dict[str, Any]) -> Header:
        """Write what was learned, then the header that names it.

        Raises:
            InputError: JSON cannot hold it.
            MemoryStoreError: another version was put to use since it was noted that this one is learned from.
        """
        client = self._client()
        split_learned(calibration)
        self.judged()
        self._move(client, learned=False)
        self._write_learned(client, calibration)
        return replace(header, calibration=dict(calibration))

    def judged(self) -> str:
        """The collection whose pairs get what was learned: that in use, and no other than the one learned from.

        Raises:
            MemoryStoreError: another version was put to use since it was noted that this one is learned from.
        """
        self._find(self._client())
        if self._noted not in ("", self._of):
            raise MemoryStoreError(
                f"{self._of!r} was put to use while {self._noted!r} was learned from, so what was learned is not "
                "stored: run `reco memory calibrate` where the one in use needs it"
            )
        return self._of

    def keep_note(self, header: Header, note: dict[str, Any]) -> Header:
        """Write a note of who learns; it is taken back where it was written, whichever version is in use by then."""
        client = self._client()
        self._find(client)
        self._move(client)
        place = self._of if note else self._noted or self._of
        self._noted = ""

        def write(_: int | None) -> None:
            try:
                client.update_collection(place, metadata={LEARNING_KEY: dict(note)})
            except Exception as error:
                if place == self._of or not is_absent(error):  # else pruned, with its note
                    raise

        self._run("write", write, write=True)
        self._noted = place if note else ""
        return replace(header, learning=dict(note))

    def keep_said(self, header: Header, added: Sequence[SaidRecord], gone: Collection[str]) -> Header:
        """Write what somebody said, or took back."""
        client = self._client()
        self._find(client)
        self._move(client)
        self._write_said(client, added, gone)
        return replace(header, said=change_said(header.said, added, gone))

    def _read(self, client: QdrantClient, fingerprint: Fingerprint | None, *, write: bool) -> OpenCollection:
        self._find(client)
        place = (self._collection, self._location, fingerprint)
        opened = self._run("read", lambda _: read_collection(client, *place, real=self._of), write=write)
        return replace(opened, header=self._run("read", lambda _: self._whole(client, opened.header), write=write))

    def _find(self, client: QdrantClient) -> None:
        """Look which collection the alias stands for now; of another one than before, nothing is known."""
        real = self._run("read", lambda _: self._real(client))
        if real != self._of:
            self._of = real
            self._forget()

    def _forget(self) -> None:
        self._checked = False  # whether the collection beside is ours
        self._digest, self._learned = "", None
        self._mark, self._said, self._joined = "", dict[str, SaidRecord](), dict[str, SaidRecord]()
        self._older_said: Mapping[str, SaidRecord] = {}
        self._older_learned: dict[str, Any] = {}

    def _real(self, client: QdrantClient) -> str:
        try:
            real = collection_of_alias(client, self._collection) or self._collection
        except Exception as error:
            if not is_refusal_of_key(error):
                raise
            return self._guess(client)
        self._guessed = False
        return real

    def _guess(self, client: QdrantClient) -> str:
        """The collection of a key that may not list aliases: one of the name, or the only version of it."""
        try:
            names = [each.name for each in client.get_collections().collections]
        except Exception as error:
            if not is_refusal_of_key(error):
                raise
            names = []
        versions = [name for name in names if version_number(self._collection, name) is not None]
        known = self._collection if self._collection in names else versions[0] if len(versions) == 1 else ""
        if not known and not self._guessed:
            log.warning("%s", self._unknown())
        self._guessed = not known
        return known or self._collection

    def _unknown(self) -> str:
        return (
            f"the key may not list the aliases of {self._location!r}, so which collection {self._collection!r} stands "
            "for is not known, and neither is what was learned and said of it, beside it: let the key list aliases, or "
            "give the collection's own name as memory_collection"
        )

    # what is read

    def _whole(self, client: QdrantClient, small: Header) -> Header:
        """A header of the metadata with what lies beside it."""
        digest = digest_of(small.calibration)
        wanted = [_point("mark")] + ([_point(digest)] if digest and digest != self._digest else [])
        found = {str(point.id): point.payload or {} for point in self._points(client, wanted)}
        if _point(digest) in found:
            self._digest, self._learned = digest, read_large(digest, str(found[_point(digest)].get("learned")))
        mark = str(found.get(_point("mark"), {}).get("mark", ""))
        if mark != self._mark:
            self._said, self._mark = self._look_through(client), mark
            self._joined = {}
        calibration = join_parts(small.calibration, self._learned if digest and digest == self._digest else None)
        self._older_learned = _large_in(small)
        if not self._joined or dict(small.said) != dict(self._older_said):
            self._joined = change_said(change_said({}, small.said.values(), ()), self._said.values(), ())
        self._older_said = small.said
        return replace(small, calibration=calibration, said=self._joined)

    def _look_through(self, client: QdrantClient) -> dict[str, SaidRecord]:
        """What people said, by id; only what is not known is read."""
        named = dict[str, Any]()
        asked: Any = {"limit": _IDS_AT_ONCE, "with_payload": ["id"], "with_vectors": False}
        try:
            for page in pages(lambda start: client.scroll(name_beside(self._of), offset=start, **asked)):
                named |= {str(point.payload["id"]): point.id for point in page if "id" in (point.payload or {})}
        except Exception as error:
            if not _is_nothing(error):
                raise
        fresh = [point for name, point in named.items() if name not in self._said]
        read = [one.payload["said"] for part in chunks(fresh, _SAID_AT_ONCE) for one in self._points(client, part)]
        return change_said({name: one for name, one in self._said.items() if name in named}, read, ())

    def _points(self, client: QdrantClient, ids: Sequence[Any]) -> list[Any]:
        """Points of the collection beside; none where there is no such collection, or the key may not read it."""
        try:
            return list(client.retrieve(name_beside(self._of), list(ids), with_payload=True, with_vectors=False))
        except Exception as error:
            if _is_nothing(error):
                return []
            raise

    # what is written

    def _move(self, client: QdrantClient, *, learned: bool = True) -> None:
        """Move what an older version keeps in the metadata beside it."""
        if self.moved:
            return
        # read again: a process of that version may have written since
        place = (self._collection, self._location, None)
        now = self._run("read", lambda _: read_collection(client, *place, real=self._of), write=True).header
        self._older_said, self._older_learned = now.said, _large_in(now)
        if self._older_said:
            self._write_said(client, list(self._older_said.values()), ())
            self._run("write", lambda _: self._say(client, {FEEDBACK_KEY: {}}), write=True)
            self._older_said = {}
        if self._older_learned and learned:
            self._write_learned(client, self._older_learned)

    def _write_learned(self, client: QdrantClient, calibration: dict[str, Any]) -> None:
        small, data = split_learned(calibration)
        digest, text = digest_of(small), data.decode()
        if data:
            payload = {"learned": text, "digest": digest, "at": time.time()}
            self._change(client, [_upsert([(_point(digest), payload)])])
        self._run("write", lambda _: self._say(client, {CALIBRATION_KEY: small}), write=True)
        self._digest, self._learned, self._older_learned = digest, read_large(digest, data), {}
        self._run("write", lambda _: self._delete_older(client, digest), write=True)

    def _write_said(self, client: QdrantClient, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Write points: what is new, then what is gone, then that something was said."""
        parts = in_parts(added, _BYTES_AT_ONCE) or [()]
        for number, part in enumerate(parts, 1):
            changes = [_upsert([(_said_point(one["id"]), {"id": one["id"], "said": dict(one)}) for one in part])]
            if number == len(parts):
                if gone:
                    points = models.PointIdsList(points=[_said_point(name) for name in gone])
                    changes.append(models.DeleteOperation(delete=points))
                changes.append(_upsert([(_point("mark"), {"mark": uuid.uuid4().hex})]))
            self._change(client, [one for one in changes if one])

    def _change(self, client: QdrantClient, changes: list[Any]) -> None:
        """Write points to the collection beside, which is made where there is none."""

        def write(left: int | None) -> None:
            self._make_sure(client)
            try:
                client.batch_update_points(name_beside(self._of), changes, wait=True, timeout=left)
            except Exception as error:
                if not is_absent(error):
                    raise
                self._checked = False  # it was deleted meanwhile
                self._make_sure(client)
                client.batch_update_points(name_beside(self._of), changes, wait=True, timeout=left)

        self._run("write", write, write=True)

    def _make_sure(self, client: QdrantClient) -> None:
        """Let there be a collection beside, and let it be ours.

        Raises:
            MemoryStoreError: somebody else's has the name.
        """
        if self._checked:
            return
        name = name_beside(self._of)
        if not client.collection_exists(name):
            if self._guessed:  # nobody else would look for it there
                raise MemoryStoreError(self._unknown())
            params = client.get_collection(self._of).config.params
            try:
                client.create_collection(
                    name,
                    vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT, on_disk=True),
                    metadata={BESIDE_KEY: {"of": self._of}},
                    on_disk_payload=True,
                    shard_number=1,
                    replication_factor=params.replication_factor,
                    write_consistency_factor=params.write_consistency_factor,
                )
            except Exception as error:
                if not exists_already(error):
                    raise
        if BESIDE_KEY not in (client.get_collection(name).config.metadata or {}):
            raise MemoryStoreError(
                f"the collection {name!r} at {self._location!r} holds something else, and what is learned of "
                f"{self._of!r} would lie there: rename it"
            )
        self._checked = True

    def _delete_older(self, client: QdrantClient, digest: str) -> None:
        """Delete what was learned before, long ago."""
        asked: Any = {"limit": _IDS_AT_ONCE, "with_payload": ["digest", "at"], "with_vectors": False}
        latest = time.time() - _KEPT_S
        try:
            found = chain.from_iterable(
                pages(lambda start: client.scroll(name_beside(self._of), offset=start, **asked))
            )
            told = [(one.id, one.payload or {}) for one in found]
            old = [id_ for id_, of in told if of.get("at", latest) < latest and of.get("digest") != digest]
            if old:
                client.delete(name_beside(self._of), models.PointIdsList(points=old), wait=True)
        except Exception as error:
            if not is_absent(error):
                raise

    def _say(self, client: QdrantClient, metadata: dict[str, Any]) -> None:
        client.update_collection(self._of, metadata=metadata)


def _large_in(header: Header) -> dict[str, Any]:
    """What was learned, where an older version keeps all of it in the header; else nothing."""
    learned = header.calibration
    return learned if not digest_of(learned) and split_learned(learned)[1] else {}


def _point(name: str) -> str:
    return str(uuid.uuid5(_SPACE, name))


def _said_point(name: Any) -> str:
    return _point(f"said:{name}")


def _upsert(points: Iterable[tuple[str, dict[str, Any]]]) -> Any:
    made = [models.PointStruct(id=name, vector=[1.0], payload=payload) for name, payload in points]
    return models.UpsertOperation(upsert=models.PointsList(points=made)) if made else None


def _is_nothing(error: Exception) -> bool:
    """Whether there is no such collection, or it may not be read."""
    return is_absent(error) or is_refusal_of_key(error)
