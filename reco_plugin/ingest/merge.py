"""Merge near-duplicates: one pair with several captions, its text vector the normalised mean of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..pairs import PairMemory
from ..types import Records, Vectors, caption_of
from .items import Encoded
from .known import CAPTIONS, add_marks


@dataclass
class _Host:
    """A stored pair that gets more captions."""

    record: Records
    captions: list[str] = field(default_factory=list)


class Merge:
    """The rows of one batch as records, with the captions that were merged into them and into stored pairs."""

    def __init__(self, memory: PairMemory, source: str | None) -> None:
        self._memory, self._source = memory, source
        self._inside: dict[str, list[str]] = {}
        self._stored: dict[str, _Host] = {}

    def add(self, host: str, row: Encoded, batch: Mapping[str, Encoded]) -> bool:
        """Add a row's caption to the pair ``host``, of this batch or stored; False if one of them has none."""
        if row.caption is None:
            return False
        if host in batch:
            own = batch[host].caption
            known = self._inside.setdefault(host, [own] if own is not None else [])
        else:
            known = self._host(host).captions
        if known and row.caption not in known:
            known.append(row.caption)
        return bool(known)

    def records(self, rows: Sequence[Encoded]) -> Records:
        """Records (N, D) of kept rows, and of stored pairs with new captions."""
        own = [self._own(row) for row in rows]
        hosts = [made for host in self._stored.values() if (made := self._update(host)) is not None]
        dimension = self._memory.encoder.dimension
        columns = Records(
            [row.id for row in own],
            _stack([row.image for row in own], dimension),
            _stack([row.text for row in own], dimension),
            [add_marks(row.payload, row.digest, self._source) for row in own],
        )
        return Records.join([columns, *hosts], dimension)

    def _own(self, row: Encoded) -> Encoded:
        captions = self._inside.get(row.id, [])
        if len(captions) < 2:
            return row
        return replace(row, text=self._mean(captions), payload={**row.payload, CAPTIONS: list(captions)})

    def _host(self, id_: str) -> _Host:
        if id_ not in self._stored:
            record = self._memory.get([id_])
            payload = record.payloads[0]
            first = caption_of(payload)
            known = payload.get(CAPTIONS) or ([first] if first is not None else [])
            self._stored[id_] = _Host(record, list(known))
        return self._stored[id_]

    def _update(self, host: _Host) -> Records | None:
        """The stored pair, vectors (1, D), with all its captions; None without a new one."""
        old = host.record
        known = old.payloads[0].get(CAPTIONS) or [old.payloads[0].get("caption")]
        if host.captions == known or len(host.captions) < 2:
            return None
        text = self._mean(host.captions)[None]
        return Records(old.ids, old.image, text, [{**old.payloads[0], CAPTIONS: host.captions}])

    def _mean(self, captions: Sequence[str]) -> Vectors:
        """Mean (D,) of all captions' vectors, encoded again, so that the order of merging does not matter."""
        mean = self._memory.encoder.texts(captions).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _stack(vectors: Sequence[Vectors], dimension: int) -> Vectors:
    return np.stack(vectors) if vectors else np.empty((0, dimension), np.float32)
