"""Every command of docs/serve.md works as it stands, but for the address."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_files import halves

from reco_plugin import Reco

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "serve.md").read_text("utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture(scope="module")
def open_url(filled: Reco, live: Any) -> Iterator[str]:
    with live(filled) as (base, _):
        yield base


def paths() -> list[str]:
    return [found[1] for command in COMMANDS if (found := re.search(r"localhost:8080(\S+)", command))]


@pytest.mark.parametrize("command", COMMANDS, ids=paths())
def test_command(command: str, open_url: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    halves("red", "blue").save(tmp_path / "fox.jpg")
    line = command.replace("http://localhost:8080", open_url).replace("curl -s", "curl -s --fail-with-body")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert any(key in answer for key in ("data", "embeddings", "textVectors", "embedding"))


def test_every_dialect_has_a_command() -> None:
    assert {"/v1/embeddings", "/v1/multimodalembeddings", "/v2/embed", "/refined/vectorize", "/refined/titan"} == {
        *paths()
    }
