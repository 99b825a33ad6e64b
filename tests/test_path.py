"""How much of the package one query crosses: files, frames and calls, as a reader who follows it has to."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import reco_plugin
from reco_plugin import Pair, Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.settings import ServeSettings
from tests.support.shapes import COLOURS, SHAPES, draw

ROOT = str(Path(reco_plugin.__file__).parent)
INLINE = {"<listcomp>", "<dictcomp>", "<setcomp>"}
"""Calls in Python 3.11 only: later ones run a comprehension in its place."""


class Trace:
    """What is crossed while it is installed, in all threads that begin meanwhile, since it was last cleared."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.clear()

    def clear(self) -> None:
        """Forget what was crossed."""
        self.files, self.frames, self.calls = set[str](), 0, 0

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        file, depth = frame.f_code.co_filename, getattr(self._local, "depth", 0)
        if not file.startswith(ROOT) or frame.f_code.co_name in INLINE:
            return
        if event == "call":
            self.files.add(os.path.relpath(file, ROOT))
            self._local.depth = depth + 1
            self.calls, self.frames = self.calls + 1, max(self.frames, depth + 1)
        elif event == "return":
            self._local.depth = max(0, depth - 1)


@pytest.fixture
def trace() -> Iterator[Trace]:
    traced, before = Trace(), sys.getprofile()
    threading.setprofile(traced)
    sys.setprofile(traced)
    yield traced
    sys.setprofile(before)
    threading.setprofile(None)  # type: ignore[arg-type]


def crossed(trace: Trace, call: Callable[[], Any]) -> Trace:
    """Trace a call, when what is lazy is open."""
    call()
    trace.clear()
    call()
    return trace


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def quickstart() -> Path:
    return Path(__file__).parent.parent / "triton_models"


@pytest.fixture
def drawn(quickstart: Path, tmp_path: Path) -> Iterator[Reco]:
    """A memory of drawn pairs, which stay plain: as ``shared/tools/hops.py`` makes it."""
    with Reco.open(quickstart, memory=tmp_path / "memory") as reco:
        reco.memory.add([Pair(str(row), picture(row), f"thing number {row}") for row in range(64)])
        yield reco


@pytest.fixture
def known(quickstart: Path, tmp_path: Path) -> Iterator[Reco]:
    """A memory by which queries move."""
    with Reco.open(quickstart, memory=tmp_path / "known") as reco:
        reco.memory.add(
            Pair(f"{shape}-{colour}-{size}", draw(colour, shape, size), f"a {colour} {shape}")
            for shape in SHAPES
            for colour in COLOURS
            for size in (18, 26)
        )
        yield reco


def test_a_refined_text_or_image_crosses_sixteen_files(drawn: Reco, trace: Trace) -> None:
    for call in (lambda: drawn.embed_texts(["a red fox"]), lambda: drawn.embed_images([picture(99)])):
        found = crossed(trace, call)
        assert len(found.files) <= 16, sorted(found.files)
        assert (found.frames <= 10, found.calls <= 120) == (True, True), (found.frames, found.calls)


def test_one_that_moves_crosses_the_gate_besides(known: Reco, trace: Trace) -> None:
    assert known.embed(["a red circle"], modality="text").refined.all()
    found = crossed(trace, lambda: known.embed_texts(["a red circle"]))
    assert len(found.files) <= 22, sorted(found.files)
    assert (found.frames <= 12, found.calls <= 130) == (True, True), (found.frames, found.calls)


def test_a_request_crosses_a_bounded_number_of_files(drawn: Reco, trace: Trace) -> None:
    texts = iter(f"a red fox {number}" for number in range(9))
    with TestClient(create_app(ServeSettings(page=False), drawn)) as client:

        def ask() -> None:
            body = {"model": "clip-reco", "input": [next(texts)], "refine": True}
            assert client.post("/v1/embeddings", json=body).status_code == 200

        for _ in range(3):  # all threads are there
            ask()
        found = []
        for _ in range(4):  # what looks after the service once a second may fall into one of them
            trace.clear()
            ask()
            found.append(trace.files)
    files = min(found, key=len)
    assert "serve/edge.py" in files
    assert len(files) <= 26, sorted(files)
