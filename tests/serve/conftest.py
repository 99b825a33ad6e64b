"""A service over the shipped model and a memory in RAM, called in process; and one behind a real socket."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from live_service import serve_on_a_free_port
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from reco_plugin.encoders.local import Encoder
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.fusion.base import open_fusers
from reco_plugin.memory import open_memory
from reco_plugin.pairs import PairMemory
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.settings import load_settings
from reco_plugin.types import Records

ADMIN = "the-admin-key-4711"
PATIENCE_S = 60  # until a test is given up; nothing waits that long when all is well


@pytest.fixture
def admin() -> dict[str, str]:
    """Header with the admin key of the services made here."""
    return {"authorization": f"Bearer {ADMIN}"}


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encoded(image: Image.Image) -> str:
    """An image as bare base64."""
    return base64.b64encode(png(image)).decode()


@pytest.fixture(scope="session")
def red_square() -> str:
    """A drawing as bare base64."""
    return encoded(Image.new("RGB", (40, 30), "red"))


@pytest.fixture(scope="session")
def pairs_json(drawings: list[Pair]) -> list[dict[str, Any]]:
    """The drawings, as the admin routes take them."""
    return [
        {"id": pair.id, "text": pair.text, "image": encoded(pair.image), "payload": dict(pair.payload)}
        for pair in drawings
        if isinstance(pair.image, Image.Image)
    ]


class Seam:
    """Stands before a memory; ``trouble`` is called before each search and write, and may raise or wait."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.trouble: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def search(self, *args: Any, **options: Any) -> Any:
        if self.trouble is not None:
            self.trouble()
        return self.inner.search(*args, **options)

    def upsert(self, *args: Any, **options: Any) -> Any:
        if self.trouble is not None:
            self.trouble()
        return self.inner.upsert(*args, **options)


@dataclass(frozen=True)
class Troubled:
    """A Reco with the drawings in its memory, and the seam before that memory."""

    reco: Reco
    seam: Seam


@pytest.fixture
def troubled(model: Path, drawn_records: Records) -> Iterator[Callable[..., Troubled]]:
    """Open a Reco whose memory can be made to fail or to wait; arguments are settings."""
    opened: list[Reco] = []

    def start(**settings: Any) -> Troubled:
        chosen = load_settings(model=model, **settings)
        artifact = Artifact.load(chosen.model)
        seam = Seam(open_memory(":memory:", artifact.manifest.fingerprint))
        pairs = PairMemory(seam, Encoder(artifact, chosen), neighbours=artifact.manifest.policy.k)
        reco = Reco(artifact, chosen, pairs, open_fusers(artifact, chosen))
        reco.memory.add_records([drawn_records])
        opened.append(reco)
        return Troubled(reco, seam)

    yield start
    for reco in opened:
        reco.close()


@pytest.fixture
def blocked(troubled: Callable[..., Troubled]) -> Iterator[Blocked]:
    """A Reco whose searches wait until they are let go."""
    made = troubled()
    state = Blocked(made.reco, threading.Semaphore(0), threading.Event())

    def wait() -> None:
        if state.armed.is_set():
            state.reached.release()
            assert state.go.wait(PATIENCE_S)

    made.seam.trouble = wait
    yield state
    state.go.set()


@dataclass(frozen=True)
class Blocked:
    """A Reco whose searches wait once it is armed: ``reached`` counts those that do, ``go`` lets them all go."""

    reco: Reco
    reached: threading.Semaphore
    go: threading.Event
    armed: threading.Event = field(default_factory=threading.Event)


Served = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def served() -> Served:
    """Serve in this process, warm: ``with served(reco, queue=1) as client``."""

    @contextmanager
    def start(reco: Reco, **settings: Any) -> Iterator[TestClient]:
        app = create_app(ServeSettings(**{"admin_key": ADMIN, "page": False, **settings}), reco)
        whose = settings.keys() & {"admin_key", "api_keys", "keys_file"}  # else all are the admin
        with TestClient(app, headers={} if whose else {"authorization": f"Bearer {ADMIN}"}) as client:
            deadline = time.monotonic() + PATIENCE_S
            while not app.state.health.warm and app.state.health.warm_error is None and time.monotonic() < deadline:
                time.sleep(0.005)
            yield client

    return start


@pytest.fixture
def gainless(filled: Reco) -> Reco:
    """A memory whose captions fit no better than others do, so that nothing is refined."""
    state = filled.memory.calibration
    assert state is not None
    why = "its captions fit their images hardly better than those of other images do"
    filled.memory.store.set_calibration(replace(state, text=None, image=None, reason=why).to_json())
    return filled


@pytest.fixture
def client(filled: Reco, served: Served) -> Iterator[TestClient]:
    """The service with the drawings in its memory."""
    with served(filled) as opened:
        yield opened


@pytest.fixture(scope="module")
def reading(model: Path, drawn_records: Records, served: Served) -> Iterator[TestClient]:
    """The same for tests that change nothing and look at no count."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add_records([drawn_records])
        with served(reco) as opened:
            yield opened


@pytest.fixture(scope="session")
def live() -> Callable[..., AbstractContextManager[tuple[str, uvicorn.Server]]]:
    """Start a service on a free port: ``with live(reco, threads=1) as (url, server)``."""

    def start(reco: Reco, **settings: Any) -> AbstractContextManager[tuple[str, uvicorn.Server]]:
        return serve_on_a_free_port(reco, **settings)

    return start
