"""Arrays of NumPy's ``.npz``, read by one thread at a time.

NumPy parses the header of each array with Python's parser. In Python 3.11 two threads that parse at once can get a
``SystemError`` (CPython gh-106905), and a service reads what was learned in any of its threads.
"""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

_READING = threading.Lock()


def read_arrays(blob: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of numbers in an ``.npz``, by name.

    Raises:
        ValueError: an entry is no such array, or not whole.
        zipfile.BadZipFile: it is no archive, or damaged.
    """
    with _READING, np.load(io.BytesIO(blob), allow_pickle=False) as file:
        return dict(file)
