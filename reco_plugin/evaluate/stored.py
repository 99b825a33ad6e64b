"""Vectors on disk: encoded once, part by part, in a file that is complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import allocate, whole_file
from ..types import Vectors

_ROWS = 1 << 12  # of a part: 8 MiB at D=512


def stored_vectors(
    path: Path,
    shape: tuple[int, int],
    encode: Callable[[slice], Vectors],
    *,
    dtype: npt.DTypeLike = np.float32,
    already: Callable[[int], None] = lambda _: None,
) -> npt.NDArray[np.floating[Any]]:
    """Open the vectors (N, D) of a file as a memory map, or encode them into it.

    Parts are kept in a folder beside the file until all are there, so an interrupted run continues. When two runs fill
    one file at the same time, one of them may fail; the file is correct in any case.

    Args:
        path: ends in ``.npy``; its folder is created. The name must identify the content and the encoder.
        shape: (N, D).
        encode: returns the vectors (n, D) of n rows.
        dtype: of the file; float16 halves it and changes a cosine by about 1e-5.
        already: called with the number of rows of each part that exists.

    Returns:
        (N, D), read-only.

    Raises:
        DataError: the file is damaged or of another shape, or cannot be written.
    """
    if path.exists():
        already(shape[0])
        return _open(path, shape, dtype)
    portions = path.with_name(f"{path.stem}.{_ROWS}")
    try:
        portions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{portions} cannot be made to keep vectors in: {error.strerror or error}") from None
    files = []
    for start in range(0, shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, shape[0]))
        files.append(portions / f"{start:09d}.npy")
        if files[-1].exists():
            already(rows.stop - start)
        else:
            with whole_file(files[-1]) as part:
                np.save(part, np.asarray(encode(rows), dtype))
    _join(path, files, shape, dtype)
    shutil.rmtree(portions, ignore_errors=True)
    return _open(path, shape, dtype)


def _join(path: Path, files: list[Path], shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
    with whole_file(path) as part:
        whole = np.lib.format.open_memmap(part, mode="w+", dtype=np.dtype(dtype), shape=shape)
        allocate(part)
        for number, file in enumerate(files):
            rows = slice(number * _ROWS, min((number + 1) * _ROWS, shape[0]))
            whole[rows] = _open(file, (rows.stop - rows.start, shape[1]), dtype)
        whole.flush()


def _open(path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[np.floating[Any]]:
    try:
        vectors: npt.NDArray[np.floating[Any]] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as stored vectors: {error}; remove it, and run again") from None
    if vectors.shape != shape or vectors.dtype != dtype:
        raise DataError(f"{path} holds {vectors.dtype} {vectors.shape}, not {np.dtype(dtype)} {shape}: remove it")
    return vectors
