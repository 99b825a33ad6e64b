"""reco memory advise: what it reads, prints and writes, with the drawn catalogue in the memory."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium_started import chromium
from click.testing import Result

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def test_a_list_of_names_is_told_what_to_get(memory: Path, work: Path, run: Run) -> None:
    (work / "names.txt").write_text("a red circle\na purple zeppelin\n\n")
    said = run("memory", "advise", "--things", "names.txt").stdout
    assert said.startswith(
        "2 things, a memory of 24 pairs, 0 pictures of the list that it lacks\nthe memory is too small"
    )
    assert "a purple zeppelin" in said
    assert "the memory holds no pair of it; its nearest caption is “" in said
    assert "the list has no new picture of it: add one or two" in said


def test_the_folder_of_pictures_may_be_of_the_home(
    memory: Path, catalogue: Path, work: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(catalogue.parent.parent))
    (work / "list.csv").write_text(catalogue.read_text(encoding="utf-8"), encoding="utf-8")
    things = f"list.csv?images=~/{catalogue.parent.name}"
    assert ask("memory", "advise", "--things", things)["rejected"] == []


def test_names_of_others_move_no_cursor(memory: Path, work: Path, run: Run) -> None:
    (work / "names.txt").write_text("a \x07zeppelin\n")
    assert "a \\x07zeppelin" in run("memory", "advise", "--things", "names.txt").stdout


def test_names_of_others_are_no_formulas_in_a_spreadsheet(memory: Path, work: Path, run: Run) -> None:
    names = ['=HYPERLINK("http://x")', "+1", "-fox", "@cat", "a = b"]
    (work / "names.txt").write_text("\n".join(names) + "\n")
    run("memory", "advise", "--things", "names.txt", "--out", "advice.csv")
    with (work / "advice.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert sorted(one["thing"] for one in written) == sorted([*(f"'{name}" for name in names[:4]), "a = b"])


def test_a_catalogue_with_pictures_is_ordered_and_written(memory: Path, catalogue: Path, ask: Ask, work: Path) -> None:
    with catalogue.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    new = work / "new.csv"
    lines = [f"new-{row['id']},{catalogue.parent / row['image']},{row['text']} again" for row in rows[:3]]
    new.write_text("sku,photo,title\n" + "\n".join([*lines, f"lost,gone.png,{rows[3]['text']}"]) + "\n")
    things = f"{new}?id=sku&image=photo&text=title"
    told = ask("memory", "advise", "--things", things, "--out", "advice.csv", "--order", "order.txt")
    assert told["order"] == (work / "order.txt").read_text().split()
    assert sorted(told["order"]) == [f"new-{row['id']}" for row in sorted(rows[:3], key=lambda row: row["id"])]
    with (work / "advice.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [one["thing"] for one in written] == [one["thing"] for one in told["things"]]
    held = next(one for one in told["things"] if one["thing"] == rows[3]["text"])
    assert (held["pairs"], held["add"]) == (1, [])
    (lost,) = told["rejected"]
    assert lost["id"] == "lost"
    assert "'gone.png' is not a file" in lost["reason"]


def test_a_row_whose_words_have_changed_is_no_new_picture(memory: Path, catalogue: Path, ask: Ask, work: Path) -> None:
    with catalogue.open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    (work / "new.csv").write_text(f"id,image,text\n{row['id']},{catalogue.parent / row['image']},brand new words\n")
    told = ask("memory", "advise", "--things", "new.csv")
    (thing,) = told["things"]
    assert (thing["add"], told["order"]) == ([], [])
    assert f"the memory has {row['id']} as “{row['text']}”: sync the list" in thing["why"][-1]


def test_an_id_that_is_listed_twice_is_one_picture_to_add(memory: Path, catalogue: Path, ask: Ask, work: Path) -> None:
    with catalogue.open(newline="", encoding="utf-8") as file:
        pictures = [catalogue.parent / row["image"] for row in csv.DictReader(file)]
    rows = [("two words", pictures[0], "x"), ("two words", pictures[0], "x"), ("two words", pictures[1], "y")]
    rows.append(("more", pictures[2], "x"))
    (work / "new.csv").write_text("id,image,text\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows))
    told = ask("memory", "advise", "--things", "new.csv", "--out", "advice.csv")
    assert sorted(told["order"]) == ["more", "two words"]
    assert {one["thing"]: sorted(one["add"]) for one in told["things"]} == {
        "x": ["more", "two words"],
        "y": ["two words"],
    }
    with (work / "advice.csv").open(newline="", encoding="utf-8") as file:
        assert {one["thing"]: one["add"] for one in csv.DictReader(file)}["x"] == "two words; more"


def test_a_vector_that_no_memory_takes_is_no_picture_to_add(memory: Path, ask: Ask, work: Path) -> None:
    unit = [1.0] + [0.0] * 127
    vectors = {"good": unit, "zero": [0.0] * 128, "nan": [0.0, float("nan"), *unit[2:]]}
    rows = [json.dumps({"id": name, "text": f"a {name} thing", "image": vector}) for name, vector in vectors.items()]
    (work / "new.jsonl").write_text("\n".join(rows))
    told = ask("memory", "advise", "--things", "new.jsonl")
    assert told["order"] == ["good"]
    assert [one["id"] for one in told["rejected"]] == ["zero", "nan"]
    assert len(told["things"]) == 3  # their words are known nevertheless


def test_the_page_shows_pictures_and_loads_nothing(memory: Path, catalogue: Path, work: Path, run: Run) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert run("memory", "advise", "--things", catalogue, "--html", "advice.html").exit_code == 0
    page = (work / "advice.html").read_text(encoding="utf-8")
    assert "What to add, where it gains most first" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count('class="card thing"') > 1


def test_a_name_of_many_words_leaves_the_other_things_in_sight(memory: Path, work: Path, run: Run) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    (work / "names.txt").write_text("word " * 1000 + "\na red circle\n", encoding="utf-8")
    assert run("memory", "advise", "--things", "names.txt", "--html", "advice.html").exit_code == 0
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto((work / "advice.html").as_uri())
        assert max(one.bounding_box()["height"] for one in page.locator(".thing").all()) < 800


def test_mistakes_are_told_with_the_way_out(
    memory: Path, work: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "names.txt").write_text("a red circle\n")
    (work / "empty.txt").write_text("\n")
    (work / "bad.csv").write_text("a,b\n1,2\n")
    (work / "blank.csv").write_text("id,image,text\n1,a.png,\n")
    assert "empty.txt names no thing: it is empty" in fail("memory", "advise", "--things", "empty.txt")
    assert "no thing: 1 row was rejected, the first" in fail("memory", "advise", "--things", "blank.csv")
    assert "bad.csv has no column 'text'" in fail("memory", "advise", "--things", "bad.csv")
    assert "'gone.csv' does not exist" in fail("memory", "advise", "--things", "gone.csv").replace(
        "gone.csv", "'gone.csv'"
    )
    assert "no row of the list has a field 'sku'" in fail("memory", "advise", "--things", "names.txt", "--group", "sku")
    assert "make it first" in fail("memory", "advise", "--things", "names.txt", "--out", "no/advice.csv")
    (work / "model").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != work)
        assert "is read-only" in fail("memory", "advise", "--things", "names.txt", "--out", "advice.csv")
    assert "is a folder" in fail("memory", "advise", "--things", "gone.csv", "--order", "model")  # before all else
