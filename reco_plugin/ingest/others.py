"""Pairs of the version in use that a new version would lack, because they did not come from its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..data.rows import Rows
from ..defaults import INGEST_BATCH
from ..errors import MemoryStoreError
from ..memory import Memory
from ..values import SOURCE
from .options import IngestOptions
from .prepare import key_of, read_rows
from .write import Writer

NOWHERE = ""
"""In counts: pairs without a source, which came by `add`, `import`, HTTP or from a program."""


@dataclass
class Others:
    """The other pairs of a version in use."""

    ids: list[str] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)  # by which source brought them

    @classmethod
    def of(cls, live: Memory, options: IngestOptions, brings: Callable[[str], bool]) -> Others:
        """Those that are neither of this source, nor of an id that it has; reads all payloads."""
        found = cls()
        for id_, payload in live.payloads():
            if not options.brought(payload) and not brings(id_):
                found.ids.append(id_)
                found.sources[str(payload.get(SOURCE, NOWHERE))] += 1
        return found

    def refuse(self, source: str, live: str, built: str) -> None:
        """Stop, if there are any; ``built`` says what becomes of what was built so far.

        Raises:
            MemoryStoreError: naming them, and both ways on.
        """
        if self.ids:
            raise MemoryStoreError(
                f"{len(self.ids):,} pairs of {live}, which is in use, came from elsewhere and are not in {source}: "
                f"{describe_sources(self.sources)}. Give --keep-others to copy them into the new version, or "
                f"--drop-others to leave them out; {built}"
            )

    def copy(self, live: Memory, writer: Writer) -> None:
        """Copy them into the memory of a writer."""
        for start in range(0, len(self.ids), INGEST_BATCH):
            for records in live.scroll(INGEST_BATCH, self.ids[start : start + INGEST_BATCH]):
                writer.keep(records)


def describe_sources(sources: Mapping[str, int]) -> str:
    """How many pairs came from where, the most first.

    >>> describe_sources({"": 5490, "/srv/more.csv": 6})
    '5,490 without a source (by `add`, `import`, HTTP or a program), 6 of /srv/more.csv'
    """
    most = Counter(sources).most_common(_NAMED)
    said = [f"{count:,} {f'of {name}' if name else _WITHOUT}" for name, count in most]
    more = len(sources) - len(most)
    return ", ".join([*said, *([f"and those of {more:,} more sources"] if more else [])])


_NAMED = 5
_WITHOUT = "without a source (by `add`, `import`, HTTP or a program)"


def find_others(live: Memory, options: IngestOptions, rows: Rows, progress: Callable[[int, int], object]) -> Others:
    """The same before anything is encoded; the rows are read, no image is decoded or fetched."""
    if all(options.brought(payload) for _, payload in live.payloads()):
        return Others()
    named: set[int] = set()
    for row in read_rows(rows.parts):
        id_ = row[1].id if isinstance(row, tuple) else row.id
        if id_ is not None:
            named.add(key_of(id_))
        progress(1, 0)
    return Others.of(live, options, lambda id_: key_of(id_) in named)
