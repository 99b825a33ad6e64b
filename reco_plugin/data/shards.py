"""webdataset shards, read by index: names first, bytes on access.

A shard is a plain tar whose members belong together by key: ``a/0001.jpg``, ``a/0001.txt`` and ``a/0001.json`` are
the sample ``a/0001``. The key ends at the first dot of the file name. Members of one key need not be adjacent.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .files import IMAGE_SUFFIXES
from .images import LazyImages
from .parts import RowError


@dataclass(frozen=True)
class Blob:
    """One member of a tar file, by its position."""

    shard: Path
    name: str
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """Read the member.

        Raises:
            DataError: the shard is missing or truncated.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise DataError(f"{self.shard} cannot be read: {error.strerror or error}") from None
        if len(data) != self.size_bytes:
            raise DataError(f"{self.shard} ends inside {self.name!r}: the shard is truncated, fetch it again")
        return data

    def text(self) -> str:
        """Read the member as UTF-8 text, without surrounding blanks.

        Raises:
            DataError: it is not UTF-8.
        """
        try:
            return self.read().decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise RowError(f"{self.shard}, member {self.name!r}", f"is not UTF-8 text: {error}") from None


@dataclass(frozen=True)
class ShardSample:
    """The members of one key, by lower-case suffix: ``{"jpg": …, "txt": …}``."""

    key: str  # folder and stem of the file names
    parts: Mapping[str, Blob]  # suffix -> member
    twice: str | None = None  # a duplicate name of two members, if any

    @property
    def image(self) -> Blob | None:
        """Its image, if it has one."""
        return next((self.parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in self.parts), None)


@dataclass(frozen=True)
class ShardIndex:
    """The readable samples of a shard."""

    samples: tuple[ShardSample, ...]  # in the order of their first members
    problem: str | None = None  # why its end could not be read


def blob_images(blobs: Sequence[Blob]) -> LazyImages:
    """Encoded images, read from their shards on access."""
    return LazyImages(len(blobs), lambda row: blobs[row].read())


def index_shard(shard: Path) -> ShardIndex:
    """Find the samples of a shard, up to damage if there is any.

    Raises:
        DataError: it is not a plain tar, or nothing of it can be read.
    """
    parts: dict[str, dict[str, Blob]] = {}
    twice: dict[str, str] = {}
    problem = None
    try:
        for blob in _members(shard):
            folder, slash, name = blob.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            own = parts.setdefault(key := folder + slash + stem, {})
            if suffix.lower() in own:
                twice[key] = blob.name
            own[suffix.lower()] = blob
    except DataError as error:
        if not parts:
            raise
        problem = str(error)
    return ShardIndex(tuple(ShardSample(key, own, twice.get(key)) for key, own in parts.items()), problem)


def read_samples(shards: Iterable[Path]) -> Iterator[ShardSample]:
    """Read the samples of shards, one shard after the other.

    Raises:
        DataError: not a plain tar, a truncated one, or two members with one name.
    """
    for shard in shards:
        index = index_shard(shard)
        if index.problem:
            raise DataError(index.problem)
        for sample in index.samples:
            if sample.twice:
                raise DataError(f"{shard} holds {sample.twice!r} twice: make its keys unique")
            yield sample


def _members(shard: Path) -> Iterator[Blob]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isreg() and not member.name.startswith("__"):
                    yield Blob(shard, member.name.removeprefix("./"), member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{shard} cannot be read as a plain, uncompressed tar: {error}; unpack .tar.gz first, fetch a damaged "
            "shard again"
        ) from None
