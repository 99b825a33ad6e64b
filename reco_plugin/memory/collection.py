"""A Qdrant collection and its header: reach the server or the local folder, make or check what is there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import portalocker  # qdrant-client needs it too
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from ..errors import MemoryStoreError
from ..types import MODALITIES, Fingerprint
from .header import Header, check_fingerprint, from_json, new_header, refuse_missing_data, to_json
from .points import locked_error

FOLDER_NAME = "qdrant"
METADATA_KEY = "reco"


@dataclass(frozen=True)
class Server:
    """How to reach a Qdrant server; the key is never printed."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    prefer_grpc: bool = False
    timeout_s: float = 10.0

    def connect(self) -> QdrantClient:
        """A client; nothing is sent yet."""
        timeout = max(1, math.ceil(self.timeout_s))
        return QdrantClient(
            url=self.url,
            api_key=self.api_key,
            prefer_grpc=self.prefer_grpc,
            timeout=timeout,
            check_compatibility=False,  # it only warns, and first where the server cannot be reached
        )


def folder_of(location: str, server: Server | None) -> Path | None:
    """The folder of a memory that has one."""
    return None if server or location == ":memory:" else Path(location)


def local_client(folder: Path | None) -> QdrantClient:
    """The client's own engine, in a folder or in RAM.

    Raises:
        MemoryLocked: the folder is open elsewhere. The client notices too, but only after it has read all points, and
            then leaves its files open.
    """
    if folder is None:
        return QdrantClient(":memory:")
    lock = folder / FOLDER_NAME / ".lock"
    if lock.exists():
        try:
            with portalocker.Lock(lock, "r+", flags=portalocker.LOCK_EX | portalocker.LOCK_NB, fail_when_locked=True):
                pass
        except portalocker.exceptions.LockException as error:
            raise locked_error(str(folder)) from error
    return QdrantClient(path=str(folder / FOLDER_NAME))


def way_out(error: Exception) -> str:
    """What to do about an error of a server; empty where its own message says enough."""
    code = getattr(error, "code", None)  # gRPC
    status = code().name if callable(code) else getattr(error, "status_code", None)
    if status in (401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"):
        return ". Check the API key"
    if isinstance(error, ResponseHandlingException) or status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return ". Is a Qdrant server running there? docker run -p 6333:6333 qdrant/qdrant"
    return ""


def open_collection(
    client: QdrantClient,
    name: str,
    location: str,
    header: Header | None,
    fingerprint: Fingerprint | None,
    *,
    create: bool,
) -> Header:
    """The collection's header; the collection is made when missing. ``header`` is that of a folder."""
    if client.collection_exists(name):
        header = header or _stored_header(client, name, location)
        check_fingerprint(header.fingerprint, fingerprint, location)
        return header
    if header is None:
        header = new_header(fingerprint, f"{location} (collection {name})", create=create)
    else:
        refuse_missing_data(Path(location) / FOLDER_NAME / "collection" / name, create=create)
    size = header.fingerprint.dimension
    vectors = {str(m): models.VectorParams(size=size, distance=models.Distance.COSINE) for m in MODALITIES}
    client.create_collection(name, vectors_config=vectors, metadata={METADATA_KEY: to_json("qdrant", header)})
    return header


def _stored_header(client: QdrantClient, name: str, location: str) -> Header:
    metadata = client.get_collection(name).config.metadata or {}
    if METADATA_KEY not in metadata:
        raise MemoryStoreError(
            f"the collection {name!r} at {location!r} holds something else: its metadata has no {METADATA_KEY!r}. "
            "Choose another collection name."
        )
    return from_json(metadata[METADATA_KEY], f"the metadata of collection {name!r} at {location!r}")[1]
