"""The memory of a running `reco serve` as a memory to fill: encoded here, written there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..defaults import INGEST_BATCH, SCROLL_BATCH
from ..errors import (
    ConfigError,
    InputError,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
)
from ..extras.feedback import Feedback, Opinion
from ..memory.checks import check_ids, check_positive, check_search, chunks
from ..memory.header import Header, SaidRecord, check_fingerprint
from ..memory.points import empty_neighbours
from ..opinions import Said, read_said
from ..pairs import PairMemory
from ..types import Fingerprint, Neighbours, Payload, Records, Search
from ..values import ROW, SOURCE, pack, strip_marks, unpack
from .calls import Call, T
from .client import Client

PATIENCE = 30
"""How often a request is repeated, a second apart, while the service has no room for it."""
TIMEOUT_S = 120.0
STATE = "x-reco-memory-state"
_PATH = "/v1/memory"
_LOOK_S = 0.5
_BODY_BYTES = 2_000_000
"""Of a request that writes, but for a single larger pair: so neither bytes nor numbers meet the service's limits."""
_READ_AT_ONCE = 1000
"""Ids and payloads; a service allows 2,048 by default."""
_JUDGED_AT_ONCE = 64
_MEANS: tuple[tuple[type[RecoError], type[RecoError]], ...] = (
    (SessionOverloaded, MemoryOverloaded),
    (SessionTimeout, MemoryTimeout),
    (SessionUnavailable, MemoryUnavailable),
    (SessionError, MemoryStoreError),
)


class ServedMemory:
    """The memory behind a service, which alone has it open; each call is one or several requests.

    Which version of the memory it is, is noted at the beginning: if another one is put to use, calls fail.
    """

    kind = "served"

    def __init__(self, client: Client, header: Header, location: str, state: str, unjudged: int = 0) -> None:
        self._client, self.header, self.location = client, header, location
        self._state, self._unjudged = state, unjudged

    @classmethod
    def open(cls, client: Client, fingerprint: Fingerprint | None, location: str | None = None) -> ServedMemory:
        """Ask a service about its memory.

        Args:
            client: with the admin key, or over a socket that needs none.
            fingerprint: of the model in use; None for any.
            location: the memory's folder, if it is on this machine; None: the service's URL.

        Raises:
            ConfigError: a wrong key, or no service of ours.
            FingerprintMismatch: another encoder made the memory.
            MemoryStoreError: the service cannot be reached, or not in time.
        """
        told = _send(client, Call("GET", _PATH, dict, params=[("calibration", "true")], admin=True))
        try:
            made_by = Fingerprint(str(told["encoder"]), str(told["fingerprint"]), int(told["dimension"]))
            state = str(told["state"])
        except KeyError as error:
            raise ConfigError(
                f"{client.url} is a reco serve of an older version, without {error}: upgrade it"
            ) from None
        place = client.url if location is None else location
        check_fingerprint(made_by, fingerprint, place)
        header = Header(made_by, told.get("calibration") or {}).with_said(told.get("feedback") or [], ())
        return cls(client, header, place, state, int(told.get("unjudged") or 0))

    @property
    def state(self) -> str:
        """Which service it is, and how often its memory moved to another version."""
        return self._state

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Leave learning to the service.

        Raises:
            MemoryStoreError: always.
        """
        raise MemoryStoreError(f"the memory at {self.location!r} is learned about by the service that has it open")

    def look(self) -> Header:
        """The header as it was when this was opened."""
        return self.header

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Leave what people say to the service.

        Raises:
            MemoryStoreError: always.
        """
        raise MemoryStoreError(f"feedback on the memory at {self.location!r} goes to the service that has it open")

    def judge(self, newer: Feedback) -> tuple[Opinion, ...]:
        """Store what was said; returns it with the ids that it got."""
        pairs = zip(newer.opinions, newer.queries.tolist(), newer.answers.tolist(), strict=True)
        body = [
            {"vector": query, "modality": one.modality, "right": one.right, "by": one.by}
            | ({"answer_vector": answer} if one.pair is None else {"pair": one.pair})
            for one, query, answer in pairs
        ]
        parts = (body[start : start + _JUDGED_AT_ONCE] for start in range(0, len(body), _JUDGED_AT_ONCE))
        return tuple(one for part in parts for one in self._post("/feedback", {"judgments": part}, _to_opinions))

    def opinions(self) -> tuple[Opinion, ...]:
        """All that was said, oldest first."""
        return self._ask(Call("GET", f"{_PATH}/feedback", _to_opinions, admin=True))

    def withdraw(self, ids: Sequence[str]) -> int:
        """Forget opinions by id; returns how many there were."""
        parts = chunks(list(ids), _JUDGED_AT_ONCE)
        return sum(
            self._ask(
                Call(
                    "DELETE",
                    f"{_PATH}/feedback",
                    int_of("withdrawn"),
                    params=[("id", one) for one in part],
                    admin=True,
                )
            )
            for part in parts
        )

    def note_learning(self, note: dict[str, Any]) -> None:
        """Nothing to do: the service learns."""

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Nothing to do: the service judges pairs."""

    def witnesses(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """None are told: NaN (N, 3)."""
        return np.full((len(ids), 3), np.nan, np.float32)

    def unjudged(self, most: int) -> list[str]:
        """None: the service judges pairs."""
        return []

    def count_unjudged(self) -> int:
        """Pairs that were not judged yet when this was opened."""
        return self._unjudged

    def count(self) -> int:
        """Number of pairs."""
        return int(self._ask(Call("GET", _PATH, lambda told: told["pairs"], admin=True)))

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D)."""
        for start, end in _parts(records):
            rows = slice(start, end)
            body = {
                "ids": list(records.ids[rows]),
                "image": pack(records.image[rows]),
                "text": pack(records.text[rows]),
                "payloads": [strip_marks(payload) for payload in records.payloads[rows]],
                "rows": [payload.get(ROW) for payload in records.payloads[rows]],
                "sources": [payload.get(SOURCE) for payload in records.payloads[rows]],
            }
            self._post("/records", body, int_of("stored"))

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        parts = chunks(check_ids(ids, "delete"), _READ_AT_ONCE)
        return sum(self._post("/records/remove", {"ids": list(part)}, int_of("removed")) for part in parts)

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs, or those of ``ids`` in their order, in batches (N, D)."""
        size = min(check_positive(batch_size, "batch_size"), INGEST_BATCH)
        wanted = None if ids is None else check_ids(ids, "scroll")
        return (found for found in map(self._to_records, self._read(wanted, size, vectors=True)) if len(found))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of the existing ones of ``ids``."""
        wanted = None if ids is None else check_ids(ids, "ids")
        for found in self._read(wanted, _READ_AT_ONCE, vectors=False):
            yield from zip(found["ids"], found["payloads"], strict=True)

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``; fewer where some were deleted meanwhile."""
        asked = {"after": last, "limit": check_positive(limit, "limit")}
        return list(self._post("/records/read", asked, lambda told: told["ids"]))

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D); in one go, if all exclude the same ids."""
        wanted, dimension = check_search(search, self._dimension), self._dimension
        out = empty_neighbours(len(wanted.vectors), wanted.k, dimension, search)
        alike = all(ids == wanted.exclude[0] for ids in wanted.exclude)
        at_once = max(1, _READ_AT_ONCE // wanted.k) if alike else 1
        for start in range(0, len(wanted.vectors), at_once):
            rows = slice(start, start + at_once)
            asked = {"vectors": pack(wanted.vectors[rows]), "by": search.by, "read": search.read, "k": wanted.k}
            body = asked | {
                "exclude": wanted.exclude[start],
                "where": None if search.where is None else dict(search.where),
                "words": [None if one is None else one.text for one in (search.words or [])[rows]],
            }
            self._fill(out, start, self._post("/records/search", body, dict))
        return out

    def flush(self) -> None:
        """Make all that was written durable; the service then learns from it."""
        self._post("/settle", {}, dict)

    def calibrate(self, progress: Callable[[int, int], object]) -> dict[str, Any]:
        """Let the service learn from all pairs, and wait for it; returns what was learned, as a header holds it.

        Args:
            progress: gets the steps that are done, and all of them, now and then.

        Raises:
            MemoryStoreError: it could not learn, or is gone.
        """
        wanted = int(self._post("/calibrate", {}, int_of("asked")))
        while True:
            told = self._ask(Call("GET", f"{_PATH}/calibrate", dict, admin=True))
            progress(int(told["done"]), int(told["total"]))
            if int(told["ended"]) >= wanted:
                break
            if int(told["asked"]) < wanted:
                raise MemoryStoreError(
                    f"the service at {self._client.url} was started anew before it had learned: run it again"
                )
            time.sleep(_LOOK_S)
        if told["failed"]:
            raise MemoryStoreError(f"the service at {self._client.url} did not learn: {told['failed']}")
        asked = Call("GET", _PATH, dict, params=[("calibration", "true")], admin=True)
        return dict(self._ask(asked).get("calibration") or {})

    def use(self, name: str) -> int:
        """Let the service put a finished version of its memory to use; returns its pairs.

        Raises:
            ConfigError: it knows no such version.
            MemoryStoreError: it cannot be put to use.
        """
        return self._post("/use", {"name": name}, int_of("pairs"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def _dimension(self) -> int:
        return self.header.fingerprint.dimension

    def _read(self, ids: Sequence[str] | None, size: int, *, vectors: bool) -> Iterator[dict[str, Any]]:
        if ids is not None:
            for part in chunks(ids, size):
                yield self._post("/records/read", {"ids": list(part), "vectors": vectors}, dict)
            return
        last: str | None = None
        while True:
            found = self._post("/records/read", {"after": last, "limit": size, "vectors": vectors}, dict)
            if (last := found.get("last")) is None:
                return
            yield found

    def _to_records(self, found: dict[str, Any]) -> Records:
        shape = (len(found["ids"]), self._dimension)
        sides = [unpack(found[side], shape, side) for side in ("image", "text")]
        return Records(found["ids"], sides[0], sides[1], found["payloads"])

    def _fill(self, out: Neighbours, start: int, found: dict[str, Any]) -> None:
        """Put the hits of some queries into their rows."""
        counts = [len(ids) for ids in found["ids"]]
        similarity = unpack(found["similarity"], (sum(counts),), "similarity")
        vectors = unpack(found["vectors"], (sum(counts), self._dimension), "vectors")
        begin = 0
        for row, (count, ids, payloads) in enumerate(zip(counts, found["ids"], found["payloads"], strict=True), start):
            hits = slice(begin, begin + count)
            out.ids[row][:] = ids
            out.similarity[row, :count], out.vectors[row, :count] = similarity[hits], vectors[hits]
            out.found[row, :count] = True
            if out.payloads is not None:
                out.payloads[row][:] = payloads
            begin += count

    def _post(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        return self._ask(Call("POST", _PATH + path, read, body, admin=True, headers={STATE: self._state}))

    def _ask(self, call: Call[T]) -> T:
        return _send(self._client, call)


class ServedPairs(PairMemory):
    """The pairs of a service, which learns from them itself."""

    def settle(self, *, progress: bool = False) -> None:
        """Make all writes durable, and let the service learn from them."""
        self.store.flush()

    def judge(self, said: Sequence[Said]) -> tuple[Opinion, ...]:
        """Let the service store opinions."""
        return self._served.judge(read_said(said, self.encoder, self.store))

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """What the service keeps."""
        return self._served.opinions()

    def withdraw(self, ids: Sequence[str]) -> int:
        """Let the service forget opinions."""
        return self._served.withdraw(ids)

    @property
    def _served(self) -> ServedMemory:
        return cast(ServedMemory, self.store)


def _to_opinions(told: Any) -> tuple[Opinion, ...]:
    return tuple(Opinion(**one) for one in told["data"])


def int_of(name: str) -> Callable[[Any], int]:
    """Reads a number of an answer."""
    return lambda told: int(told[name])


def _send(client: Client, call: Call[T]) -> T:
    """Send a request; a service that fails is a memory that fails.

    Raises:
        MemoryStoreError: it cannot be reached, does not answer in time, or fails; what was written stays.
        ConfigError: a wrong key.
        InputError: what it refuses.
    """
    try:
        return client.send(call)
    except (SessionError, MemoryStoreError) as error:
        kind = next((memory for session, memory in _MEANS if isinstance(error, session)), type(error))
        raise kind(
            f"{error} What was written stays: give the same command again, with or without the service, and it goes on"
        ) from error


def _parts(records: Records) -> Iterator[tuple[int, int]]:
    """Rows from and to of each request that writes them."""
    start, size = 0, 0
    vectors = 2 * 4 * records.image.shape[1] * 4 // 3
    for row, payload in enumerate(records.payloads):
        try:
            added = vectors + len(records.ids[row]) + len(json.dumps(dict(payload)))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the payload of {records.ids[row]!r:.80} is no JSON: {error}") from None
        if row > start and (size + added > _BODY_BYTES or row - start >= INGEST_BATCH):
            yield start, row
            start, size = row, 0
        size += added
    if start < len(records):
        yield start, len(records)
