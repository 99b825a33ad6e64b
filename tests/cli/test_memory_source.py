"""Memories and collections as the source of reco memory build, add, update, sync, remove and --exclude."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from qdrant_stand_in import StandIn
from shop_collection import theirs

from reco_plugin.memory import open_memory

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]
KINDS = ["edge", "grpc"]


@pytest.fixture
def shop(server: StandIn, url: str, model: Path, drawings: list[Any]) -> str:
    """A shop's collection as a source: 24 products, and one without a title."""
    theirs(server, model, drawings)
    return f"{url}?collection=shop&vector=photo&text=title"


def held(place: str, collection: str = "reco") -> dict[str, tuple[Any, Any, Any]]:
    """Everything in a memory, by id, without the marks of a run."""
    found = {}
    with closing(open_memory(place, None, create=False, collection=collection)) as memory:
        for records in memory.scroll():
            for id_, image, text, payload in zip(
                records.ids, records.image, records.text, records.payloads, strict=True
            ):
                plain = {key: value for key, value in payload.items() if key not in ("reco_row", "reco_source")}
                found[id_] = (image, text, plain)
    return found


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for id_, (image, text, payload) in left.items():
        np.testing.assert_allclose(image, right[id_][0], atol=1e-6)
        np.testing.assert_allclose(text, right[id_][1], atol=1e-6)
        assert payload == right[id_][2]


def rejected(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def made(kind: str, server: StandIn, catalogue: Path, ask: Ask) -> str:
    """The catalogue in a memory of a kind; returns where it is, which is also what it is called as a source."""
    if kind == "grpc":
        ask("memory", "build", catalogue, "--memory", server.url("grpc"), "--swap", "--as", "catalogue")
        return server.url(kind)
    ask("memory", "build", catalogue, "--memory", "old", "--as", "catalogue")
    return "old"


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_of_ours_of_any_kind_is_built_again_from(
    work: Path, catalogue: Path, server: StandIn, ask: Ask, kind: str
) -> None:
    place = made(kind, server, catalogue, ask)
    source = f"{place}?collection=reco" if "://" in place else place
    built = ask("memory", "build", source, "--memory", "new")
    assert (built["read"], built["added"], built["pairs"], built["rejected"]) == (24, 24, 24, 0)
    again = ask("memory", "build", source, "--memory", "new")
    assert (again["added"], again["replaced"], again["unchanged"]) == (0, 0, 24)
    assert_same(held(place), held("new"))
    with closing(open_memory("new", None, create=False)) as memory:
        name = source if "://" in source else str(work / source)
        assert {payload["reco_source"] for _, payload in memory.payloads()} == {name}


def test_add_update_and_sync_read_memories_too(work: Path, catalogue: Path, memory: Path, ask: Ask) -> None:
    first = catalogue.with_name("first.csv")
    first.write_text("\n".join(catalogue.read_text().splitlines()[:6]) + "\n")
    ask("memory", "add", first, "--memory", "few")
    assert ask("memory", "add", "memory", "--only-known", "--memory", "few")["replaced"] == 5
    assert ask("memory", "add", "memory", "--memory", "few")["added"] == 19
    synced = ask("memory", "sync", "memory", "--memory", "few")
    assert (synced["unchanged"], synced["deleted"]) == (24, 0)
    gone = sorted(held("memory"))[:3]
    ask("memory", "remove", *gone, "--memory", "memory")
    planned = ask("memory", "sync", "memory", "--memory", "few", "--dry-run")
    assert (planned["unchanged"], planned["deleted"], planned["pairs"]) == (21, 3, 24)
    assert ask("memory", "sync", "memory", "--memory", "few")["deleted"] == 3
    assert_same(held("memory"), held("few"))
    assert ask("memory", "remove", "--from", "memory", "--memory", "few") == {"removed": 21, "pairs": 0}


def test_a_memory_is_not_read_into_itself(
    work: Path, catalogue: Path, memory: Path, server: StandIn, url: str, ask: Ask, fail: Fail
) -> None:
    ask("memory", "build", catalogue, "--memory", url, "--swap")
    for how in ([], ["--swap"], ["--dry-run"]):
        for source, target in (("memory", "./memory"), *((f"{url}?collection={n}", url) for n in ("reco", "reco--v1"))):
            assert "cannot be read into itself" in fail("memory", "build", source, "--memory", target, *how)
    assert sorted(server.engine.made) == ["reco--v1"]
    other = ask("memory", "build", f"{url}?collection=reco", "--memory", f"{url}?collection=new", "--swap")
    assert (other["name"], other["pairs"]) == ("new--v1", 24)


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
    assert not any("s3cret" in json.dumps(payload) for _, _, payload in held("new").values())


@pytest.mark.filterwarnings("default:Api key is used")
def test_a_key_in_the_clear_is_one_line(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_MEMORY_API_KEY", "s3cret")
    shown = run("memory", "info", "--memory", "http://qdrant.invalid").stderr
    [line] = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert "insecure connection" in line
    assert "server.py" not in shown and "s3cret" not in shown
