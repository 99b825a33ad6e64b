"""Every kind of memory, opened the way users open it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reco_plugin.memory import Fingerprint, Memory, open_memory

SERVER = os.environ.get("RECO_TEST_QDRANT_URL")
BACKENDS = [
    "exact-ram",
    "exact-folder",
    "edge",
    "qdrant-ram",
    "qdrant-folder",
    pytest.param(
        "qdrant-server",
        marks=pytest.mark.skipif(not SERVER, reason="set RECO_TEST_QDRANT_URL to the URL of a Qdrant server"),
    ),
]
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, 8)


@dataclass
class Backend:
    """One kind of memory at one place."""

    name: str
    location: str
    collection: str
    opened: list[Memory]

    @property
    def kind(self) -> Any:
        return self.name.split("-")[0]

    @property
    def persistent(self) -> bool:
        return not self.name.endswith("-ram")

    def open(self, fingerprint: Fingerprint | None = FINGERPRINT, **options: Any) -> Memory:
        memory = open_memory(self.location, fingerprint, **{"kind": self.kind, "collection": self.collection} | options)
        self.opened.append(memory)
        return memory


def _location(name: str, tmp_path: Path) -> str:
    if name.endswith("-ram"):
        return ":memory:"
    return str(SERVER) if name.endswith("-server") else str(tmp_path / "memory")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = Backend(request.param, _location(request.param, tmp_path), f"test-{uuid.uuid4()}", [])
    yield made
    for memory in made.opened:
        memory.close()
    if request.param.endswith("-server"):
        from qdrant_client import QdrantClient

        with suppress(Exception):
            QdrantClient(url=SERVER).delete_collection(made.collection)


@pytest.fixture
def memory(backend: Backend) -> Memory:
    """An empty memory of each kind."""
    return backend.open()


@pytest.fixture
def persistent(backend: Backend) -> Callable[..., Memory]:
    """Opens the same memory again and again."""
    if not backend.persistent:
        pytest.skip("lives in RAM only")
    return backend.open
