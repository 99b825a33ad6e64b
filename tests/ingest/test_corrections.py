"""Decisions about captions, read with a source."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.errors import DataError
from reco_plugin.ingest.corrections import Correction, correct, read_corrections, write_corrections
from reco_plugin.sources import open_rows
from reco_plugin.values import CONFIRMED

from .conftest import all_rows


@pytest.fixture
def table(write_catalogue, drawings):
    rows = all_rows(drawings)
    rows[0] = (rows[0][0], rows[0][1], "a wrong, caption")
    return rows, write_catalogue(rows)


@pytest.fixture
def decisions(tmp_path, table):
    rows, _ = table
    path = tmp_path / "corrections.csv"
    write_corrections(
        path,
        {
            rows[0][0]: Correction(rows[0][2], 'the "right" one', "replace"),
            rows[1][0]: Correction(rows[1][2], "", "leave out"),
            rows[2][0]: Correction(rows[2][2], "", "right"),
        },
    )
    return path


def test_a_sync_stores_the_decisions_and_a_rebuild_the_same(table, decisions, tmp_path, model, monkeypatch):
    rows, path = table
    monkeypatch.setenv("RECO_MODEL", str(model))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> dict[str, Any]:
        shared = [str(path), "--memory", "memory", "--corrections", str(decisions), "--json"]
        done = CliRunner().invoke(app, ["memory", words[0], *shared, *words[1:]])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert run("sync", "--create")["pairs"] == len(rows) - 1
    again = run("sync")
    assert (again["added"], again["replaced"], again["deleted"]) == (0, 0, 0)
    run("build", "--swap")
    with Reco.open(model, tmp_path / "memory") as reco:
        stored = reco.memory.get([rows[number][0] for number in (0, 2, 3)])
        assert stored.payloads[0]["caption"] == 'the "right" one'
        assert [payload.get(CONFIRMED) for payload in stored.payloads] == [True, True, None]
        assert len(reco.memory) == len(rows) - 1


def test_a_part_with_decisions_can_be_sent_to_a_worker(table, decisions):
    corrected, _ = correct(open_rows(table[1]), decisions)
    assert list(pickle.loads(pickle.dumps(corrected.parts[0])).read()) == list(corrected)


def test_a_caption_that_the_owner_changed_since_stays_and_is_named(write_catalogue, table, decisions):
    rows, _ = table
    owner = [(rows[0][0], rows[0][1], "the owner's"), *rows[1:2], *rows[3:]]
    corrected, notes = correct(open_rows(write_catalogue(owner)), decisions)
    assert {pair.id: pair.text for pair in corrected}[rows[0][0]] == "the owner's"
    assert any(repr(rows[0][0]) in note for note in notes)
    assert len(notes) == 3  # what was done, what the owner changed, what is gone


def test_a_caption_that_the_owner_took_over_is_no_conflict(write_catalogue, table, decisions):
    rows, _ = table
    taken = [(rows[0][0], rows[0][1], 'the "right" one'), *rows[1:]]
    corrected, notes = correct(open_rows(write_catalogue(taken)), decisions)
    assert len(notes) == 1
    assert [pair.payload.get(CONFIRMED) for pair in corrected][:2] == [True, True]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,old,new,decision\na,b,c,replaced\n", "replaced"),
        ("id,old,new,decision\na,b,,replace\n", "new"),
        ("id,new\na,b\n", "decision"),
    ],
)
def test_bad_decisions_are_named(tmp_path, text, named):
    path = tmp_path / "c.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=named):
        read_corrections(path)
    with pytest.raises(DataError, match="absent"):
        read_corrections(tmp_path / "absent.csv")
