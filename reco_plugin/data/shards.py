"""webdataset shards, read by index: names first, bytes on access.

A shard is a plain tar whose members belong together by key: ``a/0001.jpg``, ``a/0001.txt`` and ``a/0001.json`` are
the sample ``a/0001``. The key ends at the first dot of the file name. Members of one key need not be adjacent.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import as_data_error
from ..types import Pair
from .cells import CellError, payload_of, text_of
from .rows import FilePart, Rejected, RowError, Rows
from .source import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Blob:
    """One member of a tar file, by its position."""

    shard: Path
    name: str
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """Read the member."""
        with as_data_error(f"{self.shard} cannot be read"), self.shard.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size_bytes)
        if len(data) != self.size_bytes:
            raise DataError(f"{self.shard} ends inside {self.name!r}: the shard is truncated, fetch it again")
        return data

    def text(self) -> str:
        """Read the member as UTF-8 text, without surrounding blanks."""
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


def index_shard(shard: Path) -> ShardIndex:
    """Find the samples of a shard, up to damage if there is any."""
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


_NOT_SHOWN = ("caption", "exif", "error_message", "status", "key")  # of img2dataset's json: no payload


def _read_shard(shard: Path) -> Iterator[Pair | Rejected]:
    """A row for each key."""
    try:
        index = index_shard(shard)
    except DataError as error:
        yield Rejected(str(shard), str(error))
        return
    for sample in index.samples:
        try:
            yield _row(shard, sample)
        except RowError as error:
            yield Rejected(error.rejected.where, error.rejected.reason, sample.key)
        except DataError as error:
            yield Rejected(f"{shard}, key {sample.key}", str(error), sample.key)
    if index.problem:
        yield Rejected(str(shard), index.problem)


def _row(shard: Path, sample: ShardSample) -> Pair | Rejected:
    where = f"{shard}, key {sample.key}"
    if sample.twice:
        return Rejected(where, f"{sample.twice!r} twice: make its keys unique", sample.key)
    fields = _json_fields(sample)
    if sample.image is None:
        return Rejected(where, "there is no image", sample.key, half=True)
    raw = sample.parts["txt"].text() if "txt" in sample.parts else str(fields.get("caption") or "")
    if not raw.strip():
        return Rejected(where, "there is no caption", sample.key, half=True)
    try:
        text = text_of(raw)
        shown = payload_of({name: value for name, value in fields.items() if name not in _NOT_SHOWN})
    except CellError as error:
        return Rejected(where, str(error), sample.key)
    return Pair(sample.key, sample.image.read(), text, {"caption": text} | shown)


def open_shards(shards: list[Path]) -> Rows:
    """Open shards, a part each."""
    return Rows(str(shards[0]), tuple(FilePart(str(shard), partial(_read_shard, shard)) for shard in shards))


def _json_fields(sample: ShardSample) -> dict[str, Any]:
    if "json" not in sample.parts:
        return {}
    blob = sample.parts["json"]
    where = f"{blob.shard}, member {blob.name!r}"
    try:
        fields = json.loads(blob.text())
    except (ValueError, RecursionError) as error:
        raise RowError(where, f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RowError(where, f"is not a JSON object: {blob.text()[:60]!r}")
    return fields
