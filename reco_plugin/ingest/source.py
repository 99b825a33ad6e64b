"""Any source of pairs: all that :func:`~reco_plugin.data.open_rows` reads, memories, and indexes of search engines.

::

    open_source ──► a file or folder ─────────────► open_rows
                ──► a memory ─────────────────────► MemoryPart
                ──► opensearch://host/products … ─► IndexPart
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ..api_encoder import load_model
from ..config import Settings, load_settings
from ..data.cells import CellError, unit_rows
from ..data.opening import open_rows
from ..data.rows import Rejected, Rows
from ..data.source import PREFIX, Location, parse_source
from ..data.tables import SUFFIXES
from ..engines import is_index
from ..engines.address import SCHEMES
from ..errors import ConfigError, DataError
from ..files import in_home
from ..memory import Memory, memory_of
from ..memory.checks import SERVERS
from ..memory.header import HEADER_NAME, check_fingerprint, read_header
from ..memory.opening import server_of
from ..types import Fingerprint, Pair
from ..values import strip_marks
from .index_rows import open_index_rows

_AT_ONCE = 256
_FILES = (*SUFFIXES, ".json", ".parquet", ".tar", ".npz")


@dataclass(frozen=True)
class MemoryPart:
    """A memory; open while it is read. It does not hold a server's key: the reader takes it from the settings."""

    name: str  # a folder, no link, or the address of a collection by its own name, so that others can be put to use

    def open(self) -> Memory:
        """The memory itself."""
        return memory_of(load_settings(memory=self.name), None, create=False)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its pairs in order."""
        with closing(self.open()) as memory:
            for records in memory.scroll(_AT_ONCE):
                sides = zip(unit_rows(records.image), unit_rows(records.text), strict=True)
                for id_, payload, (image, text) in zip(records.ids, records.payloads, sides, strict=True):
                    where = f"{self.name}, pair {id_!r}"
                    if isinstance(image, CellError):
                        yield Rejected(where, f"its image vector {image}", id_)
                    elif isinstance(text, CellError):
                        yield Rejected(where, f"its text vector {text}", id_)
                    else:
                        yield Pair(id_, image, text, strip_marks(payload))


def open_source(source: str | Path, *, model: Path | None = None, into: Settings | None = None) -> Rows:
    """Open a source of image-text pairs; of a memory, reads the header and the number of pairs.

    Args:
        source: as :func:`~reco_plugin.data.open_rows` takes it, or a memory: a folder, or a Qdrant server's URL as in
            ``http://host:6333?collection=reco``; or the address of an index
            (:func:`~reco_plugin.ingest.index_rows.open_index_rows`).
        model: folder of the model whose encoder a memory must have; None: any.
        into: settings of the memory that is filled, which must not be the source.

    Raises:
        FingerprintMismatch: another encoder made the memory.
        MemoryLocked: the memory is open elsewhere.
        MemoryStoreError: no such collection, or the server fails.
        ConfigError: an unknown option; a collection that is no memory; or the memory that is filled.
        DataError: an empty source, and all errors of ``open_rows``.
    """
    if is_index(str(source)):
        return open_index_rows(str(source), model)
    where = parse_source(source)
    if not is_memory(where):
        if "://" in where.name and not where.path.exists():
            scheme = where.name.partition("://")[0]
            raise DataError(
                f"{scheme}:// begins no source that can be read: give a file or a folder, or the index of an engine "
                f"({', '.join(SCHEMES)}); see docs/sources.md"
            )
        return open_rows(source)
    fingerprint = load_model(model).manifest.fingerprint if model is not None else None
    name, part = (_served if _is_served(where.name) else _folder)(where.without("check"), fingerprint, into)
    with closing(part.open()) as memory:
        rows = Rows(name, (part,), memory.count(), where.flag("check"), told=True)
    if not rows.total:
        raise DataError(f"{rows.name} holds no pairs: it is empty")
    return rows


def name_of(rows: Rows) -> str:
    """The name under which a source's pairs are stored.

    A path becomes whole, so that a cron job with another working folder or ``./`` means the same source; links stay, as
    a link may lead to another file each day.
    """
    name = rows.name
    if "://" in name or name.startswith(PREFIX) or is_index(name):
        return name
    return os.path.normpath(Path(name).absolute())


def is_memory(where: Location) -> bool:
    """Whether a source is a memory, in a folder or on a Qdrant server."""
    return _is_served(where.name) or (where.path / HEADER_NAME).is_file()


def _is_served(name: str) -> bool:
    return name.startswith(SERVERS)


def _folder(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> tuple[str, MemoryPart]:
    where.only()
    folder = where.path.resolve()
    if into is not None and not _is_served(into.memory) and in_home(into.memory).resolve() == folder:
        raise _itself(where)
    if (found := read_header(where.path)) is not None:
        check_fingerprint(found.fingerprint, fingerprint, where.name)
    return where.name, MemoryPart(str(folder))


def _served(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> tuple[str, MemoryPart]:
    if where.path.suffix.lower() in _FILES:
        raise DataError(f"{where.name} is a file behind a URL: download it first. URLs name Qdrant servers here")
    from ..memory.collection import encoder_of, own_name

    settings = load_settings(memory=str(where))
    server, collection = server_of(settings), settings.memory_collection
    name = f"{where.name}?collection={collection}"  # an alias stays when another version is put to use
    check_fingerprint(encoder_of(server, collection), fingerprint, name)
    own = own_name(server, collection)
    if into is not None and _is_served(into.memory):
        filled = server_of(into)
        if own_name(filled, into.memory_collection) == own and filled.address == server.address:
            raise _itself(where)
    return name, MemoryPart(str(replace(where, options={**where.options, "collection": own})))


def _itself(where: Location) -> ConfigError:
    return ConfigError(
        f"{where.name} is the memory that would be filled, and cannot be read into itself: name another one with "
        "--memory, build that, and let readers use it"
    )
