"""A real Triton server with the shipped model folder, unmodified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server import NoServerHere, TritonServer, Wheel
from triton_slow_model import write_slow

from reco_plugin.encoders.model_folder import Artifact

collect_ignore = ["support/triton_onnxruntime_backend.py"]  # runs inside the server only

StartServer = Callable[..., TritonServer]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server of these model repositories; all are stopped in the end."""
    try:
        wheel = Wheel.find()
    except NoServerHere as reason:
        pytest.skip(str(reason))
    place, started = tmp_path_factory.mktemp("triton"), []
    backends = wheel.assemble(place / "backends")

    def start(*repositories: Path, **options: Any) -> TritonServer:
        server = TritonServer(wheel, backends, repositories, place / f"server-{len(started)}.log", **options)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the slow model."""
    return write_slow(tmp_path_factory.mktemp("slow"))


@pytest.fixture(scope="session")
def server(start_server: StartServer, model: Path, slow_models: Path) -> TritonServer:
    """One server for all tests that do no harm to it."""
    return start_server(model, slow_models)


@pytest.fixture(scope="session")
def artifact(model: Path) -> Artifact:
    """The shipped model folder."""
    return Artifact.load(model)


@pytest.fixture(scope="session")
def fusion_inputs(artifact: Artifact) -> Callable[..., dict[str, np.ndarray]]:
    """Random inputs of a fusion: B queries with K neighbours, of which later rows have fewer."""

    def make(batch: int, k: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng, dimension = np.random.default_rng(seed), artifact.manifest.dimension
        there = np.arange(k)[None] < k - np.arange(batch)[:, None] % (k + 1)

        def unit(*shape: int) -> np.ndarray:
            x = rng.normal(size=(*shape, dimension))
            return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

        return {
            "query": unit(batch),
            "neighbours": np.where(there[..., None], unit(batch, k), 0).astype(np.float32),
            "similarity": np.where(there, rng.uniform(0.2, 0.9, (batch, k)), 0).astype(np.float32),
            "trust": np.where(there, rng.uniform(0, 1, (batch, k)), 0).astype(np.float32),
        }

    return make
