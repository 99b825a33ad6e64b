"""A memory that another encoder made: every command that would fill it refuses, and touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.encode import Encoder
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records


@pytest.fixture
def others(work: Path) -> Path:
    """Two pairs in ./memory, of an encoder of the same dimension; beside it the list of an earlier run."""
    vectors = np.eye(2, 128, dtype=np.float32)
    fingerprint = Fingerprint("other-clip", "0" * 64, 128)
    with closing(open_memory("memory", fingerprint)) as memory:
        memory.upsert(Records(["a", "b"], vectors, vectors, [{"reco_source": "shop"}, {}]))
    (work / "memory.rejected.jsonl").write_text('{"where": "", "id": null, "reason": ""}\n')
    return work


COMMANDS = (
    "build --as shop",
    "build --as shop --swap",
    "build --as shop --swap --resume",
    "build --dry-run",
    "build --engine ray",
    "add",
    "add --engine ray",
    "update",
    "update --dry-run",
    "sync --as shop --max-delete 1",
    "sync --as shop --dry-run",
    "sync --as shop --engine ray",
)


def files(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the encoder, which answers nothing."""
    asked: list[str] = []
    for side in ("images", "texts", "arrays"):
        monkeypatch.setattr(Encoder, side, lambda *_, side=side: asked.append(side))
    return asked


def refuse(command: str, catalogue: Path, fail: Callable[..., str]) -> None:
    """Check that a command refuses, and what it says."""
    if "ray" in command:
        pytest.importorskip("ray", reason="pip install 'reco-plugin[ray]'")
    name, *options = command.split()
    said = fail("memory", name, catalogue, *options)
    assert "other-clip" in said
    assert "reco-quickstart-mini-clip" in said
    assert ("under another name" if "--swap" in options else "build a new memory") in said


def test_it_is_refused_before_anything_is_encoded_or_written(
    others: Path, catalogue: Path, fail: Callable[..., str], encoded: list[str]
) -> None:
    before = files(others)
    for command in COMMANDS:
        refuse(command, catalogue, fail)
    assert (encoded, files(others)) == ([], before)


def test_images_to_keep_out_are_not_encoded_either(
    others: Path, catalogue: Path, fail: Callable[..., str], encoded: list[str]
) -> None:
    before = files(others)
    for name in ("build", "add", "sync"):
        assert "other-clip" in fail("memory", name, catalogue, "--exclude", catalogue)
    assert (encoded, files(others)) == ([], before)
