"""A new version of a memory, built from a source beside the one in use, which it replaces when it is whole."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from ..defaults import INGEST_BATCH
from ..errors import MemoryLocked
from ..memory import Memory
from ..memory.transfer import lacking
from ..memory.versions import Version, Versions
from ..opinions import bring_over
from ..types import Fingerprint
from ..values import SOURCE
from .options import IngestOptions
from .write import Outcome, Writer

_INDEXED_S = 36_000.0
"""Seconds that a server may take to index a version: ten million pairs take hours."""


@dataclass
class VersionBuild:
    """One build. Pairs of the version in use that came from elsewhere are copied, unless they shall be dropped."""

    versions: Versions
    fingerprint: Fingerprint
    options: IngestOptions
    fill: Callable[[str, Callable[[Writer], object]], Outcome]
    """Writes the source into the version of this name, and calls the function when all rows are written."""
    read_live: Callable[[], AbstractContextManager[Memory]]
    """Opens the memory in use."""
    read_replaced: Callable[[Version], AbstractContextManager[Memory]]
    """Opens a version that was in use until now."""
    swap: bool = False
    drop_others: bool = False
    resume: bool = False
    late: int = 0
    """Pairs that others added to the version before while this one was built."""
    _seen: set[str] = field(default_factory=set)

    def run(self) -> tuple[Version, Outcome]:
        """Build the version, and put it to use if that is wanted or nothing is lost by it.

        Raises:
            FingerprintMismatch: the version in use is of another encoder.
            MemoryLocked: the version in use has to be closed or read, and another process has it open.
            MemoryStoreError: the version does not hold what was written.
        """
        versions = self.versions
        live = versions.in_use(self.fingerprint)
        begun = versions.find_unfinished(self.fingerprint) if self.resume else None
        name = versions.begin(self.fingerprint) if begun is None else begun.name
        outcome = self.fill(name, lambda writer: self._finish(writer, live))
        held = outcome.held + outcome.copied
        version = versions.finish(name, held, wait_s=_INDEXED_S)
        if self.swap or live is None or live.pairs == 0:
            version = versions.use(name)
            self._bring_late(live)
        return version, outcome

    def _finish(self, writer: Writer, live: Version | None) -> None:
        """Make the new version hold the source's pairs, and those from elsewhere."""
        writer.delete_others()
        if live is None:
            return
        if self.swap and not self.drop_others:
            with self.read_live() as store:
                others = self._find_others(store, writer.memory.store)
                for start in range(0, len(others), INGEST_BATCH):
                    for records in store.scroll(INGEST_BATCH, list(others)[start : start + INGEST_BATCH]):
                        writer.keep(records)
            writer.outcome.others, self._seen = dict(Counter(others.values())), set(others)
        live = self.versions.in_use(self.fingerprint) or live  # with what was said meanwhile
        bring_over(live.header, writer.memory.store)

    def _find_others(self, old: Memory, new: Memory) -> dict[str, str]:
        """Id -> source (empty: none) of the pairs that came from elsewhere and that the new version lacks."""
        others = {
            id_: str(payload.get(SOURCE, ""))
            for id_, payload in old.payloads()
            if not self.options.brought(payload) and id_ not in self._seen
        }
        held = {id_ for id_, _ in new.payloads(list(others))} if others else set()
        return {id_: source for id_, source in others.items() if id_ not in held}

    def _bring_late(self, before: Version | None) -> None:
        """Copy what was added to the version before until it was replaced: its writers were told that it is stored."""
        if before is None or self.drop_others or not self.swap:
            return
        try:
            with self.read_replaced(before) as old, self.read_live() as new:
                late = list(self._find_others(old, new))
                if late:
                    for records in old.scroll(ids=late):
                        new.upsert(lacking(records, new))
                    new.flush()
        except MemoryLocked as error:
            warnings.warn(f"pairs that were added until the swap may be missing: {error}", stacklevel=2)
            return
        self.late = len(late)


def describe_sources(sources: dict[str, int]) -> str:
    """How many pairs came from where, the most first.

    >>> describe_sources({"": 5490, "/srv/more.csv": 6})
    '5,490 without a source (by `add`, HTTP or a program), 6 of /srv/more.csv'
    """
    return ", ".join(
        f"{count:,} {f'of {name}' if name else 'without a source (by `add`, HTTP or a program)'}"
        for name, count in Counter(sources).most_common(_NAMED)
    )


_NAMED = 5
