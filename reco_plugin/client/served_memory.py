"""The memory of a running `reco serve` as a :class:`~reco_plugin.memory.Memory`, read and written over HTTP."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
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
from ..types import Filter, Fingerprint, ImageInput, Neighbours, Payload, Records, Search, Vectors
from ..values import ROW, SOURCE, pack, strip_marks, unpack
from .requests import ids_in_parts
from .service import Client, Request

PATIENCE = 30
"""How often a request is repeated, about once a second, while the service is busy."""
TIMEOUT_S = 120.0
_PATH = "/v1/memory"
_BODY_BYTES = 2_000_000
"""Size of a request that writes, below the service's limit; a single larger pair goes alone."""
_PAGE = 1000
"""Ids or payloads per request; a service allows 2,048 by default."""
_FEEDBACK_BATCH = 64
_MEMORY_ERRORS: tuple[tuple[type[RecoError], type[RecoError]], ...] = (
    (SessionOverloaded, MemoryOverloaded),
    (SessionTimeout, MemoryTimeout),
    (SessionUnavailable, MemoryUnavailable),
    (SessionError, MemoryStoreError),
)


class ServedMemory:
    """The memory behind a service. The service alone has it open and learns from it; each call sends requests.

    Attributes:
        header: the memory's header when this object was made, without feedback.
        missing: pairs that the memory had lost at that time.
        location: the memory's folder if it is on this machine, else the service's URL.
    """

    kind = "served"

    def __init__(self, client: Client, fingerprint: Fingerprint | None, location: str | None = None) -> None:
        """Read the memory's header.

        Args:
            client: a client with the admin key.
            fingerprint: fingerprint that the memory must have; None accepts any.
            location: see the attribute; None: the service's URL.

        Raises:
            ConfigError: a wrong key, or a server that is no `reco serve`.
            FingerprintMismatch: another encoder made the memory.
            MemoryStoreError: the service cannot be reached, or does not answer in time.
        """
        self._client, self.location = client, location or client.url
        status = self._call("GET", "", params=[("calibration", "true")])
        encoder = Fingerprint(status["encoder"], status["fingerprint"], status["dimension"])
        check_fingerprint(encoder, fingerprint, self.location)
        self.header = Header(encoder, status.get("calibration") or {})
        self.missing = int(status.get("missing", 0))

    def look(self) -> Header:
        """The header when this object was made."""
        return self.header

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs that the key sees."""
        if within is not None:
            self._refuse()
        return int(self._call("GET", "")["pairs"])

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
                raise InputError(f"the payload of {id_!r:.80} cannot be sent as JSON: {error}") from None
            if rows and (size + added > _BODY_BYTES or len(rows) >= INGEST_BATCH):
                self._call("POST", "/pairs", {"pairs": rows})
                rows, size = [], 0
            rows.append(pair)
            size += added
        if rows:
            self._call("POST", "/pairs", {"pairs": rows})

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        return self._delete("/pairs", check_ids(ids, "delete"), "removed")

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """Yield all pairs, or those of ``ids`` in that order, in batches (N, D)."""
        size = min(check_positive(batch_size, "batch_size"), INGEST_BATCH)
        wanted = None if ids is None else check_ids(ids, "scroll")
        return map(self._to_records, self._read(wanted, size, "base64"))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Yield ids and payloads of all pairs, or of those of ``ids`` that exist."""
        for rows in self._read(None if ids is None else check_ids(ids, "ids"), _PAGE, "none"):
            yield from ((row["id"], _payload(row)) for row in rows)

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), one request per query; the vectors of the pairs are zeros."""
        dimension = self.header.fingerprint.dimension
        wanted = check_search(search, dimension)
        out = empty_neighbours(len(wanted.vectors), wanted.k, dimension, search)
        for row, vector in enumerate(wanted.vectors):
            body = {"vector": pack(vector), "modality": search.by, "exclude": wanted.exclude[row]}
            self.fill(out, row, body | {"k": wanted.k, "where": search.where and dict(search.where)})
        return out

    def fill(self, out: Neighbours, row: int, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Search with one request, write the hits into a row of ``out``, and return them."""
        hits: list[dict[str, Any]] = self._call("POST", "/search", body)["data"]
        out.ids[row][:] = [hit["id"] for hit in hits]
        out.similarity[row, : len(hits)] = [hit["similarity"] for hit in hits]
        out.found[row, : len(hits)] = True
        if out.payloads is not None:
            out.payloads[row][:] = [hit["payload"] for hit in hits]
        return hits

    def use(self, name: str) -> int:
        """Make the service use a finished version of its memory; returns the version's number of pairs.

        Raises:
            ConfigError: there is no such version.
            MemoryStoreError: the version cannot be used.
        """
        return int(self._call("POST", "/versions", {"name": name})["pairs"])

    def judge(self, newer: Opinions) -> tuple[Opinion, ...]:
        """Store feedback; returns it with the ids that the service assigned."""
        rows = zip(newer.words, newer.queries, newer.answers, strict=True)
        body = [
            {"vector": pack(query), "modality": one.modality, "right": one.right, "by": one.by}
            | ({"answer_vector": pack(answer)} if one.pair is None else {"pair": one.pair})
            for one, query, answer in rows
        ]
        parts = [body[start : start + _FEEDBACK_BATCH] for start in range(0, len(body), _FEEDBACK_BATCH)]
        answers = [self._call("POST", "/feedback", {"judgments": part}) for part in parts]
        return tuple(chain(*map(_to_opinions, answers)))

    def opinions(self) -> tuple[Opinion, ...]:
        """Return all feedback, oldest first."""
        return tuple(_to_opinions(self._call("GET", "/feedback")))

    def withdraw(self, ids: Sequence[str] | None) -> int:
        """Delete feedback by id, or all of it; returns how many entries there were."""
        names = [one.id for one in self.opinions()] if ids is None else list(ids)
        return self._delete("/feedback", names, "withdrawn")

    def flush(self) -> None:
        """Do nothing: the service has stored what it answered, and learns from it."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refuse(self, *_: Any) -> Never:
        raise MemoryStoreError(f"the service that has {self.location!r} open does that itself")

    set_calibration = change_said = calibrate = _refuse

    def ids_after(self, last: str | None, limit: int, within: Filter | None = None) -> list[str]:
        """Return the next ids after ``last``."""
        if within is not None:
            self._refuse()
        return [row["id"] for row in self._page(last, check_positive(limit, "limit"), "none")["data"]]

    def _read(self, ids: Sequence[str] | None, size: int, vectors: str) -> Iterator[list[dict[str, Any]]]:
        if ids is not None:
            for part in ids_in_parts(ids, size):
                yield self._call("GET", "/pairs", params=[*(("id", id_) for id_ in part), ("vectors", vectors)])["data"]
            return
        page = self._page(None, size, vectors)
        while last := page.get("last"):
            yield page["data"]
            page = self._page(last, size, vectors)

    def _page(self, last: str | None, limit: int, vectors: str) -> dict[str, Any]:
        after = [] if last is None else [("after", last)]
        return self._call("GET", "/pairs", params=[*after, ("limit", str(limit)), ("vectors", vectors)])

    def _to_records(self, rows: list[dict[str, Any]]) -> Records:
        shape = (self.header.fingerprint.dimension,)
        sides = (
            [unpack(row[f"{side}_vector"], shape, side) for row in rows] or np.zeros((0, *shape), np.float32)
            for side in ("image", "text")
        )
        image, text = map(np.asarray, sides)
        return Records([row["id"] for row in rows], image, text, list(map(_payload, rows)))

    def _delete(self, path: str, ids: Sequence[str], counted: str) -> int:
        parts = ids_in_parts(ids, _PAGE)
        return sum(self._call("DELETE", path, params=[("id", id_) for id_ in part])[counted] for part in parts)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, params: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any]:
        """Send a request; an error of the service is an error of the memory.

        Raises:
            MemoryStoreError: the service cannot be reached, does not answer in time, or fails; what was written stays.
            ConfigError: a wrong key.
            InputError: the service refuses the request.
        """
        try:
            return self._client.send(Request(method, _PATH + path, body, params, is_admin=True), dict)
        except (SessionError, MemoryStoreError) as error:
            kind = next((memory for session, memory in _MEMORY_ERRORS if isinstance(error, session)), type(error))
            raise kind(
                f"{error} What was written stays. Run the same command again, with or without the service, to continue"
            ) from error


class ServedPairs(PairMemory):
    """The pairs of a memory behind a service, which calibrates the memory itself."""

    def settle(self, *, progress: bool = False) -> None:
        """Do nothing: the service calibrates the memory."""

    def search(self, query: str | ImageInput | Vectors, **options: Any) -> Neighbours:
        """As :meth:`PairMemory.search`; the service encodes texts and searches captions for their words."""
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
        """Store feedback in the service's memory."""
        return self._served.judge(read_judgments(judgments, self.encoder, self.store))

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """All feedback that the service has stored."""
        return self._served.opinions()

    def withdraw(self, ids: Sequence[str]) -> int:
        """Delete feedback from the service's memory."""
        return self._served.withdraw(ids)

    @property
    def _served(self) -> ServedMemory:
        return cast(ServedMemory, self.store)


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    marks = {key: row[name] for key, name in ((SOURCE, "source"), (ROW, "row")) if row.get(name) is not None}
    return {**row["payload"], **marks}


def _to_opinions(answer: Mapping[str, Any]) -> Iterator[Opinion]:
    return (Opinion(**fields) for fields in answer["data"])
