"""Small sources that tests read: images, shards, arrays, and what comes out of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin import Pair
from reco_plugin.sources import Rejected


def png(shade: int = 0) -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A shard with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def unit(rows: int, dimension: int = 4, seed: int = 0) -> npt.NDArray[np.float32]:
    """Unit vectors (rows, dimension)."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def pairs_of(rows: Iterable[Pair | Rejected]) -> list[Pair]:
    """The good rows."""
    return [row for row in rows if isinstance(row, Pair)]


def rejected_of(rows: Iterable[Pair | Rejected]) -> list[Rejected]:
    """The others."""
    return [row for row in rows if isinstance(row, Rejected)]
