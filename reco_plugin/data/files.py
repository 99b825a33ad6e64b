"""The files of a source: find images in a folder and shards by pattern; read texts, and lines of any encoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..values import nearest

IMAGE_SUFFIXES = (
    "jpg", "jpeg", "png", "webp", "jfif", "avif", "heic", "heif", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "pgm"
)  # fmt: skip
"""Of the formats that the encoder may read; the first ones are preferred where a key of a shard has several."""

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # invalid bytes under surrogateescape
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted; hidden files and folders are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES)
    return sorted(p for p in found if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts))


def names_shards(source: str | Path) -> bool:
    """Whether a source is webdataset shards: a tar, a folder of tars, or a pattern (and no existing path)."""
    path = Path(source)
    if path.exists():
        return path.suffix.lower() == ".tar" or (path.is_dir() and any(path.glob("*.tar")))
    return path.suffix.lower() == ".tar" or has_magic(str(source)) or "{" in str(source)


def find_shards(source: str | Path) -> list[Path]:
    """Find the tar files of a file, a folder, a glob or a brace pattern, in order.

    Raises:
        DataError: nothing was found, or a shard that the pattern names is missing.
    """
    if Path(source).is_dir():
        shards = sorted(Path(source).glob("*.tar"))
    elif Path(source).exists():
        shards = [Path(source)]
    else:
        shards = [Path(name) for part in expand_braces(str(source)) for name in _expand_glob(part)]
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise DataError(f"{missing[0]} does not exist ({len(missing)} of {len(shards)} shards of {source} are missing)")
    if not shards:
        raise DataError(f"no shard matches {source}: give a .tar, a folder of them, 'a/*.tar' or 'a/{{000..012}}.tar'")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """Expand lists and number ranges like a shell.

    >>> expand_braces("{train,test}-{08..10}.tar")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'test-08.tar']
    """
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [head + choice + rest for choice in _choices(braces.group(1)) for rest in expand_braces(tail)]


def _expand_glob(pattern: str) -> list[str]:
    return sorted(glob(pattern)) if has_magic(pattern) else [pattern]  # noqa: PTH207 - Path.glob takes no absolute ones


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]


def stamp_of(path: Path) -> tuple[int, ...]:
    """Size, time and inode of a file, one of which changes if it is written or replaced; empty if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def not_there(path: Path) -> str:
    """What to say of a path that does not exist: a similar name beside it may have been meant."""
    try:
        close = nearest(path.name, [other.name for other in path.parent.iterdir()], 1)
    except OSError:
        return f"{path} does not exist, nor does {path.parent}"
    return f"{path} does not exist" + (f" (did you mean {str(path.with_name(close[0]))!r}?)" if close else "")


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a UTF-8 text file, without surrounding blanks.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None


class Lines:
    """Lines of a file as text; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0  # bytes read so far
        self.line = 0  # lines read so far

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._file)
        self.offset += len(raw)
        self.line += 1
        return (raw.removeprefix(_BOM) if self.line == 1 else raw).decode("utf-8", "surrogateescape")

    def seek(self, offset: int, line: int) -> None:
        """Go to an earlier offset and line number."""
        self._file.seek(offset)
        self.offset, self.line = offset, line


def is_utf8(text: str) -> bool:
    """Whether a text of :class:`Lines` was UTF-8."""
    return text.isascii() or not _NOT_UTF8.search(text)


def not_utf8(text: str) -> str:
    """The message for a text that was not UTF-8, with its bytes."""
    return f"is not UTF-8: {raw_bytes(text)[:60]!r}; save the file as UTF-8"


def raw_bytes(text: str) -> bytes:
    """The bytes that a text of :class:`Lines` was read from."""
    return text.encode("utf-8", "surrogateescape")
