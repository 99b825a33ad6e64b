"""The project's own docker-compose.yml in a docker engine, handled by pytest-docker."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import httpx
import pytest
from pytest_docker.plugin import get_docker_services

from reco_plugin import Pair

ROOT = Path(__file__).resolve().parents[2]
FILES = [str(ROOT / "docker-compose.yml"), str(ROOT / "tests/stack/docker-compose.yml")]
FILES += [os.environ["TEST_STACK_FILE"]] if "TEST_STACK_FILE" in os.environ else []
UP = "up --wait --wait-timeout 120 --pull missing"
ADMIN = {"authorization": "Bearer stack-admin-key"}
WAYS = {"stop": ("stop", "start"), "pause": ("pause", "unpause"), "kill": ("kill", "start")}
T = TypeVar("T")


@dataclass
class Stack:
    """The containers of one profile: a project of docker compose.

    Attributes:
        profile: of docker-compose.yml.
        service: which container serves HTTP.
    """

    profile: str
    service: str

    @property
    def project(self) -> str:
        """Its name."""
        return f"reco-tests-{self.profile}"

    def compose(self, *words: str) -> str:
        """What a command of docker compose prints, as in ``compose("kill", "qdrant")``."""
        chosen = [word for file in FILES for word in ("-f", file)]
        return docker("compose", *chosen, "--profile", self.profile, "-p", self.project, *words)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Calls the service, with the admin key; its port is another one after each ``up``."""
        place = self.compose("port", self.service, "8080").strip()
        with httpx.Client(base_url=f"http://{place}", headers=ADMIN, timeout=60) as client:
            yield client

    @contextmanager
    def without(self, name: str, way: str) -> Iterator[None]:
        """Take a container away by one of :data:`WAYS`, or ``cut`` it off the network; it is back at the end."""
        if way == "cut":
            place = (f"{self.project}_default", self.compose("ps", "--quiet", name).strip())
            docker("network", "disconnect", *place)
        else:
            leave, come = WAYS[way]
            self.compose(leave, name)
        try:
            yield
        finally:
            if way == "cut":
                docker("network", "connect", "--alias", name, *place)
            else:
                self.compose(come, name)


def docker(*words: str) -> str:
    """What a command of docker prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-4000:]}"
    return done.stdout


def until(look: Callable[[], T], within_s: float = 60) -> T:
    """Look again and again until there is something true to see, and return that."""
    end = monotonic() + within_s
    while not (seen := look()):
        assert monotonic() < end, f"not within {within_s} s, but {seen!r}"
        sleep(0.2)
    return seen


def add_drawings(client: httpx.Client, drawings: list[Pair]) -> None:
    """Add pairs of images and texts, which the service encodes."""
    sent = []
    for pair in drawings:
        pair.image.save(file := io.BytesIO(), "PNG")  # type: ignore[union-attr]
        sent.append({"id": pair.id, "text": pair.text, "image": base64.b64encode(file.getvalue()).decode()})
    client.post("/v1/memory/pairs", json={"pairs": sent}).raise_for_status()


@pytest.fixture(scope="session")
def engine() -> None:
    """A docker engine with compose, and the images: they are built here."""
    try:
        docker("compose", "version")
        docker("info")
    except (OSError, AssertionError) as error:
        pytest.skip(f"no docker engine with compose: {str(error).splitlines()[-1]}")
    for profile, service in (("cpu", "reco"), ("no-triton", "reco-no-triton")):
        Stack(profile, service).compose("build", service)  # Qdrant's stand-in starts from the first one
    Stack("cpu", "reco").compose("build", "qdrant")


@contextmanager
def _running(profile: str, service: str, drawings: list[Pair]) -> Iterator[Stack]:
    stack = Stack(profile, service)
    compose = f"docker compose --profile {profile}"
    with get_docker_services(compose, FILES, stack.project, ["down -v", UP], ["down -v"]):
        with stack.client() as client:
            add_drawings(client, drawings)
        yield stack


@pytest.fixture(scope="session")
def stack(engine: None, drawings: list[Pair]) -> Iterator[Stack]:
    """Profile ``cpu``, healthy, with the drawings in the memory."""
    with _running("cpu", "reco", drawings) as running:
        yield running


@pytest.fixture(scope="session")
def in_process(engine: None, drawings: list[Pair]) -> Iterator[Stack]:
    """Profile ``no-triton``, likewise."""
    with _running("no-triton", "reco-no-triton", drawings) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Of the service."""
    with stack.client() as opened:
        yield opened


def health(stack: Stack) -> dict[str, str]:
    """What docker says of each container."""
    lines = stack.compose("ps", "--format", "json").splitlines()
    return {each["Service"]: each["Health"] for each in map(json.loads, lines)}
