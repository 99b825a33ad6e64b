"""A source into a memory: what is written, what a second run does, and what is rejected."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.data import read_pairs
from reco_plugin.errors import DataError
from reco_plugin.values import ROW

from .conftest import Catalogue, Fill, Watched, all_rows, assert_equal, content, picture


def listed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_holds_what_adding_pairs_one_by_one_gives(
    write_catalogue: Catalogue, shop: Reco, reco: Reco, fill: Fill
) -> None:
    source = write_catalogue()
    outcome = fill(source, shop)
    assert (outcome.read, outcome.added, outcome.rejected, outcome.pairs) == (24, 24, 0, 24)
    assert outcome.files == {}
    reco.memory.add(read_pairs(source))
    plain = {
        name: (image, text, {key: value for key, value in payload.items() if key != ROW})
        for name, (image, text, payload) in content(shop).items()
    }
    assert_equal(plain, content(reco))
    assert shop.memory.calibration is not None


def test_a_second_run_writes_nothing(write_catalogue: Catalogue, shop: Reco, fill: Fill) -> None:
    source = write_catalogue()
    fill(source, shop)
    before, watched = content(shop), Watched(shop)
    outcome = fill(source, shop)
    assert (outcome.unchanged, outcome.added, outcome.replaced) == (24, 0, 0)
    assert (watched.written, watched.deleted) == ([], [])
    assert_equal(content(shop), before)


@pytest.mark.parametrize("what", ["text", "image"])
def test_a_row_that_changed_replaces_its_pair_alone(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], what: str
) -> None:
    rows = all_rows(drawings)
    fill(write_catalogue(rows), shop)
    before, watched = content(shop), Watched(shop)
    name, image, _ = rows[9]
    if what == "text":
        rows[9] = (name, image, "something else")
    else:
        folder = write_catalogue(rows).parent
        (folder / image).write_bytes((folder / rows[3][1]).read_bytes())  # the same path, another picture
    outcome = fill(write_catalogue(rows), shop)
    assert (outcome.replaced, outcome.unchanged) == (1, 23)
    assert watched.written == [name]
    after = content(shop)
    changed = after.pop(name)
    assert_equal(after, {id_: pair for id_, pair in before.items() if id_ != name})
    side = 1 if what == "text" else 0
    assert not np.allclose(changed[side], before[name][side], atol=1e-3)
    np.testing.assert_allclose(changed[1 - side], before[name][1 - side], atol=2e-6)


def test_half_of_the_images_corrupt(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    rows = all_rows(drawings)
    folder = write_catalogue(rows).parent
    for number, (_, image, _) in enumerate(rows):
        if number % 2:
            data = (folder / image).read_bytes()
            (folder / image).write_bytes(data[: len(data) // 2] if number % 4 == 1 else b"no image")
    outcome = fill(folder / "catalogue.csv", shop)
    assert (outcome.added, outcome.rejected) == (12, 12)
    assert set(content(shop)) == {name for name, _, _ in rows[::2]}
    entries = listed(tmp_path / "lists" / "rejected.jsonl")
    assert [entry["id"] for entry in entries] == [name for name, _, _ in rows[1::2]]
    assert all(set(entry) == {"where", "id", "reason"} for entry in entries)
    assert "catalogue.csv" in entries[0]["where"]
    assert entries[1]["reason"] == "its image cannot be read (its format is not known)"
    assert sum(outcome.reasons.values()) == 12
    assert not list((tmp_path / "lists").glob("*.part"))


def test_too_many_rejected_rows_stop_it_with_reasons(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    rows = all_rows(drawings)
    mixed = [
        (f"{name}-{copy}", image if copy < 9 else "gone.png", text) for copy in range(12) for name, image, text in rows
    ]
    source = write_catalogue(mixed)  # 216 good rows, then 72 without an image
    with pytest.raises(DataError) as stopped:
        fill(source, shop, max_error_rate=0.1)
    message = str(stopped.value)
    assert "of 2" in message  # stopped at 25 of 241 rows or so, not at the end
    assert "is not a file" in message
    assert str(tmp_path / "lists" / "rejected.jsonl") in message
    assert "run it again" in message
    assert len(shop.memory) == 216  # what was written stays
    assert 20 < len(listed(tmp_path / "lists" / "rejected.jsonl")) < 40
    assert shop.memory.calibration is not None
    assert fill(source, shop, max_error_rate=0.5).unchanged == 216


def test_reasons_are_counted_whatever_the_files_are_called(tmp_path: Path, shop: Reco, fill: Fill) -> None:
    for name in ("1", "a b", "100% wool", "UTF-8", "good"):
        picture(tmp_path / f"{name}.png", "red")
        (tmp_path / f"{name}.txt").write_bytes(b"a fox" if name == "good" else b"F\xfcchse")
    for name in ("2", "c"):
        picture(tmp_path / f"{name}.png", "blue")
    reasons = fill(tmp_path, shop).reasons
    (unreadable, times), missing = reasons.items()
    assert (unreadable.partition(":")[0], times) == ("… cannot be read as UTF-8 text", 4)
    assert missing == ("there is no … with its caption", 2)


def test_few_rows_are_judged_at_the_end(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]
) -> None:
    rows = [("gone", "gone.png", "a gone thing"), *all_rows(drawings)]
    with pytest.raises(DataError, match=r"1 of 25 rows were rejected, more than the allowed share of 0\.03"):
        fill(write_catalogue(rows), shop, max_error_rate=0.03)
    assert len(shop.memory) == 24
    assert fill(write_catalogue(rows), shop, max_error_rate=0.05).unchanged == 24


def test_the_list_of_an_earlier_run_goes(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    fill(write_catalogue([("gone", "gone.png", "x"), *all_rows(drawings)]), shop)
    assert (tmp_path / "lists" / "rejected.jsonl").exists()
    assert "rejected" not in fill(write_catalogue(), shop).files
    assert not (tmp_path / "lists" / "rejected.jsonl").exists()


def test_one_id_twice(write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]) -> None:
    rows = all_rows(drawings)[:10]
    other, same = (rows[0][0], rows[5][1], "other content"), rows[1]
    source = write_catalogue([*rows, other, same, (rows[0][0], rows[6][1], "third")])
    for outcome in (fill(source, shop), fill(source, shop), fill(source, shop, batch_size=100)):
        assert (outcome.added + outcome.unchanged, outcome.repeated, outcome.rejected) == (10, 1, 2)
        assert content(shop)[rows[0][0]][2]["caption"] == rows[0][2]  # the first one counts
    assert "its id came before" in next(iter(outcome.reasons))


def test_captions_of_all_kinds(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    texts = ["", "   ", "long " * 1000, "x" * 100_001, "naïve façade — 狐", "fox &amp; hare", "null\0byte"]
    rows = [(f"row-{n}", all_rows(drawings)[n][1], text) for n, text in enumerate(texts)]
    outcome = fill(write_catalogue(rows), shop)
    assert set(content(shop)) == {"row-2", "row-4", "row-5", "row-6"}
    assert (outcome.rejected, outcome.cut) == (3, 1)
    reasons = {entry["id"]: entry["reason"] for entry in listed(tmp_path / "lists" / "rejected.jsonl")}
    assert "100,001 characters" in reasons["row-3"]


def test_vectors_that_do_not_fit_are_rejected_alone(shop: Reco, fill: Fill, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in rng.normal(size=(2, 20, 128)))
    image[3], text[7] = 2 * image[3], np.nan
    np.savez(tmp_path / "vectors.npz", id=[f"v{n}" for n in range(20)], image=image, text=text)
    outcome = fill(tmp_path / "vectors.npz", shop)
    assert (outcome.added, outcome.rejected) == (18, 2)
    assert fill(tmp_path / "vectors.npz", shop).unchanged == 18
    np.testing.assert_allclose(content(shop)["v4"][0], image[4], atol=1e-6)
    assert Counter(entry["id"] for entry in listed(tmp_path / "lists" / "rejected.jsonl")) == {"v3": 1, "v7": 1}


def test_rows_that_are_nested_too_deep_are_rejected_alone(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair], tmp_path: Path
) -> None:
    folder = write_catalogue().parent
    lines = [json.dumps({"id": name, "image": image, "text": text}) for name, image, text in all_rows(drawings)]
    for number, levels in enumerate((63, 64, 130, 900, 100_000)):  # below an object that is a level itself
        lines[number] = lines[number][:-1] + ', "more": ' + '{"a": ' * levels + "1" + "}" * levels + "}"
    source = folder / "deep.jsonl"
    source.write_text("\n".join(lines))
    outcome = fill(source, shop, max_error_rate=0.5)
    assert (outcome.added, outcome.rejected, len(shop.memory)) == (20, 4, 20)
    reasons = [entry["reason"] for entry in listed(tmp_path / "lists" / "rejected.jsonl")]
    assert [("deeper than 64 levels" in reason) for reason in reasons[:2]] == [True, True]
    assert fill(source, shop, max_error_rate=0.5).unchanged == 20
