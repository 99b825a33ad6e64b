"""A memory that another encoder made: every command that would fill it refuses, and touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.encoders.local import Encoder
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records

pytestmark = pytest.mark.slow

COMMANDS = (
    "build --as shop",
    "build --as shop --swap",
    "add --exclude",
    "sync --as shop --max-delete 1",
)


def files(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_refused_before_anything_is_encoded_or_written(
    work: Path, catalogue: Path, fail: Callable[..., str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    vectors = np.eye(2, 128, dtype=np.float32)
    with closing(open_memory("memory", Fingerprint("other-clip", "0" * 64, 128))) as memory:
        memory.upsert(Records(["a", "b"], vectors, vectors, [{"reco_source": "shop"}, {}]))
    (work / "memory.rejected.jsonl").write_text('{"where": "", "id": null, "reason": ""}\n')  # of an earlier run
    before, encoded = files(work), list[str]()
    for side in ("images", "texts", "arrays"):
        monkeypatch.setattr(Encoder, side, lambda *_, side=side: encoded.append(side))
    name, *options = command.split()
    said = fail("memory", name, catalogue, *options, *([catalogue] if options[-1] == "--exclude" else []))
    assert "other-clip" in said and "reco-quickstart-mini-clip" in said
    assert (encoded, files(work)) == ([], before)
