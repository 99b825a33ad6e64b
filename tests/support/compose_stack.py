"""The project's containers, handled by docker compose; and what is asked of the service in them."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest

from reco_plugin import Pair

ROOT = Path(__file__).resolve().parents[2]
FILES = (ROOT / "docker-compose.yml", ROOT / "tests" / "stack" / "docker-compose.yml")
ADMIN = {"authorization": "Bearer stack-admin-key"}
HEALTHY_S = 120
UP = (
    ("build",),
    ("pull", "--ignore-buildable", "--policy", "missing"),
    ("up", "--wait", "--wait-timeout", str(HEALTHY_S), "--pull", "never"),
)
"""Images that are at hand are neither pulled nor, but for what has changed in them, built; the last one is timed."""
NO_PLUGIN = "docker has no compose here: its plugin of that name is missing"
UNREACHABLE = re.compile(
    "no such host|name resolution|network is unreachable|no route to host|connection refused|i/o timeout"
    "|handshake timeout|request canceled",
    re.IGNORECASE,
)
"""What docker says of a registry, and pip in a build of its index, that cannot be reached."""
WAYS = {
    "stop": (("stop",), ("start",)),
    "pause": (("pause",), ("unpause",)),
    "kill": (("kill", "--signal", "SIGKILL"), ("start",)),
}
T = TypeVar("T")


def no_containers() -> str:
    """Why no containers can be started here; empty where a docker engine answers and docker knows compose."""
    if (docker := shutil.which("docker")) is None:
        return "no docker engine runs here"
    for words, problem in {("info",): "no docker engine answers here", ("compose", "version"): NO_PLUGIN}.items():
        if subprocess.run([docker, *words], capture_output=True, check=False).returncode != 0:
            return problem
    return ""


@dataclass
class Stack:
    """One project of docker compose.

    Attributes:
        project: its name.
        files: of compose, the project's own first.
        profile: which containers.
        service: which of them serves HTTP.
        up_s: seconds from ``up`` until all were healthy, once it is up.
    """

    project: str
    files: Sequence[Path | str] = FILES
    profile: str = "cpu"
    service: str = "reco"
    up_s: float | None = None

    def up(self) -> None:
        """Get or build the images; then start all containers, and wait until they are healthy.

        Skips the test where images are missing and nothing can be reached that has them, but fails in CI.
        """
        *prepare, start = UP
        for words in prepare:
            try:
                self.tell(*words)
            except AssertionError as error:
                if "CI" in os.environ or not UNREACHABLE.search(str(error)):
                    raise
                pytest.skip(f"images are missing here, and no registry can be reached: {str(error).splitlines()[-1]}")
        began = time.monotonic()
        self.tell(*start)
        self.up_s = time.monotonic() - began

    def tell(self, *words: str) -> str:
        """What a command of docker compose prints, as in ``tell("kill", "qdrant")``."""
        files = [word for file in self.files for word in ("-f", str(file))]
        return _docker("compose", *files, "--profile", self.profile, "-p", self.project, *words)

    def health(self) -> dict[str, str]:
        """What docker says of each container."""
        lines = self.tell("ps", "--format", "json").splitlines()
        return {each["Service"]: each["Health"] for each in map(json.loads, lines)}

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Calls the service, with the admin key; its port is another one after each ``up``."""
        place = self.tell("port", self.service, "8080").strip()
        with httpx.Client(base_url=f"http://{place}", headers=ADMIN, timeout=60) as client:
            yield client

    @contextmanager
    def without(self, name: str, way: str) -> Iterator[None]:
        """Take a container away by one of :data:`WAYS` or ``cut`` it off the network; it is back at the end."""
        if way == "cut":
            network, container = f"{self.project}_default", self.tell("ps", "--quiet", name).strip()
            away = lambda: _docker("network", "disconnect", network, container)  # noqa: E731
            back = lambda: _docker("network", "connect", "--alias", name, network, container)  # noqa: E731
        else:
            leave, come = WAYS[way]
            away, back = (lambda: self.tell(*leave, name)), (lambda: self.tell(*come, name))
        away()
        try:
            yield
        finally:
            back()


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-4000:]}"
    return done.stdout


def until(look: Callable[[], T], within_s: float, pause_s: float = 0.2) -> T:
    """Look again and again until there is something true to see, and give that back.

    Raises:
        AssertionError: there was not, within so long; it says what was seen last.
    """
    end = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {within_s} s, but {seen!r}"
        time.sleep(pause_s)
    return seen


def embed(client: httpx.Client, model: str = "clip-reco-query") -> httpx.Response:
    """One query; refined unless the model is ``clip``."""
    return client.post("/v1/embeddings", json={"model": model, "input": ["a small red circle"]})


def vector(answer: httpx.Response) -> np.ndarray:
    """Its embedding."""
    return np.array(answer.json()["data"][0]["embedding"])


def refined(client: httpx.Client) -> bool:
    """Whether a query is answered as it should be."""
    answer = embed(client)
    return answer.status_code == 200 and answer.headers["x-reco-refined"] == "true"


def add_drawings(client: httpx.Client, drawings: Sequence[Pair]) -> None:
    """Add pairs of images and texts, which the service encodes."""
    sent = []
    for pair in drawings:
        pair.image.save(file := io.BytesIO(), "PNG")  # type: ignore[union-attr]
        sent.append({"id": pair.id, "text": pair.text, "image": base64.b64encode(file.getvalue()).decode()})
    client.post("/v1/memory/pairs", json={"pairs": sent}).raise_for_status()


def add_vectors(client: httpx.Client, count: int, told: Callable[[int], None], pause_s: float = 0.05) -> list[str]:
    """Add pairs of random vectors one after another, each again until it is acknowledged.

    Args:
        client: of the service.
        count: how many.
        told: how many are acknowledged, after each.
        pause_s: after each.

    Returns:
        Their ids.

    Raises:
        HTTPStatusError: refused for another reason than that the memory is away.
    """
    dimension = client.get("/v1/models").json()["data"][0]["dimension"]
    made = np.random.default_rng(0).standard_normal((count, 2, dimension))
    made /= np.linalg.norm(made, axis=-1, keepdims=True)
    ids = [f"p{number}" for number in range(count)]
    for number, (id_, (image, text)) in enumerate(zip(ids, made.tolist(), strict=True), 1):
        pair: dict[str, Any] = {"id": id_, "image_vector": image, "text_vector": text}
        until(lambda pair=pair: _acknowledged(client, pair), 120)  # type: ignore[misc]
        told(number)
        time.sleep(pause_s)
    return ids


def _acknowledged(client: httpx.Client, pair: dict[str, Any]) -> bool:
    answer = client.post("/v1/memory/pairs", json={"pairs": [pair]})
    if answer.status_code not in (503, 504):  # which mean: send it again
        answer.raise_for_status()
    return answer.is_success


def held(client: httpx.Client, ids: Sequence[str]) -> list[str]:
    """Which of these ids the memory has."""
    answer = client.get("/v1/memory/pairs", params={"id": list(ids)}).raise_for_status()
    return [pair["id"] for pair in answer.json()["data"]]
