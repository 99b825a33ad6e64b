"""Every kind of memory, opened the way users open it."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reco_plugin.memory import Fingerprint, Memory, open_memory

BACKENDS = ["exact-ram", "exact-folder", "edge", "qdrant-ram", "qdrant-folder", "qdrant-server"]
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


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """The Qdrant server that pytest-docker starts."""
    return str(Path(__file__).with_name("docker-compose.yml"))


@pytest.fixture(scope="session")
def qdrant_url(request: pytest.FixtureRequest) -> str:
    """A real Qdrant server: the one that is named, or one in docker."""
    if named := os.environ.get("TEST_QDRANT_URL"):
        return named
    if not _docker_runs():
        pytest.skip("no docker engine runs here, and TEST_QDRANT_URL names no Qdrant server")
    services = request.getfixturevalue("docker_services")
    url = f"http://{request.getfixturevalue('docker_ip')}:{services.port_for('qdrant', 6333)}"
    services.wait_until_responsive(timeout=60.0, pause=0.5, check=lambda: _answers(url))
    return url


def _location(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if name.endswith("-ram"):
        return ":memory:"
    return str(request.getfixturevalue("qdrant_url")) if name.endswith("-server") else str(tmp_path / "memory")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One kind of memory, empty, at a place of its own."""
    made = Backend(request.param, _location(request.param, request, tmp_path), f"test-{uuid.uuid4()}", [])
    yield made
    for memory in made.opened:
        memory.close()
    if request.param.endswith("-server"):
        from qdrant_client import QdrantClient

        with suppress(Exception):
            QdrantClient(url=made.location).delete_collection(made.collection)


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
