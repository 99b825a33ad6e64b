"""The memory of a running `reco serve` as a memory to fill: encoded here, written there by ``/v1/memory/pairs``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Never, cast

import numpy as np

from ..defaults import INGEST_BATCH, SCROLL_BATCH
from ..errors import (
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
from ..memory.checks import check_ids, check_positive, check_search
from ..memory.header import Header, check_fingerprint
from ..memory.points import empty_neighbours
from ..pairs import PairMemory
from ..signals.opinions import Judgment, Opinion, Opinions, read_judgments
from ..types import Fingerprint, ImageInput, Neighbours, Payload, Records, Search, Vectors
from ..values import ROW, SOURCE, pack, strip_marks, unpack
from .requests import Call, T, ids_in_parts
from .service import Client

PATIENCE = 30
"""How often a request is repeated, a second apart, while the service has no room for it."""
TIMEOUT_S = 120.0
_PATH = "/v1/memory"
_BODY_BYTES = 2_000_000
"""Of a request that writes, but for a single larger pair: so neither bytes nor numbers meet the service's limits."""
_PAGE = 1000
"""Ids and payloads; a service allows 2,048 by default."""
_JUDGED_AT_ONCE = 64
_MEANS: tuple[tuple[type[RecoError], type[RecoError]], ...] = (
    (SessionOverloaded, MemoryOverloaded),
    (SessionTimeout, MemoryTimeout),
    (SessionUnavailable, MemoryUnavailable),
    (SessionError, MemoryStoreError),
)


class ServedMemory:
    """The memory behind a service, which alone has it open, and learns from it; each call is one or several requests.

    Attributes:
        header: of the memory, as it was when this was opened, without what people said.
        missing: pairs that it had lost then.
        location: the memory's folder, if it is on this machine; else the service's URL.
    """

    kind = "served"

    def __init__(self, client: Client, fingerprint: Fingerprint | None, location: str | None = None) -> None:
        """Ask a service about its memory.

        Args:
            client: with a key that may read and write.
            fingerprint: of the model in use; None for any.
            location: see above; None: the service's URL.

        Raises:
            ConfigError: a wrong key, or no service of ours.
            FingerprintMismatch: another encoder made the memory.
            MemoryStoreError: the service cannot be reached, or not in time.
        """
        self._client, self.location = client, location or client.url
        found = self._get("", [("calibration", "true")])
        made_by = Fingerprint(found["encoder"], found["fingerprint"], found["dimension"])
        check_fingerprint(made_by, fingerprint, self.location)
        self.header = Header(made_by, found.get("calibration") or {})
        self.missing = int(found.get("missing", 0))

    def look(self) -> Header:
        """The header as it was when this was opened."""
        return self.header

    def count(self) -> int:
        """Number of pairs."""
        return int(self._get("")["pairs"])

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D)."""
        rows, size = list[dict[str, Any]](), 0
        for row, (id_, payload) in enumerate(zip(records.ids, records.payloads, strict=True)):
            pair = {
                "id": id_,
                "image_vector": pack(records.image[row]),
                "text_vector": pack(records.text[row]),
                "payload": strip_marks(payload),
                "source": payload.get(SOURCE),
                "row": payload.get(ROW),
            }
            try:
                added = len(json.dumps(pair))
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(f"the payload of {id_!r:.80} is no JSON: {error}") from None
            if rows and (size + added > _BODY_BYTES or len(rows) >= INGEST_BATCH):
                self._post("/pairs", {"pairs": rows})
                rows, size = [], 0
            rows.append(pair)
            size += added
        if rows:
            self._post("/pairs", {"pairs": rows})

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        return sum(self._delete("/pairs", part)["removed"] for part in ids_in_parts(check_ids(ids, "delete"), _PAGE))

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs, or those of ``ids`` in their order, in batches (N, D)."""
        size = min(check_positive(batch_size, "batch_size"), INGEST_BATCH)
        wanted = None if ids is None else check_ids(ids, "scroll")
        return map(self._to_records, self._read(wanted, size, "base64"))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of the existing ones of ``ids``."""
        for rows in self._read(None if ids is None else check_ids(ids, "ids"), _PAGE, "none"):
            yield from ((row["id"], _payload(row)) for row in rows)

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), one request each; their vectors are not read, and are zeros."""
        dimension = self.header.fingerprint.dimension
        wanted = check_search(search, dimension)
        out = empty_neighbours(len(wanted.vectors), wanted.k, dimension, search)
        for row, vector in enumerate(wanted.vectors):
            body = {"vector": pack(vector), "modality": search.by, "exclude": wanted.exclude[row]}
            self.fill(out, row, body | {"k": wanted.k, "where": search.where and dict(search.where)})
        return out

    def fill(self, out: Neighbours, row: int, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Put the hits of one query, which it returns, into a row of neighbours."""
        hits: list[dict[str, Any]] = self._post("/search", body)["data"]
        out.ids[row][:] = [hit["id"] for hit in hits]
        out.similarity[row, : len(hits)] = [hit["similarity"] for hit in hits]
        out.found[row, : len(hits)] = True
        if out.payloads is not None:
            out.payloads[row][:] = [hit["payload"] for hit in hits]
        return hits

    def use(self, name: str) -> int:
        """Let the service put a finished version of its memory to use; returns its pairs.

        Raises:
            ConfigError: it knows no such version.
            MemoryStoreError: it cannot be put to use.
        """
        return int(self._post("/versions", {"name": name})["pairs"])

    def judge(self, newer: Opinions) -> tuple[Opinion, ...]:
        """Store opinions; returns them with the ids that they got."""
        rows = zip(newer.words, newer.queries, newer.answers, strict=True)
        body = [
            {"vector": pack(query), "modality": one.modality, "right": one.right, "by": one.by}
            | ({"answer_vector": pack(answer)} if one.pair is None else {"pair": one.pair})
            for one, query, answer in rows
        ]
        parts = [body[start : start + _JUDGED_AT_ONCE] for start in range(0, len(body), _JUDGED_AT_ONCE)]
        return tuple(one for part in parts for one in _to_opinions(self._post("/feedback", {"judgments": part})))

    def opinions(self) -> tuple[Opinion, ...]:
        """All opinions, oldest first."""
        return tuple(_to_opinions(self._get("/feedback")))

    def withdraw(self, ids: Sequence[str] | None) -> int:
        """Forget opinions by id, or all; returns how many there were."""
        names = [one.id for one in self.opinions()] if ids is None else list(ids)
        return sum(self._delete("/feedback", part)["withdrawn"] for part in ids_in_parts(names, _PAGE))

    def flush(self) -> None:
        """Nothing to do: what was answered is durable, and the service learns from it."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refuse(self, *_: Any) -> Never:
        raise MemoryStoreError(f"the service that has {self.location!r} open learns from its pairs by itself")

    set_calibration = change_said = calibrate = _refuse

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``."""
        return [row["id"] for row in self._page(last, check_positive(limit, "limit"), "none")["data"]]

    def _read(self, ids: Sequence[str] | None, size: int, vectors: str) -> Iterator[list[dict[str, Any]]]:
        if ids is not None:
            for part in ids_in_parts(ids, size):
                yield self._get("/pairs", [*(("id", one) for one in part), ("vectors", vectors)])["data"]
            return
        last: str | None = None
        while True:
            found = self._page(last, size, vectors)
            if (last := found.get("last")) is None:
                return
            yield found["data"]

    def _page(self, last: str | None, limit: int, vectors: str) -> dict[str, Any]:
        after = [] if last is None else [("after", last)]
        return self._get("/pairs", [*after, ("limit", str(limit)), ("vectors", vectors)])

    def _to_records(self, rows: list[dict[str, Any]]) -> Records:
        shape = (self.header.fingerprint.dimension,)
        sides = (
            [unpack(row[f"{side}_vector"], shape, side) for row in rows] or np.zeros((0, *shape), np.float32)
            for side in ("image", "text")
        )
        image, text = map(np.asarray, sides)
        return Records([row["id"] for row in rows], image, text, list(map(_payload, rows)))

    def _get(self, path: str, params: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        return _send(self._client, Call("GET", _PATH + path, dict, params=params, admin=True))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _send(self._client, Call("POST", _PATH + path, dict, body, admin=True))

    def _delete(self, path: str, ids: Sequence[str]) -> dict[str, Any]:
        params = [("id", one) for one in ids]
        return _send(self._client, Call("DELETE", _PATH + path, dict, params=params, admin=True))


class ServedPairs(PairMemory):
    """The pairs of a service, which learns from them itself."""

    def settle(self, *, progress: bool = False) -> None:
        """Nothing to do: the service learns."""

    def search(self, query: str | ImageInput | Vectors, **options: Any) -> Neighbours:
        """As :meth:`PairMemory.search`; the service encodes texts, and looks for their words."""
        if not isinstance(query, str) or options.get("modality", "text") != "text":
            return super().search(query, **options)
        options.pop("words", None)
        options.pop("modality", None)
        wanted = Search(np.zeros((1, self.encoder.dimension), np.float32), "text", "text", options["k"], payloads=True)
        out = empty_neighbours(1, wanted.k, self.encoder.dimension, wanted)
        hits = self._served.fill(out, 0, {"text": query, **options})
        words = {hit["id"]: hit["words"] for hit in hits if hit.get("words")}
        return replace(out, words=[next(iter(words.values()), "")], word_ids=[tuple(words)])

    def judge(self, judgments: Sequence[Judgment]) -> tuple[Opinion, ...]:
        """Let the service store opinions."""
        return self._served.judge(read_judgments(judgments, self.encoder, self.store))

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


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    marks = {key: row[name] for key, name in ((SOURCE, "source"), (ROW, "row")) if row.get(name) is not None}
    return {**row["payload"], **marks}


def _to_opinions(found: Mapping[str, Any]) -> Iterator[Opinion]:
    return (Opinion(**one) for one in found["data"])


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
