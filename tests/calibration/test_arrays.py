"""Arrays of an .npz are read by one thread at a time, and nothing else is read."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from reco_plugin.calibration.arrays import read_arrays


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_arrays_are_read_and_damaged_ones_refused() -> None:
    mean = np.arange(7, dtype=np.float32)
    blob = packed(mean=mean, one_image=np.array(True))
    found = read_arrays(blob)
    assert list(found) == ["mean", "one_image"] and found["mean"].flags.writeable
    np.testing.assert_array_equal(found["mean"], mean)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(packed(mean=np.array([{}], object)))
    with pytest.raises(zipfile.BadZipFile):
        read_arrays(blob[:-30])
