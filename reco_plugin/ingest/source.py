"""Any source of pairs: all that :func:`~reco_plugin.data.opening.open_rows` reads, also memories and collections.

::

    open_source ──► a file or folder ─────────────► open_rows
                ──► a memory in a folder ─────────► MemoryFolderPart
                ──► http(s):// grpc(s)://host ────► CollectionPart
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import Artifact
from ..config import Settings, load_settings
from ..data.opening import open_rows
from ..data.rows import Rows
from ..data.source import Location, parse_source
from ..data.tables import SUFFIXES
from ..data.torchvision_sets import PREFIX
from ..errors import ConfigError, DataError
from ..memory.header import HEADER_NAME, check_fingerprint, read_header
from ..memory.opening import SERVERS, server_of
from ..memory.options import MemoryOptions
from ..types import Fingerprint
from .memory_parts import CollectionNames, MemoryFolderPart, check_captions, collection_rows

if TYPE_CHECKING:
    from ..memory.reading import Described
    from ..memory.server import Server

_FILES = (*SUFFIXES, ".json", ".parquet", ".tar", ".npz")
_COLUMNS = ("image", "text", "caption")
_REACHED = tuple(MemoryOptions.model_fields)
"""Options of the server and of reading from it; those of the settings may belong to the memory that is filled."""


def open_source(source: str | Path, *, model: Path | None = None, into: Settings | None = None) -> Rows:
    """Open a source of image-text pairs; of a memory, reads the header and the number of pairs.

    Args:
        source: as :func:`~reco_plugin.data.open_rows` takes it, or a memory's folder, or a Qdrant server's URL as
            in ``http://host:6333?collection=shop&image=photo&text=title&caption=name&check=1``.
        model: folder of the model whose encoder a memory must have; None: any.
        into: settings of the memory that is filled, which must not be the source.

    Raises:
        FingerprintMismatch: another encoder made the memory.
        MemoryLocked: the memory is open elsewhere.
        MemoryStoreError: no such collection or vector, or the server fails.
        ConfigError: an unknown option; a collection that is not a memory, without names of its vectors; or the memory
            that is filled.
        DataError: an empty source, and all errors of ``open_rows``.
    """
    where = parse_source(source)
    if not is_memory(where):
        return open_rows(source)
    fingerprint = Artifact.load(model).manifest.fingerprint if model is not None else None
    rows = (
        _open_served(where, fingerprint, model, into) if _is_served(where.name) else _folder(where, fingerprint, into)
    )
    if not rows.total:
        raise DataError(f"{rows.name} holds no pairs: it is empty")
    return rows


def names_of(rows: Rows) -> tuple[str, frozenset[str]]:
    """The name under which a source's pairs are stored, and others that older versions or other spellings gave it.

    A path becomes whole, so that a cron job with another working folder or ``./`` means the same source; links stay, as
    a link may lead to another file each day.
    """
    name = rows.name
    if "://" in name or name.startswith(PREFIX):
        return name, frozenset()
    short = os.path.normpath(name)
    return os.path.normpath(Path(name).absolute()), frozenset({name, short, f"{os.curdir}{os.sep}{short}"})


def is_memory(where: Location) -> bool:
    """Whether a source is a memory, or a collection of a Qdrant server."""
    return _is_served(where.name) or (where.path / HEADER_NAME).is_file()


def _is_served(name: str) -> bool:
    return name.startswith(SERVERS)


def _folder(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> Rows:
    where.without("check").only()
    part = MemoryFolderPart(where.path.resolve(), load_settings().memory_collection)
    if into is not None and not _is_served(into.memory) and Path(into.memory).expanduser().resolve() == part.folder:
        raise _itself(where)
    if (found := read_header(where.path)) is not None:
        check_fingerprint(found[1].fingerprint, fingerprint, where.name)
    with closing(part.open()) as memory:
        return Rows(where.name, (part,), memory.count(), where.flag("check"), told=True)


def _open_served(where: Location, fingerprint: Fingerprint | None, model: Path | None, into: Settings | None) -> Rows:
    reached = {name: where.options[name] for name in _REACHED if name in where.options}
    settings = load_settings(
        memory=where.name, memory_collection=where.options.get("collection"), memory_options=reached or None
    )
    server, collection = server_of(settings), settings.memory_collection
    if server.path.lower().endswith(_FILES):
        raise DataError(f"{where.name} is a file behind a URL: download it first. URLs name Qdrant servers here")
    where.only("collection", *_COLUMNS, "check", *_REACHED)  # after the URL was checked, since it may hold secrets
    from ..memory.reading import describe

    found = describe(server, collection)
    if into is not None and _is_served(into.memory) and _holds(server_of(into), into.memory_collection, server, found):
        raise _itself(where)
    columns = _columns(where, found, collection)
    rows = collection_rows(server, found, columns, fingerprint)
    check = where.flag("check")
    if check:
        _check(where, server, found, columns, model)
        check = None  # done
    return Rows(f"{where.name}?collection={collection}", rows.parts, rows.total, check, told=found.header is not None)


def _columns(where: Location, found: Described, collection: str) -> CollectionNames:
    """The names that were given, else those of a memory.

    Raises:
        ConfigError: too few names for a collection that is not a memory.
    """
    image, text, caption = (where.options.get(name) for name in _COLUMNS)
    if found.layout is not None:
        image, text = found.layout.image if image is None else image, found.layout.text if text is None else text
    if image is None or (text is None and caption is None):
        raise ConfigError(
            f"the collection {collection!r} at {where.name!r} is no memory of ours: name its vectors, as in "
            f"'{where.name}?collection={collection}&image=NAME&text=NAME&caption=KEY', where text or caption may be "
            f"left out. Its vectors: {found.known()}"
        )
    return CollectionNames(image, text, caption)


def _check(where: Location, server: Server, found: Described, columns: CollectionNames, model: Path | None) -> None:
    """Compare captions with their vectors.

    Raises:
        ConfigError: no captions, text vectors or model to compare.
        FingerprintMismatch: they are of another model.
    """
    if columns.text is None or columns.caption is None or model is None:
        beside = "is for commands with a model" if model is None else "needs text=NAME and caption=KEY"
        raise ConfigError(f"{where.name}: check=1 compares captions with their vectors, and {beside}")
    check_captions(server, found, columns.text, columns.caption, model)


def _holds(filled: Server, alias: str, server: Server, found: Described) -> bool:
    """Whether the memory of this alias is that collection, judging by addresses."""
    from ..memory.reading import own_name

    return filled.is_same(server) and own_name(filled, alias) == found.name


def _itself(where: Location) -> ConfigError:
    return ConfigError(
        f"{where.name} is the memory that would be filled, and cannot be read into itself: name another one with "
        "--memory, build that, and let readers use it"
    )
