"""A source into a memory: what is written, what a second run does, what is left out, and what `sync` deletes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spoiled_features import SpoiledFeatures

from reco_plugin import Pair, Reco
from reco_plugin.errors import DataError
from reco_plugin.ingest.fill import ingest
from reco_plugin.ingest.near import excluded_images
from reco_plugin.ingest.run_options import IngestOptions
from reco_plugin.ingest.write import Outcome, Writer
from reco_plugin.sources import open_rows, read_pairs
from reco_plugin.values import ROW, SOURCE

from .conftest import Catalogue, Fill, Watched, all_rows, assert_equal, content

TableRows = list[tuple[str, str, str]]


@pytest.fixture
def drawn(drawings: list[Pair]) -> TableRows:
    return all_rows(drawings)


@pytest.fixture
def sync(write_catalogue: Catalogue, shop: Reco, fill: Fill) -> Any:
    def run(rows: TableRows, name: str = "shop", max_share: float = 1.0, **more: Any) -> Outcome:
        finish = partial(Writer.delete_gone, max_share=max_share)
        return fill(write_catalogue(rows), shop, source=name, finish=finish, **more)

    return run


def listed(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "lists" / "rejected.jsonl").read_text().splitlines()]


def test_it_holds_what_adding_pairs_one_by_one_gives_and_a_second_run_writes_nothing(
    write_catalogue: Catalogue, shop: Reco, reco: Reco, fill: Fill
) -> None:
    source = write_catalogue()
    outcome = fill(source, shop)
    assert (outcome.read, outcome.added, outcome.rejected, outcome.pairs, outcome.files) == (24, 24, 0, 24, {})
    reco.memory.add(read_pairs(source))
    before = content(shop)
    plain = {name: (*sides, {k: v for k, v in own.items() if k != ROW}) for name, (*sides, own) in before.items()}
    assert_equal(plain, content(reco))
    assert shop.memory.calibration is not None
    watched = Watched(shop)
    outcome = fill(source, shop)
    assert (outcome.unchanged, outcome.added, outcome.replaced) == (24, 0, 0)
    assert (watched.written, watched.deleted) == ([], [])
    assert_equal(content(shop), before)


@pytest.mark.parametrize("what", ["text", "image"])
def test_a_row_that_changed_replaces_its_pair_alone(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, what: str
) -> None:
    folder = write_catalogue(drawn).parent
    fill(folder / "catalogue.csv", shop)
    before, watched = content(shop), Watched(shop)
    name, image, _ = drawn[9]
    if what == "text":
        drawn[9] = (name, image, "something else")
    else:
        (folder / image).write_bytes((folder / drawn[3][1]).read_bytes())  # the same path, another picture
    outcome = fill(write_catalogue(drawn), shop)
    assert (outcome.replaced, outcome.unchanged) == (1, 23)
    assert watched.written == [name]
    changed, side = content(shop)[name], 1 if what == "text" else 0
    assert not np.allclose(changed[side], before[name][side], atol=1e-3)
    np.testing.assert_allclose(changed[1 - side], before[name][1 - side], atol=2e-6)


def test_rows_that_cannot_be_used_are_listed_and_counted_by_kind(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, tmp_path: Path
) -> None:
    folder = write_catalogue(drawn).parent
    for number, (_, image, _) in enumerate(drawn):
        if number % 2:
            (folder / image).write_bytes(b"no image")
    outcome = fill(folder / "catalogue.csv", shop)
    assert (outcome.added, outcome.rejected) == (12, 12)
    assert set(content(shop)) == {name for name, _, _ in drawn[::2]}
    entries = listed(tmp_path)
    assert [entry["id"] for entry in entries] == [name for name, _, _ in drawn[1::2]]
    assert all(set(entry) == {"where", "id", "reason"} for entry in entries)
    lines = range(3, 3 + len(drawn), 2)  # after the header
    assert [entry["where"] for entry in entries] == [f"{folder / 'catalogue.csv'}, line {line}" for line in lines]
    assert outcome.reasons == {"its image cannot be read (its format is not known)": 12}
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["rejected.jsonl"]
    for _, image, _ in drawn:
        (folder / image).write_bytes((folder / drawn[0][1]).read_bytes())
    (tmp_path / "lists" / "rejected.jsonl.part").touch()  # as of a run that was killed
    assert "rejected" not in fill(folder / "catalogue.csv", shop).files
    assert list((tmp_path / "lists").iterdir()) == [], "the lists of earlier runs go"


def test_a_row_whose_features_are_of_no_use_is_rejected_alone(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, tmp_path: Path
) -> None:
    SpoiledFeatures(shop, drawn[5][2], np.nan)
    outcome = fill(write_catalogue(drawn), shop)
    assert (outcome.added, outcome.rejected) == (23, 1)
    assert [entry["id"] for entry in listed(tmp_path)] == [drawn[5][0]]


def test_too_many_rejected_rows_stop_it_and_it_goes_on(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, tmp_path: Path
) -> None:
    copies = [(f"{name}-{n}", image if n < 9 else f"{n}.png", text) for n in range(12) for name, image, text in drawn]
    source = write_catalogue(copies)  # 216 good rows, then 72 without an image
    with pytest.raises(DataError, match=r"of 2\d\d rows were rejected.* x … is not a file at .*run it again"):
        fill(source, shop, max_error_rate=0.1)
    assert len(shop.memory) == 216  # what was written stays
    assert 20 < len(listed(tmp_path)) < 40  # not at the end
    assert fill(source, shop, max_error_rate=0.5).unchanged == 216
    few = write_catalogue([("gone", "gone.png", "a gone thing"), *drawn])
    with pytest.raises(DataError, match=r"1 of 25 rows were rejected, more than the allowed share of 0\.03"):
        fill(few, shop, max_error_rate=0.03)


def test_one_id_twice(write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows) -> None:
    rows = drawn[:10]
    source = write_catalogue([*rows, (rows[0][0], rows[5][1], "other"), rows[1], (rows[0][0], rows[6][1], "third")])
    for more in ({}, {}, {"batch_size": 100}):
        outcome = fill(source, shop, **more)
        assert (outcome.added + outcome.unchanged, outcome.repeated, outcome.rejected) == (10, 1, 2)
        assert content(shop)[rows[0][0]][2]["caption"] == rows[0][2]  # the first one counts


def test_captions_and_payloads_of_all_kinds(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, tmp_path: Path
) -> None:
    folder = write_catalogue(drawn).parent
    texts = ["", "long " * 1000, "x" * 100_001, "naïve façade — 狐", "null\0byte"]
    rows: list[dict[str, Any]] = [
        {"id": f"row-{n}", "image": drawn[n][1], "text": text} for n, text in enumerate(texts)
    ]
    lines = [json.dumps(row) for row in rows]
    for levels in (63, 64):  # below an object that is a level itself
        deep = '{"a": ' * levels + "1" + "}" * levels
        lines.append(f'{{"id": "deep-{levels}", "image": "{drawn[9][1]}", "text": "x", "more": {deep}}}')
    (folder / "t.jsonl").write_text("\n".join(lines))
    outcome = fill(folder / "t.jsonl", shop)
    assert set(content(shop)) == {"row-1", "row-3", "row-4", "deep-63"}
    assert (outcome.rejected, outcome.cut) == (3, 1)
    reasons = {entry["id"]: entry["reason"] for entry in listed(tmp_path)}
    assert "100,001 characters" in reasons["row-2"]
    assert "deeper than 64 levels" in reasons["deep-64"]


def test_sync_adds_replaces_and_deletes(sync: Any, shop: Reco, drawings: list[Pair], drawn: TableRows) -> None:
    shop.memory.add(drawings[20:])  # by hand, and never touched
    assert sync(drawn[:10]).added == 10
    changed = [*drawn[2:9], (drawn[9][0], drawn[9][1], "changed"), *drawn[10:12]]
    outcome = sync(changed)
    assert (outcome.added, outcome.replaced, outcome.unchanged, outcome.deleted) == (2, 1, 7, 2)
    assert set(content(shop)) == {name for name, _, _ in [*changed, *drawn[20:]]}
    watched = Watched(shop)
    assert sync(changed).unchanged == 10
    assert (watched.written, watched.deleted) == ([], [])


def test_two_sources_keep_apart(sync: Any, shop: Reco, drawn: TableRows) -> None:
    sync(drawn[:5], "one")
    sync(drawn[5:9], "two")
    assert sync(drawn[:4], "one").deleted == 1
    assert len(shop.memory) == 8
    taken = sync(drawn[3:9], "two")  # what both hold belongs to who brought it last
    assert (taken.unchanged, content(shop)[drawn[3][0]][2][SOURCE]) == (5, "two")
    assert sync(drawn[:3], "one").deleted == 0


def test_a_dry_run_counts_what_the_run_then_does(sync: Any, shop: Reco, drawn: TableRows, tmp_path: Path) -> None:
    sync(drawn[:10])
    changed = [*drawn[2:9], (drawn[9][0], drawn[9][1], "changed"), *drawn[10:12], ("gone", "gone.png", "x")]
    changed += [drawn[10], (drawn[11][0], drawn[11][1], "other content")]
    watched = Watched(shop)
    told = sync(changed, dry_run=True)
    assert (watched.written, watched.deleted, (tmp_path / "lists").exists()) == ([], [], False)
    done = sync(changed)
    assert (done.repeated, done.rejected) == (1, 2)
    for name in ("read", "added", "replaced", "unchanged", "repeated", "rejected", "deleted"):
        assert getattr(told, name) == getattr(done, name), name


def test_a_source_that_shrinks_while_it_is_read_deletes_nothing(
    write_catalogue: Catalogue, sync: Any, shop: Reco, drawn: TableRows, tmp_path: Path
) -> None:
    sync(drawn[:10])
    rows = open_rows(write_catalogue(drawn[:12]))
    write_catalogue(drawn[10:11])  # another process writes it anew
    options = IngestOptions(source="shop", rejected=tmp_path / "rejected", max_error_rate=1)
    for dry_run in (True, False):
        with pytest.raises(DataError, match=r"catalogue\.csv changed while it was read"):
            ingest(rows, shop, options, finish=partial(Writer.delete_gone, max_share=1.0), dry_run=dry_run)
    assert set(content(shop)) >= {name for name, _, _ in drawn[:10]}


def test_rejected_rows_keep_their_pairs_unless_exactly_the_source_is_wanted(
    write_catalogue: Catalogue, sync: Any, shop: Reco, fill: Fill, drawn: TableRows
) -> None:
    sync(drawn[:10])
    broken = [(drawn[0][0], "gone.png", "x"), *drawn[1:9]]
    outcome = sync(broken)
    assert (outcome.rejected, outcome.deleted) == (1, 1)
    assert set(content(shop)) == {name for name, _, _ in drawn[:9]}
    nameless = sync([("", "", "x"), *drawn[1:5]])
    assert (nameless.deleted, nameless.kept) == (0, 5), "a row without an id may be any pair's"
    outcome = fill(write_catalogue(broken), shop, finish=Writer.delete_others)
    assert (outcome.held, outcome.deleted) == (8, 1)


def test_only_known_ids_are_replaced_and_stay_their_sources(
    write_catalogue: Catalogue, sync: Any, shop: Reco, fill: Fill, drawings: list[Pair], drawn: TableRows
) -> None:
    shop.memory.add(drawings[20:])
    sync(drawn[:10])
    changed = [(name, image, "changed") for name, image, _ in (drawn[0], drawn[15], drawn[20])]
    outcome = fill(write_catalogue(changed), shop, only_known=True)
    assert (outcome.replaced, outcome.missing, outcome.added) == (2, 1, 0)
    assert (content(shop)[drawn[0][0]][2][SOURCE], SOURCE in content(shop)[drawn[20][0]][2]) == ("shop", False)
    assert sync(drawn[1:10]).deleted == 1


def test_excluded_images_stay_out_by_image_and_by_id_and_go_where_they_are(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawn: TableRows, tmp_path: Path
) -> None:
    evaluation = [("eval-1", drawn[2][1], "x"), (drawn[5][0], drawn[0][1], "x")]
    excluded = excluded_images([str(write_catalogue(evaluation, "eval.csv"))], shop)
    source = write_catalogue(drawn[:10])
    fill(source, shop)
    outcome = fill(source, shop, excluded=excluded)
    assert outcome.excluded == outcome.deleted == len(listed(tmp_path)) >= 3
    assert {drawn[0][0], drawn[2][0], drawn[5][0]} & set(content(shop)) == set()
    assert fill(source, shop, excluded=excluded).excluded == outcome.excluded


def test_what_is_excluded_may_be_a_folder_of_classes_and_not_nothing(
    shop: Reco, drawings: list[Pair], tmp_path: Path
) -> None:
    for pair in drawings[:4]:
        folder = tmp_path / "eval" / str(pair.payload["shape"])
        folder.mkdir(parents=True, exist_ok=True)
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
    excluded = excluded_images([str(tmp_path / "eval")], shop)
    assert excluded is not None
    assert excluded.vectors.shape == (4, 128)
    with pytest.raises(DataError, match=r"gone\.csv"):
        excluded_images([str(tmp_path / "gone.csv")], shop)
