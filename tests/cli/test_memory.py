"""reco memory: add, info, search, remove, export, import on the shipped model and an embedded memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from holes import copy_folder
from shapes import draw

from reco_plugin.memory import open_memory
from reco_plugin.types import Records

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def test_info_says_what_the_memory_is(memory: Path, ask: Ask, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECO_MODEL")  # needs no model
    info = ask("memory", "info")
    assert (info["kind"], info["location"], info["pairs"]) == ("edge", "memory", 24)
    assert info["encoder"]["name"] == "reco-quickstart-mini-clip"
    assert (info["encoder"]["dimension"], len(info["encoder"]["digest"])) == (128, 64)
    lines = run("memory", "info").stdout.splitlines()
    assert lines[0] == "edge memory at memory: 24 pairs"
    assert lines[1].startswith("encoder  reco-quickstart-mini-clip (128-d, sha256 ")
    assert lines[2:4] == [
        "gate     calibrated on 24 pairs",
        "         a gate between a safe one and its own, since it has few pairs, and no self-check",
    ]
    assert info["calibration"]["pairs"] == 24
    assert "blob" not in info["calibration"]


def test_info_counts_pairs_that_another_tool_wrote_until_a_write_judges_them(
    memory: Path, ask: Ask, run: Run, work: Path
) -> None:
    with closing(open_memory(str(memory), None)) as store:
        taken = next(iter(store.scroll(3)))
        store.upsert(Records([f"new {name}" for name in taken.ids], taken.image, taken.text, taken.payloads))
    assert ask("memory", "info")["unjudged"] == 3
    assert "\njudged   all but 3 pairs, which count as average until" in run("memory", "info").stdout
    (work / "one.csv").write_text("id,image,text\nlast,one.png,a circle\n")
    draw("red", "circle", 20).save(work / "one.png")
    run("memory", "add", "one.csv")
    assert ask("memory", "info")["unjudged"] == 0
    assert "judged " not in run("memory", "info").stdout


def test_calibrate_says_what_it_learned(memory: Path, ask: Ask, run: Run) -> None:
    before = ask("memory", "info")["calibration"]
    assert "calibrated on 24 pairs" in run("memory", "calibrate").stdout
    done = ask("memory", "calibrate")
    assert (done["pairs"], done["calibration"]) == (24, before)


def test_a_copy_that_nobody_may_write_is_read(memory: Path) -> None:
    """As after `chmod -R a-w`, in a process that may not ignore the modes as root does."""
    with tempfile.TemporaryDirectory() as made:  # below pytest's own folders only their owner may look
        place = copy_folder(memory, Path(made, "memory"))
        for path in (*place.rglob("*"), place):
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(made).chmod(0o755)
        code = f"""
import os, numpy as np
import reco_plugin.memory.edge
from reco_plugin.errors import MemoryReadOnly
from reco_plugin.memory import open_memory
from reco_plugin.types import Search
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
memory = open_memory({str(place)!r}, None, create=False)
image = next(memory.scroll(1)).image
found = memory.search(Search(image, by="image", read="text", k=3))
print(memory.count(), len(found.ids[0]), os.access({str(place)!r}, os.W_OK))
try:
    memory.delete(["large-red-circle"])
except MemoryReadOnly:
    print("not written")
memory.close()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("24 3 False\nnot written\n", 0), done.stderr


def test_too_few_pairs_to_learn_from(memory: Path, ask: Ask, run: Run) -> None:
    ask("memory", "remove", *[hit["id"] for hit in ask("memory", "search", "a red circle", "--k", 10)])
    assert "14 pairs are too few" in run("memory", "calibrate").stdout
    assert "not calibrated: 14 pairs are too few, it needs 20" in run("memory", "info").stdout


def test_a_picture_finds_itself(memory: Path, catalogue: Path, ask: Ask) -> None:
    hits = ask("memory", "search", "--image", catalogue.parent / "large-blue-circle.png", "--k", 3)
    assert len(hits) == 3
    assert hits[0]["id"] == "large-blue-circle"
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert hits[0]["payload"]["colour"] == "blue"
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)


def test_a_caption_finds_itself_and_by_chooses_the_side(memory: Path, ask: Ask, run: Run) -> None:
    caption = "a small green triangle"
    hits = ask("memory", "search", caption, "--k", 2)
    assert hits[0]["id"] == "small-green-triangle"
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    across = ask("memory", "search", caption, "--by", "image", "--k", 24)
    assert max(hit["similarity"] for hit in across) < 0.95  # captions against pictures
    shown = run("memory", "search", caption, "--k", 2).stdout.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("1.000  small-green-triangle  a small green triangle  ")
    assert "colour=green  shape=triangle" in shown[0] and "{" not in shown[0]


def test_where_filters(memory: Path, ask: Ask, run: Run) -> None:
    red = ask("memory", "search", "a circle", "--where", '{"colour": "red", "shape": ["circle", "square"]}', "--k", 24)
    assert {hit["id"] for hit in red} == {f"{s}-red-{f}" for s in ("small", "large") for f in ("circle", "square")}
    assert ask("memory", "search", "a circle", "--where", '{"colour": "pink"}') == []
    assert run("memory", "search", "a circle", "--where", '{"colour": "pink"}').stdout == "nothing found\n"


def test_a_wrong_where_is_one_line(memory: Path, fail: Fail) -> None:
    assert "--where is no JSON" in fail("memory", "search", "x", "--where", "{colour: red}")
    assert "must be a JSON object" in fail("memory", "search", "x", "--where", '["red"]')


def test_search_wants_one_query(memory: Path, catalogue: Path, fail: Fail) -> None:
    assert "one of them" in fail("memory", "search")
    assert "one of them" in fail("memory", "search", "x", "--image", catalogue.parent / "large-blue-circle.png")
    assert "gone.png" in fail("memory", "search", "--image", "gone.png")


def test_remove(memory: Path, ask: Ask, run: Callable[..., Result]) -> None:
    some = run("memory", "remove", "not-there", "large-red-circle", "not-there", "nor-this")
    assert (some.exit_code, some.stdout) == (0, "removed 1 pair; 23 are left\n")
    assert some.stderr == "warning: 2 ids are of no pair of the memory, as 'not-there', 'nor-this'\n"
    assert ask("memory", "remove", "large-red-circle") == {"removed": 0, "pairs": 23}
    found = {hit["id"] for hit in ask("memory", "search", "a large red circle", "--k", 24)}
    assert len(found) == 23
    assert "large-red-circle" not in found


def test_export_and_import_make_an_equal_memory(memory: Path, work: Path, ask: Ask) -> None:
    file = "pairs.parquet"
    assert ask("memory", "export", file) == {"exported": 24, "opinions": 0, "file": file}
    imported = ask("memory", "import", file, "--memory", "copy")
    assert (imported["imported"], imported["pairs"]) == (24, 24)
    assert "24 captions agree" in imported["vectors"]
    for query in ("a large orange square", "a small blue triangle"):
        here, there = (ask("memory", "search", query, "--k", 24, "--memory", m) for m in ("memory", "copy"))
        assert {hit["id"]: hit["payload"] for hit in here} == {hit["id"]: hit["payload"] for hit in there}
        near = {hit["id"]: hit["similarity"] for hit in there}
        assert {hit["id"]: hit["similarity"] for hit in here} == pytest.approx(near, abs=2e-6)
        assert here[0]["id"] == there[0]["id"]
    known = [ask("memory", "info", "--memory", m)["calibration"]["pairs"] for m in ("memory", "copy")]
    assert known == [24, 24]


def test_import_refuses_vectors_of_another_encoder(memory: Path, work: Path, ask: Ask, fail: Fail) -> None:
    ask("memory", "export", "pairs.npz")
    columns = dict(np.load("pairs.npz"))
    np.savez("other.npz", **columns | {"text": columns["text"][:, ::-1]})
    said = fail("memory", "import", "other.npz", "--memory", "copy")
    assert "other.npz holds text vectors of another encoder" in said and "give --no-check" in said
    assert ask("memory", "info", "--memory", "copy")["pairs"] == 0
    assert ask("memory", "import", "other.npz", "--memory", "copy", "--no-check")["imported"] == 24


def test_reading_a_missing_memory_is_an_error_and_makes_none(work: Path, fail: Fail) -> None:
    for command in (["search", "x"], ["export", "x.npz"], ["update", "x.csv"], ["versions"]):
        assert "there is no memory" in fail("memory", *command, "--memory", "typo")
    assert list(work.iterdir()) == []


def test_another_file_format_is_refused(memory: Path, work: Path, fail: Fail) -> None:
    assert ".parquet" in fail("memory", "export", "pairs.csv")
    assert not (work / "pairs.csv").exists()
    (work / "pairs.npz").write_bytes(b"no")
    for place in ("memory", "new"):
        message = fail("memory", "import", "pairs.npz", "--memory", place)
        assert "pairs.npz is no npz of plain arrays (it is no zip archive)" in message
        assert (
            "pairs.csv is no pair file of vectors, .npz or .parquet: a memory takes others by reco memory add"
            in fail("memory", "import", "pairs.csv", "--memory", place)
        )
    np.savez("pairs.npz", id=np.array(["a"]))
    assert "pairs.npz" in fail("memory", "import", "pairs.npz", "--memory", "new")
    assert not (work / "new").exists()


def test_the_option_wins_over_the_environment(
    memory: Path, work: Path, ask: Ask, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.rename(work / "a")
    monkeypatch.setenv("RECO_MEMORY", "a")
    assert ask("memory", "info")["location"] == "a"
    assert ask("memory", "search", "x", "--k", 1)
    assert "'b'" in fail("memory", "info", "--memory", "b")
    monkeypatch.setenv("RECO_MEMORY", "b")
    assert ask("memory", "info", "--memory", "a")["pairs"] == 24
