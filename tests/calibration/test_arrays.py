"""Arrays of an .npz are read as NumPy reads them, without Python's parser, and nothing else is."""

from __future__ import annotations

import ast
import io
import zipfile
from typing import Any

import numpy as np
import pytest

from reco_plugin.calibration.arrays import read_arrays

ARRAYS: dict[str, Any] = {
    "mean": np.arange(7, dtype=np.float32),
    "weights": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(3, 2)),
    "one_image": np.array(True),
    "none": np.zeros((0, 4), np.float16),
    "swapped": np.arange(3, dtype=">u2"),
    "many": np.zeros((1, 2, 3, 1), np.uint8),
}


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_arrays_are_read_as_numpy_does_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = packed(**ARRAYS)

    def fail(*_: Any) -> None:
        raise SystemError("AST constructor recursion depth mismatch (before=31, after=35)")

    with np.load(io.BytesIO(blob)) as file:
        theirs = dict(file)
    monkeypatch.setattr(ast, "literal_eval", fail)
    ours = read_arrays(blob)
    assert list(ours) == list(ARRAYS)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert (ours[name].flags.f_contiguous, ours[name].flags.writeable) == (array.flags.f_contiguous, True)


def with_entry(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mean.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00\x00\x00", b"plain text, no array"])
def test_what_is_no_array_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no array"):
        read_arrays(with_entry(content))


def test_objects_and_arrays_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="no array of numbers"):
        read_arrays(packed(mean=np.array([{}], object)))
    file = io.BytesIO()
    np.save(file, ARRAYS["mean"])
    for cut in (1, 4):
        with pytest.raises(ValueError, match=r"buffer size|reshape"):
            read_arrays(with_entry(file.getvalue()[:-cut]))
    with pytest.raises(zipfile.BadZipFile):
        read_arrays(packed(**ARRAYS)[:-30])
