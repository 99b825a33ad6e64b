"""The project's own docker-compose.yml, up for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from compose_stack import FILES, Stack, add_drawings, no_containers

from reco_plugin import Pair


@pytest.fixture(scope="session")
def docker_compose_file() -> list[str]:
    """And one more, where TEST_STACK_FILE names it: other images, or ``build: !reset null`` where none can be built."""
    more = os.environ.get("TEST_STACK_FILE")
    return [*map(str, FILES), *([str(Path(more).resolve())] if more else [])]


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """With all profiles: pytest-docker has only to take down what :meth:`Stack.up` started."""
    return "docker compose --profile '*'"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Nothing: :meth:`Stack.up` starts them, and takes the time."""
    return []


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips where no containers can be started."""
    if problem := no_containers():
        pytest.skip(problem)


@pytest.fixture(scope="session")
def stack(engine: None, request: pytest.FixtureRequest) -> Stack:
    """All containers, healthy, with the drawings in the memory; pytest-docker takes them down, volumes included."""
    request.getfixturevalue("docker_services")
    project, files = (request.getfixturevalue(f"docker_compose_{name}") for name in ("project_name", "file"))
    made = Stack(project, files)
    made.up()
    drawings: list[Pair] = request.getfixturevalue("drawings")
    with made.client() as client:
        add_drawings(client, drawings)
    return made


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Of the service."""
    with stack.client() as opened:
        yield opened
