"""reco memory build, update, sync and remove on folders: what a user types every day."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from reco_plugin import Reco

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


@pytest.fixture
def lines(catalogue: Path) -> list[str]:
    return catalogue.read_text().splitlines()


@pytest.fixture
def source(catalogue: Path, request: pytest.FixtureRequest) -> Callable[[list[str]], Path]:
    """Writes rows of the catalogue beside its images, in a table of this test's own."""
    path = catalogue.with_name(f"{request.node.name[:40]}.csv".replace("[", "-").replace("]", ""))

    def write(rows: list[str]) -> Path:
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def counts(told: dict[str, Any], *names: str) -> tuple[int, ...]:
    return tuple(told[name] for name in names)


def test_build_fills_a_folder_and_a_second_time_changes_nothing(
    work: Path, catalogue: Path, ask: Ask, run: Run
) -> None:
    built = ask("memory", "build", catalogue)
    assert counts(built, "read", "added", "pairs") == (24, 24, 24)
    assert counts(ask("memory", "build", catalogue), "added", "replaced", "unchanged") == (0, 0, 24)
    assert sorted(path.name for path in work.iterdir()) == ["memory"]


def test_rejected_rows_are_listed_beside_the_memory(
    work: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, run: Run, fail: Fail
) -> None:
    table = source([*lines, "gone,gone.png,a gone thing,red,none"])
    built = ask("memory", "build", table)
    assert counts(built, "read", "added", "rejected") == (25, 24, 1)
    assert built["files"] == {"rejected": "memory.rejected.jsonl"}
    assert json.loads((work / "memory.rejected.jsonl").read_text())["id"] == "gone"
    shown = run("memory", "build", table, "--rejected", "mine.jsonl").stdout
    assert "24 unchanged, 1 rejected" in shown
    assert "is not a file" in shown
    assert "listed in mine.jsonl" in shown
    message = fail("memory", "build", table, "--max-error-rate", 0.01)
    assert "1 of 25 rows were rejected" in message
    assert "memory.rejected.jsonl" in message


def test_a_memory_in_the_working_folder_has_its_list_beside_it(
    work: Path,
    source: Callable[[list[str]], Path],
    lines: list[str],
    ask: Ask,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = source([*lines, "gone,gone.png,a gone thing,red,none"])
    (work / "here").mkdir()
    monkeypatch.chdir(work / "here")
    built = ask("memory", "build", table, "--memory", ".")
    assert counts(built, "added", "rejected") == (24, 1)
    assert built["files"] == {"rejected": str(work / "here.rejected.jsonl")}
    assert ask("memory", "info", "--memory", ".")["pairs"] == 24
    for command in (("build", table, "--swap"), ("versions",)):
        assert "beside their memory's folder: give its name" in fail("memory", *command, "--memory", ".")


def test_swap_builds_beside_and_holds_exactly_the_source(
    work: Path, catalogue: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, fail: Fail
) -> None:
    ask("memory", "build", catalogue)
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as before:
        assert len(before.memory) == 24
    told = ask("memory", "build", source(lines[:11]), "--swap", "--drop-others")
    assert (told["name"], told["live"], told["pairs"]) == ("memory--v2", True, 10)
    assert told["others"] == {str(catalogue): 14}
    assert (work / "memory").is_symlink()
    assert [(each["name"], each["pairs"], each["live"]) for each in ask("memory", "versions")] == [
        ("memory--v1", 24, False),
        ("memory--v2", 10, True),
    ]
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as reader:
        assert "is open in another process" in fail("memory", "build", catalogue, "--swap")
        assert ask("memory", "build", catalogue, "--swap", "--drop-others")["name"] == "memory--v3"
        assert len(reader.memory) == 10  # it goes on with what it opened
    assert ask("memory", "info")["pairs"] == 24
    assert ask("memory", "rollback")["name"] == "memory--v2"
    assert ask("memory", "use", "memory--v3")["live"] is True
    assert ask("memory", "prune", "--keep", 0) == {"deleted": ["memory--v1", "memory--v2"]}
    assert sorted(path.name for path in work.iterdir()) == ["memory", "memory--v3"]


def test_a_swap_drops_no_pairs_of_other_origin_without_a_word(
    work: Path,
    catalogue: Path,
    drawings: Any,
    source: Callable[[list[str]], Path],
    lines: list[str],
    ask: Ask,
    fail: Fail,
) -> None:
    table = source(lines[:11])
    ask("memory", "build", table, "--swap")
    ask("memory", "build", catalogue, "--as", "more")  # six of it stay apart below
    ask("memory", "build", source(lines[:19]))
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as reco:
        reco.memory.add([replace(drawings[0], id="by hand"), replace(drawings[1], id="by HTTP")])
    source(lines[:9])
    said = fail("memory", "build", table, "--swap")
    assert "8 pairs of memory--v1, which is in use, came from elsewhere and are not in" in said
    assert "6 of more, 2 without a source (by `add`, `import`, HTTP or a program)" in said
    assert "--keep-others" in said and "--drop-others" in said and "nothing was encoded" in said
    assert [each["name"] for each in ask("memory", "versions")] == ["memory--v1"]
    kept = ask("memory", "build", table, "--swap", "--keep-others")
    assert counts(kept, "added", "copied", "pairs", "name") == (8, 8, 16, "memory--v2")
    assert kept["others"] == {"more": 6, "": 2}
    with Reco.open(memory=work / "memory", on_memory_failure="fail") as reco:
        assert len(reco.memory.get(["by hand", "by HTTP"])) == 2
    assert counts(ask("memory", "build", table, "--swap", "--drop-others"), "copied", "pairs") == (0, 8)
    assert counts(ask("memory", "build", table, "--swap"), "others", "pairs") == ({}, 8)


def test_daily_changes(work: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, fail: Fail) -> None:
    ask("memory", "build", source(lines), "--as", "shop")
    changed = [lines[0], *lines[3:10], lines[10].replace("a ", "one ", 1), *lines[11:]]
    dry = ask("memory", "sync", source(changed), "--as", "shop", "--dry-run")
    assert dry["dry_run"] is True
    assert counts(dry, "added", "replaced", "unchanged", "deleted", "pairs") == (0, 1, 21, 2, 24)
    assert ask("memory", "info")["pairs"] == 24
    done = ask("memory", "sync", source(changed), "--as", "shop")
    assert counts(done, "added", "replaced", "unchanged", "deleted", "pairs") == (0, 1, 21, 2, 22)
    assert "--max-delete" in fail("memory", "sync", source(lines[:9]), "--as", "shop")
    assert ask("memory", "sync", source(lines[:9]), "--as", "shop", "--max-delete", 1)["pairs"] == 8
    updated = ask("memory", "update", source([lines[0], lines[1].replace("a ", "one ", 1), lines[20]]))
    assert counts(updated, "replaced", "missing", "pairs") == (1, 1, 8)
    assert counts(ask("memory", "update", source(lines[:3]), "--dry-run"), "replaced", "unchanged") == (1, 1)


def test_a_dry_run_says_when_too_much_would_go(
    work: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, run: Run, fail: Fail
) -> None:
    ask("memory", "build", source(lines), "--as", "shop")
    cut_off = ("memory", "sync", source(lines[:9]), "--as", "shop")
    dry = ask(*cut_off, "--dry-run")
    assert (dry["deleted"], dry["refused"].partition(" pairs")[0]) == (16, "16 of the 24")
    shown = run(*cut_off, "--dry-run")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "would add 0 pairs, 8 unchanged; the memory holds 24",
        f"would delete nothing, and fail: {dry['refused']}",
    ]
    assert dry["refused"] in fail(*cut_off)
    allowed = dry["refused"].partition("give ")[2].partition(";")[0].split()
    assert ask(*cut_off, "--dry-run", *allowed)["refused"] is None
    assert ask(*cut_off, *allowed)["deleted"] == 16


def test_a_dry_run_makes_nothing(work: Path, catalogue: Path, ask: Ask, run: Run) -> None:
    assert counts(ask("memory", "build", catalogue, "--dry-run"), "added", "pairs") == (24, 0)
    assert run("memory", "sync", catalogue, "--dry-run").stdout == "would add 24 pairs; the memory holds 0\n"
    assert list(work.iterdir()) == []


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


def test_remove_by_list_and_by_source(
    memory: Path, work: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, fail: Fail
) -> None:
    (work / "ids.txt").write_text("large-red-circle\n\nnot-there\n")
    assert ask("memory", "remove", "large-red-square", "--from", "ids.txt") == {"removed": 2, "pairs": 22}
    assert ask("memory", "remove", "--from", source(lines[:5])) == {"removed": 4, "pairs": 18}
    assert "nothing to remove" in fail("memory", "remove")


def test_near_duplicates_and_evaluation_images(
    work: Path, source: Callable[[list[str]], Path], lines: list[str], ask: Ask, catalogue: Path
) -> None:
    again = [f"again-{line}" for line in lines[13:16]]
    table = source([lines[0], *lines[13:19], *again])
    found = ask("memory", "add", table, "--duplicate-threshold", 0.9999, "--memory", "a")
    assert counts(found, "added", "reported") == (9, 3)
    assert found["files"] == {"listed": "a.duplicates.jsonl"}
    dropped = ask("memory", "add", table, "--duplicates", "drop", "--duplicate-threshold", 0.9999, "--memory", "b")
    assert counts(dropped, "added", "dropped") == (6, 3)
    evaluation = catalogue.with_name("evaluation.csv")
    evaluation.write_text("\n".join([lines[0], lines[14].replace(lines[14].split(",")[0] + ",", "eval,", 1)]) + "\n")
    kept = ask("memory", "add", table, "--exclude", evaluation, "--duplicate-threshold", 0.9999, "--memory", "c")
    assert counts(kept, "added", "excluded") == (7, 2)
