"""Somebody else's collection as the source of reco memory build; its key shows nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from qdrant_stand_in import StandIn
from shop_collection import theirs

from reco_plugin.memory import open_memory

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Fail = Callable[..., str]


@pytest.fixture
def shop(server: StandIn, url: str, model: Path, drawings: list[Any]) -> str:
    """A shop's collection as a source: 24 products, and one without a title."""
    theirs(server, model, drawings)
    return f"{url}?collection=shop&vector=photo&text=title"


def test_a_memory_is_copied_and_no_source(work: Path, memory: Path, url: str, fail: Fail) -> None:
    for source in ("memory", f"{url}?collection=reco"):
        assert "reco memory copy" in fail("memory", "build", source, "--memory", "new")


def test_the_key_is_of_the_settings_and_shown_nowhere(
    work: Path, shop: str, server: StandIn, url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.engine.key = "s3cret"
    refused = run("memory", "build", shop, "--memory", "new")
    assert "Check the API key: none was sent" in refused.stderr
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    shown = [run("memory", "build", shop, "--memory", "new"), run("memory", "info", "--memory", "new")]
    assert [each.exit_code for each in shown] == [0, 0]
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "wr0ng")
    shown.append(run("memory", "build", shop, "--memory", "new"))
    assert "refuses the one that was sent" in shown[-1].stderr
    monkeypatch.delenv("RECO_MEMORY_API_KEY")
    for given in (url.replace("://", "://me:s3cret@"), f"{url}?api_key=s3cret", f"{url}?api-key=s3cret"):
        shown.append(run("memory", "build", given, "--memory", "new"))
        assert shown[-1].exit_code == 1
    written = [path.read_bytes() for path in work.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]
    assert not any(word in each.output for each in shown for word in ("s3cret", "wr0ng"))
    assert not any(b"s3cret" in each for each in written)
    with closing(open_memory("new", None, create=False)) as made:
        assert not any("s3cret" in json.dumps(payload) for _, payload in made.payloads())


@pytest.mark.filterwarnings("default:Api key is used")
def test_a_key_in_the_clear_is_one_line(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    shown = run("memory", "info", "--memory", "http://qdrant.invalid").stderr
    [line] = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert "insecure connection" in line
    assert "server.py" not in shown and "s3cret" not in shown
