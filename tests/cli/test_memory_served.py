"""reco memory on a Qdrant server: versions and swaps, moving between kinds, collections that were there before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from qdrant_client import models
from qdrant_client.qdrant_remote import QdrantRemote
from qdrant_stand_in import Refusal, StandIn

from reco_plugin import Reco

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def versions(ask: Ask, url: str) -> dict[str, tuple[int, bool, bool]]:
    found = ask("memory", "versions", "--memory", url)
    return {each["name"]: (each["pairs"], each["live"], each["finished"]) for each in found}


def part(catalogue: Path, rows: int) -> Path:
    """The first rows of the catalogue, beside its images."""
    file = catalogue.with_name(f"first-{rows}.csv")
    file.write_text("\n".join(catalogue.read_text().splitlines()[: rows + 1]) + "\n")
    return file


# --- versions


def test_swap_rollback_and_prune(work: Path, catalogue: Path, url: str, ask: Ask, fail: Fail) -> None:
    built = ask("memory", "build", part(catalogue, 3), "--memory", url, "--swap")
    assert (built["name"], built["pairs"], built["live"]) == ("reco--v1", 3, True)
    with Reco.open(memory=url) as reader:  # reads through the alias while versions come and go
        assert len(reader.memory) == 3
        assert ask("memory", "build", catalogue, "--memory", url)["live"] is False
        assert len(reader.memory) == 3
        assert versions(ask, url) == {"reco--v1": (3, True, True), "reco--v2": (24, False, True)}
        assert ask("memory", "versions", "--use", "reco--v2", "--memory", url)["live"] is True
        assert len(reader.memory) == 24
        assert ask("memory", "versions", "--previous", "--memory", url)["name"] == "reco--v1"
        assert len(reader.memory) == 3
    assert "no finished version of 'reco' before" in fail("memory", "versions", "--previous", "--memory", url)
    assert "no version 'reco--v9'" in fail("memory", "versions", "--use", "reco--v9", "--memory", url)
    assert ask("memory", "build", catalogue, "--memory", url, "--swap")["name"] == "reco--v3"
    assert ask("memory", "versions", "--prune", "--memory", url) == {"deleted": ["reco--v1"]}
    assert versions(ask, url) == {"reco--v2": (24, False, True), "reco--v3": (24, True, True)}


def test_the_first_build_is_put_to_use(
    work: Path, catalogue: Path, server: StandIn, url: str, run: Run, ask: Ask, fail: Fail
) -> None:
    server.engine.refusals["retrieve"] = Refusal(500, "out of luck")
    assert "out of luck" in fail("memory", "build", catalogue, "--memory", url)
    server.engine.refusals.clear()
    message = fail("memory", "info", "--memory", url)
    assert "there are: reco--v1. " in message and "reco memory build --resume" in message
    done = run("memory", "build", part(catalogue, 2), "--memory", url)
    assert "reco--v2 holds 2 pairs and is in use" in done.stdout
    assert ask("memory", "info", "--memory", url)["pairs"] == 2
    done = run("memory", "build", part(catalogue, 3), "--memory", url)
    assert "reco--v3 holds 3 pairs and is ready: reco memory versions --use reco--v3" in done.stdout
    assert ask("memory", "info", "--memory", url)["pairs"] == 2
    server.engine.client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="reco"))]
    )
    assert "reco memory versions --use reco--v3" in fail("memory", "info", "--memory", url)


def test_an_interrupted_build_is_never_used_and_can_go_on(
    work: Path, catalogue: Path, server: StandIn, url: str, ask: Ask, fail: Fail
) -> None:
    ask("memory", "build", part(catalogue, 2), "--memory", url, "--swap")
    broken = catalogue.with_name("broken.csv")
    broken.write_text(part(catalogue, 10).read_text() + "gone,gone.png,a gone thing,red,none\n")
    named = ("--memory", url, "--swap", "--as", "shop")
    assert "1 of 11 rows were rejected" in fail("memory", "build", broken, *named, "--max-error-rate", 0)
    assert versions(ask, url)["reco--v2"][1:] == (False, False)
    assert "was not finished" in fail("memory", "versions", "--use", "reco--v2", "--memory", url)
    server.engine.seen.clear()
    built = ask("memory", "build", catalogue, *named, "--resume")
    assert (built["name"], built["pairs"], built["live"]) == ("reco--v2", 24, True)
    written = [str(point.payload["_reco_id"]) for point in server.engine.last["upsert"]["points"]]
    assert len(written) == 14  # and not the ten that were there


def test_a_version_with_a_missing_pair_is_not_used(
    work: Path, catalogue: Path, url: str, fail: Fail, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = QdrantRemote.upsert

    def lossy(self: QdrantRemote, points: Any, **options: Any) -> Any:
        return real(self, points=points[1:] if len(points) > 1 else points, **options)

    monkeypatch.setattr(QdrantRemote, "upsert", lossy)
    assert "holds 4 pairs, expected 5" in fail("memory", "build", part(catalogue, 5), "--memory", url, "--swap")
    assert versions(ask, url) == {"reco--v1": (4, False, False)}


# --- options


def test_one_address_with_a_collection_serves_every_command(
    work: Path,
    catalogue: Path,
    server: StandIn,
    url: str,
    run: Run,
    ask: Ask,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = f"{url}?collection=shop&search_ef=77"
    monkeypatch.setenv("RECO_MEMORY_OPTIONS__CREATE_COLLECTION", '{"shard_number": 4}')
    for place in (("--memory", shop), ()):
        monkeypatch.setenv("RECO_MEMORY", "./memory" if place else shop)
        ask("memory", "sync", part(catalogue, 6), "--as", "shop", "--create", *place)
        ask("memory", "add", part(catalogue, 9), *place)
        assert ask("memory", "info", *place)["pairs"] == 9
        assert len(ask("memory", "search", "a circle", "--k", 3, *place)) == 3
        assert server.engine.last["query"]["searches"][0].params.hnsw_ef == 77
        assert run("embed", "--text", "a circle", *place).exit_code == 0
        assert ask("memory", "remove", "small-red-circle", *place)["pairs"] == 8
        ask("memory", "build", "--relearn", *place)
        assert [each["name"] for each in ask("memory", "versions", *place)] == ["shop--v1"]
        assert ask("doctor", *place)["checks"]["memory"]["ok"] is True
    assert ask("memory", "copy", shop, f"{url}?collection=other")["pairs"] == 8
    assert {name: each["shard_number"] for name, each in server.engine.made.items()} == {"shop--v1": 4, "other--v1": 4}
    assert "did you mean 'collection'?" in fail("memory", "info", "--memory", f"{url}?colection=shop")


# --- moving


def test_copy_to_a_server_and_back(work: Path, catalogue: Path, url: str, ask: Ask) -> None:
    ask("memory", "add", part(catalogue, 6), "--memory", "first")
    for source, target, kind in (("first", url, "qdrant"), (url, "back", "edge")):
        copied = ask("memory", "copy", source, target)
        assert (copied["copied"], copied["pairs"]) == (6, 6)
        here, there = (ask("memory", "info", "--memory", place) for place in (source, target))
        assert (here["encoder"], here["calibration"]) == (there["encoder"], there["calibration"])
        assert there["kind"] == kind
    query = ("memory", "search", "a small red circle", "--k", 6, "--memory")
    found, again = ({hit["id"]: hit for hit in ask(*query, place)} for place in ("first", "back"))
    assert {id_: hit["payload"] for id_, hit in found.items()} == {id_: hit["payload"] for id_, hit in again.items()}
    near = {id_: hit["similarity"] for id_, hit in again.items()}
    assert {id_: hit["similarity"] for id_, hit in found.items()} == pytest.approx(near, abs=2e-6)
