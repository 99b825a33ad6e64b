"""Every kind of memory, opened the way users open it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from qdrant_stand_in import StandIn, serving

from reco_plugin.memory import Fingerprint, Memory, open_memory

SERVER = os.environ.get("TEST_QDRANT_URL")
"""A real Qdrant server, where there is one."""
BACKENDS = [
    "exact-ram",
    "edge",
    pytest.param("edge-index", marks=pytest.mark.slow),  # with a search index from the first pair on, which every
    # search waits for
    "qdrant-rest",  # the stand-in: real transport and messages over qdrant-client's own engine
    "qdrant-grpc",
    *(["qdrant-server"] if SERVER else []),
]
collect_ignore = [] if SERVER else ["test_memory_server.py"]
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for the same memory again only where it outlives its object."""
    again = {one for one in items if "persistent" in getattr(one, "fixturenames", ()) and "[exact-ram" in one.name}
    items[:] = [one for one in items if one not in again]


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

    def open(self, fingerprint: Fingerprint | None = FINGERPRINT, **options: Any) -> Memory:
        memory = open_memory(self.location, fingerprint, collection=self.collection, **options)
        self.opened.append(memory)
        return memory


@pytest.fixture(scope="session")
def qdrant_url() -> str:
    """A real Qdrant server."""
    assert SERVER is not None
    return SERVER


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    """A stand-in for a Qdrant server."""
    with serving() as server:
        yield server


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in of the test's own."""
    with serving() as running:
        yield running


def _location(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if name.endswith("-ram"):
        return ":memory:"
    if name.endswith(("-rest", "-grpc")):
        server: StandIn = request.getfixturevalue("stand_in")
        return server.url("http" if name.endswith("-rest") else "grpc")
    return str(request.getfixturevalue("qdrant_url")) if name.endswith("-server") else str(tmp_path / "memory")


@pytest.fixture
def always_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search of an embedded memory makes the index first, and looks through all of its lists."""
    pytest.importorskip("faiss")
    from reco_plugin.memory import ann, search_index

    candidates = search_index.SearchIndex.candidates

    def waited(self: search_index.SearchIndex, *arguments: Any) -> Any:
        self._built = None
        candidates(self, *arguments)
        while self.state == "being made":
            time.sleep(0.001)
        return candidates(self, *arguments)

    monkeypatch.setattr(search_index, "LEAST", 1)
    for name, value in {"_SHARE": 1, "_ACROSS": 1}.items():
        monkeypatch.setattr(ann, name, value)
    monkeypatch.setattr(search_index.SearchIndex, "candidates", waited)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One kind of memory, empty, at a place of its own."""
    if request.param == "edge-index":
        request.getfixturevalue("always_indexed")
    made = Backend(request.param, _location(request.param, request, tmp_path), f"test-{uuid.uuid4()}", [])
    yield made
    for memory in made.opened:
        memory.close()
    if request.param.endswith("-server"):
        from qdrant_client import QdrantClient

        with suppress(Exception), closing(QdrantClient(url=made.location, check_compatibility=False)) as client:
            client.delete_collection(f"{made.collection}--v1")


@pytest.fixture
def memory(backend: Backend) -> Memory:
    """An empty memory of each kind."""
    return backend.open()


@pytest.fixture
def persistent(backend: Backend) -> Callable[..., Memory]:
    """Opens the same memory again and again."""
    return backend.open
