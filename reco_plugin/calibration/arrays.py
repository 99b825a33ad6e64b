"""Arrays of NumPy's ``.npz``, read without Python's parser.

``numpy.load`` lets that parse the header of each array. In Python 3.11 two threads that parse at once can get a
``SystemError`` (CPython gh-106905), and a service reads what was learned in any of its threads.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # by format of the file
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][biuf]\d+)', 'fortran_order': (True|False), 'shape': \(((?:\d+(?:, ?)?)*)\), \}\s*"
)


def read_arrays(blob: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of numbers in an ``.npz``, by name.

    Raises:
        ValueError: an entry is no such array, or not whole.
        zipfile.BadZipFile: it is no archive, or damaged.
    """
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}


def _array(entry: bytes) -> npt.NDArray[Any]:
    size = _LENGTH_BYTES.get(entry[6]) if entry[:6] == _MAGIC and len(entry) > len(_MAGIC) else None
    if size is None:
        raise ValueError(f"no array, but {entry[:8]!r}")
    begin = 8 + size
    end = begin + int.from_bytes(entry[8:begin], "little")
    header = _HEADER.fullmatch(entry[begin:end])
    if header is None:
        raise ValueError(f"no array of numbers, but {entry[begin:end][:80]!r}")
    dtype, shape = np.dtype(header[1].decode()), tuple(map(int, re.findall(rb"\d+", header[3])))
    numbers = np.frombuffer(entry, dtype, offset=end) if len(entry) > end else np.zeros(0, dtype)
    return numbers.reshape(shape, order="F" if header[2] == b"True" else "C").copy(order="K")
