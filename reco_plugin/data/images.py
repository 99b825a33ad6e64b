"""Images that are opened or fetched on access, and an even choice among many.

The URLs are of the user's own catalogue, so private addresses are allowed. For untrusted URLs see ``serve/fetch.py``.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, overload
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..errors import DataError, MemoryStoreError
from ..files import write_whole
from ..types import ImageInput, Payload


class LazyImages(Sequence[ImageInput]):
    """N images behind a function that opens the one at a position from 0 to N-1, at each access."""

    def __init__(self, count: int, load: Callable[[int], ImageInput]) -> None:
        self._count, self._load = count, load

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageInput: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageInput]: ...
    def __getitem__(self, index: int | slice) -> ImageInput | list[ImageInput]:
        positions = range(self._count)[index]
        return self._load(positions) if isinstance(positions, int) else [self._load(row) for row in positions]


def pick(images: Sequence[ImageInput], rows: npt.NDArray[np.int64]) -> Sequence[ImageInput]:
    """Select images by row (M,); they stay unopened."""
    return LazyImages(len(rows), lambda position: images[int(rows[position])])


def spread_over_classes(labels: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """At most ``limit`` rows (M,) of (N,) labels, in order, with the same share of each class.

    >>> spread_over_classes(np.array([0, 1, 0, 1, 0, 1]), 2).tolist()  # the first of each class
    [0, 1]
    """
    kept = min(limit, len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.arange(kept) * len(labels) // max(kept, 1)])


_HEADERS = {"User-Agent": f"reco-plugin/{__version__}", "Accept": "image/*,*/*;q=0.5"}
_AS_IT_IS = "%/:=&?~#+!$,;'@()*[]"
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class RemoteImage:
    """An image behind an ``http://`` or ``https://`` URL."""

    url: str
    timeout_s: float = 20.0  # in total
    max_bytes: int = 64 << 20  # larger images are refused

    def __str__(self) -> str:
        """The URL without its query, which may be secret."""
        return self.url.partition("?")[0]

    def read(self) -> bytes:
        """Fetch the bytes of the image.

        Raises:
            DataError: no response in time, a status other than 200, or too many bytes.
        """
        until, body = time.monotonic() + self.timeout_s, bytearray()
        try:
            request = urllib.request.Request(quote(self.url, _AS_IT_IS), headers=_HEADERS)  # noqa: S310 - see `cells`
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310
                while chunk := response.read1(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > self.max_bytes:
                        raise DataError(f"{self} has more than {self.max_bytes:,} bytes")
                    if time.monotonic() > until:
                        raise TimeoutError("timed out")
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{self} answered HTTP {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(f"{self} cannot be fetched: {getattr(error, 'reason', error)}") from None
        if response.length or not body:
            raise DataError(f"{self} is not whole: it broke off, or is empty")
        return bytes(body)


NAME = "pictures.json"
THUMBNAIL = "thumbnail"
"""Where a payload holds a picture, as a data URI."""
_LONGEST = 100_000  # characters of a data URI that is shown
_URI = re.compile(r"data:image/(?:avif|gif|jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


class PictureFiles:
    """Finds the image file of a pair in some folders.

    By the path in its payload (``image``) or by its id, which is a path for pairs from a folder or table. Paths that
    lead out of the folders are ignored, and so are paths that exist in several of them.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]

    def of(self, id_: str, payload: Payload) -> Path | None:
        """The file; None where there is none."""
        for name in (payload.get("image"), id_):
            if not isinstance(name, str) or not name:
                continue
            found = {file for folder in self._folders if (file := _inside(folder, name))}
            if len(found) == 1:
                return found.pop()
        return None


def stored_thumbnail(payload: Payload) -> str | None:
    """The data URI of a small picture that a payload holds itself; None without one."""
    given = payload.get(THUMBNAIL)
    return given if isinstance(given, str) and len(given) <= _LONGEST and _URI.fullmatch(given) else None


def note_folders(memory: str | os.PathLike[str], folders: Iterable[Path]) -> None:
    """Allow the image files below more folders; for a memory in RAM or on a server, nothing is noted.

    Raises:
        MemoryStoreError: the note cannot be written.
    """
    place, known = os.fspath(memory), noted_folders(memory)
    added = [folder for folder in dict.fromkeys(map(Path.resolve, folders)) if folder not in known]
    if not added or not _is_folder(place):
        return
    allowed = [str(folder) for folder in (*known, *added)]

    def write(file: BinaryIO) -> None:
        file.write(json.dumps({"folders": allowed, "inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

    try:
        write_whole(Path(place) / NAME, write)
    except OSError as error:
        raise MemoryStoreError(f"cannot write {Path(place) / NAME}: {error}") from error


def noted_folders(memory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The folders that are allowed; none if the note is a copy, damaged or missing."""
    if not _is_folder(os.fspath(memory)):
        return ()
    try:
        with (Path(memory) / NAME).open("rb") as file:
            note, own = json.load(file), os.fstat(file.fileno()).st_ino
        return tuple(map(Path, note["folders"])) if own and note["inode"] == own else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _is_folder(place: str) -> bool:
    return place != ":memory:" and "://" not in place


def _inside(folder: Path, name: str) -> Path | None:
    try:
        file = (folder / name).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None
    except (OSError, ValueError):  # too long a name, or one with a null in it
        return None
