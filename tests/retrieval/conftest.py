"""A Reco whose memory and fusion can be made to fail, hang and recover, and a clock that is moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.encoders.local import Encoder
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.errors import MemoryStoreError
from reco_plugin.fusion.base import open_fusers
from reco_plugin.memory import Memory, open_memory
from reco_plugin.pairs import PairMemory
from reco_plugin.settings import load_settings

ADDRESS = "http://memory:6333"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Seam:
    """Stands before a memory or a fuser; ``trouble`` is called before each question, and may raise or hang."""

    def __init__(self, inner: Any, location: str | None = None) -> None:
        self.inner = inner
        self.trouble: Callable[[], Any] | None = None
        self.asked = 0
        if location:
            self.location = location

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value) if name != "timed" else setattr(self.inner, name, value)

    def search(self, *args: Any, **options: Any) -> Any:
        return self._ask("search", *args, **options)

    def refine(self, *args: Any, **options: Any) -> Any:
        return self._ask("refine", *args, **options)

    def _ask(self, name: str, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if self.trouble is not None:
            self.trouble()
        return getattr(self.inner, name)(*args, **options)


class Hanging:
    """Trouble that lasts until it is released."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self.waiting = threading.Semaphore(0)
        """Released once per call that hangs."""

    def __call__(self) -> None:
        self.waiting.release()
        self._released.wait(60)

    def release(self) -> None:
        self._released.set()


class Rig:
    """The parts of one Reco, to be troubled."""

    texts = ("a red circle", "an orange square", "something quite different")

    def __init__(self, model: Path, store: Memory, pairs: list[Pair], location: str | None, **settings: Any) -> None:
        artifact = Artifact.load(model)
        chosen = load_settings(model=model, memory=location or ":memory:", fuser="paper", **settings)
        self.clock = Clock()
        self.memory = Seam(store, location)
        self.fuser = Seam(open_fusers(artifact, chosen)["paper"])
        memory = PairMemory(self.memory, Encoder(artifact, chosen))  # type: ignore[arg-type]
        self.reco = Reco(artifact, chosen, memory, {"paper": self.fuser}, clock=self.clock)  # type: ignore[arg-type]
        memory.add(pairs)
        self.frozen = self.reco.embed_texts(self.texts, refine=False)
        self.refined = self.reco.refine(self.frozen, modality="text").vectors
        self.memory.asked = self.fuser.asked = 0

    @staticmethod
    def dead() -> None:
        """Trouble of a memory."""
        raise MemoryStoreError(f"the memory at {ADDRESS!r} cannot be reached: connection refused")

    @staticmethod
    def raising(error: Exception) -> Callable[[], None]:
        """Trouble of any kind."""

        def trouble() -> None:
            raise error

        return trouble

    def reasons(self, name: str) -> dict[str, float]:
        """Reason -> calls, of the counter ``degraded`` or ``failed``; without those that never happened."""
        samples = [sample for family in getattr(self.reco.counters, name).collect() for sample in family.samples]
        return {one.labels["reason"]: one.value for one in samples if one.name.endswith("_total") and one.value}

    def is_frozen(self, result: Any) -> bool:
        """Bit for bit the frozen vectors, in an array of their own."""
        same = result.vectors.tobytes() == self.frozen.tobytes() == result.frozen.tobytes()
        return bool(same and not np.shares_memory(result.vectors, result.frozen))

    def ask(self, **options: Any) -> Any:
        """Refine the three texts."""
        return self.reco.refine(self.frozen, modality="text", **options)


@pytest.fixture(scope="session")
def known(model: Path, drawings: list[Pair]) -> list[Pair]:
    """The drawings and captions, encoded once."""
    with Reco.open(model, memory=":memory:") as reco:
        images = reco.embed_images([pair.image for pair in drawings], refine=False)  # type: ignore[misc]
        texts = reco.embed_texts([pair.text for pair in drawings], refine=False)  # type: ignore[misc]
    return [Pair(pair.id, *sides, pair.payload) for pair, *sides in zip(drawings, images, texts, strict=True)]


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Trouble that hangs; whatever hangs is let go in the end."""
    trouble = Hanging()
    yield trouble
    trouble.release()


@pytest.fixture
def rig(model: Path, known: list[Pair]) -> Iterator[Callable[..., Rig]]:
    """A function that builds a rig; the memory is exact and in RAM, and seems to be on a server when ``remote``."""
    built: list[Rig] = []

    def build(store: Memory | None = None, *, remote: bool = False, **settings: Any) -> Rig:
        fingerprint = Artifact.load(model).manifest.fingerprint
        store = store or open_memory(":memory:", fingerprint)
        built.append(Rig(model, store, known, ADDRESS if remote else None, **settings))
        return built[-1]

    yield build
    for one in built:
        one.reco.close()
