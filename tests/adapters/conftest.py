"""The shipped model with the drawings in its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reco_plugin import Pair, Reco

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stocked(drawings: list[Pair]) -> Iterator[Reco]:
    """The shipped model with the drawings in its memory, for tests that add nothing.

    It does without the fixture ``model``, which LangChain's suites have one of their own of.
    """
    with Reco.open(ROOT / "triton_models", memory=":memory:") as reco:
        reco.memory.add(drawings)
        yield reco


@pytest.fixture(scope="session")
def on_disk(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that open the shipped model and a memory in a folder, with the drawings in it."""
    settings = {"model": str(ROOT / "triton_models"), "memory": str(tmp_path_factory.mktemp("stocked") / "memory")}
    with Reco.open(**settings) as reco:
        reco.memory.add(drawings)
    return settings


@pytest.fixture(scope="session")
def files(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first four drawings as PNG files."""
    folder = tmp_path_factory.mktemp("drawings")
    for pair in drawings[:4]:
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
    return [folder / f"{pair.id}.png" for pair in drawings[:4]]
