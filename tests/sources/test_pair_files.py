"""Pair files of vectors: what is written comes back, what is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sources import pairs_of, rejected_of, unit, write_parquet

from reco_plugin.errors import DataError
from reco_plugin.sources import open_rows, read_feedback, read_records, write_pairs
from reco_plugin.types import Records

SUFFIXES = (".npz", ".parquet")


def records(rows: int, first: int = 0) -> Records:
    numbers = range(first, first + rows)
    payloads: list[dict[str, Any]] = [{"caption": f"no. {i}", "tags": ["a", "b"]} if i % 2 else {} for i in numbers]
    return Records([f"p{i}" for i in numbers], unit(rows, 4, first), unit(rows, 4, first + 100), payloads)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_come_back_with_their_payloads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    said = [{"id": "p1", "verdict": "wrong"}]
    assert write_pairs(path, iter([records(5), records(3, first=5)]), said) == 8
    back = list(read_records(path, batch_size=3))
    assert [len(batch) for batch in back] == [3, 3, 2]
    assert [id_ for batch in back for id_ in batch.ids] == [f"p{i}" for i in range(8)]
    np.testing.assert_array_equal(np.concatenate([batch.text for batch in back])[:5], records(5).text)
    payloads = [payload for batch in back for payload in batch.payloads]
    assert payloads == [*records(5).payloads, *records(3, first=5).payloads]
    assert read_feedback(path) == said
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no half-written file is left


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_made_by_hand_take_other_columns_as_payload(tmp_path: Path, suffix: str) -> None:
    path, vectors = tmp_path / f"own{suffix}", unit(2, 3)
    if suffix == ".npz":
        own = {"caption": np.array(["a fox", ""]), "price": np.array([1.5, np.nan])}
        np.savez(path, id=np.array([7, 8]), image=vectors.astype(np.float16), text=vectors, **own)  # type: ignore[arg-type]
    else:
        own_columns = {"caption": ["a fox", None], "price": [1.5, None]}
        write_parquet(path, {"id": [7, 8], "image": vectors.tolist(), "text": vectors.tolist(), **own_columns})
    (batch,) = read_records(path)
    assert batch.ids == ["7", "8"]
    assert batch.payloads == [{"caption": "a fox", "price": 1.5}, {}]
    np.testing.assert_allclose(np.linalg.norm(batch.image, axis=1), 1, atol=1e-6)  # float16 is made unit-norm again


def bad(**changes: Any) -> dict[str, Any]:
    columns = {"id": np.array(["a", "b"]), "image": unit(2, 3), "text": unit(2, 3)} | changes
    return {name: values for name, values in columns.items() if values is not None}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (bad(text=None), "has no column 'text'"),
        (bad(text=2 * unit(2, 3)), "row 1, column 'text': has norm 2, not 1"),
        (bad(text=unit(3, 3)), r"text has shape \(3, 3\), expected 2 rows"),
        (bad(id=np.array(["a", "a"])), "the id 'a' came before"),
        (bad(payload=np.array(["{}", "[1]"])), r"row 2: payload is '\[1\]', expected a JSON object"),
        (bad(id=np.array([{"a": 1}, 2], object)), "plain arrays"),
    ],
)
def test_a_bad_pair_file_is_named_with_what_is_wrong(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **columns)
    with pytest.raises(DataError, match=message) as error:
        list(read_records(path))
    assert "bad.npz" in str(error.value)


def test_a_bad_row_costs_one_row(tmp_path: Path) -> None:
    vectors = unit(3)
    vectors[1, 0] = np.nan
    np.savez(tmp_path / "v.npz", id=["a", "b", "c"], image=vectors, text=unit(3))
    columns = {"id": ["a", "b", "c"], "image": [*unit(2).tolist(), [1.0]], "text": unit(3).tolist()}
    write_parquet(tmp_path / "v.parquet", columns)
    for suffix, id_, reason in ((".npz", "b", "holds NaN or infinity"), (".parquet", "c", "has 1 numbers, others")):
        rows = open_rows(tmp_path / f"v{suffix}")
        (row,) = rejected_of(rows)
        assert (row.id, row.reason.startswith(reason), len(pairs_of(rows))) == (id_, True, 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    def breaks() -> Iterator[Records]:
        yield records(2)
        raise RuntimeError("the memory broke")

    path = tmp_path / f"pairs{suffix}"
    write_pairs(path, [records(3)])
    with pytest.raises(RuntimeError):
        write_pairs(path, breaks())
    assert sum(len(batch) for batch in read_records(path)) == 3
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("name", "batches"), [("none.npz", []), ("pairs.json", [records(1)])])
def test_what_cannot_be_written(tmp_path: Path, name: str, batches: list[Records]) -> None:
    with pytest.raises(DataError, match=name):
        write_pairs(tmp_path / name, batches)
