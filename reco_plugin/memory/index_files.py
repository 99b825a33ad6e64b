"""The files of a search index: a snapshot, and a journal of the points that were written since.

In ``index/`` beside the shard: ``state.json`` names the snapshot in use, ``pairs.N.npz``; the journals from
``journal.N`` on list the points (16 bytes each) that were written or deleted after the snapshot began. A point is noted
before the store writes it, so whatever is killed, the snapshot and the noted points, read again, make the index. The
store is the only source: a snapshot that does not fit it is made anew.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..files import sync_folder, write_whole

FOLDER = "index"
_FORMAT = 1
_STATE = "state.json"
UUID_BYTES = 16
Points = npt.NDArray[np.uint8]
"""UUIDs of N points, (N, 16)."""


def to_points(ids: Sequence[str]) -> Points:
    """The UUIDs of points as bytes (N, 16).

    >>> to_points(["6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11"]).tobytes().hex()
    '6e0b7f0c9d554b8e8a4c0f6b9a6c2a11'
    """
    return np.frombuffer(bytes.fromhex("".join(ids).replace("-", "")), np.uint8).reshape(-1, UUID_BYTES)


def to_ids(points: Points) -> list[str]:
    """The UUIDs of points (N, 16) as text without hyphens, which Qdrant reads too."""
    return [point.hex() for point in np.ascontiguousarray(points).view("V16")[:, 0].tolist()]


class IndexFiles:
    """Snapshot and journals in a folder; the caller sees to it that one thread writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal: BinaryIO | None = None

    def state(self) -> dict[str, Any] | None:
        """What is known of the snapshot in use; None without one, or of another format."""
        with suppress(OSError, ValueError):
            state = json.loads((self._folder / _STATE).read_text("utf-8"))
            if state["format"] == _FORMAT:
                return dict(state)
        return None

    def note(self, ids: Sequence[str]) -> None:
        """Add points to the newest journal; nothing where there is no index."""
        if self._journal is None:
            if not self._folder.is_dir():
                return
            self._journal = (self._folder / f"journal.{self._newest()}").open("ab")
        self._journal.write(to_points(ids).tobytes())
        self._journal.flush()

    def sync(self) -> None:
        """Make the noted points durable."""
        if self._journal is not None:
            os.fsync(self._journal.fileno())

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def begin(self) -> int:
        """Begin a new journal, and a new snapshot of that number."""
        self._folder.mkdir(exist_ok=True)
        self.close()
        number = self._newest() + 1
        self._journal = (self._folder / f"journal.{number}").open("ab")
        sync_folder(self._folder)
        return number

    def finish(self, number: int, arrays: dict[str, npt.NDArray[Any]], known: dict[str, Any]) -> None:
        """Write the snapshot, put it to use, and remove what came before.

        Raises:
            OSError: it cannot be written; the one before stays in use.
        """
        name = f"pairs.{number}.npz"
        write_whole(self._folder / name, lambda file: np.savez(file, allow_pickle=False, **arrays))
        state = {"format": _FORMAT, "snapshot": name, "journal": number, **known}
        write_whole(self._folder / _STATE, lambda file: file.write(json.dumps(state).encode()))
        for path in self._folder.iterdir():
            kind = re.fullmatch(r"(?:journal|pairs)\.(\d+)(?:\.npz)?(?:\.partial)?", path.name)
            if kind and int(kind[1]) < number:
                path.unlink(missing_ok=True)

    def read(self, state: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the snapshot.

        Raises:
            OSError, ValueError, zipfile.BadZipFile: it is damaged; each part has a checksum.
        """
        with (self._folder / state["snapshot"]).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def read_noted(self, state: dict[str, Any]) -> list[str]:
        """The points that were written or deleted since the snapshot began, each once."""
        whole = []
        for number in sorted(self._numbers("journal")):
            if number >= state["journal"]:
                content = (self._folder / f"journal.{number}").read_bytes()
                whole.append(content[: len(content) - len(content) % UUID_BYTES])  # a killed write leaves a part
        points = np.frombuffer(b"".join(whole), np.uint8).reshape(-1, UUID_BYTES)
        return list(dict.fromkeys(to_ids(points)))

    def bytes(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self._folder.iterdir()) if self._folder.is_dir() else 0

    def _newest(self) -> int:
        return max([*self._numbers("journal"), *self._numbers("pairs")], default=0)

    def _numbers(self, kind: str) -> Iterable[int]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return [int(found[1]) for name in names if (found := re.fullmatch(rf"{kind}\.(\d+)(?:\.npz)?", name))]


DAMAGED = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile)
"""What reading a damaged snapshot raises."""
