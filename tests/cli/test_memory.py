"""reco memory info, search, remove and copy on the shipped model and an embedded memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def test_info_says_what_the_memory_is(memory: Path, ask: Ask, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECO_MODEL")  # needs no model
    info = ask("memory", "info")
    assert (info["kind"], info["location"], info["pairs"]) == ("edge", "memory", 24)
    assert (info["encoder"]["name"], info["encoder"]["dimension"]) == ("reco-quickstart-mini-clip", 128)
    assert (info["calibration"]["pairs"], "blob" in info["calibration"]) == (24, False)
    assert run("memory", "info").stdout.startswith("edge memory at memory: 24 pairs\n")


def test_it_learns_anew_and_says_when_it_cannot(memory: Path, catalogue: Path, ask: Ask, run: Run, fail: Fail) -> None:
    before = ask("memory", "info")["calibration"]
    assert ask("memory", "build", "--relearn") == {"pairs": 24, "learned": True}
    assert ask("memory", "info")["calibration"] == before
    ask("memory", "remove", *[hit["id"] for hit in ask("memory", "search", "a red circle", "--k", 10)])
    assert ask("memory", "build", "--relearn") == {"pairs": 14, "learned": False}
    assert "14 pairs are too few, it needs 20" in run("memory", "info").stdout
    assert "or --relearn" in fail("memory", "build", catalogue, "--relearn")


def test_a_picture_and_a_caption_find_themselves(memory: Path, catalogue: Path, ask: Ask, run: Run) -> None:
    hits = ask("memory", "search", "--image", catalogue.parent / "large-blue-circle.png", "--k", 3)
    assert [len(hits), hits[0]["id"], hits[0]["payload"]["colour"]] == [3, "large-blue-circle", "blue"]
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    (hit,) = ask("memory", "search", "a small green triangle", "--k", 1)
    assert (hit["id"], hit["similarity"]) == ("small-green-triangle", pytest.approx(1, abs=1e-3))
    assert hit["words"] == "a small green triangle"
    words, shown = run("memory", "search", "triangle green small", "--k", 1).stdout.splitlines()
    assert words == "found by words: small green triangle"
    assert shown.startswith("1.000  small-green-triangle  a small green triangle  ") and "{" not in shown


def test_control_characters_do_not_reach_the_terminal(memory: Path, catalogue: Path, ask: Ask, run: Run) -> None:
    image = str(catalogue.parent / "large-blue-circle.png")
    row = {"id": "x\n1.000  forged", "image": image, "text": "é\x1b[2J猫", "shop": "\x9b31m"}
    Path("more.jsonl").write_text(json.dumps(row) + "\n")
    ask("memory", "add", "more.jsonl")
    asked = ("memory", "search", "--image", image, "--where", '{"shop": "\\u009b31m"}')
    shown = run(*asked).stdout
    assert r"x\n1.000  forged  é\u001b[2J猫  " in shown and shown.endswith("shop=\\u009b31m\n")
    told = run(*asked, "--json").stdout
    assert json.loads(told)[0]["payload"]["shop"] == "\x9b31m" and "\x9b" not in told


def test_where_filters(memory: Path, ask: Ask, run: Run) -> None:
    red = ask("memory", "search", "a circle", "--where", '{"colour": "red", "shape": ["circle", "square"]}', "--k", 24)
    assert {hit["id"] for hit in red} == {f"{s}-red-{f}" for s in ("small", "large") for f in ("circle", "square")}
    assert run("memory", "search", "a circle", "--where", '{"colour": "pink"}').stdout == "nothing found\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search",), "either a text or --image"),
        (("search", "x", "--where", "{colour: red}"), "--where is not JSON"),
        (("remove",), "nothing to remove"),
        (("copy", "memory", "./memory/"), "name another target"),
        (("copy", "memory", "pairs.csv/x.npz"), "cannot be written"),
        (("add", "x.csv", "--only-known", "--memory", "typo"), "there is no memory"),
        (("versions", "--prune", "--previous"), "give one of them"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    memory: Path, work: Path, fail: Fail, words: Any, message: str
) -> None:
    assert message in fail("memory", *words)
    assert [path.name for path in work.iterdir()] == ["memory"]


def test_remove(memory: Path, work: Path, ask: Ask, run: Run) -> None:
    some = run("memory", "remove", "not-there", "large-red-circle", "not-there", "nor-this")
    assert (some.exit_code, some.stdout) == (0, "removed 1 pair; 23 are left\n")
    assert some.stderr == "warning: the memory has no pair of 2 ids, such as 'not-there', 'nor-this'\n"
    (work / "ids.txt").write_text("large-red-square\n\nnot-there\n")
    assert ask("memory", "remove", "small-red-circle", "--from", "ids.txt") == {"removed": 2, "pairs": 21}


def test_a_copy_to_a_file_and_back_is_an_equal_memory(memory: Path, work: Path, ask: Ask) -> None:
    file = "pairs.parquet"
    assert ask("memory", "copy", "memory", file) == {"copied": 24, "pairs": None, "opinions": 0, "notes": []}
    back = ask("memory", "copy", file, "copy")
    assert (back["copied"], back["pairs"]) == (24, 24)
    assert "24 captions agree" in back["notes"][0]
    here, there = (
        ask("memory", "search", "a small blue triangle", "--k", 24, "--memory", m) for m in ("memory", "copy")
    )
    assert {hit["id"]: hit["payload"] for hit in here} == {hit["id"]: hit["payload"] for hit in there}
    near = {hit["id"]: hit["similarity"] for hit in there}
    assert {hit["id"]: hit["similarity"] for hit in here} == pytest.approx(near, abs=2e-6)


def test_a_table_is_no_target_of_a_copy(memory: Path, fail: Fail) -> None:
    assert "pairs.csv cannot hold a memory" in fail("memory", "copy", "memory", "pairs.csv")


def test_a_file_of_another_encoder_or_format_is_refused(memory: Path, work: Path, ask: Ask, fail: Fail) -> None:
    ask("memory", "copy", "memory", "pairs.npz")
    columns = dict(np.load("pairs.npz"))
    np.savez("other.npz", **columns | {"text": columns["text"][:, ::-1]})
    assert "other.npz holds text vectors of another encoder" in fail("memory", "copy", "other.npz", "copy")
    (work / "bad.npz").write_bytes(b"no")
    assert "bad.npz is not an npz" in fail("memory", "copy", "bad.npz", "new")
    assert not (work / "new").exists()


def test_a_copy_does_not_mix_with_other_pairs_unasked(memory: Path, work: Path, ask: Ask, fail: Fail) -> None:
    ask("memory", "copy", "memory", "prod")
    ask("memory", "remove", "small-red-circle")
    message = fail("memory", "copy", "memory", "prod")
    assert "holds 24 pairs" in message and "give --yes" in message
    assert ask("memory", "copy", "memory", "prod", "--yes")["pairs"] == 24
    assert ask("memory", "copy", "memory", "again")["pairs"] == 23


@pytest.mark.filterwarnings("ignore:.*pairs of the memory are lost")
def test_info_names_lost_pairs(memory: Path, work: Path, ask: Ask, run: Run) -> None:
    assert ask("memory", "info")["missing"] == 0
    shutil.rmtree(memory / "shard" / "wal")  # which would replay the latest write
    (ids,) = memory.rglob("mutable_id_tracker.mappings")
    os.truncate(ids, ids.stat().st_size // 2)
    info = ask("memory", "info")
    assert info["missing"] == 24 - info["pairs"] > 0
    assert f"{info['missing']} pairs of the memory are lost" in run("memory", "info").stdout


def test_a_copy_replaces_no_file_unasked(memory: Path, work: Path, ask: Ask, fail: Fail) -> None:
    ask("memory", "copy", "memory", "backup.parquet")
    before = (work / "backup.parquet").read_bytes()
    ask("memory", "remove", "small-red-circle")
    assert "backup.parquet exists" in fail("memory", "copy", "memory", "backup.parquet")
    assert (work / "backup.parquet").read_bytes() == before
    assert ask("memory", "copy", "memory", "backup.parquet", "--yes")["copied"] == 23
    assert ask("memory", "copy", "backup.parquet", "again")["pairs"] == 23
