"""The protocol of a memory, its header, and the one place that opens one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

from ..errors import ConfigError, MemoryStoreError, MissingExtra
from ..types import Filter, Fingerprint, Modality, Neighbours, Records, Vectors
from .header import FORMAT, Header, check_fingerprint, read_header

__all__ = ["FORMAT", "Fingerprint", "Header", "Kind", "Memory", "check_fingerprint", "open_memory"]

Kind: TypeAlias = Literal["auto", "exact", "edge", "qdrant"]


class Memory(Protocol):
    """A store of image-text pairs, searched by either modality, read by either.

    Every method raises :class:`~reco_plugin.errors.MemoryStoreError` when the store fails.
    """

    kind: str
    """exact, edge or qdrant."""
    location: str
    """Folder, ``:memory:`` or URL; never a key."""

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        ...

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store the gate's constants with the memory, durably."""
        ...

    def count(self) -> int:
        """Number of pairs."""
        ...

    def upsert(self, records: Records) -> None:
        """Add pairs, searchable at once; an id that exists is replaced whole."""
        ...

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many were there."""
        ...

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
    ) -> Neighbours:
        """Find each query's k nearest pairs by one modality's vectors and read one modality's vectors.

        Args:
            vectors: (B, D) unit-norm queries.
            by: modality of the memory that is compared with the query.
            read: modality whose vectors come back.
            k: neighbours per query; fewer are found when the memory holds fewer.
            exclude: B collections of ids that must not be found for that query.
            where: conditions on the payload.
            payloads: also read the payloads.

        Raises:
            InputError: arguments that do not fit one another; see also :class:`~reco_plugin.errors.VectorError`.
        """
        ...

    def scroll(self, batch_size: int = 1024, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in a stable order, or those of these ids that exist in the order of the ids, in batches."""
        ...

    def flush(self) -> None:
        """Make everything written so far durable."""
        ...

    def close(self) -> None:
        """Flush and let go of the store; closing twice is fine."""
        ...


def open_memory(
    location: str | os.PathLike[str] | None,
    fingerprint: Fingerprint | None,
    *,
    kind: Kind = "auto",
    create: bool = True,
    hnsw_ef: int = 256,
    collection: str = "reco",
    api_key: str | None = None,
    prefer_grpc: bool = False,
    timeout_s: float = 10.0,
) -> Memory:
    """Open the memory at a location, or make one there.

    Args:
        location: a folder, the URL of a Qdrant server, or ``:memory:`` (also None) for one that lives in RAM only.
        fingerprint: encoder of the model in use; None opens an existing memory whichever encoder built it.
        kind: auto takes exact in RAM, qdrant for a URL, what the folder holds, and edge for a new folder.
        create: make the memory when there is none.
        hnsw_ef: candidates an approximate index looks at; more is slower and finds more. Exact search ignores it.
        collection: name of the collection on a Qdrant server.
        api_key: key of the Qdrant server.
        prefer_grpc: talk to the Qdrant server by gRPC.
        timeout_s: how long the Qdrant server may take for one call.

    Raises:
        ConfigError: an unknown kind, or one that does not fit the location.
        MissingExtra: the package of this kind is not installed.
        FingerprintMismatch: another encoder built the memory.
        MemoryLocked: it is open elsewhere.
        MemoryStoreError: there is none (and ``create`` is False), or it cannot be read.
    """
    place = ":memory:" if location is None else os.fspath(location)
    if place != ":memory:" and not _is_url(place):
        place = str(Path(place).expanduser())
    match _choose(place, kind):
        case "exact":
            from .exact import ExactMemory

            return ExactMemory.open(place, fingerprint, create=create)
        case "edge":
            try:
                from .edge import EdgeMemory
            except ModuleNotFoundError as error:
                raise MissingExtra("qdrant-edge-py", "edge", "a memory of kind 'edge'") from error
            return EdgeMemory.open(place, fingerprint, create=create, hnsw_ef=hnsw_ef)
        case _:
            try:
                from .collection import Server
                from .qdrant import QdrantMemory
            except ModuleNotFoundError as error:
                raise MissingExtra("qdrant-client", "qdrant", "a memory of kind 'qdrant'") from error
            server = Server(place, api_key, prefer_grpc, timeout_s) if _is_url(place) else None
            return QdrantMemory.open(
                place, fingerprint, create=create, collection=collection, server=server, hnsw_ef=hnsw_ef
            )


def _is_url(place: str) -> bool:
    return "://" in place


def _choose(place: str, kind: str) -> str:
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown kind of memory {kind!r}: expected one of {', '.join(get_args(Kind))}")
    if _is_url(place):
        if not place.startswith(("http://", "https://")) or "@" in place:
            raise ConfigError("the URL of a Qdrant server looks like http://host:6333, without user or key in it")
        if kind not in ("auto", "qdrant"):
            raise ConfigError(f"a memory of kind {kind!r} is a folder, not the URL {place!r}: use kind='qdrant'")
        return "qdrant"
    if place == ":memory:":
        if kind == "edge":
            raise ConfigError("a memory of kind 'edge' needs a folder; in RAM use kind='exact'")
        return "exact" if kind == "auto" else kind
    if kind == "auto":
        found = read_header(Path(place))
        if found is not None and found[0] not in get_args(Kind):
            raise MemoryStoreError(
                f"the memory at {place!r} is of kind {found[0]!r}, which this software does not know: "
                "pip install --upgrade reco-plugin"
            )
        return "edge" if found is None else found[0]
    return kind
