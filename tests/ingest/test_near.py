"""Near-duplicates by embedding, and evaluation images that are kept out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reco_plugin import Pair, Reco
from reco_plugin.errors import DataError
from reco_plugin.ingest.near import excluded_images

from .conftest import Catalogue, Fill, Watched, all_rows, content


def doubled(drawings: list[Pair]) -> list[tuple[str, str, str]]:
    """Ten drawings, then the first five again under other ids and captions; two of those twice."""
    rows = all_rows(drawings)[12:22]
    again = [(f"again-{name}", image, f"once more {text}") for name, image, text in rows[:5]]
    third = [(f"third-{name}", image, f"a third time {text}") for name, image, text in rows[:2]]
    return [*rows, *again, *third]


def listed(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "lists" / "duplicates.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [1, 7, 100])  # within a batch, and against the memory
def test_report_lists_and_writes_all(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path, batch_size: int
) -> None:
    rows = doubled(drawings)
    outcome = fill(write_catalogue(rows), shop, duplicates="report", threshold=0.9999, batch_size=batch_size)
    assert (outcome.added, outcome.reported, len(shop.memory)) == (17, 7, 17)
    found = listed(tmp_path)
    assert [entry["id"] for entry in found] == [name for name, _, _ in rows[10:]]
    assert all(entry["id"].endswith(entry["like"].removeprefix("again-")) for entry in found)
    assert all(entry["similarity"] > 0.9999 and entry["done"] == "reported" for entry in found)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_drop_leaves_the_later_ones_out_also_when_run_again(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], batch_size: int
) -> None:
    rows = doubled(drawings)
    source, how = write_catalogue(rows), {"duplicates": "drop", "threshold": 0.9999, "batch_size": batch_size}
    outcome = fill(source, shop, **how)
    assert (outcome.added, outcome.dropped) == (10, 7)
    assert set(content(shop)) == {name for name, _, _ in rows[:10]}
    watched = Watched(shop)
    outcome = fill(source, shop, **how)
    assert (outcome.unchanged, outcome.dropped, watched.written) == (10, 7, [])


def test_a_pair_that_became_a_near_duplicate_goes(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]
) -> None:
    rows = all_rows(drawings)[12:18]
    fill(write_catalogue(rows), shop, duplicates="drop", threshold=0.9999)
    rows[4] = (rows[4][0], rows[0][1], rows[4][2])  # now with the first one's image
    outcome = fill(write_catalogue(rows), shop, duplicates="drop", threshold=0.9999)
    assert (outcome.dropped, outcome.deleted, outcome.unchanged) == (1, 1, 5)
    assert rows[4][0] not in content(shop)


def test_excluded_images_stay_out_by_image_and_by_id(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    rows = all_rows(drawings)[12:22]
    evaluation = write_catalogue([("eval-1", rows[2][1], "x"), (rows[5][0], all_rows(drawings)[0][1], "x")], "eval.csv")
    source = write_catalogue(rows)
    excluded = excluded_images([str(evaluation)], shop)
    outcome = fill(source, shop, excluded=excluded, threshold=0.9999)
    assert (outcome.added, outcome.excluded) == (8, 2)
    assert set(content(shop)) == {name for name, _, _ in rows} - {rows[2][0], rows[5][0]}
    assert [(entry["id"], entry["like"], entry["done"]) for entry in listed(tmp_path)] == [
        (rows[2][0], "eval-1", "excluded"),
        (rows[5][0], rows[5][0], "excluded"),
    ]


def test_what_is_excluded_later_is_deleted(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]
) -> None:
    rows = all_rows(drawings)[12:22]
    source = write_catalogue(rows)
    fill(source, shop)
    excluded = excluded_images([str(write_catalogue([("eval-1", rows[2][1], "x")], "eval.csv"))], shop)
    outcome = fill(source, shop, excluded=excluded, threshold=0.9999)
    assert (outcome.excluded, outcome.deleted, outcome.unchanged) == (1, 1, 9)
    assert rows[2][0] not in content(shop)


def test_a_folder_of_classes_can_be_excluded_too(shop: Reco, drawings: list[Pair], tmp_path: Path) -> None:
    for pair in drawings[:4]:
        folder = tmp_path / "eval" / str(pair.payload["shape"])
        folder.mkdir(parents=True, exist_ok=True)
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
    excluded = excluded_images([str(tmp_path / "eval")], shop)
    assert excluded is not None
    assert excluded.vectors.shape == (4, 128)


def test_an_evaluation_without_images_is_an_error(shop: Reco, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        excluded_images([str(tmp_path / "gone.csv")], shop)
