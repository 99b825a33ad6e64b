"""reco memory on a Qdrant server: versions and swaps, moving between kinds, collections that were there before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from qdrant_client import models
from qdrant_client.qdrant_remote import QdrantRemote
from qdrant_stand_in import Refusal, StandIn
from shop_collection import D
from terminal import run_on_a_terminal

from reco_plugin import Reco

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
        assert ask("memory", "use", "reco--v2", "--memory", url)["live"] is True
        assert len(reader.memory) == 24
        assert ask("memory", "rollback", "--memory", url)["name"] == "reco--v1"
        assert len(reader.memory) == 3
    assert "no finished version of 'reco' before" in fail("memory", "rollback", "--memory", url)
    assert "no version 'reco--v9'" in fail("memory", "use", "reco--v9", "--memory", url)
    ask("memory", "use", "reco--v2", "--memory", url)
    assert ask("memory", "prune", "--memory", url) == {"deleted": []}
    assert ask("memory", "prune", "--keep", 0, "--memory", url) == {"deleted": ["reco--v1"]}
    assert versions(ask, url) == {"reco--v2": (24, True, True)}


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
    assert "reco--v3 holds 3 pairs and is ready: reco memory use reco--v3" in done.stdout
    assert ask("memory", "info", "--memory", url)["pairs"] == 2
    server.engine.client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="reco"))]
    )
    message = fail("memory", "info", "--memory", url)
    assert "reco--v1, reco--v2, reco--v3. Put one to use (reco memory use reco--v3 --memory" in message


def test_a_build_beside_an_empty_version_is_put_to_use(work: Path, catalogue: Path, url: str, ask: Ask) -> None:
    with Reco.open(memory=url) as reader:  # as a service that starts first makes it
        assert ask("memory", "build", part(catalogue, 2), "--memory", url)["live"] is True
        assert len(reader.memory) == 2


def test_an_interrupted_build_is_never_used_and_can_go_on(
    work: Path, catalogue: Path, server: StandIn, url: str, ask: Ask, fail: Fail
) -> None:
    ask("memory", "build", part(catalogue, 2), "--memory", url, "--swap")
    broken = catalogue.with_name("broken.csv")
    broken.write_text(part(catalogue, 10).read_text() + "gone,gone.png,a gone thing,red,none\n")
    named = ("--memory", url, "--swap", "--as", "shop")
    assert "1 of 11 rows were rejected" in fail("memory", "build", broken, *named, "--max-error-rate", 0)
    assert versions(ask, url)["reco--v2"][1:] == (False, False)
    assert "was not finished" in fail("memory", "use", "reco--v2", "--memory", url)
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


def test_a_collection_of_that_name_cannot_be_swapped(
    work: Path, catalogue: Path, server: StandIn, url: str, fail: Fail
) -> None:
    one = models.VectorParams(size=D, distance=models.Distance.COSINE)
    server.engine.client.create_collection("reco", vectors_config=one)
    assert "is a collection itself" in fail("memory", "build", catalogue, "--memory", url)


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
    shop = f"{url}?collection=shop&shards=4&search_ef=77"
    for place in (("--memory", shop), ("--memory", url, "--collection", "shop", "--option", "search_ef=77"), ()):
        monkeypatch.setenv("RECO_MEMORY", "./memory" if place else shop)
        ask("memory", "sync", part(catalogue, 6), "--as", "shop", *place)
        ask("memory", "add", part(catalogue, 9), *place)
        assert ask("memory", "info", *place)["pairs"] == 9
        assert len(ask("memory", "search", "a circle", "--k", 3, *place)) == 3
        assert server.engine.last["query"]["searches"][0].params.hnsw_ef == 77
        assert run("embed", "--text", "a circle", *place).exit_code == 0
        assert ask("memory", "remove", "small-red-circle", *place)["pairs"] == 8
        assert ask("memory", "export", "pairs.npz", *place)["exported"] == 8
        assert ask("memory", "import", "pairs.npz", *place)["pairs"] == 8
        assert ask("memory", "update", part(catalogue, 9), *place)["pairs"] == 8
        ask("memory", "calibrate", *place)
        assert [each["name"] for each in ask("memory", "versions", *place)] == ["shop--v1"]
        assert ask("doctor", *place)["checks"]["memory"]["ok"] is True
    assert ask("memory", "build", f"{url}?collection=shop", "--memory", "copied")["pairs"] == 8
    assert ask("memory", "copy", shop, f"{url}?collection=other&shards=2")["pairs"] == 8
    built = run("memory", "build", part(catalogue, 3), "--memory", shop)
    assert f"is ready: reco memory use shop--v2 --memory {url} --collection shop" in built.stdout
    assert {name: each["shard_number"] for name, each in server.engine.made.items()} == {
        "shop--v1": 4,
        "other--v1": 2,
        "shop--v2": 4,
    }
    assert "did you mean 'collection'?" in fail("memory", "info", "--memory", f"{url}?colection=shop")


def test_an_option_of_a_server_for_a_folder(work: Path, catalogue: Path, fail: Fail) -> None:
    assert "has no such option" in fail("memory", "add", catalogue, "--option", "shards=4")


# --- moving


def test_copy_to_a_server_and_back(work: Path, catalogue: Path, url: str, ask: Ask) -> None:
    ask("memory", "add", part(catalogue, 6), "--memory", "first")
    for source, target, kind in (("first", url, "qdrant"), (url, "back", "edge")):
        assert ask("memory", "copy", source, target) == {"copied": 6, "pairs": 6, "opinions": 0}
        here, there = (ask("memory", "info", "--memory", place) for place in (source, target))
        assert (here["encoder"], here["calibration"]) == (there["encoder"], there["calibration"])
        assert there["kind"] == kind
    query = ("memory", "search", "a small red circle", "--k", 6, "--memory")
    found, again = ({hit["id"]: hit for hit in ask(*query, place)} for place in ("first", "back"))
    assert {id_: hit["payload"] for id_, hit in found.items()} == {id_: hit["payload"] for id_, hit in again.items()}
    near = {id_: hit["similarity"] for id_, hit in again.items()}
    assert {id_: hit["similarity"] for id_, hit in found.items()} == pytest.approx(near, abs=2e-6)


def test_copy_and_import_go_on_where_they_stopped(
    work: Path, catalogue: Path, server: StandIn, url: str, ask: Ask
) -> None:
    ask("memory", "add", catalogue)
    ask("memory", "export", "pairs.npz")
    counts = itemgetter("imported", "pairs")
    ask("memory", "add", part(catalogue, 9), "--memory", url)
    server.engine.last.clear()
    assert ask("memory", "copy", "memory", url, "--resume") == {"copied": 15, "pairs": 24, "opinions": 0}
    assert len(server.engine.last["upsert"]["points"]) == 15
    assert counts(ask("memory", "import", "pairs.npz", "--memory", "copy")) == (24, 24)
    ask("memory", "remove", "large-red-circle", "--memory", "copy")
    assert counts(ask("memory", "import", "pairs.npz", "--memory", "copy", "--resume")) == (1, 24)
    assert counts(ask("memory", "import", "pairs.npz", "--memory", "copy", "--resume")) == (0, 24)


def test_copy_onto_itself_is_refused(
    memory: Path, catalogue: Path, server: StandIn, url: str, ask: Ask, fail: Fail
) -> None:
    for other in ("memory", "./memory/", memory.resolve()):
        assert "name another target" in fail("memory", "copy", "memory", other)
    ask("memory", "add", part(catalogue, 2), "--memory", url)
    for name in ("reco", "reco--v1"):  # the alias, and what it stands for
        message = fail("memory", "copy", url, url.replace("127.0.0.1", "localhost"), "--to-collection", name)
        assert "name another target" in message


def test_copy_names_its_source_first(memory: Path, work: Path, fail: Fail) -> None:
    assert "as cp does: reco memory copy ./backup ./prod" in fail("memory", "copy", "./prod", "--memory", "./backup")
    assert "as cp does: reco memory copy c b" in fail("memory", "copy", "a", "b", "--memory", "c")
    assert "takes a source and a target: reco memory copy ./memory ./prod" in fail("memory", "copy", "./prod")
    assert "there is no memory at" in fail("memory", "copy", "gone", "new")
    assert sorted(each.name for each in work.iterdir()) == ["memory"]


def test_copy_asks_before_it_mixes_with_other_pairs(memory: Path, catalogue: Path, ask: Ask, fail: Fail) -> None:
    ask("memory", "add", part(catalogue, 9), "--memory", "prod")
    ask("memory", "remove", "small-red-circle", "--memory", "memory")
    for more in ([], ["--resume"]):
        message = fail("memory", "copy", "memory", "prod", *more)
        assert "prod holds 9 pairs, others than the source's among them, such as 'small-red-circle'" in message
        assert "give --yes" in message
    assert ask("memory", "info", "--memory", "prod")["pairs"] == 9
    copy = [sys.executable, "-m", "reco_plugin", "memory", "copy", "memory", "prod"]
    for answer, pairs in (("n\n", 9), ("y\n", 24)):
        done = run_on_a_terminal(copy, timeout=60, answer=answer)
        assert "Copy 23 pairs into it? [y/N]" in done.stderr
        assert (done.returncode == 0) == (pairs == 24), done.stderr
        assert ask("memory", "info", "--memory", "prod")["pairs"] == pairs
    assert ask("memory", "copy", "memory", "prod", "--yes") == {"copied": 23, "pairs": 24, "opinions": 0}
    assert ask("memory", "copy", "prod", "backup")["pairs"] == 24
    assert ask("memory", "copy", "memory", "again")["pairs"] == 23
    assert ask("memory", "copy", "memory", "again")["copied"] == 23  # the same pairs once more need no answer
