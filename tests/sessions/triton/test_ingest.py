"""Memories filled through a real Triton server; by the workers of a Ray cluster: see ingest/test_ray.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server import ENCODERS, TritonServer

from reco_plugin import Pair
from reco_plugin.memory import open_memory
from reco_plugin.types import Records

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]


@pytest.fixture
def folder(drawings: list[Pair], tmp_path: Path) -> Path:
    """Drawings with captions beside them, one of which is no image."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    for pair in drawings:
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
        (folder / f"{pair.id}.txt").write_text(str(pair.text))
    (folder / f"{drawings[5].id}.png").write_bytes(b"no image")
    return folder


def build(folder: Path, memory: Path, model: Path, url: str | None = None) -> dict[str, Any]:
    """``reco memory build`` in a process of its own, which does not load ONNX Runtime where Triton encodes."""
    words = ["memory", "build", str(folder), "--model", str(model), "--memory", str(memory), "--json"]
    environment = os.environ | ({"RECO_TRITON_URL": url} if url else {})
    command = [sys.executable, "-m", "reco_plugin", *words, "--batch-size", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def content(memory: Path) -> Records:
    with closing(open_memory(memory, None, create=False)) as opened:
        return Records.join(list(opened.scroll()), 128)


def test_what_triton_encodes_is_what_the_process_would(
    server: TritonServer, folder: Path, model: Path, tmp_path: Path, drawings: list[Pair]
) -> None:
    before, good = server.encoded(), len(drawings) - 1
    told = build(folder, tmp_path / "triton", model, url=server.grpc)
    assert (told["added"], told["rejected"]) == (good, 1)
    assert server.encoded() - before == good
    build(folder, tmp_path / "here", model)
    through, here = content(tmp_path / "triton"), content(tmp_path / "here")
    assert sorted(through.ids) == sorted(here.ids)
    order = [here.ids.index(id_) for id_ in through.ids]
    assert [dict(payload) for payload in through.payloads] == [dict(here.payloads[row]) for row in order]
    for side in ("image", "text"):
        np.testing.assert_allclose(getattr(through, side), getattr(here, side)[order], rtol=0, atol=1e-5)
    again = build(folder, tmp_path / "triton", model, url=server.grpc)
    assert again["unchanged"] == good and server.encoded() - before == good


def test_a_server_that_is_lost_ends_the_build_and_a_second_one_goes_on(
    start_server: Any, folder: Path, model: Path, tmp_path: Path, drawings: list[Pair]
) -> None:
    own = start_server(model, models=ENCODERS)
    words = ["memory", "build", str(folder), "--model", str(model), "--memory", str(tmp_path / "m")]
    own.kill()
    environment = os.environ | {"RECO_TRITON_URL": own.grpc}
    command = [sys.executable, "-m", "reco_plugin", *words]
    lost = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert lost.returncode == 1 and lost.stderr.splitlines()[-1].startswith("error: "), lost.stderr
    assert "Traceback" not in lost.stderr
    own.start()
    assert build(folder, tmp_path / "m", model, url=own.grpc)["pairs"] == len(drawings) - 1
