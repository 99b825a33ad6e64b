"""Pair files of vectors: what is written comes back, what is wrong is named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.data import read_pairs, read_records, write_pairs
from reco_plugin.errors import DataError, MissingExtra
from reco_plugin.types import Records

SUFFIXES = (".npz", ".parquet")


def unit(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def records(rows: int, first: int = 0) -> Records:
    payloads = [
        {"caption": f"no. {i}", "year": i, "tags": ["a", "b"]} if i % 2 else {} for i in range(first, first + rows)
    ]
    ids = [f"p{i}" for i in range(first, first + rows)]
    return Records(ids, unit(rows, 4, first), unit(rows, 4, first + 100), payloads)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_come_back_with_their_payloads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    assert write_pairs(path, iter([records(5), records(3, first=5)])) == 8
    back = list(read_records(path, batch_size=3))
    assert [len(batch) for batch in back] == [3, 3, 2]
    assert [id_ for batch in back for id_ in batch.ids] == [f"p{i}" for i in range(8)]
    np.testing.assert_array_equal(np.concatenate([b.text for b in back])[:5], records(5).text)
    payloads = [payload for batch in back for payload in batch.payloads]
    assert payloads == [*records(5).payloads, *records(3, first=5).payloads]
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]  # no half-written file is left


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_can_be_streamed_one_by_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    write_pairs(path, [records(3)])
    first, *rest = read_pairs(path)
    assert (first.id, len(rest)) == ("p0", 2)
    np.testing.assert_array_equal(first.image, records(3).image[0])


def test_hand_made_npz_takes_other_columns_as_payload(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(
        path,
        id=np.array([7, 8]),
        image=unit(2, 3).astype(np.float16),
        text=unit(2, 3),
        caption=np.array(["a fox", ""]),
        price=np.array([1.5, np.nan]),
    )
    (batch,) = read_records(path)
    assert batch.ids == ["7", "8"]
    assert batch.payloads == [{"caption": "a fox", "price": 1.5}, {}]
    np.testing.assert_allclose(np.linalg.norm(batch.image, axis=1), 1, atol=1e-6)  # float16 is made unit-norm again


def test_hand_made_parquet_with_plain_lists(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, vectors = tmp_path / "own.parquet", unit(2, 3)
    table = {"id": ["a", "b"], "image": vectors.tolist(), "text": vectors.tolist(), "shop": ["de", None]}
    pq.write_table(pa.table(table), path)
    (batch,) = read_records(path)
    assert batch.payloads == [{"shop": "de"}, {}]
    np.testing.assert_allclose(batch.image, vectors, atol=1e-6)


def bad(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    columns = {"id": np.array(["a", "b"]), "image": unit(2, 3), "text": unit(2, 3)} | changes
    return {name: values for name, values in columns.items() if values is not None}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (bad(text=None), "has no column 'text'"),
        (bad(text=2 * unit(2, 3)), "row 1, column 'text': has norm 2, not 1"),
        (bad(image=np.array([[1, 0, 0], [np.nan, 0, 0]])), "row 2, column 'image': holds NaN"),
        (bad(text=unit(2, 4)), "several dimensions"),
        (bad(text=unit(3, 3)), r"text has shape \(3, 3\), expected 2 rows"),
        (bad(id=np.array(["a", "a"])), "the id 'a' came before"),
        (bad(id=np.array([0.5, 1])), "row 1, column 'id': expected a text or whole number, got 0.5"),
        (bad(payload=np.array(["{}", "[1]"])), r"row 2: payload is '\[1\]', expected a JSON object"),
        (bad(extra=unit(2, 2)), r"extra has shape \(2, 2\); a payload column has one value per row"),
        (bad(id=np.array([], str), image=np.zeros((0, 3)), text=np.zeros((0, 3))), "no|empty"),
    ],
)
def test_a_bad_pair_file_is_named_with_what_is_wrong(tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **columns)
    with pytest.raises(DataError, match=message) as error:
        list(read_records(path))
    assert "bad.npz" in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(b"not a file of vectors")
        with pytest.raises(DataError, match=path.name):
            read_pairs(path)
    np.savez(tmp_path / "objects.npz", id=np.array([{"a": 1}], object), image=unit(1, 3), text=unit(1, 3))
    with pytest.raises(DataError, match="plain arrays"):
        list(read_records(tmp_path / "objects.npz"))


def test_ragged_lists_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "ragged.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "image": [[1.0, 0.0], [1.0]], "text": [[1.0, 0.0], [0.0, 1.0]]}), path)
    with pytest.raises(DataError, match=r"column 'image': has \d numbers, others have"):
        list(read_records(path))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    def breaks():
        yield records(2)
        raise RuntimeError("the memory broke")

    for suffix in SUFFIXES:
        path = tmp_path / f"pairs{suffix}"
        write_pairs(path, [records(3)])
        with pytest.raises(RuntimeError):
            write_pairs(path, breaks())
        assert sum(len(batch) for batch in read_records(path)) == 3
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(DataError, match="no pairs to write"):
        write_pairs(tmp_path / "none.npz", [])
    with pytest.raises(DataError, match=r"must end in .npz or .parquet"):
        write_pairs(tmp_path / "pairs.json", [records(1)])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [records(2)])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"reco-plugin\[data\]"):
        read_pairs(path)
