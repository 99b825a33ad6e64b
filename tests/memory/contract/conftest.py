"""Every kind of memory, opened the way users open it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compose_stack import Stack, no_containers
from pytest_docker.plugin import Services, get_docker_services
from qdrant_stand_in import StandIn, serving

from reco_plugin.memory import Fingerprint, Memory, open_memory

BACKENDS = [
    "exact-ram",
    "edge",
    pytest.param("edge-index", marks=pytest.mark.slow),  # with a search index from the first pair on, which every
    # search waits for
    "qdrant-rest",  # the stand-in: real transport and messages over qdrant-client's own engine
    "qdrant-grpc",
    "qdrant-server",
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
        memory = open_memory(self.location, fingerprint, collection=self.collection, **options)
        self.opened.append(memory)
        return memory


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
def docker_compose_project_name() -> str:
    """Of these tests alone: those of the stack, which may run in the same process, take the plugin's name."""
    return f"pytest{os.getpid()}-memory"


@pytest.fixture(scope="session")
def docker_services(docker_compose_file: str, docker_compose_project_name: str) -> Iterator[Services]:
    """As pytest-docker's, which is made once for all folders, with the file of the first one.

    It starts nothing: :func:`containers` does, since pytest-docker takes down what started only if all of it did.
    """
    with get_docker_services(
        "docker compose", docker_compose_file, docker_compose_project_name, [], "down -v"
    ) as services:
        yield services


@pytest.fixture(scope="session")
def containers(request: pytest.FixtureRequest) -> Any:
    """The services of :func:`docker_compose_file`, up; taken down at the end, also where some do not start."""
    services = request.getfixturevalue("docker_services")
    project, file = (request.getfixturevalue(f"docker_compose_{name}") for name in ("project_name", "file"))
    Stack(project, [file]).up()
    return services


def _service(request: pytest.FixtureRequest, name: str) -> str:
    """URL of a service that docker runs; skips where docker does not."""
    if problem := no_containers():
        pytest.skip(f"{problem}, and TEST_QDRANT_URL names no Qdrant server")
    services = request.getfixturevalue("containers")
    url = f"http://{request.getfixturevalue('docker_ip')}:{services.port_for(name, 6333)}"
    services.wait_until_responsive(timeout=60.0, pause=0.5, check=lambda: _answers(url))
    return url


@pytest.fixture(scope="session")
def qdrant_url(request: pytest.FixtureRequest) -> str:
    """A real Qdrant server: the one that is named, or one in docker."""
    return os.environ.get("TEST_QDRANT_URL") or _service(request, "qdrant")


@dataclass
class Cluster:
    """Three nodes in docker.

    Attributes:
        urls: of the nodes.
        compose: the command that handles them.
    """

    urls: list[str]
    compose: list[str]

    def tell(self, *words: str) -> None:
        """Run a command of docker compose, as in ``tell("kill", "node-3")``."""
        subprocess.run([*self.compose, *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A real cluster of three nodes, all of which know one another."""
    urls = [_service(request, f"node-{number}") for number in (1, 2, 3)]
    project, file = (request.getfixturevalue(f"docker_compose_{name}") for name in ("project_name", "file"))
    end = time.monotonic() + 60
    while _peers(urls[0]) < 3:
        assert time.monotonic() < end, "the three nodes did not find one another within a minute"
        time.sleep(0.5)
    return Cluster(urls, ["docker", "compose", "-f", file, "-p", project])


def _peers(url: str) -> int:
    with urllib.request.urlopen(f"{url}/cluster", timeout=5) as reply:
        return len(json.load(reply)["result"]["peers"])


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    """A stand-in for a Qdrant server."""
    with serving() as server:
        yield server


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
    from reco_plugin.memory import index, index_faiss

    candidates = index.SearchIndex.candidates

    def waited(self: index.SearchIndex, *arguments: Any) -> Any:
        self._built = None
        candidates(self, *arguments)
        while self.state == "being made":
            time.sleep(0.001)
        return candidates(self, *arguments)

    monkeypatch.setattr(index, "LEAST", 1)
    for name, value in {"_SHARE": 1, "_ACROSS": 1}.items():
        monkeypatch.setattr(index_faiss, name, value)
    monkeypatch.setattr(index.SearchIndex, "candidates", waited)


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
    if not backend.persistent:
        pytest.skip("lives in RAM only")
    return backend.open
