"""reco memory build, add, sync and remove on folders: what a user types every day."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from reco_plugin import Reco
from reco_plugin.memory.versions import Version, Versions

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]
Source = Callable[[list[str]], Path]


@pytest.fixture
def lines(catalogue: Path) -> list[str]:
    return catalogue.read_text().splitlines()


@pytest.fixture
def source(catalogue: Path, request: pytest.FixtureRequest) -> Source:
    """Writes rows of the catalogue beside its images, in a table of this test's own."""
    path = catalogue.with_name(f"{request.node.name[:40]}.csv".replace("[", "-").replace("]", ""))

    def write(rows: list[str]) -> Path:
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def counts(told: dict[str, Any], *names: str) -> tuple[int, ...]:
    return tuple(told[name] for name in names)


def test_a_second_build_changes_nothing(work: Path, catalogue: Path, ask: Ask, run: Run) -> None:
    assert counts(ask("memory", "build", catalogue, "--dry-run"), "added", "pairs") == (24, 0)
    assert (
        run("memory", "sync", catalogue, "--create", "--dry-run").stdout == "would add 24 pairs; the memory holds 0\n"
    )
    assert list(work.iterdir()) == []
    assert counts(ask("memory", "build", catalogue), "read", "added", "pairs") == (24, 24, 24)
    assert counts(ask("memory", "build", catalogue), "added", "replaced", "unchanged") == (0, 0, 24)
    assert [path.name for path in work.iterdir()] == ["memory"]


def test_rejected_rows_are_listed_beside_the_memory(
    work: Path, source: Source, lines: list[str], ask: Ask, run: Run, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = source([*lines, "gone,gone.png,a gone thing,red,none"])
    built = ask("memory", "build", table)
    assert counts(built, "read", "added", "rejected") == (25, 24, 1)
    assert built["files"] == {"rejected": "memory.rejected.jsonl"}
    assert json.loads((work / "memory.rejected.jsonl").read_text())["id"] == "gone"
    assert "listed in mine.jsonl" in run("memory", "build", table, "--rejected", "mine.jsonl").stdout
    assert "1 of 25 rows were rejected" in fail("memory", "build", table, "--max-error-rate", 0.01)
    monkeypatch.chdir(work / "memory")  # a memory in the working folder has its list beside it, too
    assert ask("memory", "build", table, "--memory", ".")["files"] == {"rejected": str(work / "memory.rejected.jsonl")}
    for command in (("build", table, "--swap"), ("versions",)):
        assert "beside their memory's folder: give its name" in fail("memory", *command, "--memory", ".")


def test_urls_of_private_addresses_need_a_flag(
    work: Path, catalogue: Path, source: Source, lines: list[str], ask: Ask
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=catalogue.parent)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        _, image, rest = lines[1].split(",", 2)
        table = source([*lines, f"url,http://127.0.0.1:{http.server_port}/{image},{rest}"])
        assert counts(ask("memory", "build", table), "added", "rejected") == (24, 1)
        assert counts(ask("memory", "build", table, "--allow-private-urls"), "added", "rejected") == (1, 0)
        http.shutdown()


def test_a_swap_keeps_the_pairs_of_other_origin_unless_they_shall_go(
    work: Path, catalogue: Path, drawings: Any, source: Source, lines: list[str], ask: Ask
) -> None:
    table = source(lines[:11])
    ask("memory", "build", table, "--swap")
    ask("memory", "build", catalogue, "--as", "more")  # six of it stay apart below
    ask("memory", "build", source(lines[:19]))
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as reco:
        reco.memory.add([replace(drawings[0], id="by hand"), replace(drawings[1], id="by HTTP")])
    source(lines[:9])
    kept = ask("memory", "build", table, "--swap")
    assert counts(kept, "added", "copied", "pairs", "name") == (8, 8, 16, "memory--v2")
    assert kept["others"] == {"more": 6, "": 2}
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as reco:
        assert len(reco.memory.get(["by hand", "by HTTP"])) == 2
    assert counts(ask("memory", "build", table, "--swap", "--drop-others"), "copied", "pairs") == (0, 8)


@pytest.mark.parametrize("kind", ["folder", "server"])
def test_a_swap_loses_nothing_that_others_wrote_since_the_copy(
    work: Path,
    drawings: Any,
    source: Source,
    lines: list[str],
    ask: Ask,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    place = str(work / "memory") if kind == "folder" else request.getfixturevalue("url")
    rows = [line.split(",")[0] for line in lines]
    build = ("memory", "build", source(lines[:11]), "--swap", "--memory", place)
    ask(*build)

    def write(added: dict[str, int], removed: list[str]) -> None:
        with Reco.open(memory=place, on_memory_failure="fail") as reco:
            reco.memory.add([replace(drawings[0], id=id_, image=drawings[row].image) for id_, row in added.items()])
            reco.memory.remove(removed)

    def use(self: Versions, name: str) -> Version:
        write({"changed": 13, "again": 13, "new": 13, rows[1]: 13}, ["gone", rows[2], "back"])
        used = real(self, name)
        write({"again": 14, "back": 14}, [])  # to the new version
        return used

    write({"kept": 12, "changed": 12, "again": 12, "gone": 12, "back": 12}, [])
    real = Versions.use
    monkeypatch.setattr(Versions, "use", use)
    assert counts(ask(*build), "copied", "late") == (5, 5)
    with Reco.open(memory=place, on_memory_failure="fail") as reco:
        stored = reco.memory.get(["kept", "changed", "again", "new", rows[1], "back", "gone", rows[2]])
        images = reco.encoder.images([drawings[row].image for row in (12, 13, 14, 13, 13, 14)])
    assert stored.ids == ["kept", "changed", "again", "new", rows[1], "back"]
    np.testing.assert_allclose(stored.image, images, atol=1e-5)


def test_a_sync_that_would_delete_too_much_says_how_to_allow_it(
    work: Path, source: Source, lines: list[str], ask: Ask, run: Run, fail: Fail
) -> None:
    ask("memory", "build", source(lines), "--as", "shop")
    cut_off = ("memory", "sync", source(lines[:9]), "--as", "shop")
    dry = ask(*cut_off, "--dry-run")
    assert (dry["deleted"], dry["refused"].partition(" pairs")[0]) == (16, "16 of the 24")
    assert f"would fail: {dry['refused']}" in run(*cut_off, "--dry-run").stdout
    assert dry["refused"] in fail(*cut_off)
    allowed = dry["refused"].partition("give ")[2].partition(";")[0].split()
    assert ask(*cut_off, *allowed)["deleted"] == 16


def test_a_sync_that_would_replace_too_much_writes_nothing_and_says_how_to_allow_it(
    work: Path, source: Source, lines: list[str], ask: Ask, run: Run, fail: Fail
) -> None:
    table = source(lines[:20])
    ask("memory", "build", table)
    before = ask("memory", "info")
    wrong = ("memory", "sync", table)
    source([lines[0].replace("text", "name").replace("colour", "text"), *lines[1:]])
    dry = ask(*wrong, "--dry-run")
    assert (*counts(dry, "added", "replaced"), dry["refused"].partition(" pairs")[0]) == (5, 19, "19 of the 19")
    assert f"would fail: {dry['refused']}" in run(*wrong, "--dry-run").stdout
    assert dry["refused"] in fail(*wrong)
    assert ask("memory", "info") == before
    allowed = dry["refused"].partition("give ")[2].partition(";")[0].split()
    assert counts(ask(*wrong, *allowed), "added", "replaced") == (5, 19)


def test_a_sync_makes_no_memory_unless_it_is_told_to(
    work: Path, catalogue: Path, url: str, ask: Ask, fail: Fail
) -> None:
    for place in ("typo", f"{url}?collection=typo"):
        assert "--create" in fail("memory", "sync", catalogue, "--memory", place)
        assert "there is no memory" in fail("memory", "info", "--memory", place)
        assert ask("memory", "sync", catalogue, "--memory", place, "--create")["added"] == 24
        assert ask("memory", "sync", catalogue, "--memory", place)["unchanged"] == 24


def test_a_sync_of_a_source_that_brought_nothing_asks_for_its_name(
    work: Path, catalogue: Path, source: Source, lines: list[str], ask: Ask, fail: Fail
) -> None:
    ask("memory", "build", catalogue)
    before = ask("memory", "info")
    table = source(lines[:22])
    for more in ((), ("--dry-run",)):
        said = fail("memory", "sync", table, *more)
        assert str(table) in said and f"24 of {catalogue}" in said and "--as NAME" in said
    assert ask("memory", "info") == before
    assert counts(ask("memory", "sync", table, "--as", catalogue), "unchanged", "deleted") == (21, 3)
    source([lines[0], *lines[21:]])
    assert counts(ask("memory", "sync", table, "--as", "more"), "added", "unchanged") == (3, 1)
    assert counts(ask("memory", "sync", catalogue, "--dry-run"), "unchanged", "deleted") == (24, 0)


@pytest.mark.parametrize("again", ["../shop/c.csv", "whole"])
def test_a_source_is_the_same_however_it_is_spelled_and_from_wherever(
    work: Path, catalogue: Path, lines: list[str], ask: Ask, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    (work / "shop").mkdir()
    table = work / "shop" / "c.csv"
    table.write_text("\n".join([lines[0], *(line.replace(",", f",{catalogue.parent}/", 1) for line in lines[1:11])]))
    monkeypatch.chdir(work / "shop")
    ask("memory", "build", "c.csv", "--memory", work / "memory")
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    if again == "whole":  # as cron gives it
        monkeypatch.chdir("/")
        again = str(table)
    told = ask("memory", "sync", again, "--memory", work / "memory")
    assert counts(told, "unchanged", "deleted", "pairs") == (9, 1, 9)
